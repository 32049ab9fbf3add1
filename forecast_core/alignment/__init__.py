"""Alignment: what a store-department shows, lent to the items that cannot show it.

Belongs here: the level of store-departments over the horizon, and bending item forecasts towards
it and towards their days. Does not: learning those days (`shapes`, `booster`), which
items or forecasters there are, nor reconciliation over the levels of a hierarchy (`reconcile`).

An item sells too little to show what Easter or the first of the month does, and forecasts of many
items made by one model err together; their department in the store shows both. Its days lie
between its own calendar shape and what the booster of all departments expects. Its level is the
geometric mean of two: recent sales over their own shape, and the last four weeks turned as the
store's sales turned a year ago; both lie weeks before the days forecast, for which the store's
yearly growth makes up.

On M5 this takes the mean WRMSSE of one direct LightGBM over the cutoffs d_1829, d_1857, d_1885 (on
which the strengths were chosen) from .643 to .554; without the booster it is .573.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast_core.alignment import booster as node_booster
from forecast_core.alignment.shapes import (
    CLOSED,
    NODE,
    AlignmentError,
    Shapes,
    curves,
    fit_shapes,
    node_totals,
)

__all__ = ["AlignmentError", "Shapes", "align", "expected", "learn", "levels", "node_totals"]

HISTORY_DAYS = 1800  # of totals that `learn` looks at: for the booster every day is an example
LEVEL_DAYS = max(400, node_booster.BACK_DAYS)  # of totals that a prediction looks at
SHAPE_STRENGTH = 1.0
LEVEL_STRENGTH = 1.0
BOOSTED = 0.75  # how far days go from the shape's to the booster's
_MONTH = 28
_YEAR_AGO = 364
_TURN_TRUST = 0.75  # how much of last year's turn is believed to come again
_LEVEL_MEMORY = 14.0  # days in which the weight of a day falls by 1/e
_GROWTH_BOUNDS = (0.7, 1.4)  # a year's; beyond them a store opened, closed or was rebuilt
_FURTHEST = 1.5  # no node is moved by more than this factor

Floats = NDArray[np.float64]


def learn(totals: pl.DataFrame, calendar: pl.DataFrame, cutoff: date, horizon: int) -> Shapes:
    """The shape of every node and the booster of all, from `node_totals` of all stores.

    Nothing after `cutoff` is looked at. `horizon`: days ahead that the booster answers for.
    """
    shapes = fit_shapes(totals, calendar, cutoff)
    first = cutoff - timedelta(days=HISTORY_DAYS - 1)
    known = totals.filter(pl.col("date").is_between(first, cutoff))
    booster = node_booster.fit(known, calendar, cutoff, horizon)
    return replace(shapes, booster=booster, growth=_growth(known, cutoff))


def _growth(totals: pl.DataFrame, cutoff: date) -> dict[str, float]:
    """By store, its last year of sales over the year before; only of stores that sold in both."""
    year = timedelta(days=_YEAR_AGO)
    daily = totals.group_by("store_id", "date").agg(pl.col("units").sum())
    last, before = (
        pl.col("date") > cutoff - year,
        pl.col("date").is_between(cutoff - 2 * year, cutoff - year, closed="right"),
    )
    known = daily.group_by("store_id").agg(
        first=pl.col("date").filter(pl.col("units") > 0).min(),
        growth=pl.col("units").filter(last).sum() / pl.col("units").filter(before).sum(),
    )
    whole = known.filter(pl.col("first") <= cutoff - 2 * year + timedelta(days=_MONTH))
    return dict(
        whole.select("store_id", pl.col("growth").clip(*_GROWTH_BOUNDS).round(6))
        .sort("store_id")
        .iter_rows()
    )


def expected(
    totals: pl.DataFrame, shapes: Shapes, calendar: pl.DataFrame, cutoff: date, horizon: int
) -> pl.DataFrame | None:
    """What the booster expects of the nodes, see `node_booster.predict`; None without one."""
    if shapes.booster is None:
        return None
    return node_booster.predict(shapes.booster, totals, calendar, cutoff, horizon)


def levels(
    totals: pl.DataFrame, shapes: Shapes, calendar: pl.DataFrame, cutoff: date, horizon: int
) -> pl.DataFrame:
    """What each shaped node is to sell over the horizon: (store_id, dept_id, level).

    `totals`: `node_totals` of whole stores, `LEVEL_DAYS` before the cutoff; nothing after it is
    looked at. With less than a year of them no turn is assumed.
    """
    first, last = cutoff - timedelta(days=LEVEL_DAYS - 1), cutoff + timedelta(days=horizon)
    stores = totals["store_id"].unique().sort().to_list()
    shaped = curves(shapes, calendar, stores, first, last).sort("store_id", "dept_id", "ds")
    sold = totals.filter(pl.col("date").is_between(first, cutoff)).select(*NODE, "units", ds="date")
    if shaped.is_empty():
        return pl.DataFrame(
            schema={"store_id": pl.String, "dept_id": pl.String, "level": pl.Float64}
        )
    wide = shaped.join(sold, on=[*NODE, "ds"], how="left", maintain_order="left")
    nodes = wide.select(NODE).unique(maintain_order=True)
    shape = (nodes.height, LEVEL_DAYS + horizon)
    curve = wide["curve"].to_numpy().reshape(shape)
    units = wide["units"].fill_null(0).to_numpy().reshape(shape)[:, :LEVEL_DAYS]
    store = nodes["store_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    recent = _recent_level(units, curve) * curve[:, LEVEL_DAYS:].sum(axis=1)
    turned = units[:, -_MONTH:].mean(axis=1) * horizon * _turn(units, horizon, store)
    grown = nodes["store_id"].replace_strict(shapes.growth, default=1.0, return_dtype=pl.Float64)
    ahead = (horizon / 2 + _LEVEL_MEMORY) / _YEAR_AGO  # from the middle of what was seen
    return nodes.with_columns(level=pl.Series(np.sqrt(recent * turned) * grown.to_numpy() ** ahead))


def _recent_level(units: Floats, curve: Floats) -> Floats:
    """Sales over shape, both weighted towards the cutoff; closed days count in neither."""
    weight = np.exp(-np.arange(LEVEL_DAYS)[::-1] / _LEVEL_MEMORY)
    usual = np.median(units[:, -_MONTH:], axis=1, keepdims=True)
    weight = weight * (units >= CLOSED * usual) * (curve[:, :LEVEL_DAYS] > 0)
    shaped = (weight * curve[:, :LEVEL_DAYS]).sum(axis=1)
    level: Floats = (weight * units).sum(axis=1) / np.maximum(shaped, 1e-12)
    return level


def _turn(units: Floats, horizon: int, store: NDArray[np.int64]) -> Floats:
    """By node, how its store's sales turned after this day a year ago, as far as it is trusted."""
    then = LEVEL_DAYS - _YEAR_AGO
    by_store = np.zeros((store.max() + 1, LEVEL_DAYS))
    np.add.at(by_store, store, units)
    before = by_store[:, then - _MONTH : then].mean(axis=1)
    after = by_store[:, then : then + min(horizon, _YEAR_AGO)].mean(axis=1)
    # A store that opened within those weeks turned from nothing: that teaches nothing.
    whole = (by_store > 0).argmax(axis=1) <= then - _MONTH
    known = (before > 0) & (after > 0) & whole
    turn = np.where(known, after / np.where(known, before, 1), 1.0) ** _TURN_TRUST
    of_node: Floats = turn[store]
    return of_node


def align(
    prediction: pl.DataFrame,
    departments: pl.DataFrame,
    shapes: Shapes,
    calendar: pl.DataFrame,
    level: pl.DataFrame | None = None,
    boosted: pl.DataFrame | None = None,
    strength: float = SHAPE_STRENGTH,
    level_strength: float = LEVEL_STRENGTH,
) -> pl.DataFrame:
    """Bend forecasts of one cutoff to their nodes' shapes and levels; rows and order stay.

    Args:
        prediction: rows with item_id, store_id, ds and mean: every item of the stores.
        departments: (item_id, store_id, dept_id) of every item-store in it.
        shapes: as fitted at or before the cutoff. A node without one stays as it is.
        calendar: raw_calendar over the days forecast; a day that it lacks has no event.
        boosted: as `node_booster.predict` gives it, of the same cutoff; None goes by shapes alone.
        level: as `levels` gives it; None keeps each node's own sum over its open days.
        strength: 0 leaves the days as they are, 1 gives each node exactly its shape.
        level_strength: likewise for the level. No node moves by more than a factor of 1.5.

    Raises:
        AlignmentError: a strength is not from 0 to 1.
    """
    if not (0 <= strength <= 1 and 0 <= level_strength <= 1):
        raise AlignmentError(f"strengths {strength}, {level_strength} are not from 0 to 1")
    if prediction.is_empty():
        return prediction
    first, last = prediction["ds"].min(), prediction["ds"].max()
    assert isinstance(first, date) and isinstance(last, date)
    stores = prediction["store_id"].unique().to_list()
    shaped = curves(shapes, calendar, stores, first, last)
    if boosted is not None:
        shaped = _with_boosted(shaped, boosted)
    of_node = departments.select("item_id", *NODE).unique()
    # In one order, so that sums round alike: a cutoff that runs again says the very same.
    days = (
        prediction.join(of_node, on=["item_id", "store_id"], how="left", maintain_order="left")
        .group_by(*NODE, "ds", maintain_order=True)
        .agg(pl.col("mean").sum().alias("sum"))
        .join(shaped, on=[*NODE, "ds"])
        .sort(*NODE, "ds")
    )
    factors = _factors(days, level, strength, level_strength)
    return (
        prediction.join(of_node, on=["item_id", "store_id"], how="left", maintain_order="left")
        .join(factors, on=[*NODE, "ds"], how="left", maintain_order="left")
        .with_columns(mean=pl.col("mean") * pl.col("factor").fill_null(1.0))
        .select(prediction.columns)
    )


def _factors(
    days: pl.DataFrame, level: pl.DataFrame | None, strength: float, level_strength: float
) -> pl.DataFrame:
    """(store_id, dept_id, ds, factor) from each node's daily sum and curve."""
    open_days, node = pl.col("curve") > 0, list(NODE)
    bend = (pl.col("curve") / pl.col("sum")).pow(strength)
    own = pl.col("sum").filter(open_days).sum().over(node)
    bent = (pl.col("sum") * pl.col("bend")).filter(open_days).sum().over(node)
    wanted = (pl.col("level") / pl.col("sum").filter(open_days).sum().over(node)).pow(
        level_strength
    )
    if level is None:
        days = days.with_columns(level=pl.lit(None, dtype=pl.Float64))
    else:
        days = days.join(level, on=node, how="left")
    return (
        days.with_columns(bend=pl.when(pl.col("sum") > 0).then(bend).otherwise(1.0))
        .with_columns(factor=pl.col("bend") * own / bent)
        .with_columns(
            factor=pl.col("factor") * wanted.clip(1 / _FURTHEST, _FURTHEST).fill_null(1.0)
        )
        .with_columns(
            factor=pl.when(~open_days)
            .then(0.0)
            .when(pl.col("factor").is_finite())
            .then("factor")
            .otherwise(1.0)
        )
        .select(*NODE, "ds", "factor")
    )


def _with_boosted(shaped: pl.DataFrame, boosted: pl.DataFrame) -> pl.DataFrame:
    """Curves at their own height, their open days part of the way to what the booster expects."""
    node = list(NODE)
    both = shaped.join(
        boosted.select(*NODE, "ds", boosted="units"),
        on=[*NODE, "ds"],
        how="left",
        maintain_order="left",
    ).with_columns(known=(pl.col("curve") > 0) & (pl.col("boosted") > 0))
    usual = [pl.col(name).filter("known").mean().over(node) for name in ("curve", "boosted")]
    ratio = (pl.col("boosted") / usual[1]) / (pl.col("curve") / usual[0])
    return both.with_columns(
        curve=pl.when("known").then(pl.col("curve") * ratio.pow(BOOSTED)).otherwise("curve")
    ).select(shaped.columns)
