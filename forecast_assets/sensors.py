"""Sensors: what the platform does when it notices something.

Belongs here: noticing and asking. Does not: deciding (the core does) or doing (assets do).
"""

from collections.abc import Sequence

import dagster as dg

from forecast_assets import (
    sensors_admission,
    sensors_drift,
    sensors_ledger,
    sensors_storage,
)
from forecast_assets.partitions import STORES
from resources.sources import Source


@dg.sensor(minimum_interval_seconds=300, default_status=dg.DefaultSensorStatus.STOPPED)
def new_stores(
    context: dg.SensorEvaluationContext, source: dg.ResourceParam[Source]
) -> dg.SensorResult | dg.SkipReason:
    """Give every store of the source its partitions."""
    known = set(context.instance.get_dynamic_partitions(STORES.name or ""))
    new = [store for store in source.stores() if store not in known]
    if not new:
        return dg.SkipReason(f"all {len(known)} stores of the source are registered")
    return dg.SensorResult(dynamic_partitions_requests=[STORES.build_add_request(new)])


ALL: Sequence[dg.SensorDefinition] = [
    new_stores,
    *sensors_ledger.ALL,
    *sensors_admission.SENSORS,
    *sensors_storage.ALL,
    *sensors_drift.ALL,
]
