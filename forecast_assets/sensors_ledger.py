"""The sensor that keeps the ledger whole: it settles steps that died without a word.

Belongs here: when to look and what to tell. Does not: how (`resources.ledger_reconcile`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from resources.ledger import LedgerLocked
from resources.ledger_reconcile import reconcile
from resources.meter import Meter


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def reconcile_ledger(
    context: dg.SensorEvaluationContext, meter: dg.ResourceParam[Meter]
) -> dg.SkipReason:
    """Charge an estimate to every attempt that ended unmeasured."""
    try:
        done = reconcile(
            context.instance, meter.ledger, meter.card, meter.environment, _metadata(context)
        )
    except LedgerLocked as error:
        return dg.SkipReason(f"tried again next time: {error}")
    return dg.SkipReason(
        f"{done.attempts} attempts of {done.runs} runs: {done.estimated} settled by estimate,"
        f" idle capacity of {done.idle} runs charged"
    )


def _metadata(context: dg.SensorEvaluationContext) -> Any:
    definitions = context.repository_def
    graph = definitions.asset_graph if definitions is not None else None

    def of(asset: str) -> Mapping[str, Any]:
        key = dg.AssetKey.from_user_string(asset)
        return graph.get(key).metadata if graph is not None and graph.has(key) else {}

    return of


ALL = [reconcile_ledger]
