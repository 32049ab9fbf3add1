"""The neural rung beside the gbm on the series that it is meant for: accuracy and CPU-seconds.

High revenue, volatile, sold daily: class A, erratic, active. Each network is fitted in a process
of its own with one thread at the first window and used for all of them, as is the gbm, which
learns from these series alone or, as in the policy, from all of the stores' series.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import polars as pl

from benchmarks import _past
from benchmarks._apart import apart, cpu_seconds
from forecast_core.calibration import classified
from forecast_core.evaluation import backtest, frontier
from forecast_core.evaluation.accuracy import scales
from forecast_core.evaluation.backtest import KEY, Past
from forecast_core.evaluation.contest import Run
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs import gbm
from forecast_core.rungs.neural import NETWORKS, NeuralSpec
from resources import neural_process
from resources.meter_share import cpu_clock

HORIZON, AS_OF = 28, 1913
STORES = ("CA_1", "TX_2", "WI_3")


def run(quick: bool) -> dict[str, float | int | str]:
    """Weighted RMSSE by forecaster over three windows, and CPU-seconds of fit and forecasts."""
    held = apart(_measure, STORES[:1] if quick else STORES, quick)
    figures: dict[str, float | int | str] = {**held.result, "peak_gb": held.peak_gb}
    return figures


def _measure(stores: tuple[str, ...], quick: bool) -> dict[str, Any]:
    import lightgbm  # noqa: F401  # before any clock starts

    as_of = _past.day(AS_OF)
    windows = backtest.origins(as_of, HORIZON, 3)
    sales, calendar = _past.sales_of(stores, as_of, aligned=False)
    series = pl.concat(rows.select(gbm.LEVELS).unique() for rows in sales.values())
    past = _past.past_of(sales, calendar, windows)
    members = classified(past, series, windows[0], _past.policy())
    chosen = members.filter(abc="A", demand_class="erratic", life_stage="active")
    runs: list[Run] = []
    spent: dict[str, float] = {}
    spec = gbm.GbmSpec(threads=1, rounds=60) if quick else gbm.GbmSpec(threads=1, per_origin=4)
    shared = members.filter(pl.col("life_stage") != "inactive")
    for name, learnt in (("gbm", shared), ("gbm_alone", chosen)):
        spent[name], model = cpu_seconds(
            lambda learnt=learnt: gbm.Model(  # type: ignore[misc]
                backtest.fit_gbm(past, learnt, windows[0], HORIZON, spec).artefact
            )
        )
        for day in windows:
            used, rows = cpu_seconds(
                lambda day=day, model=model: backtest.run_gbm(  # type: ignore[misc]
                    past, model, chosen, day, HORIZON
                )
            )
            spent[name] += used
            runs.append(Run(name, day, windows[0], rows, 0.0, used))
    spent["gbm_share"] = spent["gbm"] * chosen.height / shared.height
    history = _history(past, chosen, windows)
    small = replace(NeuralSpec(), steps=60) if quick else NeuralSpec()
    for network in NETWORKS[:1] if quick else NETWORKS:
        began = cpu_clock()
        fitted = neural_process.fit(history, windows[0], replace(small, network=network))
        for day in windows:
            rows = neural_process.predict(fitted.artefact, history, day)
            runs.append(Run(network, day, windows[0], _named(rows, chosen), 0.0, 0.0))
        spent[network] = cpu_clock() - began
    for day in windows:
        runs.append(Run("floor", day, day, backtest.run_floor(past, chosen, day, HORIZON), 0, 0))
    return {
        "series": chosen.height,
        "windows": len(windows),
        **{f"wrmsse_{name}": score for name, score in _scores(past, chosen, runs).items()},
        **{f"cpu_s_{name}": seconds for name, seconds in spent.items()},
    }


def _history(past: Past, chosen: pl.DataFrame, windows: list[date]) -> pl.DataFrame:
    from datetime import timedelta

    since = windows[0] - timedelta(days=NeuralSpec().history_days)
    parts = []
    for (store,), own in chosen.partition_by("store_id", as_dict=True).items():
        sales = past.sales(str(store), since, max(windows))
        parts.append(sales.join(own.select("item_id"), on="item_id", how="semi"))
    return pl.concat(parts).select(
        pl.concat_str("item_id", "store_id", separator="|").alias("unique_id"),
        ds="date",
        y="units",
    )


def _named(rows: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    names = chosen.select(KEY).with_columns(
        unique_id=pl.concat_str("item_id", "store_id", separator="|")
    )
    return rows.join(names, on="unique_id").select(list(backtest.MEANS))


def _scores(past: Past, chosen: pl.DataFrame, runs: list[Run]) -> dict[str, float]:
    """Revenue-weighted RMSSE of the series, the mean over windows."""
    hierarchy = Hierarchy.of(chosen.select(gbm.LEVELS).sort("store_id", "item_id"))
    found: dict[str, list[float]] = {}
    first = past.sales(chosen["store_id"][0], date(2011, 1, 1), date(2016, 12, 31))["date"].min()
    assert isinstance(first, date)
    for day in sorted({run.cutoff for run in runs}):
        history = (
            (s, past.sales(s, first, day).join(chosen.select(KEY), on=list(KEY), how="semi"))
            for s in chosen["store_id"].unique().sort()
        )
        by = scales(history, hierarchy, first, day)
        for run in (run for run in runs if run.cutoff == day):
            score = frontier.weighted_rmsse(frontier.per_series(past, run, by))
            found.setdefault(run.forecaster, []).append(score)
    return {name: sum(each) / len(each) for name, each in found.items()}
