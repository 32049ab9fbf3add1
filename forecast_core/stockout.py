"""Will the shelf be empty before the next delivery, and when to order so that it is not.

Belongs here: stock-out probability over the lead time and reorder points, from forecast means
and their spread. Does not: the spread itself (`quantiles`), stock keeping, or placing orders.

An order placed now arrives after the lead time, and nothing placed later can help before then.
So what counts is demand summed over the lead time against what is on hand and on order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from forecast_core.quantiles import Floats, Spread, cumulative, quantiles

SERVICE_LEVEL = 0.95
_KEY = ["item_id", "store_id"]
_RISK: dict[str, type[pl.DataType]] = {
    "item_id": pl.String,
    "store_id": pl.String,
    "on_hand": pl.Float64,
    "on_order": pl.Float64,
    "lead_time_days": pl.Int64,
    "lead_time_demand": pl.Float64,
    "stockout_probability": pl.Float64,
    "stockout_if_late": pl.Float64,
    "reorder_point": pl.Float64,
    "order_units": pl.Float64,
    "reason": pl.String,
}


class StockError(ValueError):
    """Stock, forecasts or a service level that no risk can be told from: says which."""


def stockout_risk(
    inventory: pl.DataFrame,
    prediction: pl.DataFrame,
    segments: pl.DataFrame,
    spreads: Mapping[int, Spread],
    service_level: float = SERVICE_LEVEL,
) -> pl.DataFrame:
    """Risk and reorder point of every item-store that has stock on record.

    Args:
        inventory: `raw_inventory` rows of the cutoff day, one an item-store.
        prediction: `prediction_daily` rows of one cutoff.
        segments: `item_id, store_id, segment`, as the spreads were calibrated.
        spreads: days summed -> spread of such sums (`lead_time_pairs`, `calibrate`); a lead time
            that has none of its own takes the nearest.
        service_level: wanted chance that demand over the lead time is met.

    Returns:
        One row an inventory row, in its order, units throughout:
        `lead_time_demand`: expected demand over the lead time;
        `stockout_probability`: chance that it exceeds stock on hand and on order;
        `stockout_if_late`: the same if nothing on order arrives in time;
        `reorder_point`: the least position that meets demand with the service level;
        `order_units`: what lifts the position to it;
        `reason`: why these are null (no forecast, lead time past the horizon, stock unknown).

    Raises:
        StockError: an item-store twice, several cutoffs, no spread, a service level out of range.
    """
    _refuse(inventory, prediction, spreads, service_level)
    rows = (
        inventory.select(*_KEY, "on_hand", "on_order", "lead_time_days")
        .with_row_index("_row")
        .join(segments.select(*_KEY, "segment"), on=_KEY, how="left")
        .join(_lead_time_demand(inventory, prediction), on=_KEY, how="left")
        .sort("_row")
        .with_columns(reason=_reason(prediction))
    )
    told = rows.filter(pl.col("reason").is_null())
    risk = told.select("_row", "lead_time_demand", **_columns(told, spreads, service_level))
    joined = rows.drop("lead_time_demand").join(risk, on="_row", how="left").sort("_row")
    return joined.select(pl.col(name).cast(kind) for name, kind in _RISK.items())


def _lead_time_demand(inventory: pl.DataFrame, prediction: pl.DataFrame) -> pl.DataFrame:
    """Forecast means summed over each item-store's lead time, and how many days that took."""
    ahead = (pl.col("ds") - pl.col("cutoff")).dt.total_days()
    return (
        prediction.select(*_KEY, "mean", ahead=ahead)
        .join(inventory.select(*_KEY, "lead_time_days"), on=_KEY)
        .group_by(_KEY)
        .agg(
            lead_time_demand=pl.col("mean")
            .filter(pl.col("ahead") <= pl.col("lead_time_days"))
            .sum(),
            _days=(pl.col("ahead") <= pl.col("lead_time_days")).sum().cast(pl.Int64),
            _horizon=pl.len().cast(pl.Int64),
        )
    )


def _reason(prediction: pl.DataFrame) -> pl.Expr:
    stock = pl.col("on_hand").is_finite() & pl.col("on_order").is_finite()
    lead = pl.col("lead_time_days")
    said = lead.cast(pl.String).fill_null("unknown")
    return (
        pl.when(~stock.fill_null(False))
        .then(pl.lit("stock on hand or on order is unknown"))
        .when(lead.is_null() | (lead < 1))
        .then(pl.format("lead time of {} days: a whole day at least is needed", said))
        .when(pl.col("_horizon").is_null())
        .then(pl.lit("no forecast"))
        .when(pl.col("_days") < lead)
        .then(pl.format("lead time of {} days: the forecast reaches {}", said, "_horizon"))
    )


def _columns(
    told: pl.DataFrame, spreads: Mapping[int, Spread], service_level: float
) -> dict[str, pl.Series]:
    mean = told["lead_time_demand"].to_numpy()
    on_hand = told["on_hand"].to_numpy()
    position = on_hand + told["on_order"].to_numpy()
    inflation = _inflation(told, mean, spreads)
    reorder = quantiles(mean, inflation, [service_level])[:, 0]
    found = {
        "stockout_probability": 1.0 - cumulative(position, mean, inflation),
        "stockout_if_late": 1.0 - cumulative(on_hand, mean, inflation),
        "reorder_point": reorder,
        "order_units": np.maximum(reorder - position, 0.0),
    }
    return {name: pl.Series(values) for name, values in found.items()}


def _inflation(told: pl.DataFrame, mean: Floats, spreads: Mapping[int, Spread]) -> Floats:
    """Variance over mean of the summed demand, by the spread nearest to each lead time."""
    calibrated = np.array(sorted(spreads))
    lead = told["lead_time_days"].to_numpy()
    nearest = calibrated[np.abs(lead[:, None] - calibrated[None, :]).argmin(axis=1)]
    out = np.ones(len(mean))
    for days in np.unique(nearest):
        rows = nearest == days
        out[rows] = spreads[int(days)].inflation(
            mean[rows], told["segment"].filter(pl.Series(rows))
        )
    return out


def _refuse(
    inventory: pl.DataFrame,
    prediction: pl.DataFrame,
    spreads: Mapping[int, Spread],
    service_level: float,
) -> None:
    if not 0 < service_level < 1:
        raise StockError(f"service level {service_level}: give a chance between 0 and 1, say .95")
    if not spreads:
        raise StockError("no spread; calibrate at least one lead time on past errors")
    if prediction["cutoff"].n_unique() > 1:
        raise StockError(
            f"{prediction['cutoff'].n_unique()} cutoffs in one prediction frame; give one"
        )
    twice = inventory.filter(inventory.select(_KEY).is_duplicated())
    if twice.height:
        raise StockError(
            f"{'/'.join(twice.select(_KEY).row(0))} has {twice.height} inventory rows; "
            "give those of one day"
        )
