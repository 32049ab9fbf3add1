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


@dataclass(frozen=True)
class Rhythm:
    """How nodes are looked at, in periods: as far back as `history`, of which the last `held_back`
    try the methods; what repeats after `season`; the usual level, of the last `recent`, after
    `cycle`."""

    history: int
    held_back: int
    season: int
    recent: int
    cycle: int


DAYS = Rhythm(statistical.HISTORY_DAYS, statistical.TRIAL_DAYS, season=7, recent=28, cycle=7)
WEEKS = Rhythm(history=212, held_back=8, season=52, recent=4, cycle=1)  # three years, and a trial


@dataclass(frozen=True, eq=False)
class NodeSales:
    """What was sold up to the cutoff, [.., `rhythm.history`].

    Attributes:
        above: of the nodes above the series.
        errors: [n_series, `rhythm.held_back`], what the floor would have missed of the last ones.
    """

    above: Floats
    errors: Floats
    rhythm: Rhythm = DAYS


@dataclass(frozen=True, eq=False)
class NodeForecasts:
    """Base forecasts of the nodes above the series, [n_above, horizon], and who made them.

    `errors` [n_above, held back] are those that the methods made on the last periods;
    `methods` says which forecast the nodes of each level.
    """

    mean: Floats
    errors: Floats
    methods: Mapping[str, str]


def node_sales(
    sales: Iterable[tuple[str, pl.DataFrame]],
    hierarchy: Hierarchy,
    cutoff: date,
    rhythm: Rhythm = DAYS,
) -> NodeSales:
    """Sum sales into the nodes, holding one store at a time.

    Args:
        sales: (store, rows with the key columns, `date, units`), `rhythm.history` neighbouring
            dates to the cutoff. A date without a row counts as nothing sold.
    """
    first = cutoff - timedelta(days=rhythm.history - 1)
    above = np.zeros((hierarchy.n_nodes - hierarchy.n_series, rhythm.history))
    errors = np.zeros((hierarchy.n_series, rhythm.held_back))
    for _, frame in sales:
        known = frame.join(hierarchy.series, on=hierarchy.key, how="semi")
        rows = np.sort(hierarchy.rows_of(known.select(hierarchy.key).unique()))
        if not len(rows):
            continue
        part, where = hierarchy.take(rows)
        units = np.nan_to_num(part.matrix(known, "units", first, cutoff), copy=False)
        above[where[: part.n_nodes - part.n_series]] += part.aggregate_above(units)
        held = rhythm.held_back
        errors[rows] = units[:, -held:] - _floor(units[:, :-held], rhythm)
    return NodeSales(above, errors, rhythm)


def _floor(units: Floats, rhythm: Rhythm) -> Floats:
    """The mean of the last cycles (the same weekdays), for the `held_back` periods after."""
    recent = units[:, -rhythm.recent :].reshape(len(units), -1, rhythm.cycle)
    repeated: Floats = np.tile(recent.mean(axis=1), rhythm.held_back // rhythm.cycle)
    return repeated


def forecast_nodes(sales: NodeSales, hierarchy: Hierarchy, horizon: int) -> NodeForecasts:
    """Forecast the nodes of each level by the method that missed their last periods least.

    A node without history enough is forecast by its last periods' mean.
    """
    rhythm = sales.rhythm
    parts = {
        level_name(level): _of_level(sales.above[span], horizon, rhythm)
        for level, span in zip(hierarchy.levels[:-1], hierarchy.spans[:-1], strict=True)
    }
    nothing = np.empty((0, rhythm.held_back))
    return NodeForecasts(
        np.concatenate([np.empty((0, horizon)), *(mean for mean, _, _ in parts.values())]),
        np.concatenate([nothing, *(errors for _, errors, _ in parts.values())]),
        {level: method for level, (_, _, method) in parts.items()},
    )


def _of_level(units: Floats, horizon: int, rhythm: Rhythm) -> tuple[Floats, Floats, str]:
    held, season = rhythm.held_back, rhythm.season
    past, truth = _begun(units[:, :-held]), units[:, -held:]
    size = np.maximum(np.nanmean(past, axis=1, keepdims=True), 1e-9)

    def tried_by(history: Floats, method: str, ahead: int) -> Floats:
        methods = [method] * len(history)
        return _filled(statistical.run(history, methods, ahead, season), history, rhythm)

    tried = {
        method: truth - tried_by(past, method, held)
        for method in statistical.candidates("smooth", season)
    }
    best = min(tried, key=lambda method: (float(((tried[method] / size) ** 2).mean()), method))
    return np.maximum(tried_by(_begun(units), best, horizon), 0.0), tried[best], best


def _begun(units: Floats) -> Floats:
    """Unknown before the first sale: a node that did not exist sold not nothing."""
    sold = units > 0
    before = ~np.maximum.accumulate(sold, axis=1) & sold.any(axis=1, keepdims=True)
    return np.where(before, np.nan, units)


def _filled(found: Floats, history: Floats, rhythm: Rhythm) -> Floats:
    usual = np.nan_to_num(history[:, -rhythm.recent :]).mean(axis=1, keepdims=True)
    return np.where(np.isfinite(found), found, usual)


def error_variance(sales: NodeSales, nodes: NodeForecasts, hierarchy: Hierarchy) -> Floats:
    """`wls_var` for a hierarchy of coarse levels: [n_nodes], of errors on the last periods.

    The errors of an item-store are the floor's, which are known for every one of them.
    """
    errors = np.empty((hierarchy.n_nodes, nodes.errors.shape[1]))
    errors[: len(nodes.errors)] = nodes.errors
    errors[hierarchy.bottom] = sales.errors
    return residual_variance(errors)
