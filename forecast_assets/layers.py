"""The map of the system: which modules make up which layer, and what holds for a whole layer.

Belongs here: group -> modules, owner, pipeline that pays, freshness promise, automation: set over
selections of the graph in one place. Does not: anything about a single asset's work.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

import dagster as dg

from forecast_assets.assets import (
    backtests,
    capacity,
    cleaned,
    evaluation,
    explanations,
    features,
    forecasters,
    incidents,
    ledger,
    levers,
    marts,
    monitoring,
    predictions,
    raw,
    segments,
    stock,
    storage,
    tuning,
)
from forecast_assets.sensors_storage import backfilled
from forecast_assets.storage_reads import declared
from resources.all_tables import ALL_TABLES

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Layer:
    """What every asset of a group shares.

    `pipeline` is who pays for it in the ledger; `fresh_within` the declared promise;
    `automation` when the platform refreshes it by itself (None: by schedule or by hand).
    """

    modules: tuple[ModuleType, ...]
    owner: str
    pipeline: str
    fresh_within: timedelta | None = None
    automation: dg.AutomationCondition[Any] | None = None


LAYERS: Mapping[str, Layer] = {
    "ingest": Layer((raw, cleaned), "team:data-engineering", "ingest", fresh_within=1.5 * DAY),
    "features": Layer(
        (segments, features),
        "team:forecasting",
        "features",
        fresh_within=2 * DAY,
        automation=dg.AutomationCondition.eager(),
    ),
    "forecasters": Layer((forecasters,), "team:forecasting", "training", fresh_within=35 * DAY),
    "predictions": Layer(
        (predictions, stock),
        "team:forecasting",
        "inference",
        fresh_within=1.5 * DAY,
        automation=dg.AutomationCondition.eager(),
    ),
    "cost": Layer(
        (ledger, marts, incidents, levers), "team:platform", "monitoring", fresh_within=1.5 * DAY
    ),
    "capacity": Layer((capacity,), "team:platform", "monitoring", fresh_within=8 * DAY),
    "storage": Layer((storage,), "team:platform", "storage"),
    "evaluation": Layer((evaluation,), "team:forecasting", "monitoring"),
    "monitoring": Layer((monitoring,), "team:forecasting", "monitoring", fresh_within=1.5 * DAY),
    "explanations": Layer((explanations,), "team:forecasting", "monitoring"),
    "backtests": Layer((backtests,), "team:forecasting", "backtest"),
    "tuning": Layer((tuning,), "team:forecasting", "tuning"),
}


def layer_assets(layers: Mapping[str, Layer] = LAYERS) -> list[dg.AssetsDefinition]:
    """Every asset of every layer, with what its layer says about it."""
    return [
        loaded.map_asset_specs(partial(_in_layer, group=group, layer=layer))
        for group, layer in layers.items()
        for loaded in dg.load_assets_from_modules(layer.modules)
        if isinstance(loaded, dg.AssetsDefinition)
    ]


def _in_layer(spec: dg.AssetSpec, group: str, layer: Layer) -> dg.AssetSpec:
    promise = layer.fresh_within
    return spec.replace_attributes(
        group_name=group,
        owners=[layer.owner],
        automation_condition=backfilled(
            spec.key.path[-1], promise, spec.automation_condition or layer.automation
        ),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=promise) if promise else None,
    ).merge_attributes(
        metadata={
            "cost/pipeline": layer.pipeline,
            **declared(spec.key.path[-1]),
            **_described(spec.key.path[-1]),
            **spec.metadata,
        }
    )


def _described(name: str) -> dict[str, Any]:
    """The columns of a table as the UI shows them; what is no table of the lake declares none."""
    table = next((table for table in ALL_TABLES if table.name == name), None)
    if table is None:
        return {}
    keys = dg.TableColumnConstraints(nullable=False)
    columns = [
        dg.TableColumn(
            column,
            str(dtype),
            "part of the key" if column in table.key else None,
            keys if column in table.key else None,
        )
        for column, dtype in table.columns.items()
    ]
    return {"dagster/column_schema": dg.TableSchema(columns), "dagster/table_name": name}
