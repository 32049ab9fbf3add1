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
from forecast_core.rungs.origin_features import (
    HISTORY_DAYS,
    IDLE_CAP,
    MEANS,
    STORED,
    YEAR_AGO_WEEKS,
    at_end,
)
from forecast_core.rungs.origin_features import YEAR as SEASON

WINDOW_DAYS = HISTORY_DAYS + 1
YEAR = 365  # the longest running sum; `SEASON`, a year of whole weeks, is where weeks are compared
_NAMES = ("units", "sell_price")
_TINY = 1e-6
MONTH = 28


class FeatureStateError(ValueError):
    """A day that does not follow, or rows that do not fit the window: says which."""


@dataclass(eq=False)
class FeatureState:
    """The last `WINDOW_DAYS` of one store, ending on `last`; columns are items in sorted order.

    Days are rows of two rings, `head` being the row of `last`; a push overwrites the oldest row
    and moves the running sums by what came and what went. Units are whole, so sums stay exact.
    """

    store_id: str
    last: date
    items: npt.NDArray[np.str_]
    department: npt.NDArray[np.int64]
    units: Floats
    price: Floats
    head: int

    @classmethod
    def of(cls, sales: pl.DataFrame, last: date) -> FeatureState:
        """From `cleaned_sales` rows of one store, once; later days come by `push`."""
        first = last - timedelta(days=WINDOW_DAYS - 1)
        grid = Grid.of(sales, _NAMES, first, last)
        of = sales.select("item_id", "dept_id").unique("item_id").sort("item_id")
        codes = of["dept_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
        units, price = (np.ascontiguousarray(grid.values[name].T) for name in _NAMES)
        store = str(sales["store_id"][0])
        return cls(store, last, np.array(grid.items), codes, units, price, WINDOW_DAYS - 1)

    def __post_init__(self) -> None:
        self._sold = np.nan_to_num(self.units)
        known, order = np.isfinite(self.price), self._rows(WINDOW_DAYS)  # newest first
        sold = self._sold[order]
        self._sums = {w: sold[:w].sum(axis=0, dtype=np.float64) for w in (*MEANS, YEAR)}
        self._squares = (sold[:MONTH].astype(np.float64) ** 2).sum(axis=0)
        self._zeros = (sold[:MONTH] == 0).sum(axis=0)
        self._price_sum = np.nan_to_num(self.price)[order[:YEAR]].sum(axis=0, dtype=np.float64)
        self._price_days = known[order[:YEAR]].sum(axis=0)
        self._age = _ages(known[order])
        recent = sold[:IDLE_CAP] > 0
        self._idle = np.where(recent.any(axis=0), recent.argmax(axis=0), IDLE_CAP)
        # The sum of the week that ends on each day; the oldest six, short of days, are never read.
        self._weeks = np.zeros_like(self._sold)
        for k in range(7):
            self._weeks[order[: WINDOW_DAYS - 6]] += sold[k : WINDOW_DAYS - 6 + k]
        self._same = {
            (self.last - timedelta(days=back)).weekday(): [
                sold[back : back + 7 * k : 7].sum(axis=0, dtype=np.float64) for k in (4, 8)
            ]
            for back in range(7)
        }

    def push(self, day: pl.DataFrame) -> FeatureState:
        """Move this window one day on, in place; itself.

        Args:
            day: `cleaned_sales` rows of the store on the day after `last`; an item without a
                row sold nothing that is known.

        Raises:
            FeatureStateError: another day, an item twice, or one the window does not know
                (rebuild it: the assortment grew). Nothing has been changed then.
        """
        units, price = self._laid(day)
        oldest = (self.head + 1) % WINDOW_DAYS
        sold = np.nan_to_num(units)
        for w, total in self._sums.items():
            total += sold - self._row(self._sold, w - 1)
        last = self._row(self._sold, MONTH - 1)
        self._squares += sold.astype(np.float64) ** 2 - last.astype(np.float64) ** 2
        self._zeros += (sold == 0).astype(np.int64) - (last == 0)
        four, eight = self._same[(self.last + timedelta(days=1)).weekday()]
        four += sold - self._row(self._sold, 4 * 7 - 1)
        eight += sold - self._row(self._sold, 8 * 7 - 1)
        self._weeks[oldest] = self._row(self._weeks, 0) + sold - self._row(self._sold, 6)
        gone = self._row(self.price, YEAR - 1)
        self._price_sum += np.nan_to_num(price) - np.nan_to_num(gone)
        self._price_days += np.isfinite(price).astype(np.int64) - np.isfinite(gone)
        self.units[oldest], self._sold[oldest], self.price[oldest] = units, sold, price
        self.head, self.last = oldest, self.last + timedelta(days=1)
        self._idle = np.where(sold > 0, 0, np.minimum(self._idle + 1, IDLE_CAP))
        grown = np.where(self._age > 0, self._age + 1, np.isfinite(price).astype(np.int64))
        lost = np.flatnonzero(
            (grown >= WINDOW_DAYS) & ~np.isfinite(self._row(self.price, WINDOW_DAYS - 1))
        )
        self._age = np.minimum(grown, WINDOW_DAYS)
        if len(lost):  # the day it was first on sale has left the window
            self._age[lost] = _ages(np.isfinite(self.price[self._rows(WINDOW_DAYS)][:, lost]))
        return self

    def features(self) -> pl.DataFrame:
        """`feature_sales` rows of the origin `last`: what `origin_features.build` gives for it."""
        mean = {w: total / w for w, total in self._sums.items()}
        variance = self._squares / MONTH - mean[MONTH] ** 2
        price = self._row(self.price, 0)
        columns: dict[str, np.ndarray] = {f"mean_{w}": mean[w] for w in MEANS}
        with np.errstate(invalid="ignore", divide="ignore"):
            price_mean = self._price_sum / self._price_days
            columns |= {
                "units_1": self._row(self._sold, 0),
                "mean_365": self._own_year(),
                "zeros_28": self._zeros / MONTH,
                "std_28": np.sqrt(np.maximum(variance, 0)),
                "max_28": self._sold[self._rows(MONTH)].max(axis=0),
                "idle_days": self._idle,
                "age_days": self._age,
                "price": price,
                "price_mean_365": price_mean,
                "price_relative": price / price_mean,
            }
        columns |= self._weekdays() | self._year_ago() | self._group()
        columns |= self._others(columns)
        launched = self._age > 0
        frame = pl.DataFrame(
            {name: columns[name].astype(np.float32, copy=False)[launched] for name in STORED}
        )
        return frame.select(
            pl.lit(self.last).alias("date"),
            pl.Series("item_id", self.items[launched], dtype=pl.String),
            pl.lit(self.store_id).alias("store_id"),
            *STORED,
        )

    def _laid(self, day: pl.DataFrame) -> tuple[Floats, Floats]:
        """The day's units and prices in item order, NaN where there is no row."""
        following = self.last + timedelta(days=1)
        if day["date"].n_unique() > 1 or (day.height and day["date"][0] != following):
            raise FeatureStateError(
                f"{self.store_id}: the window ends on {self.last}; push the rows of {following}"
            )
        names = day["item_id"].to_numpy().astype(self.items.dtype.type)
        at = np.minimum(np.searchsorted(self.items, names), len(self.items) - 1)
        known = self.items[at] == names
        if not known.all():
            raise FeatureStateError(
                f"{self.store_id}: item {names[~known][0]} is new; rebuild the window"
            )
        laid = []
        for name in _NAMES:
            row = np.full(len(self.items), np.nan, dtype=np.float32)
            row[at] = day[name].cast(pl.Float32).to_numpy()
            laid.append(row)
        if len(at) > 1 and np.bincount(at).max() > 1:
            raise FeatureStateError(f"{self.store_id}: an item has two rows on {following}")
        return laid[0], laid[1]

    def _rows(self, days: int, back: int = 0) -> npt.NDArray[np.int64]:
        """Ring rows of `days` days, newest first, the newest being `back` days before `last`."""
        return (self.head - back - np.arange(days)) % WINDOW_DAYS

    def _row(self, ring: Floats, back: int) -> Floats:
        row: Floats = ring[(self.head - back) % WINDOW_DAYS]
        return row

    def _mean(self, back: int, weeks: int = 1) -> np.ndarray:
        """Mean units of the whole weeks that end `back` days before `last`."""
        total = self._row(self._weeks, back)
        for k in range(1, weeks):
            total = total + self._row(self._weeks, back + 7 * k)
        mean: np.ndarray = total / np.float32(7 * weeks)
        return mean

    def _own_year(self) -> np.ndarray:
        """Mean units a day since launch, over a year at most."""
        year = self._sums[YEAR].copy()
        young = np.flatnonzero(self._age < YEAR)
        if len(young):
            age = np.maximum(self._age[young], 1)
            sold = self._sold[self._rows(YEAR)][:, young]
            year[young] = np.where(np.arange(YEAR)[:, None] < age, sold, 0).sum(axis=0)
        mean: np.ndarray = year / np.clip(self._age, 1, YEAR)
        return mean

    def _weekdays(self) -> dict[str, np.ndarray]:
        found = {}
        for weekday, (four, eight) in self._same.items():
            found[f"weekday_4_{weekday}"] = four / 4
            found[f"weekday_8_{weekday}"] = eight / 8
        return found

    def _year_ago(self) -> dict[str, np.ndarray]:
        weeks = range(1, YEAR_AGO_WEEKS + 1)
        found = {f"year_ago_{k}": self._mean(SEASON - 7 * k) for k in weeks}
        return {**found, "year_ago_28": self._mean(SEASON, 4)}

    def _group(self) -> dict[str, np.ndarray]:
        now, before, year_ago = (
            np.bincount(self.department, self._mean(back, 4))[self.department]
            for back in (0, 28, SEASON - 28)
        )
        return {
            "group_trend": now / np.maximum(before, _TINY),
            "group_year": now / np.maximum(year_ago, _TINY),
        }

    def _others(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Stored features that have no running form here, by the code that builds them."""
        missing = [name for name in STORED if name not in columns]
        if not missing:
            return {}
        rows = self._rows(WINDOW_DAYS)[::-1]
        laid = {"units": self.units[rows].T, "sell_price": self.price[rows].T}
        first = self.last - timedelta(days=WINDOW_DAYS - 1)
        grid = Grid(tuple(self.items.tolist()), first, WINDOW_DAYS, laid)
        built = at_end(grid, self.department, self.store_id)
        at = np.searchsorted(self.items, built["item_id"].to_numpy().astype(self.items.dtype.type))
        found = {}
        for name in missing:
            found[name] = np.full(len(self.items), np.nan, dtype=np.float32)
            found[name][at] = built[name].to_numpy()
        return found

    def to_bytes(self) -> bytes:
        """As a NumPy archive of plain arrays."""
        held = io.BytesIO()
        np.savez(
            held,
            store_id=np.array(self.store_id),
            last=np.array(self.last.isoformat()),
            items=self.items,
            department=self.department,
            units=self.units,
            price=self.price,
            head=np.array(self.head),
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
                    held["items"],
                    held["department"],
                    held["units"],
                    held["price"],
                    int(held["head"]),
                )
        except (ValueError, KeyError, OSError) as error:
            raise FeatureStateError(f"no window to read ({error}); rebuild it") from None


def _ages(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Days since the oldest known price, of rows newest first; 0 where there is none."""
    oldest = known[::-1].argmax(axis=0)
    ages: npt.NDArray[np.int64] = np.where(known.any(axis=0), len(known) - oldest, 0)
    return ages
