"""History summed to the twelve M5 levels, beside hierarchicalforecast's `aggregate`.

Both take the same long polars frame of item-store-days and give the same long frame of
node-days; both learn the hierarchy from it. The peer cannot hold all 1,941 days in the memory
of a common machine, so the comparison runs on as many as it can, and ours alone on all of them,
a store at a time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks._apart import apart, cpu_seconds
from benchmarks._m5 import ATTRIBUTES, DAYS, Panel, panel
from forecast_core.hierarchy import M5_LEVELS, Hierarchy, level_name
from forecast_core.reconcile import as_rows

PEER_DAYS, QUICK_DAYS = 448, 28
BOTTOM = ["total", *ATTRIBUTES]  # the peer wants every column in its last level


def run(quick: bool) -> dict[str, float | int | str]:
    """Same values first; then CPU-seconds and peak memory of both."""
    days = QUICK_DAYS if quick else PEER_DAYS
    with tempfile.TemporaryDirectory() as scratch:
        ours = apart(_ours, days, str(Path(scratch) / "ours.parquet"))
        peer = apart(_peer, days, str(Path(scratch) / "peer.parquet"))
        nodes, differs = _compare(scratch)
    if differs > 1e-9:
        raise SystemExit(f"the sums differ by {differs}: no ratio")
    figures: dict[str, float | int | str] = {
        "ratio_cpu": peer.result / ours.result["rows_s"],
        "max_abs_diff": differs,
        "ours_cpu_s": ours.result["rows_s"],
        "ours_matrix_only_cpu_s": ours.result["matrix_s"],
        "peer_cpu_s": peer.result,
        "ours_peak_gb": ours.peak_gb,
        "peer_peak_gb": peer.peak_gb,
        "nodes": nodes,
        "days": days,
        "peer": "hierarchicalforecast.utils.aggregate (polars, sparse_s=True)",
    }
    if not quick:
        whole = apart(_ours_whole)
        figures |= {
            "ours_all_days_cpu_s": whole.result["cpu_s"],
            "ours_all_days_peak_gb": whole.peak_gb,
            "all_days": DAYS,
            "all_days_units": whole.result["units"],
        }
    return figures


def _ours(days: int, path: str) -> dict[str, float]:
    import scipy.sparse  # noqa: F401  # imported before the clock starts, as the peer is

    bottom = panel(days)
    history = bottom.long()

    def matrix() -> tuple[Hierarchy, np.ndarray]:
        hierarchy = Hierarchy.of_history(history)
        laid = hierarchy.matrix(history, "y", bottom.days[0], bottom.days[-1], day="ds")
        return hierarchy, hierarchy.aggregate(laid)

    def rows() -> pl.DataFrame:
        hierarchy, nodes = matrix()
        return as_rows(nodes, hierarchy, bottom.days[-1], bottom.days)

    matrix_s, _ = cpu_seconds(matrix, repeats=4)
    rows_s, long = cpu_seconds(rows, repeats=4)
    long.select("level", "node", "ds", "mean").write_parquet(path)
    return {"matrix_s": matrix_s, "rows_s": rows_s}


def _peer(days: int, path: str) -> float:
    from hierarchicalforecast.utils import aggregate

    history = panel(days).long().with_columns(total=pl.lit("Total"))
    spec = [list(level) or ["total"] for level in M5_LEVELS[:-1]] + [BOTTOM]
    warm = history.filter(pl.col("ds") == history["ds"][0])
    aggregate(warm, spec, sparse_s=True)
    cpu_s, (long, _, _) = cpu_seconds(lambda: aggregate(history, spec, sparse_s=True))
    long.write_parquet(path)
    return cpu_s


def _compare(scratch: str) -> tuple[int, float]:
    """Number of nodes, and the largest difference of any node on any day."""
    ours = pl.scan_parquet(Path(scratch) / "ours.parquet")
    parts = pl.col("unique_id").str.split("/")
    is_bottom = parts.list.len() == len(BOTTOM)
    at = {name: BOTTOM.index(name) for name in M5_LEVELS[-1]}
    bottom = pl.concat_str(
        [parts.list.get(k, null_on_oob=True) for k in at.values()], separator="/"
    )
    peer = pl.scan_parquet(Path(scratch) / "peer.parquet").select(
        is_bottom.alias("is_bottom"),
        pl.when(is_bottom).then(bottom).otherwise(pl.col("unique_id")).alias("node"),
        pl.col("ds"),
        "y",
    )
    # A node of one level may bear the name of another's; the bottom alone is the large one.
    ours = ours.with_columns(is_bottom=pl.col("level") == level_name(M5_LEVELS[-1]))
    joined = ours.join(peer, on=["is_bottom", "node", "ds"], how="full").select(
        nodes=pl.col("node").n_unique(),
        differs=(pl.col("mean") - pl.col("y")).abs().max(),
        lost=(pl.col("mean").is_null() | pl.col("y").is_null()).sum(),
    )
    nodes, differs, lost = joined.collect().row(0)
    return int(nodes), float("inf") if lost else float(differs)


def _ours_whole() -> dict[str, float]:
    """All of M5, a store at a time: sums of every node on every day, in memory at the end."""
    every = panel(DAYS)
    hierarchy = Hierarchy.of(every.series)
    nodes = np.zeros((hierarchy.n_nodes, DAYS))
    cpu_s = 0.0
    for store in every.series["store_id"].unique(maintain_order=True):
        rows = np.nonzero((every.series["store_id"] == store).to_numpy())[0]
        history = Panel(every.series[rows], every.units[rows], every.days).long()

        def add(history: pl.DataFrame = history, rows: np.ndarray = rows) -> None:
            part, where = hierarchy.take(rows)
            laid = part.matrix(history, "y", every.days[0], every.days[-1], day="ds")
            nodes[where] += part.aggregate(laid)

        cpu_s += cpu_seconds(add)[0]
    return {"cpu_s": cpu_s, "units": float(nodes[0].sum())}
