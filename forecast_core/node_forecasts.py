"""Forecasts of nodes above the item-stores, each made from the node's own sales.

Belongs here: what a reconciliation needs besides the item-stores' forecasts: base forecasts of the
coarse nodes, and how far base forecasts of all nodes have been off. Does not: reconciling
(`reconcile`) or reading sales.

The source is the statistical rung on summed series: at M5 154 of them, some seconds. The top
forecast of `alignment` would cost less and move nothing: the item-stores have been bent to it
already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.hierarchy import Floats, Hierarchy, level_name
from forecast_core.reconcile import residual_variance
from forecast_core.rungs import statistical

HISTORY_DAYS = statistical.HISTORY_DAYS
HELD_BACK = statistical.TRIAL_DAYS
_FLOOR_WEEKS = 4


@dataclass(frozen=True, eq=False)
class NodeSales:
    """What was sold up to the cutoff, [.., HISTORY_DAYS].

    Attributes:
        above: of the nodes above the series.
        errors: [n_series, HELD_BACK], what the floor would have missed of the last weeks.
    """

    above: Floats
    errors: Floats


@dataclass(frozen=True, eq=False)
class NodeForecasts:
    """Base forecasts of the nodes above the series, [n_above, horizon], and who made them.

    `errors` [n_above, HELD_BACK] are those that the methods made on the last weeks, held back;
    `methods` says which forecast the nodes of each level.
    """

    mean: Floats
    errors: Floats
    methods: Mapping[str, str]


def node_sales(
    sales: Iterable[tuple[str, pl.DataFrame]], hierarchy: Hierarchy, cutoff: date
) -> NodeSales:
    """Sum sales into the nodes, holding one store at a time.

    Args:
        sales: (store, rows with the key columns, `date, units`), `HISTORY_DAYS` to the cutoff. A
            day without a row counts as nothing sold.
    """
    first = cutoff - timedelta(days=HISTORY_DAYS - 1)
    above = np.zeros((hierarchy.n_nodes - hierarchy.n_series, HISTORY_DAYS))
    errors = np.zeros((hierarchy.n_series, HELD_BACK))
    for _, frame in sales:
        known = frame.join(hierarchy.series, on=hierarchy.key, how="semi")
        rows = np.sort(hierarchy.rows_of(known.select(hierarchy.key).unique()))
        if not len(rows):
            continue
        part, where = hierarchy.take(rows)
        units = np.nan_to_num(part.matrix(known, "units", first, cutoff), copy=False)
        above[where[: part.n_nodes - part.n_series]] += part.aggregate_above(units)
        errors[rows] = units[:, -HELD_BACK:] - _floor(units[:, :-HELD_BACK])
    return NodeSales(above, errors)


def _floor(units: Floats) -> Floats:
    """The mean of the last weeks' same weekdays, for the `HELD_BACK` days after."""
    weeks = units[:, -7 * _FLOOR_WEEKS :].reshape(len(units), _FLOOR_WEEKS, 7)
    repeated: Floats = np.tile(weeks.mean(axis=1), HELD_BACK // 7)
    return repeated


def forecast_nodes(sales: NodeSales, hierarchy: Hierarchy, horizon: int) -> NodeForecasts:
    """Forecast the nodes of each level by the method that missed their last weeks least.

    A node without history enough is forecast by its last weeks' mean.
    """
    parts = {
        level_name(level): _of_level(sales.above[span], horizon)
        for level, span in zip(hierarchy.levels[:-1], hierarchy.spans[:-1], strict=True)
    }
    return NodeForecasts(
        np.concatenate([np.empty((0, horizon)), *(mean for mean, _, _ in parts.values())]),
        np.concatenate([np.empty((0, HELD_BACK)), *(errors for _, errors, _ in parts.values())]),
        {level: method for level, (_, _, method) in parts.items()},
    )


def _of_level(units: Floats, horizon: int) -> tuple[Floats, Floats, str]:
    past, truth = units[:, :-HELD_BACK], units[:, -HELD_BACK:]
    size = np.maximum(past.mean(axis=1, keepdims=True), 1e-9)
    tried = {
        method: truth - _filled(statistical.run(past, [method] * len(past), HELD_BACK), past)
        for method in statistical.candidates("smooth")
    }
    best = min(tried, key=lambda method: (float(((tried[method] / size) ** 2).mean()), method))
    mean = _filled(statistical.run(units, [best] * len(units), horizon), units)
    return np.maximum(mean, 0.0), tried[best], best


def _filled(found: Floats, history: Floats) -> Floats:
    usual = history[:, -7 * _FLOOR_WEEKS :].mean(axis=1, keepdims=True)
    return np.where(np.isfinite(found), found, usual)


def error_variance(sales: NodeSales, nodes: NodeForecasts, hierarchy: Hierarchy) -> Floats:
    """`wls_var` for a hierarchy of coarse levels: [n_nodes], of errors on the last weeks.

    The errors of an item-store are the floor's, which are known for every one of them.
    """
    errors = np.empty((hierarchy.n_nodes, HELD_BACK))
    errors[: len(nodes.errors)] = nodes.errors
    errors[hierarchy.bottom] = sales.errors
    return residual_variance(errors)
