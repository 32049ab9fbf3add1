"""The sensor that keeps the ledger whole: steps that died without a word, the platform's own work.

Belongs here: when to look and what to tell. Does not: how (`resources.ledger_reconcile`,
`resources.meter_platform`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from resources.ledger import LedgerLocked
from resources.ledger_reconcile import reconcile
from resources.meter import Meter
from resources.meter_platform import charge_platform


@dg.sensor(minimum_interval_seconds=60, default_status=dg.DefaultSensorStatus.RUNNING)
def reconcile_ledger(
    context: dg.SensorEvaluationContext, meter: dg.ResourceParam[Meter]
) -> dg.SkipReason:
    """Charge an estimate to every attempt that ended unmeasured, and what the platform used."""
    try:
        done = reconcile(
            context.instance, meter.ledger, meter.card, meter.environment, _metadata(context)
        )
        platform_s = charge_platform(meter.ledger, meter.card, meter.environment)
    except LedgerLocked as error:
        return dg.SkipReason(f"tried again next time: {error}")
    return dg.SkipReason(
        f"{done.attempts} attempts of {done.runs} runs: {done.estimated} settled by estimate,"
        f" idle capacity of {done.idle} runs charged; {platform_s:.1f} CPU-s of daemon, webserver"
        " and code server as overhead"
    )


def _metadata(context: dg.SensorEvaluationContext) -> Any:
    definitions = context.repository_def
    graph = definitions.asset_graph if definitions is not None else None

    def of(asset: str) -> Mapping[str, Any]:
        key = dg.AssetKey.from_user_string(asset)
        return graph.get(key).metadata if graph is not None and graph.has(key) else {}

    return of


ALL = [reconcile_ledger]
