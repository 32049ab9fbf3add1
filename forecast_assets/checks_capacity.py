"""Asset checks of the planner: assumptions are asked again in time, reviews are held and signed.

Belongs here: flagging what is overdue. Does not: writing reviews (`forecast capacity review`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from forecast_assets.assets.capacity import store_of
from resources import Settings

SettingsResource = dg.ResourceParam[Settings]


@dg.asset_check(asset="capacity_plan")
def assumptions_are_current(settings: SettingsResource) -> dg.AssetCheckResult:
    """No assumption of the plan is past its revisit date."""
    from resources.capacity_inputs import read_plan

    overdue = read_plan(settings.capacity_plan).overdue(datetime.now(UTC).date())
    return dg.AssetCheckResult(
        passed=not overdue,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"overdue": len(overdue), "which": dg.MetadataValue.json(overdue)},
    )


@dg.asset_check(asset="capacity_plan")
def reviews_are_held(settings: SettingsResource) -> dg.AssetCheckResult:
    """Every quarter and after declared changes of the business a review was held, and signed."""
    from forecast_core.capacity.review import missing
    from resources.capacity_inputs import read_plan
    from resources.capacity_records import unsigned, written

    plan, today = read_plan(settings.capacity_plan), datetime.now(UTC).date()
    store = store_of(settings)
    due = [f"{r.on}: {r.why}" for r in missing(plan, written(store, plan.name), today)]
    open_ones = [day.isoformat() for day in unsigned(store, plan.name)]
    return dg.AssetCheckResult(
        passed=not due and not open_ones,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "missing": dg.MetadataValue.json(due),
            "unsigned": dg.MetadataValue.json(open_ones),
        },
    )


ALL: Sequence[dg.AssetChecksDefinition] = [assumptions_are_current, reviews_are_held]
