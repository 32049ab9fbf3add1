"""What each pruning of the gbm's features saves and costs: full beside reduced and minimal.

One fit a set at the first of four windows of M5, of the same examples, used for all of them.
`fit_cpu_s_<set>` and `predict_cpu_s_<set>` (a window); `wrmsse_<set>_<class>` is the item-stores'
revenue-weighted RMSSE by value class, the mean over the windows, before alignment.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from benchmarks import _past
from benchmarks._apart import apart
from forecast_core.calibration import classified
from forecast_core.evaluation import backtest, frontier
from forecast_core.evaluation.accuracy import scales
from forecast_core.evaluation.contest import Run
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs import gbm
from forecast_core.rungs.gbm import LEVELS, GbmSpec

HORIZON, AS_OF = 28, 1913
STORES = ("CA_1", "TX_2", "WI_3")
SETS = ("full", "reduced", "minimal")


def run(quick: bool) -> dict[str, float | int | str]:
    """Accuracy by value class and CPU-seconds of each set."""
    held = apart(_measure, STORES[:2] if quick else STORES, 200 if quick else 1000)
    return {**held.result, "peak_gb": held.peak_gb}


def _measure(stores: tuple[str, ...], items: int) -> dict[str, Any]:
    import lightgbm  # noqa: F401  # before any clock starts

    as_of = _past.day(AS_OF)
    windows = backtest.origins(as_of, HORIZON, 4)
    sales, calendar = _past.sales_of(stores, as_of, aligned=False, items=items)
    series = pl.concat(rows.select(LEVELS).unique() for rows in sales.values())
    past = _past.past_of(sales, calendar, windows)
    hierarchy = Hierarchy.of(series.sort("store_id", "item_id"))
    first = min(day for rows in sales.values() if isinstance(day := rows["date"].min(), date))
    known = {day: classified(past, series, day, _past.policy()) for day in windows}
    by = {
        day: scales(((s, past.sales(s, first, day)) for s in sales), hierarchy, first, day)
        for day in windows
    }
    figures: dict[str, Any] = {"series": series.height, "windows": len(windows)}
    for name in SETS:
        spec = replace(GbmSpec.of_size(name, series.height), threads=1)
        spec = replace(spec, per_origin=min(spec.per_origin, 6))
        parts, coding = backtest.gbm_examples(past, known[windows[0]], windows[0], HORIZON, spec)
        began = time.process_time()
        model = gbm.Model(gbm.fit(parts, coding, spec).artefact)
        figures |= {
            f"columns_{name}": len(gbm.columns(spec)),
            f"fit_cpu_s_{name}": time.process_time() - began,
        }
        began = time.process_time()
        rows = {day: backtest.run_gbm(past, model, known[day], day, HORIZON) for day in windows}
        figures[f"predict_cpu_s_{name}"] = (time.process_time() - began) / len(windows)
        errors = pl.concat(
            frontier.per_series(past, Run("gbm", day, day, rows[day], 0, 0), by[day]).join(
                known[day].select("item_id", "store_id", "abc"), on=["item_id", "store_id"]
            )
            for day in windows
        )
        for abc in ("A", "B", "C"):
            figures[f"wrmsse_{name}_{abc}"] = frontier.weighted_rmsse(errors.filter(abc=abc))
        figures[f"wrmsse_{name}"] = frontier.weighted_rmsse(errors)
    return figures
