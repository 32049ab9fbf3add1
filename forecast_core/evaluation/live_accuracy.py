"""Accuracy as actuals arrive: what was published against what was sold in the last weeks.

Belongs here: WAPE, bias, coverage, scaled pinball loss and value added over the floor, by segment
group, store, forecaster and days ahead. Does not: scores of a whole hierarchy at one cutoff
(`accuracy`), or what follows from a loss (`retrain`).

Every forecast of a day counts, from whichever cutoff it came; how far ahead it looked is its
`horizon`. `*` stands for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from forecast_core.evaluation.accuracy import quantile_levels
from forecast_core.schema import TABLES

ALL = "*"
BY = ("segment_group", "store_id", "forecaster", "horizon")
# Which of BY are told apart: everything, each alone within its group, the group, the whole.
ROLLUPS: Sequence[Sequence[str]] = (
    BY,
    ("segment_group", "store_id"),
    ("segment_group", "forecaster"),
    ("segment_group", "horizon"),
    ("segment_group",),
    (),
)
_PAIR = ("item_id", "store_id")


def live_accuracy(
    day: date,
    predictions: pl.DataFrame,
    floor: pl.DataFrame,
    actual: pl.DataFrame,
    groups: pl.DataFrame,
) -> pl.DataFrame:
    """`monitor_accuracy` rows as known on `day`.

    Args:
        predictions: `prediction_daily` rows; quantile columns are scored where they are there.
        floor: `prediction_floor` rows of the same cutoffs: what any forecaster must beat.
        actual: `item_id, store_id, date, units`: the days that are scored, and any days before
            them that the scale of the pinball loss is taken from.
        groups: `item_id, store_id, segment_group`, one row an item-store.
    """
    joined = _joined(day, predictions, floor, actual, groups)
    if joined.is_empty():
        return TABLES["monitor_accuracy"].schema.to_frame()
    rows = pl.concat([_scored(joined, by) for by in ROLLUPS])
    return TABLES["monitor_accuracy"].conform(rows.with_columns(cutoff=pl.lit(day))).sort(*BY)


def _joined(
    day: date,
    predictions: pl.DataFrame,
    floor: pl.DataFrame,
    actual: pl.DataFrame,
    groups: pl.DataFrame,
) -> pl.DataFrame:
    sold = actual.filter(pl.col("date") <= day, pl.col("units").is_finite())
    scale = (
        sold.sort(*_PAIR, "date").group_by(*_PAIR).agg(_scale=pl.col("units").diff().abs().mean())
    )
    naive = floor.select(*_PAIR, "cutoff", "ds", _floor="mean")
    ahead = (pl.col("ds") - pl.col("cutoff")).dt.total_days()
    return (
        predictions.join(sold.select(*_PAIR, ds="date", _y="units"), on=[*_PAIR, "ds"])
        .join(groups.select(*_PAIR, "segment_group"), on=_PAIR)
        .join(naive, on=[*_PAIR, "cutoff", "ds"], how="left")
        .join(scale, on=_PAIR, how="left")
        .with_columns(
            forecaster=pl.col("rung"),
            horizon=pl.when(ahead <= 7)
            .then(pl.lit("1-7"))
            .when(ahead <= 14)
            .then(pl.lit("8-14"))
            .when(ahead <= 28)
            .then(pl.lit("15-28"))
            .otherwise(pl.lit("29+")),
        )
        .with_columns(_pinball=_pinball(predictions.columns), _inside=_inside(predictions.columns))
    )


def _pinball(columns: Sequence[str]) -> pl.Expr:
    """Mean pinball loss over the levels, in mean absolute one-day changes of the item-store."""
    short = [
        (level, pl.col("_y") - pl.col(name)) for name, level in quantile_levels(columns).items()
    ]
    if not short:
        return pl.lit(None, pl.Float64)
    losses = [pl.max_horizontal(level * gap, (level - 1.0) * gap) for level, gap in short]
    return pl.when(pl.col("_scale") > 0).then(pl.mean_horizontal(losses) / pl.col("_scale"))


def _inside(columns: Sequence[str]) -> pl.Expr:
    """Whether the actual lies between the tenth and the ninetieth percentile."""
    if not {"q10", "q90"} <= set(columns):
        return pl.lit(None, pl.Float64)
    return pl.col("_y").is_between(pl.col("q10"), pl.col("q90")).cast(pl.Float64)


def _scored(joined: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    told = joined.with_columns(pl.lit(ALL).alias(name) for name in BY if name not in by)
    error = pl.col("mean") - pl.col("_y")
    naive = pl.col("_floor").is_not_null()
    sold = pl.when(pl.col("units") > 0).then(pl.col("units"))
    ratio = pl.when(pl.col("_off_floor") > 0).then(pl.col("_off_compared") / pl.col("_off_floor"))
    return (
        told.group_by(*BY)
        .agg(
            series=pl.struct(_PAIR).n_unique(),
            days=pl.col("ds").n_unique(),
            units=pl.col("_y").sum(),
            _off=error.abs().sum(),
            _bias=error.sum(),
            _off_compared=error.abs().filter(naive).sum(),
            _off_floor=(pl.col("_floor") - pl.col("_y")).abs().filter(naive).sum(),
            _y_floor=pl.col("_y").filter(naive).sum(),
            coverage80=pl.col("_inside").mean(),
            scaled_pinball=pl.col("_pinball").mean(),
        )
        .with_columns(
            wape=pl.col("_off") / sold,
            bias=pl.col("_bias") / sold,
            floor_wape=pl.when(pl.col("_y_floor") > 0).then(
                pl.col("_off_floor") / pl.col("_y_floor")
            ),
            fva_wape=1.0 - ratio,
        )
        .select(*TABLES["monitor_accuracy"].columns.keys() - {"cutoff"})
    )
