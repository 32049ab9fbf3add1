"""Accuracy and cost of every rung in every segment of M5, over several windows, one beside another.

The contest of the backtest asset, run on whole stores: floor, statistical, gbm, and what the
policy publishes. Prints the table; the figures are the share of the floor's WRMSSE (item-store
level) that each rung avoids, and the points of it gained for a CPU-second.
"""

from __future__ import annotations

import time
from typing import Any

import polars as pl

from benchmarks import _past
from benchmarks._apart import apart
from forecast_core.evaluation import backtest, frontier
from forecast_core.evaluation.accuracy import scales
from forecast_core.evaluation.contest import Setup, contest
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs.gbm import LEVELS, GbmSpec

HORIZON, AS_OF = 28, 1913
STORES = ("CA_1", "TX_2", "WI_3")
USD_PER_CPU_S = 0.000011244  # the price card in the repository


def run(quick: bool) -> dict[str, float | int | str]:
    """FVA and cost by rung; one figure a segment and rung as `segment/rung/...`."""
    held = apart(_measure, STORES[:1] if quick else STORES, 400 if quick else None, quick)
    table: pl.DataFrame = held.result.pop("table")
    with pl.Config(tbl_rows=200, tbl_cols=20, tbl_width_chars=200, float_precision=3):
        shown = [
            "segment", "forecaster", "series", "wape", "wrmsse", "fva_wrmsse", "fva_worst",
            "cpu_ms_per_series", "wrmsse_gained_per_cpu_s", "wrmsse_gained_per_usd", "efficient",
        ]  # fmt: skip
        print(table.select(shown))
    figures: dict[str, float | int | str] = {**held.result}
    for row in table.iter_rows(named=True):
        if row["forecaster"] != "floor" and row["fva_wrmsse"] is not None:
            name = f"{row['segment']}/{row['forecaster']}"
            for figure in ("fva_wrmsse", "cpu_ms_per_series", "wrmsse_gained_per_cpu_s"):
                figures[f"{name}/{figure}"] = row[figure]
    return {**figures, "peak_gb": held.peak_gb}


def _measure(stores: tuple[str, ...], items: int | None, quick: bool) -> dict[str, Any]:
    import lightgbm  # noqa: F401  # before any clock starts
    import statsforecast.models  # noqa: F401

    as_of = _past.day(AS_OF)
    windows = backtest.origins(as_of, HORIZON, 3)
    sales, calendar = _past.sales_of(stores, as_of, items=items)
    series = pl.concat(rows.select(LEVELS).unique() for rows in sales.values())
    past = _past.past_of(sales, calendar, windows)
    spec = GbmSpec(threads=1, rounds=60) if quick else GbmSpec(threads=1, per_origin=4)
    setup = Setup(spec, trial_series=30 if quick else 150)
    held = contest(past, series, windows, HORIZON, _past.policy(), time.process_time, setup)
    hierarchy = Hierarchy.of(series.sort("store_id", "item_id"))
    first = min(rows["date"].min() for rows in sales.values())  # type: ignore[type-var]
    assert first is not None
    by = {
        day: scales(
            ((s, past.sales(s, first, day)) for s in sales),  # type: ignore[arg-type]
            hierarchy,
            first,  # type: ignore[arg-type]
            day,
        )
        for day in windows
    }
    scored = frontier.by_segment(past, held, by, USD_PER_CPU_S)
    whole = {}
    for name in ("statistical", "gbm", "governed"):
        mine = scored.filter(forecaster=name)
        gained, cpu_s = float(mine["wrmsse_gained"].sum()), float(mine["cpu_s"].sum())
        missed = float((mine["weight"] * mine["wrmsse"]).sum())
        whole[f"fva_wrmsse_{name}"] = gained / (gained + missed)
        whole[f"wrmsse_gained_per_cpu_s_{name}"] = gained / cpu_s
        whole[f"cpu_s_a_window_{name}"] = cpu_s / len(windows)
    return {
        **whole,
        "series": series.height,
        "windows": len(windows),
        "segments": scored["segment"].n_unique(),
        "table": frontier.frontier(scored),
    }
