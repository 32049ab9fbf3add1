"""Coherent forecasts: every node is the sum of the item-stores under it.

Belongs here: bottom-up sums and least-squares reconciliation over a `Hierarchy`.
Does not: making base forecasts, scoring them, or storing a factor.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.hierarchy import Floats, Hierarchy, HierarchyError
from forecast_core.schema import TABLES


def bottom_up(prediction: pl.DataFrame, hierarchy: Hierarchy) -> pl.DataFrame:
    """Sum item-store forecasts into every node of the hierarchy.

    Args:
        prediction: one cutoff of `prediction_daily` rows: `item_id, store_id, cutoff, ds, mean`,
            every series on every day of the horizon.

    Returns:
        `prediction_reconciled` rows, n_nodes x horizon, sorted by level, node, day.

    Raises:
        HierarchyError: no rows, several cutoffs, a series in no node, a series-day twice or
            missing, a forecast that is no number.
    """
    cutoff, days = _window(prediction)
    matrix = hierarchy.matrix(prediction, "mean", days[0], days[-1], day="ds")
    _refuse_gaps(matrix, hierarchy, days)
    return as_rows(hierarchy.aggregate(matrix), hierarchy, cutoff, days)


def as_rows(nodes: Floats, hierarchy: Hierarchy, cutoff: date, days: list[date]) -> pl.DataFrame:
    """Write a matrix [n_nodes, n_days] as `prediction_reconciled` rows, sorted."""
    order = hierarchy.nodes.with_row_index("row").sort("level", "node")["row"].to_numpy()
    names = hierarchy.nodes[order]
    rows = np.repeat(np.arange(hierarchy.n_nodes), len(days))
    long = pl.DataFrame(
        {
            "level": names["level"].gather(rows),
            "node": names["node"].gather(rows),
            "ds": pl.Series(days * hierarchy.n_nodes, dtype=pl.Date),
            "mean": nodes[order].reshape(-1),
        }
    )
    return TABLES["prediction_reconciled"].conform(long.with_columns(cutoff=pl.lit(cutoff)))


def _window(prediction: pl.DataFrame) -> tuple[date, list[date]]:
    cutoffs = prediction["cutoff"].unique().to_list()
    if len(cutoffs) != 1:
        raise HierarchyError(
            f"{len(cutoffs)} cutoffs in one prediction frame; reconcile one cutoff at a time"
        )
    first, last = prediction["ds"].min(), prediction["ds"].max()
    assert isinstance(first, date) and isinstance(last, date)
    return cutoffs[0], [first + timedelta(days=k) for k in range((last - first).days + 1)]


def _refuse_gaps(matrix: Floats, hierarchy: Hierarchy, days: list[date]) -> None:
    holes = ~np.isfinite(matrix)
    if not holes.any():
        return
    row, column = (int(at[0]) for at in np.nonzero(holes))
    raise HierarchyError(
        f"{hierarchy.names[-1][hierarchy.codes[-1][row]]} has no finite forecast on "
        f"{days[column]} ({int(holes.sum())} such cells in {int(holes.any(axis=1).sum())} "
        "series); every series needs one a day: publish the floor for it"
    )
