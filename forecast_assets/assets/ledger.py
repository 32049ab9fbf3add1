"""The books: the ledger's history for analytics.

Belongs here: one asset for each thing the ledger gives to the lake or takes from it. Does not:
charging steps (`resources.meter`) or settling dead ones (`forecast_assets.sensors_ledger`).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from forecast_core.cost.estimate import observations, recent_error
from resources.lake import Lake
from resources.ledger_history import (
    COST_LEDGER,
    COST_STEPS,
    account_of,
    sync_history,
)
from resources.meter import Meter, metered

ESTIMATED_FROM = timedelta(days=30)  # what the tracked error of quotes looks back on


@dg.multi_asset(
    pool="monitoring",
    specs=[
        dg.AssetSpec(
            COST_LEDGER.name,
            deps=["cost_storage"],
            kinds={"deltalake"},
            description="Every charge as a FOCUS row: the ledger's history, in the lake.",
            metadata={"cost/pipeline": "monitoring"},
        ),
        dg.AssetSpec(
            COST_STEPS.name,
            deps=["cost_storage"],
            kinds={"deltalake"},
            description="What each attempt of each step used: the quantities behind the charges.",
            metadata={"cost/pipeline": "monitoring"},
        ),
    ],
)
@metered
def cost_history(
    lake: dg.ResourceParam[Lake], meter: dg.ResourceParam[Meter]
) -> Iterator[dg.MaterializeResult[None]]:
    """Replaces the days of both tables that the ledger has grown since."""
    for name, synced in sync_history(meter.ledger, lake, account_of(meter.card)).items():
        error = _estimator_error(meter) if name == COST_STEPS.name else {}
        metadata = {"days": synced.days, "rows": synced.rows, "total_rows": synced.total_rows}
        yield dg.MaterializeResult(asset_key=name, metadata={**metadata, **error})


def _estimator_error(meter: Meter) -> dict[str, float]:
    """How far quotes were off on the last runs, as figures that a trend is drawn of."""
    first = (datetime.now(UTC) - ESTIMATED_FROM).date()
    error = recent_error(observations(meter.ledger.settlements(first=first)))
    return {
        f"estimator/{name}": float(value)
        for name, value in asdict(error).items()
        if math.isfinite(value)
    }
