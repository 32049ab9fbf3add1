"""The books: the ledger's history for analytics, and what storing the tables costs.

Belongs here: one asset for each thing the ledger gives to the lake or takes from it. Does not:
charging steps (`resources.meter`) or settling dead ones (`forecast_assets.sensors_ledger`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from resources.lake import Lake
from resources.ledger_history import (
    COST_LEDGER,
    COST_STEPS,
    account_of,
    charge_storage,
    stored_files,
    sync_history,
)
from resources.meter import Meter, metered


@dg.asset(kinds={"deltalake"}, metadata={"cost/pipeline": "monitoring"})
@metered
def cost_storage(
    lake: dg.ResourceParam[Lake], meter: dg.ResourceParam[Meter]
) -> dg.MaterializeResult[None]:
    """Charges today's stored bytes to their tables, by tier, once a day."""
    files = stored_files(lake)
    day = datetime.now(UTC).date()
    charged = charge_storage(meter.ledger, files, meter.card, meter.environment, day)
    by_tier = dict(files.group_by("tier").agg(pl.col("bytes").sum()).iter_rows())
    return dg.MaterializeResult(
        metadata={
            "charges": charged,
            "files": files.height,
            **{f"bytes/{tier}": size for tier, size in sorted(by_tier.items())},
        }
    )


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            COST_LEDGER.name,
            deps=[cost_storage],
            kinds={"deltalake"},
            description="Every charge as a FOCUS row: the ledger's history, in the lake.",
            metadata={"cost/pipeline": "monitoring"},
        ),
        dg.AssetSpec(
            COST_STEPS.name,
            deps=[cost_storage],
            kinds={"deltalake"},
            description="What each attempt of each step used: the quantities behind the charges.",
            metadata={"cost/pipeline": "monitoring"},
        ),
    ]
)
@metered
def cost_history(
    lake: dg.ResourceParam[Lake], meter: dg.ResourceParam[Meter]
) -> Iterator[dg.MaterializeResult[None]]:
    """Replaces the days of both tables that the ledger has grown since."""
    for name, synced in sync_history(meter.ledger, lake, account_of(meter.card)).items():
        metadata = {"days": synced.days, "rows": synced.rows, "total_rows": synced.total_rows}
        yield dg.MaterializeResult(asset_key=name, metadata=metadata)
