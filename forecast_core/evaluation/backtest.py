"""Forecasts as they would have been made: every rung, at a past cutoff, by what was known then.

Belongs here: the past as a backtest reads it (store by store), rolling origins, and each rung
fitted and run at one of them. Does not: scoring (`accuracy`, `frontier`), spreads (`quantiles`),
or where rows are kept.

Origins are chosen among the days whose features are stored, so a backtest builds no feature of
its own; a fit made at the first origin may serve the later ones, as a forecaster does between two
trainings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core import alignment
from forecast_core.rungs import floor, gbm, statistical
from forecast_core.rungs.origin_features import STRIDE_DAYS

Load = Callable[[str, date, date], pl.DataFrame]

KEY = ("item_id", "store_id")
MEANS: Mapping[str, type[pl.DataType]] = {
    "item_id": pl.String,
    "store_id": pl.String,
    "ds": pl.Date,
    "mean": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class Past:
    """What was sold, by any window of one store, and the calendar.

    Attributes:
        sales: (store, first, last) -> `cleaned_sales` rows; prices are read off them, since a
            price is planned before it holds.
        features: (store, first, last) -> `feature_sales` rows.
        calendar: `raw_calendar`, past and known future.
        step: days in a period (7 for weekly data).
        covariates: columns of the sales that are known ahead.
    """

    sales: Load
    features: Load
    calendar: pl.DataFrame
    step: int = 1
    covariates: tuple[str, ...] = ()

    @property
    def training_days(self) -> int:
        """How far back a shared model learns: weeks are fewer, so it looks further."""
        return gbm.TRAINING_DAYS if self.step == 1 else 3 * gbm.TRAINING_DAYS

    @classmethod
    def of_frames(
        cls,
        sales: Mapping[str, pl.DataFrame],
        features: Mapping[str, pl.DataFrame],
        calendar: pl.DataFrame,
    ) -> Past:
        """From frames by store."""

        def within(frames: Mapping[str, pl.DataFrame]) -> Load:
            return lambda store, first, last: frames[store].filter(
                pl.col("date").is_between(first, last)
            )

        return cls(within(sales), within(features), calendar)


def origins(as_of: date, horizon: int, windows: int, stride: int = STRIDE_DAYS) -> list[date]:
    """The cutoffs of the last `windows` whole horizons before `as_of`, oldest first.

    Each is the nearest stored origin that leaves its horizon sold; horizons do not overlap.
    """
    found: list[date] = []
    latest = as_of
    for _ in range(windows):
        latest -= timedelta(days=horizon)
        latest -= timedelta(days=latest.toordinal() % stride)
        found.append(latest)
    return found[::-1]


def fit_gbm(
    past: Past, members: pl.DataFrame, cutoff: date, horizon: int, spec: gbm.GbmSpec
) -> gbm.Fitted:
    """A shared model of `members` (the `LEVELS` columns), on what was known at the cutoff."""
    return gbm.fit(*gbm_examples(past, members, cutoff, horizon, spec), spec)


def gbm_examples(
    past: Past, members: pl.DataFrame, cutoff: date, horizon: int, spec: gbm.GbmSpec
) -> tuple[list[gbm.Examples], gbm.Coding]:
    """The examples of every store and the coding that they share."""
    coding = gbm.Coding.of(past.calendar, members, past.covariates)
    first = cutoff - timedelta(days=past.training_days)
    parts = [
        gbm.examples(
            past.features(store, first, cutoff),
            past.sales(store, first, cutoff),
            series,
            past.calendar,
            coding,
            cutoff,
            horizon,
            spec,
            past.step,
        )
        for store, series in _stores(members)
    ]
    return parts, coding


def run_gbm(
    past: Past, model: gbm.Model, members: pl.DataFrame, cutoff: date, horizon: int
) -> pl.DataFrame:
    """Forecasts (item_id, store_id, ds, mean) of those members that have features then."""

    def of_store(store: str, series: pl.DataFrame) -> pl.DataFrame:
        ahead = past.sales(store, cutoff + timedelta(days=1), cutoff + timedelta(days=horizon))
        prices = ahead.select("item_id", "date", "sell_price", *past.covariates)
        today = past.features(store, cutoff, cutoff)
        return model.predict(today, prices, series, past.calendar, cutoff, horizon)

    return _by_store(members, of_store)


def run_statistical(
    past: Past, members: pl.DataFrame, cutoff: date, horizon: int, methods: bytes | None = None
) -> pl.DataFrame:
    """Forecasts by the methods chosen (`statistical.artefact`), by the default one without.

    Args:
        members: with `demand_class`. Items whose history is too short have no finite mean and
            are left out.
    """
    fitted = statistical.artefact({}) if methods is None else methods

    def of_store(store: str, series: pl.DataFrame) -> pl.DataFrame:
        since = cutoff - timedelta(days=statistical.HISTORY_DAYS)
        classes = dict(series.select("item_id", "demand_class").iter_rows())
        return statistical.predict(
            fitted, past.sales(store, since, cutoff), classes, cutoff, horizon
        )

    return _by_store(members, of_store).filter(pl.col("mean").is_finite())


def run_floor(past: Past, members: pl.DataFrame, cutoff: date, horizon: int) -> pl.DataFrame:
    """The floor's forecasts of every member."""

    def of_store(store: str, series: pl.DataFrame) -> pl.DataFrame:
        recent = past.sales(store, cutoff - timedelta(days=7 * floor.WEEKS), cutoff)
        return floor.seasonal_mean(recent, series["item_id"].to_list(), cutoff, horizon)

    return _by_store(members, of_store)


def over_floor(base: pl.DataFrame, better: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """`base` with the means of each rung (later ones win) where those are finite, and whose each
    row is in `rung`."""
    key = [*KEY, "ds"]
    rows = base.with_columns(rung=pl.lit("floor"))
    for rung, frame in better.items():
        found = frame.filter(pl.col("mean").is_finite()).select(*key, _better="mean")
        has = pl.col("_better").is_not_null()
        rows = (
            rows.join(found, on=key, how="left", maintain_order="left")
            .with_columns(
                mean=pl.coalesce("_better", "mean"),
                rung=pl.when(has).then(pl.lit(rung)).otherwise("rung"),
            )
            .drop("_better")
        )
    return rows


def aligned(
    past: Past, rows: pl.DataFrame, series: pl.DataFrame, cutoff: date, horizon: int
) -> pl.DataFrame:
    """Bend the forecasts of whole stores to what their departments showed by the cutoff."""
    since = cutoff - timedelta(days=max(alignment.HISTORY_DAYS, alignment.LEVEL_DAYS))
    stores = series["store_id"].unique().sort().to_list()
    totals = pl.concat(alignment.node_totals(past.sales(store, since, cutoff)) for store in stores)
    shapes = alignment.learn(totals, past.calendar, cutoff, horizon)
    level = alignment.levels(totals, shapes, past.calendar, cutoff, horizon)
    boosted = alignment.expected(totals, shapes, past.calendar, cutoff, horizon)
    departments = series.select(*KEY, "dept_id")
    return alignment.align(rows, departments, shapes, past.calendar, level, boosted)


def sold(past: Past, rows: pl.DataFrame) -> pl.DataFrame:
    """Add `units`, what was sold on `ds`; null where no sale is known."""
    first, last = rows["ds"].min(), rows["ds"].max()
    if not (isinstance(first, date) and isinstance(last, date)):
        return rows.with_columns(units=pl.lit(None, dtype=pl.Float64))
    truth = pl.concat(
        past.sales(store, first, last).select(
            "item_id", pl.lit(store).alias("store_id"), "units", ds="date"
        )
        for store in rows["store_id"].unique().sort()
    )
    return rows.join(truth, on=[*KEY, "ds"], how="left", maintain_order="left")


def sample_stores(members: pl.DataFrame, series: int) -> list[str]:
    """The first stores, in order of their names, that hold `series` members between them."""
    counts = members.group_by("store_id").len().sort("store_id")
    before = counts["len"].cum_sum() - counts["len"]
    return counts.filter(before < series)["store_id"].to_list()


def _stores(members: pl.DataFrame) -> Sequence[tuple[str, pl.DataFrame]]:
    parts = members.sort("store_id", "item_id").partition_by("store_id", as_dict=True)
    return [(str(store), series) for (store,), series in parts.items()]


def _by_store(
    members: pl.DataFrame, of_store: Callable[[str, pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    frames = [
        of_store(store, series).with_columns(store_id=pl.lit(store))
        for store, series in _stores(members)
    ]
    return pl.concat([pl.DataFrame(schema=MEANS), *(f.select(list(MEANS)) for f in frames)])
