"""The statistical rung: one small model a series, chosen for its demand class.

Belongs here: methods of statsforecast for each demand class, and choosing among them on the last
weeks. Does not: series that earn a shared model (`gbm`).

Where sales are rare a weekday shows nothing: methods for intermittent demand, all of them flat.
Where something sells on most days: exponential smoothing by weekday, ETS and Theta.

Sources: Croston (1972), Syntetos and Boylan (2005), Teunter, Syntetos and Babai (2011);
Hyndman and Khandakar (2008), Assimakopoulos and Nikolopoulos (2000).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from forecast_core.rungs.frames import means
from forecast_core.rungs.grid import Grid

HISTORY_DAYS = 365
TRIAL_DAYS = 28
TRIAL_SERIES = 200  # a class is judged on at most so many series
_TOO_SHORT = 2  # days of history under which a model has nothing to go on
_WEEK = 7
_SEASONS = 3  # under which nothing is known of a season: of weekdays, or of the weeks of a year
_RARE = ("sba", "croston", "tsb", "adida")
_STEADY = ("seasonal", "ets", "theta", "adida")  # the first of each serves where none was chosen
_BY_WEEKDAY = ("seasonal", "ets", "theta")


def candidates(demand: str, season: int = _WEEK) -> tuple[str, ...]:
    """The methods tried for a demand class, the cheapest first; ETS has no season of a year."""
    steady = _STEADY if season == _WEEK else tuple(name for name in _STEADY if name != "ets")
    return steady if demand in ("smooth", "erratic") else _RARE


def _models(season: int) -> Mapping[str, Any]:
    from statsforecast import models

    return {
        "sba": models.CrostonSBA(),
        "croston": models.CrostonOptimized(),
        "tsb": models.TSB(alpha_d=0.1, alpha_p=0.1),
        "adida": models.ADIDA(),
        "seasonal": models.SeasonalExponentialSmoothingOptimized(season_length=season),
        "ets": models.AutoETS(season_length=season, model="ANA"),
        "theta": models.Theta(season_length=season),
    }


def choose(trials: Mapping[str, Mapping[str, tuple[float, int]]]) -> dict[str, str]:
    """The method of least mean squared error for each demand class.

    Args:
        trials: class -> method -> (sum of squared errors, days), over all stores.
    """
    return {demand: _best(of) for demand, of in trials.items()}


def _best(of: Mapping[str, tuple[float, int]]) -> str:
    return min(of, key=lambda method: (of[method][0] / max(of[method][1], 1), method))


def trial(
    sales: pl.DataFrame, classes: Mapping[str, str], cutoff: date
) -> dict[str, dict[str, tuple[float, int]]]:
    """Errors of every candidate on the last `TRIAL_DAYS` of one store, by demand class.

    Args:
        sales: rows of one store, `HISTORY_DAYS` back from the cutoff.
        classes: item -> demand class; items beyond `TRIAL_SERIES` a class are not tried.
    """
    taken: dict[str, list[str]] = {}
    for item in sorted(classes):
        taken.setdefault(classes[item], []).append(item)
    items = [item for of in taken.values() for item in of[:TRIAL_SERIES]]
    grid = _history(sales, items, cutoff)
    past, truth = grid.values["units"][:, :-TRIAL_DAYS], grid.values["units"][:, -TRIAL_DAYS:]
    found: dict[str, dict[str, tuple[float, int]]] = {}
    row_of = {item: row for row, item in enumerate(grid.items)}
    for demand, of in taken.items():
        rows = [row_of[item] for item in of[:TRIAL_SERIES]]
        for method in candidates(demand):
            errors = (run(past[rows], [method] * len(rows), TRIAL_DAYS) - truth[rows]) ** 2
            known = errors[np.isfinite(errors)]
            found.setdefault(demand, {})[method] = (float(known.sum()), len(known))
    return found


def artefact(methods: Mapping[str, str]) -> bytes:
    """The choice as JSON: demand class -> method."""
    return json.dumps({"kind": "statistical", "methods": dict(methods)}, sort_keys=True).encode()


def chosen(fitted: bytes) -> bool:
    """Whether it is a choice of methods: a group without members has learnt none."""
    return bool(json.loads(fitted).get("kind") == "statistical")


def predict(
    fitted: bytes,
    sales: pl.DataFrame,
    classes: Mapping[str, str],
    cutoff: date,
    horizon: int,
) -> pl.DataFrame:
    """(item_id, ds, mean) of the items of one store; mean is NaN where history is too short."""
    methods = json.loads(fitted)["methods"]
    grid = _history(sales, sorted(classes), cutoff)
    # A class that was absent when the choice was made is served by the cheapest.
    each = [methods.get(classes[item], candidates(classes[item])[0]) for item in grid.items]
    return means(grid.items, cutoff, run(grid.values["units"], each, horizon))


def _history(sales: pl.DataFrame, items: Sequence[str], cutoff: date) -> Grid:
    on_sale = sales.filter(pl.col("on_sale")) if "on_sale" in sales.columns else sales
    return Grid.of(on_sale, ["units"], cutoff - timedelta(days=HISTORY_DAYS - 1), cutoff, items)


def run(
    history: np.ndarray, methods: Sequence[str], horizon: int, season: int = _WEEK
) -> np.ndarray:
    """Forecast each row of units by its method, NaN where a history is too short.

    Args:
        history: [rows, periods] to the cutoff, NaN where unknown.
        season: periods after which the row repeats itself.
    """
    models = _models(season)
    found = np.full((len(methods), horizon), np.nan)
    for row, method in enumerate(methods):
        known = history[row][np.isfinite(history[row])]
        if len(known) < _TOO_SHORT:
            continue
        if not known.any():
            found[row] = 0.0
            continue
        if method in _BY_WEEKDAY:
            if len(known) >= _SEASONS * season:
                known = _gapless(history[row], season)
            else:
                method = _RARE[0]
        found[row] = models[method].forecast(y=known.astype(np.float64), h=horizon)["mean"]
    return found


def _gapless(history: np.ndarray, season: int) -> np.ndarray:
    """From the first known period to the last, one unknown as its place in the season is on
    average."""
    since = history[np.isfinite(history).argmax() :]
    padded = np.full(-(-len(since) // season) * season, np.nan)
    padded[: len(since)] = since
    seasons = padded.reshape(-1, season)
    known = np.isfinite(seasons)
    usual = np.where(known, seasons, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, seasons, usual).ravel()[: len(since)]
