"""Generated retail data of M5's shape: the same specification gives the same bytes.

Belongs here: the specification, the items, and a store's history as arrays and as tables. Does
not: the calendar (`forecast_core.generate.calendar`) and the stock keeping that turns demand into
sales (`forecast_core.generate.stock`).

A store is generated alone, from random streams named by what they drive, so neither the window
asked for nor the other stores change it. The truth is known: expected demand, demand, and what
a stock-out kept from being sold. Demand is a gamma-Poisson count around a mean moved by weekday,
season, price, promotion, events, SNAP days, launch and slow drift, all but the drift visible.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.generate import calendar
from forecast_core.generate.stock import Stock, keep_stock
from forecast_core.schema import TABLES
from forecast_core.source.m5 import week_pieces

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

STATES = ("CA", "TX", "WI")
# Departments in the order in which items are dealt out: M5's shares, to the nearest twentieth.
_DEAL = (
    *("FOODS_3", "HOUSEHOLD_1", "FOODS_2", "HOBBIES_1", "HOUSEHOLD_2", "FOODS_1", "FOODS_3"),
    *("HOUSEHOLD_1", "FOODS_2", "HOBBIES_1", "FOODS_3", "HOUSEHOLD_2", "FOODS_3", "HOUSEHOLD_1"),
    *("HOBBIES_2", "FOODS_2", "FOODS_3", "HOUSEHOLD_2", "HOBBIES_1", "HOUSEHOLD_1"),
)
# By department: log of the median units a day, median price.
_DEPARTMENTS = {
    "FOODS_1": (-0.95, 3.0),
    "FOODS_2": (-1.15, 3.6),
    "FOODS_3": (-0.25, 2.4),
    "HOBBIES_1": (-1.05, 6.5),
    "HOBBIES_2": (-2.0, 2.5),
    "HOUSEHOLD_1": (-0.85, 4.8),
    "HOUSEHOLD_2": (-1.75, 6.2),
}
_STATE_PRICE = {"CA": 1.0, "TX": 0.96, "WI": 0.98}
_POPULARITY_SPREAD = 1.15  # of log units a day between the items of a department
_DRIFT, _DRIFT_KEPT = 0.05, 0.97  # weekly step of the log mean, and how much of it stays
_DISPLAY_LIFT = 0.25  # of a promotion beyond what its price explains


@dataclass(frozen=True)
class DemoSpec:
    """How much to generate: `series` item-stores over `stores`, `days` up to `last`.

    Calendar and prices reach `ahead` days past `last`: the future that a retailer knows.

    Raises:
        ValueError: fewer series than stores, or a span too short to hold a season of weeks.
    """

    series: int = 600
    stores: int = 3
    days: int = 730
    seed: int = 7
    last: date = date(2025, 6, 29)
    ahead: int = 56

    def __post_init__(self) -> None:
        if self.stores < 1 or self.series < self.stores:
            raise ValueError(
                f"{self.series} series over {self.stores} stores; ask for one a store at least"
            )
        if self.days < 60:
            raise ValueError(f"{self.days} days are too few to forecast from; ask for 60 or more")
        if self.ahead < 0 or self.seed < 0:
            raise ValueError("days ahead and the seed are zero or more")

    @property
    def first(self) -> date:
        """The first day with sales."""
        return self.last - timedelta(self.days - 1)

    @property
    def end(self) -> date:
        """The last day of the calendar and of the prices."""
        return self.last + timedelta(self.ahead)

    @property
    def store_ids(self) -> tuple[str, ...]:
        """CA_1, TX_1, WI_1, CA_2, ... sorted."""
        return tuple(
            sorted(f"{STATES[k % len(STATES)]}_{k // len(STATES) + 1}" for k in range(self.stores))
        )

    def items_in(self, store_id: str) -> int:
        """How many items the store sells; they differ by one at most, and sum to `series`."""
        share, over = divmod(self.series, self.stores)
        return share + (self.store_ids.index(store_id) < over)

    def stream(self, *name: str) -> np.random.Generator:
        """The random stream that drives what `name` says, and nothing else."""
        return np.random.default_rng([self.seed, *(zlib.crc32(part.encode()) for part in name)])


@dataclass(frozen=True)
class StoreHistory:
    """One store as arrays of shape (items, days): items sorted by item_id, days from `spec.first`.

    `items` has the raw_sales hierarchy columns. `price` and `promoted` have shape (items, weeks)
    over `weeks`, which reach `spec.end`; `price` is NaN where the item is not on sale.
    `expected` and `demand` are what customers wanted, `stock` what they got.
    """

    spec: DemoSpec
    items: pl.DataFrame
    weeks: pl.DataFrame
    price: FloatArray
    promoted: npt.NDArray[np.bool_]
    expected: FloatArray
    demand: FloatArray
    stock: Stock

    def sales(self, first: date, last: date) -> pl.DataFrame:
        """raw_sales of the days within the span; zeros before launch, as in M5."""
        window = self._window(first, last)
        frame = self._long(self.items, window, units=self.stock.sold)
        line = np.arange(self.demand.size).reshape(self.demand.shape)[:, window].ravel() + 1
        marked = frame.with_columns(
            pl.Series("source_row", line), pl.lit(None, pl.String).alias("defect")
        )
        return TABLES["raw_sales"].conform(marked)

    def inventory(self, first: date, last: date) -> pl.DataFrame:
        """raw_inventory: stock at the close of each day, what is on order, the lead time."""
        frame = self._long(
            self.items.with_columns(pl.Series("lead_time_days", self.stock.lead_days)),
            self._window(first, last),
            on_hand=self.stock.on_hand,
            on_order=self.stock.on_order,
        )
        return TABLES["raw_inventory"].conform(frame)

    def truth(self, first: date, last: date) -> pl.DataFrame:
        """What no retailer sees: date, item_id, store_id, expected, demand, units, stocked_out,
        promoted (demand and units in pieces, expected the mean of demand)."""
        window = self._window(first, last)
        days = calendar.days_between(self.spec.first, self.spec.last)
        week = calendar.week_of_day(days, self.weeks)
        return self._long(
            self.items.select("item_id", "store_id"),
            window,
            expected=self.expected,
            demand=self.demand,
            units=self.stock.sold,
            stocked_out=self.demand > self.stock.sold,
            promoted=self.promoted[:, week],
        )

    def prices(self, first: date, last: date) -> pl.DataFrame:
        """raw_prices from launch to discontinuation, known to `spec.end`, cut at month ends."""
        item, week = np.nonzero(np.isfinite(self.price))
        weekly = self.items.select("item_id", "store_id")[pl.Series(item)].with_columns(
            pl.Series("wm_yr_wk", week),
            pl.Series("sell_price", self.price[item, week]),
            pl.Series("source_row", np.arange(len(item)) + 1),
            pl.lit(None, pl.String).alias("defect"),
        )
        pieces = week_pieces(self.weeks, max(first, self.spec.first), min(last, self.spec.end))
        spans = weekly.join(pieces, on="wm_yr_wk").select(list(TABLES["raw_prices"].columns))
        return TABLES["raw_prices"].conform(spans).sort("item_id", "date")

    def _window(self, first: date, last: date) -> slice:
        start = (first - self.spec.first).days
        stop = (last - self.spec.first).days + 1
        return slice(max(start, 0), max(min(stop, self.spec.days), 0))

    def _long(
        self, items: pl.DataFrame, window: slice, **matrices: npt.NDArray[np.generic]
    ) -> pl.DataFrame:
        """A row for each item and day of the window, item by item."""
        days = calendar.days_between(self.spec.first, self.spec.last)[window]
        item = np.repeat(np.arange(items.height, dtype=np.uint32), len(days))
        return items[pl.Series(item)].with_columns(
            pl.Series("date", np.tile(days, items.height), dtype=pl.Date),
            *(pl.Series(name, matrix[:, window].ravel()) for name, matrix in matrices.items()),
        )


def raw_calendar(spec: DemoSpec) -> pl.DataFrame:
    """raw_calendar from the first day with sales to the last known one."""
    return calendar.raw_calendar(spec.first, spec.end)


def history(spec: DemoSpec, store_id: str) -> StoreHistory:
    """Generate one store.

    Raises:
        ValueError: the specification has no such store (the message lists those that it has).
    """
    if store_id not in spec.store_ids:
        raise ValueError(f"no store {store_id!r}; there are {', '.join(spec.store_ids)}")
    state_id = store_id.split("_")[0]
    items = _items(spec, spec.items_in(store_id))
    weeks = calendar.shopping_weeks(spec.first, spec.end)
    launch, end = _life(spec, store_id, items, weeks.height)
    number = np.arange(weeks.height)
    on_sale = (number >= launch[:, None]) & (number < end[:, None])
    discount = _promotions(spec, items, weeks.height)
    price = _prices(spec, items, state_id, discount)
    expected = _expected(spec, store_id, items, weeks, price, discount, launch)
    days = calendar.days_between(spec.first, spec.last)
    selling = on_sale[:, calendar.week_of_day(days, weeks)]
    expected *= selling & calendar.is_open(days)
    demand = _counts(spec, store_id, items, expected)
    hierarchy = items.select(
        "item_id",
        "dept_id",
        "cat_id",
        pl.lit(store_id).alias("store_id"),
        pl.lit(state_id).alias("state_id"),
    )
    return StoreHistory(
        spec,
        hierarchy,
        weeks,
        np.where(on_sale, price, np.nan),
        on_sale & (discount > 0),
        expected,
        demand,
        keep_stock(spec.stream("stock", store_id), expected, demand, selling),
    )


def _items(spec: DemoSpec, count: int) -> pl.DataFrame:
    """The first `count` items, sorted by item_id: what is the same in every store.

    Each trait has its own stream, so that a store with an item more does not change the others.
    """
    deal = np.arange(count)
    departments = np.array(_DEAL)[deal % len(_DEAL)]

    def draw(trait: str) -> FloatArray:
        return spec.stream("item", trait).standard_normal(count)

    def uniform(trait: str) -> FloatArray:
        return spec.stream("item", trait).random(count)

    typical = np.array([_DEPARTMENTS[name] for name in departments])
    popularity = draw("popularity")
    frame = pl.DataFrame(
        {
            "deal": deal,
            "dept_id": departments,
            "log_units": typical[:, 0] + _POPULARITY_SPREAD * popularity,
            # What sells well tends to cost less.
            "price": typical[:, 1] * np.exp(0.5 * draw("price") - 0.1 * popularity),
            "elasticity": -(1.2 + 1.6 * uniform("elasticity")),
            "season": np.abs(0.22 * draw("season")),
            "peak": uniform("peak"),
            "trend": 0.12 * draw("trend"),
            "dispersion": 0.10 + 0.35 * uniform("dispersion"),
            "promotions": np.where(uniform("promoted") < 0.4, 0.04 + 0.10 * uniform("often"), 0.0),
        }
    )
    number = pl.int_range(1, pl.len() + 1).over("dept_id").cast(pl.String).str.zfill(3)
    return frame.with_columns(
        item_id=pl.concat_str("dept_id", pl.lit("_"), number),
        cat_id=pl.col("dept_id").str.split("_").list.first(),
    ).sort("item_id")


def _life(
    spec: DemoSpec, store_id: str, items: pl.DataFrame, weeks: int
) -> tuple[IntArray, IntArray]:
    """(week of launch, week of discontinuation) by item; 0 and `weeks` for those always there.

    One item in seven is launched within the span, reaching stores up to three weeks apart; one
    in sixteen is discontinued, half a year after its launch at the earliest.
    """
    count, selling = items.height, -(-spec.days // 7)
    moment, share = spec.stream("launch").random((count, 2)).T
    delay = spec.stream("launch", store_id).integers(0, 4, count)
    launch = np.where(share < 0.14, 1 + (moment * 0.95 * selling).astype(np.int64) + delay, 0)
    moment, share = spec.stream("discontinued").random((count, 2)).T
    end = launch + 26 + (moment * selling).astype(np.int64)
    end = np.where((share < 0.125) & (end < selling), end, weeks)
    order = items["deal"].to_numpy()
    return launch[order], end[order]


def _promotions(spec: DemoSpec, items: pl.DataFrame, weeks: int) -> FloatArray:
    """Share cut off the price by item and week: promotions of one or two weeks, chain-wide."""
    # In one draw, item by item: a store with an item more sees the same promotions.
    draws = spec.stream("promotions").random((items.height, 3, weeks))
    start, two, depth = draws[items["deal"].to_numpy()].swapaxes(0, 1)
    starts = start < items["promotions"].to_numpy()[:, None]
    discount = np.where(starts, np.array([0.1, 0.2, 0.25, 0.33])[(depth * 4).astype(np.int64)], 0.0)
    second = np.where(two < 0.5, discount, 0.0)
    discount[:, 1:] = np.maximum(discount[:, 1:], second[:, :-1])
    return discount


def _prices(spec: DemoSpec, items: pl.DataFrame, state_id: str, discount: FloatArray) -> FloatArray:
    """Price by item and week: about one regular change a year, less the promotion; ends in 8."""
    order = items["deal"].to_numpy()
    changes = spec.stream("price change").random(discount.shape)[order] < 0.02
    size = 1.03 + 0.04 * spec.stream("price step").standard_normal(discount.shape)[order]
    level = np.cumprod(np.where(changes, size, 1.0), axis=1) * _STATE_PRICE[state_id]
    price = items["price"].to_numpy()[:, None] * level * (1 - discount)
    ending: FloatArray = np.maximum(np.round(np.round(price, 1) - 0.02, 2), 0.18)
    return ending


def _expected(
    spec: DemoSpec,
    store_id: str,
    items: pl.DataFrame,
    weeks: pl.DataFrame,
    price: FloatArray,
    discount: FloatArray,
    launch: IntArray,
) -> FloatArray:
    """Mean demand by item and day, as if every item were on sale and the store open."""
    days = calendar.days_between(spec.first, spec.last)
    week = calendar.week_of_day(days, weeks)
    column = {name: items[name].to_numpy()[:, None] for name in items.columns}
    local = spec.stream("store", store_id)
    size = 0.25 * local.standard_normal()
    taste = 0.35 * local.standard_normal((items.height, 1))
    # Weekly, as all of this moves slowly or by week: an item's level, price, promotion, ramp-up.
    drift = np.zeros(discount.shape)
    steps = _DRIFT * spec.stream("drift", store_id).standard_normal(discount.shape)
    for at in range(1, weeks.height):
        drift[:, at] = _DRIFT_KEPT * drift[:, at - 1] + steps[:, at]
    usual = column["price"] * _STATE_PRICE[store_id.split("_")[0]]
    age = np.maximum(np.arange(weeks.height) - launch[:, None], 0)
    ramp = np.where(launch[:, None] > 0, np.log1p(-0.6 * np.exp(-age / 3)), 0.0)
    weekly = (
        column["log_units"]
        + size
        + taste
        + drift
        + ramp
        + column["elasticity"] * np.log(price / usual)
        + _DISPLAY_LIFT * (discount > 0)
    )
    year = days.astype(np.int64) / 365.25
    by_category = calendar.log_lift(spec.first, spec.last, store_id.split("_")[0])
    category = [calendar.CATEGORIES.index(name) for name in items["cat_id"]]
    log_mean = weekly[:, week] + by_category[category]
    log_mean += column["season"] * np.cos(2 * np.pi * (year - column["peak"]))
    log_mean += column["trend"] * (year - year[0])
    mean: FloatArray = np.exp(np.minimum(log_mean, 6.0))
    return mean


def _counts(spec: DemoSpec, store_id: str, items: pl.DataFrame, expected: FloatArray) -> FloatArray:
    """Demand in pieces: a Poisson count whose rate has a gamma spread around the mean."""
    draw = spec.stream("demand", store_id)
    dispersion = items["dispersion"].to_numpy()[:, None]
    spread = draw.standard_gamma(1 / dispersion, expected.shape) * dispersion
    counts: FloatArray = draw.poisson(expected * spread).astype(np.float64)
    return counts
