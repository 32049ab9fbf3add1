"""Quantiles over one mean model, beside nine quantile boosters on the same examples.

Ours is what training does in the graph: the mean model on what is known at the cutoff, and beside
it the bounded trial whose errors calibrate the spread (`forecast_core.calibration`). The boosters
see the same features, examples and rounds, one LightGBM a quantile. Scored on the 28 days after
d_1913 for a sample of stores; the trial takes one store of the three (in the graph two of ten).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks import _past
from benchmarks._apart import apart, cpu_seconds
from forecast_core import calibration
from forecast_core.evaluation import backtest
from forecast_core.evaluation.accuracy import coverage, pinball
from forecast_core.evaluation.backtest import KEY, Past
from forecast_core.quantiles import LEVELS, column_of, pit_coverage, with_quantiles
from forecast_core.rungs import gbm

Floats = npt.NDArray[np.float64]
HORIZON, AS_OF = 28, 1913
CUTOFF = _past.day(AS_OF)
STORES = ("CA_1", "TX_2", "WI_3")
QUICK_ROUNDS = 60


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds with and without quantiles, and the pinball loss of both ways."""
    apart_ = apart(_measure, STORES[:2] if quick else STORES, QUICK_ROUNDS if quick else None)
    figures: dict[str, float | int | str] = apart_.result
    return {**figures, "peak_gb": apart_.peak_gb}


def _measure(stores: tuple[str, ...], rounds: int | None) -> dict[str, float | int | str]:
    import lightgbm  # noqa: F401  # before any clock starts
    import statsforecast.models  # noqa: F401

    policy = _past.policy()
    sales, calendar = _past.sales_of(stores, CUTOFF + timedelta(days=HORIZON))
    trials = backtest.origins(CUTOFF, HORIZON, 3)
    known = {store: rows.filter(pl.col("date") <= CUTOFF) for store, rows in sales.items()}
    first = trials[0] - timedelta(days=gbm.TRAINING_DAYS)
    features = _past.features_of(known, first, CUTOFF, (CUTOFF,))
    past = Past.of_frames(sales, features, calendar)
    series = pl.concat(rows.select(gbm.LEVELS).unique() for rows in known.values())
    spec = gbm.GbmSpec(threads=1) if rounds is None else gbm.GbmSpec(threads=1, rounds=rounds)

    examples_s, (examples, coding) = cpu_seconds(
        lambda: backtest.gbm_examples(past, series, CUTOFF, HORIZON, spec)
    )
    fit_s, fitted = cpu_seconds(lambda: gbm.fit(examples, coding, spec))
    model = gbm.Model(fitted.artefact)
    predict_s, published = cpu_seconds(
        lambda: backtest.run_gbm(past, model, series, CUTOFF, HORIZON)
    )
    before = Past.of_frames(known, features, calendar)  # the trial sees nothing of the horizon

    def spread_and_quantiles() -> tuple[pl.DataFrame, Floats]:
        tried = calibration.trial(before, series, CUTOFF, HORIZON, policy, 1, most=3_000)
        spread = calibration.spreads(tried.pairs).daily
        labels = calibration.classified(before, series, CUTOFF, policy).select(*KEY, "segment")
        rows = published.join(labels, on=list(KEY), how="left", maintain_order="left")
        found = with_quantiles(rows, rows["segment"], spread)
        return found, spread.inflation(rows["mean"].to_numpy(), rows["segment"])

    quantiles_s, (ours, inflation) = cpu_seconds(spread_and_quantiles)
    scored = backtest.sold(past, ours)
    units = scored["units"].fill_null(float("nan")).to_numpy()
    seen = np.isfinite(units)
    q = {level: scored[column_of(level)].to_numpy() for level in LEVELS}
    mean_s = examples_s + fit_s + predict_s
    loss = _loss(lambda level: q[level], units, seen)
    boosters_s, boosters = cpu_seconds(lambda: _boosters(past, series, model, examples, spec))
    peer = _loss(lambda level: boosters[level], units, seen)
    mean = scored["mean"].to_numpy()
    return {
        "ratio_cpu": (mean_s + quantiles_s) / mean_s,
        "pinball_ratio": loss / peer,
        "coverage80_pct": 100 * pit_coverage(units[seen], mean[seen], inflation[seen], 0.1, 0.9),
        "coverage80_whole_units_pct": 100 * coverage(q[0.1], q[0.9], units),
        "boosters_coverage80_pct": 100 * coverage(boosters[0.1], boosters[0.9], units),
        "pinball_units": loss,
        "boosters_pinball_units": peer,
        "mean_model_cpu_s": mean_s,
        "quantiles_cpu_s": quantiles_s,
        "boosters_cpu_s": boosters_s,
        "boosters_ratio_cpu": (examples_s + boosters_s) / mean_s,
        "series": series.height,
        "examples": sum(len(part.y) for part in examples),
        "rounds": spec.rounds,
        "quantiles": len(LEVELS),
        "horizon_days": HORIZON,
    }


def _loss(of: Callable[[float], Floats], units: Floats, known: npt.NDArray[np.bool_]) -> float:
    each = [pinball(of(level)[known], units[known], level).mean() for level in LEVELS]
    return float(np.mean(each))


def _boosters(
    past: Past,
    series: pl.DataFrame,
    model: gbm.Model,
    examples: list[gbm.Examples],
    spec: gbm.GbmSpec,
) -> dict[float, Floats]:
    """Nine models and their forecasts, put in order where they cross, as a user would."""
    import lightgbm as lgb

    x, y = (np.concatenate(parts) for parts in zip(*((e.x, e.y) for e in examples), strict=True))
    names = model.booster.feature_name()
    categorical = [name for name in names if name in gbm._CATEGORICAL]
    found = []
    for level in LEVELS:
        data = lgb.Dataset(x, y, feature_name=names, categorical_feature=categorical)
        parameters: dict[str, Any] = {**gbm._parameters(spec, len(y)), "objective": "quantile"}
        model.booster = lgb.train({**parameters, "alpha": level}, data, spec.rounds)
        rows = backtest.run_gbm(past, model, series, CUTOFF, HORIZON)
        found.append(rows["mean"].to_numpy())
    ordered = np.maximum.accumulate(np.stack(found, axis=1), axis=1)
    return {level: ordered[:, k] for k, level in enumerate(LEVELS)}
