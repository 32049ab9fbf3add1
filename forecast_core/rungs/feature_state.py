"""Features night by night: yesterday's window is kept, one day is added, nothing is re-read.

Belongs here: the rolling window of units and prices from which the newest origin's features are
made, and its bytes. Does not: the features themselves (`origin_features`, whose code runs here on
the window) nor deciding whether a kept window may still be trusted (whoever stores it does: a
late correction of a past day asks for a rebuild).

The window is as long as the longest look back, whatever the length of history: a new day costs
the same with one year or five behind it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.rungs.grid import Floats, Grid
from forecast_core.rungs.origin_features import HISTORY_DAYS, at_end

WINDOW_DAYS = HISTORY_DAYS + 1
_NAMES = ("units", "sell_price")


class FeatureStateError(ValueError):
    """A day that does not follow, or rows that do not fit the window: says which."""


@dataclass(frozen=True, eq=False)
class FeatureState:
    """The last `WINDOW_DAYS` of one store, ending on `last`; rows are items in sorted order.

    `department`: the code of each item's department.
    """

    store_id: str
    last: date
    items: tuple[str, ...]
    department: npt.NDArray[np.int64]
    units: Floats
    price: Floats

    @classmethod
    def of(cls, sales: pl.DataFrame, last: date) -> FeatureState:
        """From `cleaned_sales` rows of one store, once; later days come by `push`."""
        first = last - timedelta(days=WINDOW_DAYS - 1)
        grid = Grid.of(sales, _NAMES, first, last)
        of = sales.select("item_id", "dept_id").unique("item_id").sort("item_id")
        codes = of["dept_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
        store = str(sales["store_id"][0])
        units, price = (grid.values[name] for name in _NAMES)
        return cls(store, last, grid.items, codes, units, price)

    def push(self, day: pl.DataFrame) -> FeatureState:
        """The window one day later.

        Args:
            day: `cleaned_sales` rows of the store on the day after `last`; an item without a
                row sold nothing that is known.

        Raises:
            FeatureStateError: another day, an item twice, or one the window does not know
                (rebuild it: the assortment grew).
        """
        following = self.last + timedelta(days=1)
        if day["date"].n_unique() > 1 or (day.height and day["date"][0] != following):
            raise FeatureStateError(
                f"{self.store_id}: the window ends on {self.last}; push the rows of {following}"
            )
        row = np.searchsorted(self.items, day["item_id"].to_numpy())
        known = row < len(self.items)
        known[known] = np.asarray(self.items)[row[known]] == day["item_id"].to_numpy()[known]
        if not known.all():
            new = day["item_id"].filter(pl.Series(~known))[0]
            raise FeatureStateError(f"{self.store_id}: item {new} is new; rebuild the window")
        if len(np.unique(row)) != len(row):
            raise FeatureStateError(f"{self.store_id}: an item has two rows on {following}")
        moved = []
        for matrix, name in ((self.units, "units"), (self.price, "sell_price")):
            shifted = np.empty_like(matrix)
            shifted[:, :-1] = matrix[:, 1:]
            shifted[:, -1] = np.nan
            shifted[row, -1] = day[name].cast(pl.Float32).to_numpy()
            moved.append(shifted)
        return FeatureState(self.store_id, following, self.items, self.department, *moved)

    def features(self) -> pl.DataFrame:
        """`feature_sales` rows of the origin `last`: what `origin_features.build` gives for it."""
        first = self.last - timedelta(days=WINDOW_DAYS - 1)
        grid = Grid(
            self.items, first, WINDOW_DAYS, dict(zip(_NAMES, (self.units, self.price), strict=True))
        )
        return at_end(grid, self.department, self.store_id)

    def to_bytes(self) -> bytes:
        """As a NumPy archive of plain arrays."""
        held = io.BytesIO()
        np.savez(
            held,
            store_id=np.array(self.store_id),
            last=np.array(self.last.isoformat()),
            items=np.array(self.items),
            department=self.department,
            units=self.units,
            price=self.price,
        )
        return held.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> FeatureState:
        """Read `to_bytes` back; nothing in it is ever unpickled.

        Raises:
            FeatureStateError: it is no such archive; rebuild the window.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                return cls(
                    str(held["store_id"]),
                    date.fromisoformat(str(held["last"])),
                    tuple(held["items"].tolist()),
                    held["department"],
                    held["units"],
                    held["price"],
                )
        except (ValueError, KeyError, OSError) as error:
            raise FeatureStateError(f"no window to read ({error}); rebuild it") from None
