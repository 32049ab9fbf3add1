"""Who reads which table, how far back and how often: what assets declare for the planner.

Belongs here: the declaration of each reader as plain data. Does not: putting it on the graph
(`forecast_assets.storage_reads`), or what follows from it (`placement`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forecast_core.rungs import gbm, origin_features, statistical
from forecast_core.storage.placement import Reader

NIGHT, WEEK = 1, 7

# By asset: what a run of it reads of each table. Windows are days of age.
DECLARED: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cleaned_sales": (
        {"table": "raw_sales", "to_age": 31, "every_days": NIGHT},
        {"table": "raw_prices", "to_age": 31, "every_days": NIGHT},
    ),
    "feature_sales": (
        {"table": "cleaned_sales", "to_age": origin_features.HISTORY_DAYS, "every_days": NIGHT},
    ),
    "demand_segments": ({"table": "cleaned_sales", "to_age": 365, "every_days": 30},),
    "forecasters": (
        {"table": "feature_sales", "to_age": gbm.TRAINING_DAYS, "every_days": WEEK},
        {"table": "cleaned_sales", "to_age": gbm.TRAINING_DAYS, "every_days": WEEK},
    ),
    "prediction_floor": ({"table": "cleaned_sales", "to_age": 28, "every_days": NIGHT},),
    "prediction_daily": (
        {"table": "cleaned_sales", "to_age": statistical.HISTORY_DAYS, "every_days": NIGHT},
        {"table": "feature_sales", "to_age": 31, "every_days": NIGHT},
        {"table": "prediction_floor", "to_age": 1, "every_days": NIGHT},
    ),
    "prediction_reconciled": ({"table": "prediction_daily", "to_age": 1, "every_days": NIGHT},),
    "eval_accuracy": (
        {"table": "prediction_daily", "to_age": 29, "every_days": NIGHT},
        {"table": "cleaned_sales", "to_age": 29, "every_days": NIGHT},
    ),
    "monitor_drift": (
        {"table": "cleaned_sales", "to_age": 63, "every_days": NIGHT},
        {"table": "feature_sales", "to_age": 63, "every_days": NIGHT},
        {"table": "prediction_daily", "to_age": 35, "every_days": NIGHT},
    ),
    "monitor_accuracy": (
        {"table": "cleaned_sales", "to_age": 28, "every_days": NIGHT},
        {"table": "prediction_daily", "to_age": 57, "every_days": NIGHT},
        {"table": "prediction_floor", "to_age": 57, "every_days": NIGHT},
    ),
}


def declared_readers() -> list[Reader]:
    """Every declared read as the planner takes it."""
    return [Reader(name=asset, **read) for asset, reads in DECLARED.items() for read in reads]
