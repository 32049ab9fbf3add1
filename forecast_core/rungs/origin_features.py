"""Features of an item in a store that are known at the end of an origin day.

Belongs here: what is read off the past, for a list of origin days. Does not: what is known of the
target day (`forecast_core.rungs.gbm` adds price, calendar and horizon), nor any storage.

Only origins are stored: every fifth day (coprime with the week, so all weekdays occur), and the
days asked for by name. A forecaster learns as much from them as from every day, for a fifth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.rungs.grid import Floats, Grid

HISTORY_DAYS = 420  # before an origin: a year ago, four weeks before that, and a margin
STRIDE_DAYS = 5
YEAR = 364  # a year of whole weeks, so weekdays agree
MEANS = (7, 14, 28, 56, 112)
YEAR_AGO_WEEKS = 8
IDLE_CAP = 56

_SAME_WEEKDAY_4 = tuple(f"weekday_4_{k}" for k in range(7))
_SAME_WEEKDAY_8 = tuple(f"weekday_8_{k}" for k in range(7))
_YEAR_AGO = tuple(f"year_ago_{k}" for k in range(1, YEAR_AGO_WEEKS + 1))
_MINIMAL = ("mean_7", "mean_28", "mean_56", "mean_112", "age_days", "idle_days", "price")
_REDUCED = (
    *_MINIMAL, "mean_14", "mean_365", "zeros_28", "std_28", "max_28", "price_mean_365",
    "price_relative",
)  # fmt: skip
_FULL = (*_REDUCED, "units_1", "group_trend", "group_year")
# What every set needs besides: the design matrix picks from these by target weekday and week.
_LOOKED_UP = (*_SAME_WEEKDAY_4, *_SAME_WEEKDAY_8, "year_ago_28", *_YEAR_AGO)
STORED = (*_FULL, *_LOOKED_UP)
FEATURE_SETS: Mapping[str, tuple[str, ...]] = {
    "minimal": _MINIMAL,
    "reduced": _REDUCED,
    "full": _FULL,
}


def origin_days(first: date, last: date, named: Sequence[date] = ()) -> list[date]:
    """The days of `first`..`last` for which features are kept: the stride, and those named."""
    window = (first + timedelta(days=k) for k in range((last - first).days + 1))
    return [day for day in window if day.toordinal() % STRIDE_DAYS == 0 or day in set(named)]


def build(sales: pl.DataFrame, origins: Sequence[date]) -> pl.DataFrame:
    """Features of every item of one store at each origin.

    Args:
        sales: `cleaned_sales` rows of one store, `HISTORY_DAYS` before the first origin; a day
            without a row counts as nothing sold.
        origins: days; nothing after an origin is looked at for it.

    Returns:
        `feature_sales` rows (date, item_id, store_id and the Float32 columns `STORED`), for
        items launched by the origin; sorted by item and date.
    """
    if sales.is_empty() or not origins:
        return pl.DataFrame(
            schema={"date": pl.Date, "item_id": pl.String, "store_id": pl.String}
            | dict.fromkeys(STORED, pl.Float32)
        )
    first, last = min(origins) - timedelta(days=HISTORY_DAYS), max(origins)
    grid = Grid.of(sales, ["units", "sell_price"], first, last)
    past = _Past(grid, _departments(sales))
    return (
        pl.concat(past.at(day) for day in sorted(origins))
        .with_columns(store_id=pl.lit(sales["store_id"][0]))
        .select("date", "item_id", "store_id", *STORED)
        .sort("item_id", "date")
    )


def at_end(grid: Grid, department: np.ndarray, store_id: str) -> pl.DataFrame:
    """Features of the last day of a grid of `units` and `sell_price`; as `build` gives them.

    Args:
        grid: `HISTORY_DAYS` + 1 columns at least; `department`: the code of each of its items.
    """
    last = grid.day(grid.n_days - 1)
    found = _Past(grid, department).at(last).with_columns(store_id=pl.lit(store_id))
    return found.select("date", "item_id", "store_id", *STORED)


def _departments(sales: pl.DataFrame) -> np.ndarray:
    """The department of each item, as a code, in the order of the sorted items."""
    of = sales.select("item_id", "dept_id").unique("item_id").sort("item_id")
    codes: np.ndarray = of["dept_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return codes


class _Past:
    """Running sums over one store's grid, from which every window mean is one subtraction."""

    def __init__(self, grid: Grid, group: np.ndarray) -> None:
        self.grid = grid
        self.group = group
        self.units = grid.filled("units")
        self.price = grid.values["sell_price"]
        self.sums = _running(self.units)
        known = np.isfinite(self.price)
        self.price_sums = _running(np.where(known, self.price, 0))
        self.price_days = _running(known)
        self.launch = np.where(known.any(axis=1), known.argmax(axis=1), grid.n_days)

    def mean(self, end: int, days: int) -> np.ndarray:
        """Mean units a day over the `days` that end with column `end`."""
        return (self.sums[:, end + 1] - self.sums[:, max(end + 1 - days, 0)]) / days

    def at(self, day: date) -> pl.DataFrame:
        """The features of one origin day, of the items launched by then."""
        end = self.grid.at(day)
        recent = self.units[:, end - IDLE_CAP + 1 : end + 1]
        month = recent[:, -28:]
        sold = recent > 0
        launched = self.launch <= end
        age = np.where(launched, end - self.launch + 1, 0)
        own_year = np.clip(age, 1, 365)
        start = end + 1 - own_year
        year = self.sums[:, end + 1] - self.sums[np.arange(len(start)), start]
        columns: dict[str, np.ndarray] = {f"mean_{w}": self.mean(end, w) for w in MEANS}
        columns |= {
            "mean_365": year / own_year,
            "units_1": self.units[:, end],
            "zeros_28": (month == 0).mean(axis=1),
            "std_28": month.std(axis=1),
            "max_28": month.max(axis=1),
            "idle_days": np.where(sold.any(axis=1), sold[:, ::-1].argmax(axis=1), IDLE_CAP),
            "age_days": age,
        }
        columns |= self._prices(end) | self._weekdays(end) | self._year_ago(end) | self._group(end)
        return pl.DataFrame(
            {name: columns[name].astype(np.float32)[launched] for name in STORED}
        ).with_columns(
            item_id=pl.Series(self.grid.items, dtype=pl.String).filter(pl.Series(launched)),
            date=pl.lit(day),
        )

    def _prices(self, end: int) -> dict[str, np.ndarray]:
        since = max(end + 1 - 365, 0)
        days = self.price_days[:, end + 1] - self.price_days[:, since]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self.price_sums[:, end + 1] - self.price_sums[:, since]) / days
            today = self.price[:, end]
            return {"price": today, "price_mean_365": mean, "price_relative": today / mean}

    def _weekdays(self, end: int) -> dict[str, np.ndarray]:
        """Mean of the last 4 and 8 Mondays, Tuesdays, ... (0 is Monday)."""
        found = {}
        for back in range(7):
            weekday = self.grid.day(end - back).weekday()
            same = self.units[:, end - back - 49 : end - back + 1 : 7]
            found[_SAME_WEEKDAY_4[weekday]] = same[:, -4:].mean(axis=1)
            found[_SAME_WEEKDAY_8[weekday]] = same.mean(axis=1)
        return found

    def _year_ago(self, end: int) -> dict[str, np.ndarray]:
        """Mean units of the weeks a year before the target weeks, and of the month before."""
        weeks = {
            name: self.mean(end - YEAR + 7 * k, 7) for k, name in enumerate(_YEAR_AGO, start=1)
        }
        return {"year_ago_28": self.mean(end - YEAR, 28), **weeks}

    def _group(self, end: int) -> dict[str, np.ndarray]:
        """The department in this store: this month over the one before, and over a year ago."""
        now, before, year_ago = (
            np.bincount(self.group, self.mean(end - back, 28))[self.group]
            for back in (0, 28, YEAR - 28)
        )
        tiny = 1e-6
        return {
            "group_trend": now / np.maximum(before, tiny),
            "group_year": now / np.maximum(year_ago, tiny),
        }


def _running(values: np.ndarray) -> Floats:
    zero = np.zeros((values.shape[0], 1))
    sums: Floats = np.concatenate([zero, np.cumsum(values, axis=1, dtype=np.float64)], axis=1)
    return sums
