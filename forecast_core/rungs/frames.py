"""The frames that forecasters exchange.

Belongs here: laying matrices out as forecast rows and assembling what is published. Does not: any
forecasting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.schema import TABLES
from forecast_core.segments import Rung


def days_ahead(cutoff: date, horizon: int) -> list[date]:
    """The days after `cutoff`, nearest first."""
    return [cutoff + timedelta(days=k) for k in range(1, horizon + 1)]


def means(items: Sequence[str], cutoff: date, matrix: np.ndarray) -> pl.DataFrame:
    """Rows (item_id, ds, mean) of a matrix [items, horizon]; negatives become zero."""
    n_items, horizon = matrix.shape
    return pl.DataFrame(
        {
            "item_id": np.repeat(np.asarray(items, dtype=object), horizon),
            "ds": days_ahead(cutoff, horizon) * n_items,
            "mean": np.maximum(matrix, 0).reshape(-1).astype(np.float64),
        },
        schema={"item_id": pl.String, "ds": pl.Date, "mean": pl.Float64},
    )


def published(
    rows: pl.DataFrame, store_id: str, cutoff: date, rung: Rung, reason: str | None
) -> pl.DataFrame:
    """`prediction_*` rows of one store from (item_id, ds, mean)."""
    return TABLES["prediction_floor"].conform(
        rows.with_columns(
            unique_id=pl.concat_str(pl.col("item_id"), pl.lit("_" + store_id)),
            store_id=pl.lit(store_id),
            cutoff=pl.lit(cutoff),
            rung=pl.lit(rung),
            reason=pl.lit(reason, dtype=pl.String),
        )
    )


def upgraded(floor: pl.DataFrame, better: Mapping[Rung, pl.DataFrame]) -> pl.DataFrame:
    """Replace floor rows by those of better rungs; whatever they lack keeps the floor.

    Args:
        floor: `prediction_floor` rows of one store, its reason said for each.
        better: rung -> rows (item_id, ds, mean); a mean that is no finite number is not used.

    Returns:
        As many rows as `floor`, in its order.
    """
    rows = floor
    for rung, means_of in better.items():
        finite = means_of.filter(pl.col("mean").is_finite()).select(
            "item_id", "ds", pl.col("mean").clip(lower_bound=0).alias("better")
        )
        has = pl.col("better").is_not_null()
        rows = (
            rows.join(finite, on=["item_id", "ds"], how="left", maintain_order="left")
            .with_columns(
                mean=pl.coalesce("better", "mean"),
                rung=pl.when(has).then(pl.lit(rung)).otherwise("rung"),
                reason=pl.when(has).then(None).otherwise("reason"),
            )
            .drop("better")
        )
    return rows
