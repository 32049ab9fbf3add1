"""The sensor behind selective backfills: which assets they are for, on what promise.

Belongs here: mounting the condition of `automation` on assets and its sensor. Does not: what is
stale or worth it (`forecast_core.storage.staleness`).
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from forecast_assets.automation import StaleAndWorthwhile
from forecast_assets.storage_reads import READS, declared, readers
from forecast_core.storage.lifecycle import LifecyclePolicy
from forecast_core.storage.staleness import Refresh
from resources import Settings
from resources.policies import load_policy

# Tables whose old partitions are still read: features feed training, years back.
BACKFILLED = ("feature_sales",)


def backfilled(
    asset: str, promise: timedelta | None, otherwise: dg.AutomationCondition[Any] | None
) -> dg.AutomationCondition[Any] | None:
    """The condition of an asset: what its layer says, and for some tables their stale past too."""
    if asset not in BACKFILLED or promise is None:
        return otherwise
    settings = Settings.from_environment()
    policy = load_policy(settings.lifecycle_policy, LifecyclePolicy.parse).backfill
    past = StaleAndWorthwhile(promise, policy.money_cap, policy.partition_cap, _appraise)
    idle = past & ~dg.AutomationCondition.in_progress()
    return idle if otherwise is None else (otherwise | idle)


def _appraise(asset: str, stale: Mapping[str, str]) -> Sequence[Refresh]:
    from resources.backfill_worth import appraise

    reads = readers([(asset, {READS: declared(asset).get(READS, ())})])
    return appraise(Settings.from_environment(), reads, asset, stale)


selective_backfills = dg.AutomationConditionSensorDefinition(
    "selective_backfills",
    target=dg.AssetSelection.assets(*BACKFILLED),
    use_user_code_server=True,
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=600,
    description="Backfills of stale partitions that are worth their cost, as few runs as can be.",
)
ALL: Sequence[dg.SensorDefinition] = [selective_backfills]
