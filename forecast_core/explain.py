"""Why a forecast is what it is: TreeSHAP of the shared model, where it is worth its price.

Belongs here: choosing what is explained under a budget, and the contributions. Does not: the
model (`rungs.gbm`) or where explanations are kept.

TreeSHAP costs some three hundred times a prediction. So only class A items whose forecast changed
are explained, most revenue first, one day for each bucket of the horizon, until the budget of rows
is spent; what share of the changed items and of their revenue that covers is stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from forecast_core.rungs import gbm

BUCKETS: Mapping[str, tuple[int, int]] = {"week_1": (1, 7), "week_2": (8, 14), "later": (15, 28)}
CHANGED = 0.2  # of the horizon's units, against the last forecast published
TOP = 8  # features named for each forecast; the rest are summed
REST, BASE = "(other features)", "(average forecast)"
SCHEMA: Mapping[str, type[pl.DataType]] = {
    "item_id": pl.String,
    "store_id": pl.String,
    "bucket": pl.String,
    "ds": pl.Date,
    "feature": pl.String,
    "contribution": pl.Float64,
}


@dataclass(frozen=True)
class Coverage:
    """How much of what changed is explained: item-stores, and the share of their revenue."""

    changed: int
    explained: int
    revenue_share: float

    def __str__(self) -> str:
        return (
            f"{self.explained} of {self.changed} changed item-stores, "
            f"{self.revenue_share:.1%} of their revenue"
        )


def changed(
    today: pl.DataFrame, before: pl.DataFrame, segments: pl.DataFrame, threshold: float = CHANGED
) -> pl.DataFrame:
    """Class A item-stores served by the gbm whose daily mean moved, most revenue first.

    Args:
        today, before: `prediction_daily` rows of this cutoff and of the one before; who was not
            forecast before has changed.
        segments: `demand_segments` rows, with `abc` and `revenue`.
    """
    key = ["item_id", "store_id"]
    now = today.filter(rung="gbm").group_by(key).agg(now=pl.col("mean").mean())
    then = before.group_by(key).agg(then=pl.col("mean").mean())
    moved = (pl.col("now") - pl.col("then")).abs() > threshold * pl.max_horizontal("then", 1e-9)
    return (
        segments.filter(abc="A")
        .join(now, on=key)
        .join(then, on=key, how="left")
        .filter(moved.fill_null(True))
        .sort("revenue", "store_id", "item_id", descending=[True, False, False])
        .drop("now", "then")
    )


def within(candidates: pl.DataFrame, rows: int) -> tuple[pl.DataFrame, Coverage]:
    """The first candidates whose buckets fit into `rows`, and what that covers."""
    taken = candidates.head(rows // len(BUCKETS))
    whole = float(candidates["revenue"].sum() or 0.0)
    share = float(taken["revenue"].sum() or 0.0) / whole if whole else 1.0
    return taken, Coverage(candidates.height, taken.height, share)


def explain(
    model: gbm.Model,
    features: pl.DataFrame,
    prices: pl.DataFrame,
    chosen: pl.DataFrame,
    calendar: pl.DataFrame,
    cutoff: date,
    horizon: int,
) -> pl.DataFrame:
    """Contributions to the log of the model's mean, for one day a bucket of each chosen item.

    Arguments as `gbm.Model.predict`. Of each forecast the `TOP` features by size, the rest in
    one row, and the average the model starts from: they add up to the log of its mean (before
    alignment to the department).
    """
    items, x = model.inputs(features, prices, chosen, calendar, cutoff, horizon)
    if not items:
        return pl.DataFrame(schema=SCHEMA)
    days = [(low + min(high, horizon)) // 2 for low, high in BUCKETS.values() if low <= horizon]
    at = np.concatenate([np.arange(len(items)) * horizon + day - 1 for day in days])
    found = np.asarray(
        model.booster.predict(x[at], pred_contrib=True, num_threads=model.spec.threads)
    )
    names = np.array(model.booster.feature_name(), dtype=object)
    parts, base = found[:, :-1], found[:, -1]
    order = np.argsort(-np.abs(parts), axis=1, kind="stable")[:, :TOP]
    top = np.take_along_axis(parts, order, axis=1)
    rest = parts.sum(axis=1) - top.sum(axis=1)
    columns = np.column_stack([names[order], np.full((len(at), 2), [REST, BASE], dtype=object)])
    values = np.column_stack([top, rest, base])
    width = columns.shape[1]
    bucket = np.repeat(np.array(list(BUCKETS)[: len(days)], dtype=object), len(items))
    stamp = np.repeat([np.datetime64(cutoff) + day for day in days], len(items))
    return pl.DataFrame(
        {
            "item_id": np.repeat(np.tile(np.array(items, dtype=object), len(days)), width),
            "store_id": chosen["store_id"][0],
            "bucket": np.repeat(bucket, width),
            "ds": pl.Series(np.repeat(stamp, width)).cast(pl.Date),
            "feature": columns.reshape(-1),
            "contribution": values.reshape(-1),
        },
        schema=SCHEMA,
    )
