"""What each way of adding up is worth: bottom-up beside MinT, over earlier windows of M5.

The item-stores' forecasts are those published (rungs by the policy, aligned); the coarse levels
forecast themselves as in the graph. `ratio_wrmsse_<method>` is the mean over the windows of its
WRMSSE over bottom-up's: above 1 it loses. CPU is that of a night, its factor at hand.

`weekly_<level>_<method>` is of M5 summed to weeks, where nothing has been bent: the floor for every
item-store, and the mean over three windows of a level's root mean squared error over its mean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks import _m5, _past
from benchmarks._apart import apart
from forecast_core.evaluation import backtest
from forecast_core.evaluation.accuracy import Scales, scales, score
from forecast_core.evaluation.contest import GOVERNED, Setup, contest
from forecast_core.hierarchy import Floats, Hierarchy
from forecast_core.node_forecasts import (
    DAYS,
    WEEKS,
    NodeSales,
    error_variance,
    forecast_nodes,
    node_sales,
)
from forecast_core.reconcile import Mint, structural_variance
from forecast_core.rungs.gbm import LEVELS, GbmSpec

HORIZON, AS_OF, OWN_NODES = 28, 1913, 400
STORES = ("CA_1", "TX_2", "WI_3")
METHODS = ("bottom_up", "wls_struct", "wls_var")
WEEKS_AHEAD = 8
WEEKLY_SHOWN: dict[str, tuple[str, ...]] = {
    "total": (), "store": ("store_id",), "item_store": ("item_id", "store_id"),
}  # fmt: skip
SHOWN = {"average": "Average", "item_store": "item_id/store_id", "total": "Total"}


def run(quick: bool) -> dict[str, float | int | str]:
    """WRMSSE of each method by window and level, and what a night of it takes."""
    held = apart(_measure, STORES[:2] if quick else STORES, 120 if quick else 365)
    weeks = apart(_weekly, 1 if quick else None)
    return {**held.result, "peak_gb": held.peak_gb, **weeks.result}


def _measure(stores: tuple[str, ...], items: int) -> dict[str, Any]:
    import lightgbm  # noqa: F401  # before any clock starts
    import statsforecast.models  # noqa: F401

    as_of = _past.day(AS_OF)
    windows = backtest.origins(as_of, HORIZON, 4)
    sales, calendar = _past.sales_of(stores, as_of, items=items)
    series = pl.concat(rows.select(LEVELS).unique() for rows in sales.values())
    past = _past.past_of(sales, calendar, windows)
    spec = replace(GbmSpec.of_size("full", series.height), threads=1)
    held = contest(
        past, series, windows, HORIZON, _past.policy(), time.process_time,
        Setup(replace(spec, per_origin=min(spec.per_origin, 6)), trial_series=1),
    )  # fmt: skip
    hierarchy = Hierarchy.of(series.sort("store_id", "item_id"))
    first = min(day for rows in sales.values() if isinstance(day := rows["date"].min(), date))
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for day in windows:
        rows = next(r.rows for r in held.runs if (r.cutoff, r.forecaster) == (day, GOVERNED))
        by = scales(((s, past.sales(s, first, day)) for s in sales), hierarchy, first, day)
        for method, of in _night(past, by, rows).items():
            found[method].append(of)
    figures: dict[str, Any] = {"series": series.height, "windows": len(windows)}
    for method, each in found.items():
        for name in (*SHOWN, "cpu_s"):
            figures[f"{name}_{method}"] = float(np.mean([of[name] for of in each]))
        pairs = zip(each, found["bottom_up"], strict=True)
        ratios = [of["average"] / best["average"] for of, best in pairs]
        figures[f"ratio_wrmsse_{method}"] = float(np.mean(ratios))
        figures[f"windows_won_{method}"] = sum(ratio < 1 for ratio in ratios)
    return figures


def _night(past: backtest.Past, by: Scales, rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    """One window: scores of every method, and the CPU-seconds beyond the sums."""
    hierarchy, cutoff = by.hierarchy, by.cutoff
    first, last = cutoff + timedelta(days=1), cutoff + timedelta(days=HORIZON)
    stores = hierarchy.series["store_id"].unique().sort().to_list()
    sold = pl.concat(past.sales(store, first, last) for store in stores)
    truth = hierarchy.matrix(sold, "units", first, last)
    bottom = hierarchy.matrix(rows, "mean", first, last, day="ds")
    coarse = hierarchy.coarse(OWN_NODES)

    def history() -> Iterator[tuple[str, pl.DataFrame]]:
        since = cutoff - timedelta(days=DAYS.history - 1)
        return ((store, past.sales(store, since, cutoff)) for store in stores)

    began = time.process_time()
    known = node_sales(history(), coarse, cutoff)
    base, variances = _heard(known, coarse, bottom)
    shared = time.process_time() - began
    out = {"bottom_up": {**_scores(bottom, truth, by), "cpu_s": 0.0}}
    for method, variance in variances.items():
        factor = Mint.factor(coarse, variance)
        began = time.process_time()
        moved = factor.reconcile(base)[coarse.bottom]
        spent = shared + time.process_time() - began
        out[method] = {**_scores(moved, truth, by), "cpu_s": spent}
    return out


def _heard(known: NodeSales, coarse: Hierarchy, bottom: Floats) -> tuple[Floats, dict[str, Floats]]:
    """Base forecasts of every node, the coarse ones their own, and the variance of each method."""
    nodes = forecast_nodes(known, coarse, bottom.shape[1])
    base = np.empty((coarse.n_nodes, bottom.shape[1]))
    base[: len(nodes.mean)], base[coarse.bottom] = nodes.mean, bottom
    return base, {
        "wls_struct": structural_variance(coarse),
        "wls_var": error_variance(known, nodes, coarse),
    }


def _weekly(stores: int | None) -> dict[str, float]:
    days = 7 * (AS_OF // 7)
    panel = _m5.panel(days, stores, until=days)
    series = panel.series.with_columns(
        units=pl.Series(panel.units.reshape(len(panel.units), -1, 7).sum(axis=2))
    ).sort("store_id", "item_id")
    units = series["units"].to_numpy()
    hierarchy = Hierarchy.of(series.drop("units"))
    coarse = hierarchy.coarse(OWN_NODES)
    each: dict[str, list[float]] = {}
    for windows_back in (3, 2, 1):
        end = units.shape[1] - WEEKS_AHEAD * windows_back
        past, truth = units[:, end - WEEKS.history : end], units[:, end : end + WEEKS_AHEAD]
        tried, recent = past[:, : -WEEKS.held_back], -WEEKS.recent
        missed = past[:, -WEEKS.held_back :] - tried[:, recent:].mean(axis=1, keepdims=True)
        known = NodeSales(coarse.aggregate_above(past), missed, WEEKS)
        bottom = np.repeat(past[:, recent:].mean(axis=1, keepdims=True), WEEKS_AHEAD, axis=1)
        base, variances = _heard(known, coarse, bottom)
        served = {"bottom_up": bottom} | {
            method: Mint.factor(coarse, variance).reconcile(base)[coarse.bottom]
            for method, variance in variances.items()
        }
        for method, forecast in served.items():
            told, sold = (hierarchy.aggregate(of) for of in (forecast, truth))
            for name, level in WEEKLY_SHOWN.items():
                span = hierarchy.spans[hierarchy.levels.index(level)]
                miss = np.sqrt(((told[span] - sold[span]) ** 2).mean()) / sold[span].mean()
                each.setdefault(f"weekly_{name}_{method}", []).append(float(miss))
    return {name: float(np.mean(found)) for name, found in each.items()}


def _scores(forecast: Floats, truth: Floats, by: Scales) -> dict[str, float]:
    levels = dict(score(forecast, truth, by).select("level", "wrmsse").iter_rows())
    return {name: float(levels[level]) for name, level in SHOWN.items()}
