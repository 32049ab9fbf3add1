"""Accuracy and what it cost: value added over the floor, by level, segment and rung.

Belongs here: scores of cutoffs, live accuracy, the frontier. Does not: scoring anything
(`forecast_core.evaluation.accuracy`, `.frontier`).
"""

from __future__ import annotations

import polars as pl

from dashboard.live import Live
from forecast_core.evaluation.frontier import frontier
from forecast_core.evaluation.live_accuracy import ALL

SCORED = "`forecast demo` or `forecast run` on data with actuals"
MEASURES = {"wrmsse": "WRMSSE", "wape": "WAPE", "bias": "bias"}


def scores(live: Live) -> pl.DataFrame:
    """cutoff, level, forecaster, wrmsse, wape, bias, series of every scored cutoff."""

    def ask() -> pl.DataFrame:
        table, handle = live.table("eval_accuracy", SCORED)
        columns = ["cutoff", "level", "forecaster", "wrmsse", "wape", "bias", "series"]
        return table.read(None, columns, handle=handle).frame.collect().sort(
            "cutoff", "level", "forecaster"
        )  # fmt: skip

    return live.of_tables("scores", ("eval_accuracy",), ask)


def value_per_cost(live: Live) -> pl.DataFrame:
    """The mart: value added over the floor by cutoff and level, and what a unit of money bought."""
    query = """select cutoff, level, series, fva_wape, fva_wrmsse, inference_cost, training_cost,
        billed_cost, fva_wape_per_unit_cost, fva_wrmsse_per_unit_cost
        from value_per_cost where environment = ? order by cutoff desc, level"""
    place = live.settings.environment
    return live.of_marts("value per cost", lambda: live.marts.query(query, [place]))


def backtests(live: Live) -> pl.DataFrame:
    """The newest backtest: a row a segment (or level), forecaster and window."""

    def ask() -> pl.DataFrame:
        made_by = "`forecast backtest`"
        newest = live.newest("eval_backtest", made_by)
        table, handle = live.table("eval_backtest", made_by)
        return table.read(None, None, pl.col("as_of") == newest, handle=handle).frame.collect()

    return live.of_tables("backtests", ("eval_backtest",), ask)


def segment_frontier(live: Live) -> pl.DataFrame:
    """Every rung in every segment: mean error, cost, value added, and whether it is efficient."""

    def ask() -> pl.DataFrame:
        rows = backtests(live).filter(scope="segment").rename({"name": "segment"})
        if "segment_group" not in rows.columns:
            rows = rows.with_columns(segment_group=pl.lit(""))
        return frontier(rows)

    return live.of_tables("frontier", ("eval_backtest",), ask)


def rung_totals(live: Live) -> pl.DataFrame:
    """Every rung over all segments: forecaster, usd, cpu_s (a window), wrmsse and fva at the
    item-store level, beside the money of a window."""

    def ask() -> pl.DataFrame:
        rows = backtests(live)
        cost = rows.filter(scope="segment").group_by("cutoff", "forecaster").agg(
            pl.col("usd").sum(), pl.col("cpu_s").sum(), pl.col("series").sum()
        )  # fmt: skip
        level = rows.filter(pl.col("scope") == "level", pl.col("name") == "Average")
        if level.is_empty():
            level = rows.filter(scope="level")
        error = level.group_by("cutoff", "forecaster").agg(
            pl.col("wrmsse").mean(), pl.col("fva_wrmsse").mean()
        )
        return (
            error.join(cost, on=["cutoff", "forecaster"], how="left")
            .group_by("forecaster")
            .agg(pl.col("wrmsse", "fva_wrmsse", "usd", "cpu_s", "series").mean(),
                 windows=pl.len())
            .sort("wrmsse")
        )  # fmt: skip

    return live.of_tables("rung totals", ("eval_backtest",), ask)


def monitored(live: Live) -> pl.DataFrame:
    """Live accuracy by day and segment group: wape, floor_wape, bias, coverage80, fva_wape."""

    def ask() -> pl.DataFrame:
        table, handle = live.table("monitor_accuracy", SCORED)
        whole = pl.all_horizontal(
            pl.col(name) == ALL for name in ("store_id", "forecaster", "horizon")
        )
        columns = ["cutoff", "segment_group", "series", "wape", "floor_wape", "bias", "coverage80",
                   "fva_wape"]  # fmt: skip
        rows = table.read(None, None, whole, handle=handle).frame.select(columns).collect()
        return rows.sort("cutoff", "segment_group")

    return live.of_tables("monitored", ("monitor_accuracy",), ask)
