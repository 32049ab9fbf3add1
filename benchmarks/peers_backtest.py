"""Three backtest windows over the cost of one fit, beside mlforecast's, on the same windows.

Ours builds features and examples once, fits at the first window and forecasts all three with it:
what the policy's cadence does between two trainings. mlforecast's `cross_validation` fits anew at
each window; with `refit=False` it fits once too. Both ways of the peer are shown, and ours with a
fit at each window. Same series, days, rounds and leaves; the windows are checked to be the same.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks import _past
from benchmarks._apart import apart, cpu_seconds
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import Past
from forecast_core.rungs import gbm, origin_features

HORIZON, WINDOWS, LAST = 28, 3, 1941
STORES = ("CA_1", "TX_2", "WI_3")
ROUNDS = 250
DAYS = gbm.TRAINING_DAYS


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds of a fit and of a backtest of both, and their ratios."""
    size = (STORES[:1], 300, 60) if quick else (STORES, None, ROUNDS)
    ours, peer = apart(_ours, *size), apart(_peer, *size)
    if ours.result["windows"] != peer.result["windows"]:
        raise SystemExit(f"windows differ: {ours.result['windows']}, {peer.result['windows']}")
    return {
        "ratio_cpu": ours.result["backtest_s"] / ours.result["fit_s"],
        "peer_ratio_cpu": peer.result["backtest_s"] / peer.result["fit_s"],
        "ratio_cpu_refit": ours.result["refit_s"] / ours.result["fit_s"],
        "peer_ratio_cpu_one_fit": peer.result["one_fit_s"] / peer.result["fit_s"],
        "ours_fit_cpu_s": ours.result["fit_s"],
        "ours_cpu_s": ours.result["backtest_s"],
        "peer_fit_cpu_s": peer.result["fit_s"],
        "peer_cpu_s": peer.result["backtest_s"],
        "ours_wape": ours.result["wape"],
        "ours_wape_refit": ours.result["wape_refit"],
        "peer_wape": peer.result["wape"],
        "windows": WINDOWS,
        "series": ours.result["series"],
        "rounds": size[2],
        "ours_peak_gb": ours.peak_gb,
        "peer_peak_gb": peer.peak_gb,
    }


def _windows() -> list[date]:
    return [_past.day(LAST - HORIZON * (WINDOWS - k)) for k in range(WINDOWS)]


def _ours(stores: tuple[str, ...], items: int | None, rounds: int) -> dict[str, Any]:
    import lightgbm  # noqa: F401  # before any clock starts

    windows = _windows()
    sales, calendar = _past.sales_of(stores, _past.day(LAST), aligned=False, items=items)
    series = pl.concat(rows.select(gbm.LEVELS).unique() for rows in sales.values())
    spec = gbm.GbmSpec(rounds=rounds, threads=1)

    def past(named: list[date], first: date) -> Past:
        return Past.of_frames(sales, _past.features_of(sales, first, max(named), named), calendar)

    def fit() -> gbm.Model:
        since = windows[0] - timedelta(days=DAYS)
        held = past(windows[:1], since)
        return gbm.Model(backtest.fit_gbm(held, series, windows[0], HORIZON, spec).artefact)

    def rolled(refit: bool) -> float:
        held = past(windows, windows[0] - timedelta(days=DAYS))
        model, rows = None, []
        for day in windows:
            if model is None or refit:
                model = gbm.Model(backtest.fit_gbm(held, series, day, HORIZON, spec).artefact)
            rows.append(backtest.run_gbm(held, model, series, day, HORIZON))
        return _wape(backtest.sold(held, pl.concat(rows)))

    fit_s, _ = cpu_seconds(fit)
    backtest_s, wape = cpu_seconds(lambda: rolled(False))
    refit_s, wape_refit = cpu_seconds(lambda: rolled(True))
    return {
        "fit_s": fit_s,
        "backtest_s": backtest_s,
        "refit_s": refit_s,
        "wape": wape,
        "wape_refit": wape_refit,
        "series": series.height,
        "windows": [day.isoformat() for day in windows],
    }


def _wape(rows: pl.DataFrame) -> float:
    known = rows.drop_nulls("units")
    return float((known["mean"] - known["units"]).abs().sum()) / float(known["units"].sum())


def _peer(stores: tuple[str, ...], items: int | None, rounds: int) -> dict[str, Any]:
    import lightgbm as lgb
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingStd

    windows = _windows()
    back = DAYS + origin_features.HISTORY_DAYS  # the same days behind the first window
    since = windows[0] - timedelta(days=back)
    sales, _ = _past.sales_of(stores, _past.day(LAST), aligned=False, items=items)
    frame = (
        pl.concat(sales.values())
        .filter((pl.col("date") >= since) & pl.col("units").is_not_null())
        .select(
            pl.concat_str("item_id", "store_id").cast(pl.Categorical).alias("unique_id"),
            pl.col("date").cast(pl.Datetime("ns")).alias("ds"),
            pl.col("units").cast(pl.Float32).alias("y"),
            *(pl.col(c).cast(pl.Categorical) for c in ("dept_id", "cat_id", "store_id")),
        )
        .sort("unique_id", "ds")
        .to_pandas()
    )
    parameters: dict[str, Any] = {
        "objective": "poisson",
        "n_estimators": rounds,
        "num_leaves": 96,
        "learning_rate": 0.06,
        "n_jobs": 1,
        "verbosity": -1,
        "subsample": 0.6,
        "subsample_freq": 1,
        "colsample_bytree": 0.5,
    }

    def forecaster() -> MLForecast:
        means = [RollingMean(w) for w in origin_features.MEANS]
        return MLForecast(
            models={"lgb": lgb.LGBMRegressor(**parameters)},
            freq="D",
            lags=[1, 7, 28, 364],
            lag_transforms={1: [*means, RollingMax(28), RollingStd(28)]},
            date_features=["dayofweek", "month", "day"],
            num_threads=1,
        )

    static = ["dept_id", "cat_id", "store_id"]
    known = frame[frame["ds"] <= np.datetime64(windows[0])]
    fit_s, _ = cpu_seconds(lambda: forecaster().fit(known, static_features=static))

    def rolled(refit: bool) -> Any:
        return forecaster().cross_validation(
            frame, n_windows=WINDOWS, h=HORIZON, static_features=static, refit=refit
        )

    backtest_s, found = cpu_seconds(lambda: rolled(True))
    one_fit_s, _ = cpu_seconds(lambda: rolled(False))
    return {
        "fit_s": fit_s,
        "backtest_s": backtest_s,
        "one_fit_s": one_fit_s,
        "wape": float((found["lgb"].clip(lower=0) - found["y"]).abs().sum() / found["y"].sum()),
        "windows": [str(day)[:10] for day in sorted(found["cutoff"].unique())],
    }
