"""A night of MinT over the twelve M5 levels, beside hierarchicalforecast's sparse MinT.

Both go through frames: base forecasts of every node as a long polars frame in, reconciled
forecasts as a long frame out. Ours reads its factor back from bytes beforehand (that is what is
cached between nights); the peer gets its summing matrix and tags beforehand. It solves by an
iteration of loose tolerance and ignores its exit code, so the gate on values is twofold: equal to
its dense, exact MinT on a part of the hierarchy, and as near to the sparse one as that one is to
the exact optimum on all of it.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks._apart import apart, cpu_seconds
from benchmarks._m5 import ATTRIBUTES, Panel, panel
from forecast_core.hierarchy import M5_LEVELS, Hierarchy
from forecast_core.reconcile import (
    Mint,
    as_rows,
    coherence_residual,
    residual_variance,
    structural_variance,
)

Floats = npt.NDArray[np.float64]
HORIZON, WEEKS = 28, 8
METHODS = ("wls_struct", "wls_var")
BOTTOM = ["total", *ATTRIBUTES]
DENSE_STORES, DENSE_ITEMS = 4, 60


def run(quick: bool) -> dict[str, float | int | str]:
    """Same values first; then CPU-seconds of a night and peak memory of both."""
    stores = 2 if quick else None
    exact = apart(_against_dense).result
    if exact > 1e-6:
        raise SystemExit(f"differs from the dense MinT by {exact}: no ratio")
    figures: dict[str, float | int | str] = {"max_abs_diff": exact}
    for method in METHODS:
        ours, peer = apart(_ours, stores, method), apart(_peer, stores, method)
        differs, excess = _compare(stores, method, ours.result.pop("bottom"), peer.result)
        if ours.result["residual"] > 1e-10 or excess < -1e-12:
            raise SystemExit(f"{method}: not the exact optimum ({ours.result}, {excess})")
        figures |= {
            f"ratio_cpu_{method}": peer.result["night_s"] / ours.result["night_s"],
            f"ours_cpu_s_{method}": ours.result["night_s"],
            f"ours_nonnegative_cpu_s_{method}": ours.result["nonnegative_s"],
            f"ours_factor_once_cpu_s_{method}": ours.result["factor_s"],
            f"peer_cpu_s_{method}": peer.result["night_s"],
            f"residual_before_projection_{method}": ours.result["residual"],
            f"peer_residual_of_its_solver_{method}": differs,
            f"peer_excess_over_optimum_{method}": excess,
            f"ours_peak_gb_{method}": ours.peak_gb,
            f"peer_peak_gb_{method}": peer.peak_gb,
            "factor_mb": ours.result["factor_mb"],
            "nodes": ours.result["nodes"],
        }
    figures |= _nonnegative(stores, float(figures["ours_nonnegative_cpu_s_wls_var"]))
    slowest = min(METHODS, key=lambda method: float(figures[f"ratio_cpu_{method}"]))
    return {
        "ratio_cpu": figures[f"ratio_cpu_{slowest}"],
        "ours_cpu_s": figures[f"ours_cpu_s_{slowest}"],
        "peer_cpu_s": figures[f"peer_cpu_s_{slowest}"],
        **figures,
        "horizon_days": HORIZON,
        "peer": "hierarchicalforecast MinTraceSparse through HierarchicalReconciliation",
    }


def _night(bottom: Panel) -> tuple[Hierarchy, Floats, Floats, Floats, list[date]]:
    """Hierarchy, base forecasts, past values and past fits of every node, and the days ahead.

    The base forecast of a node is the median of its last weeks' same weekdays: made at each
    node on its own, so the levels do not agree.
    """
    hierarchy = Hierarchy.of(bottom.series)
    past = hierarchy.aggregate(bottom.units)
    week = np.median(past.reshape(len(past), WEEKS, 7), axis=1)
    ahead = [bottom.days[-1] + timedelta(days=k + 1) for k in range(HORIZON)]
    base = np.tile(week, HORIZON // 7)
    return hierarchy, base, past, np.tile(week, WEEKS), ahead


def _base_rows(hierarchy: Hierarchy, base: Floats, ahead: list[date]) -> pl.DataFrame:
    return as_rows(base, hierarchy, ahead[0] - timedelta(days=1), ahead)


def _variance(hierarchy: Hierarchy, past: Floats, fit: Floats, method: str) -> Floats:
    if method == "wls_struct":
        return structural_variance(hierarchy)
    return residual_variance(past - fit, least=_LEAST)


# The peer refuses a variance below 1e-8 and offers no floor, so both are given errors above one.
_LEAST = 1e-6


def _nonnegative(stores: int | None, ours_s: float) -> dict[str, float]:
    """Non-negative wls_var: our projections beside the peer's quadratic programme."""
    hierarchy, base, past, fit, _ = _night(_panel(stores))
    variance = _variance(hierarchy, past, _jittered(fit), "wls_var")
    ours = Mint.factor(hierarchy, variance).reconcile(base)[hierarchy.bottom]
    peer = apart(_peer, stores, "wls_var", True).result
    excess = _objective(hierarchy, base, variance, ours) / _objective(
        hierarchy, base, variance, peer["bottom"]
    )
    if excess > 1 + 1e-6:
        raise SystemExit(f"non-negative: {excess - 1} above the peer's optimum, no ratio")
    return {
        "ratio_cpu_nonnegative": peer["night_s"] / ours_s,
        "peer_nonnegative_cpu_s": peer["night_s"],
        "nonnegative_objective_over_peer": excess,
        "nonnegative_max_abs_diff": float(np.abs(ours - peer["bottom"]).max()),
    }


def _objective(hierarchy: Hierarchy, base: Floats, variance: Floats, bottom: Floats) -> float:
    """What MinT makes least: squared moves of every node over its error variance."""
    error = hierarchy.aggregate(bottom) - base
    return float((error**2 / variance[:, None]).sum())


def _ours(stores: int | None, method: str) -> dict[str, Any]:
    hierarchy, base, past, fit, ahead = _night(_panel(stores))
    variance = _variance(hierarchy, past, _jittered(fit), method)
    factor_s, factor = cpu_seconds(lambda: Mint.factor(hierarchy, variance))
    stored = factor.to_bytes()
    factor = Mint.from_bytes(hierarchy, stored)
    rows = _base_rows(hierarchy, base, ahead)

    def night() -> pl.DataFrame:
        laid = hierarchy.node_matrix(rows, "mean", ahead[0], ahead[-1])
        return as_rows(factor.adjust(laid), hierarchy, ahead[0], ahead)

    def nonnegative() -> pl.DataFrame:
        laid = hierarchy.node_matrix(rows, "mean", ahead[0], ahead[-1])
        return as_rows(factor.reconcile(laid), hierarchy, ahead[0], ahead)

    adjusted = factor.adjust(base)
    published = factor.reconcile(base)
    if published.min() < 0 or coherence_residual(published, hierarchy) > 0:
        raise ValueError("published forecasts are negative or do not add up")
    return {
        "factor_s": factor_s,
        "factor_mb": len(stored) / 1e6,
        "night_s": cpu_seconds(night, repeats=9)[0],
        "nonnegative_s": cpu_seconds(nonnegative, repeats=3)[0],
        "residual": coherence_residual(adjusted, hierarchy),
        "bottom": adjusted[hierarchy.bottom],
        "nodes": hierarchy.n_nodes,
    }


def _panel(stores: int | None) -> Panel:
    return panel(7 * WEEKS, stores)


def _jittered(fit: Floats) -> Floats:
    """Fits with a fixed, tiny spread, so that no node has a residual variance of zero."""
    return fit + np.random.default_rng(0).normal(0.0, 0.05, fit.shape)


def _peer(stores: int | None, method: str, nonnegative: bool = False) -> dict[str, Any]:
    from hierarchicalforecast.core import HierarchicalReconciliation
    from hierarchicalforecast.methods import MinTraceSparse

    return _through_frames(
        _panel(stores),
        method,
        HierarchicalReconciliation([MinTraceSparse(method, nonnegative=nonnegative)]),
    )


def _through_frames(bottom: Panel, method: str, reconciler: Any) -> dict[str, Any]:
    from hierarchicalforecast.utils import aggregate

    hierarchy, base, past, fit, ahead = _night(bottom)
    history = bottom.long().with_columns(total=pl.lit("Total"))
    spec = [list(level) or ["total"] for level in M5_LEVELS[:-1]] + [BOTTOM]
    dense = "Sparse" not in type(reconciler.reconcilers[0]).__name__
    first_day = history.filter(pl.col("ds") == bottom.days[0])
    _, summing, tags = aggregate(first_day, spec, sparse_s=not dense)
    ids = _peer_ids(hierarchy)
    forecasts = _peer_rows(ids, ahead, {"base": base})
    insample = _peer_rows(ids, bottom.days, {"y": past, "base": _jittered(fit)})

    def night() -> Any:
        return reconciler.reconcile(
            Y_hat_df=forecasts,
            Y_df=insample if method == "wls_var" else None,
            S_df=summing,
            tags=tags,
        )

    night_s, reconciled = cpu_seconds(night, repeats=3 if method == "wls_struct" else 1)
    name = next(c for c in reconciled.columns if c.startswith("base/"))
    order = {name: k for k, name in enumerate(ids)}
    found = reconciled.with_columns(row=pl.col("unique_id").replace_strict(order)).sort("row", "ds")
    nodes = found[name].to_numpy().reshape(len(ids), HORIZON)
    return {"night_s": night_s, "bottom": nodes[hierarchy.bottom]}


def _peer_ids(hierarchy: Hierarchy) -> list[str]:
    """The peer's name of every node: ours, but for the bottom, which spells out every column."""
    above = hierarchy.nodes["node"].to_list()[: -hierarchy.n_series]
    full = hierarchy.series.select(pl.lit("Total").alias("total"), pl.all()).select(
        pl.concat_str(BOTTOM, separator="/")
    )
    bottom = np.empty(hierarchy.n_series, dtype=object)
    bottom[hierarchy.codes[-1]] = full.to_series().to_list()
    return [*above, *bottom]


def _peer_rows(ids: list[str], days: list[date], columns: dict[str, Floats]) -> pl.DataFrame:
    rows = pl.DataFrame({"unique_id": ids}).join(
        pl.DataFrame({"ds": days}), how="cross", maintain_order="left_right"
    )
    return rows.with_columns(
        **{name: pl.Series(values.reshape(-1)) for name, values in columns.items()}
    )


def _compare(
    stores: int | None, method: str, ours: Floats, peer: dict[str, Any]
) -> tuple[float, float]:
    """Largest difference at the bottom, and how far above ours the peer's objective is."""
    hierarchy, base, past, fit, _ = _night(_panel(stores))
    variance = _variance(hierarchy, past, _jittered(fit), method)

    least = _objective(hierarchy, base, variance, ours)
    differs = float(np.abs(ours - peer["bottom"]).max())
    return differs, _objective(hierarchy, base, variance, peer["bottom"]) / least - 1.0


def _against_dense() -> float:
    """The largest difference to the peer's dense MinT, over both variances, on a part of M5."""
    from hierarchicalforecast.core import HierarchicalReconciliation
    from hierarchicalforecast.methods import MinTrace

    whole = panel(7 * WEEKS, DENSE_STORES)
    items = whole.series["item_id"].unique(maintain_order=True)[:: 3049 // DENSE_ITEMS]
    rows = np.nonzero(whole.series["item_id"].is_in(items.to_list()).to_numpy())[0]
    part = Panel(whole.series[rows], whole.units[rows], whole.days)
    hierarchy, base, past, fit, _ = _night(part)
    worst = 0.0
    for method in METHODS:
        dense = _through_frames(part, method, HierarchicalReconciliation([MinTrace(method)]))
        # The dense peer takes the mean square of the errors, about zero, plus 2e-8.
        variance = (
            structural_variance(hierarchy)
            if method == "wls_struct"
            else ((past - _jittered(fit)) ** 2).mean(axis=1) + 2e-8
        )
        ours = Mint.factor(hierarchy, variance).adjust(base)[hierarchy.bottom]
        worst = max(worst, float(np.abs(ours - dense["bottom"]).max()))
    return worst
