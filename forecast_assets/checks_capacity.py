"""Asset checks of the planner: assumptions are asked again in time, reviews are held and signed,
stressed nights end with every item forecast.

Belongs here: flagging what is overdue. Does not: writing reviews (`forecast capacity review`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from forecast_assets.assets.capacity import store_of
from resources import Settings

MOST_OVERSHOOT_PCT = 0.5
ROUNDING = 1e-7
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


@dg.asset_check(asset="capacity_stress")
def stressed_nights_end_well(settings: SettingsResource) -> dg.AssetCheckResult:
    """In the last stressed nights every item was forecast, monitoring done, no budget passed."""
    from resources.capacity_inputs import read_plan
    from resources.plan_store import STRESS

    told = store_of(settings).notes(read_plan(settings.capacity_plan).name, STRESS)
    rows = told[-1].details["rows"] if told else []
    bad = [
        row["stress"]
        for row in rows
        if min(row["items_forecast_pct_min"], row["monitoring_done_pct_min"]) < 100 - ROUNDING
        or row["overshoot_pct_max"] > MOST_OVERSHOOT_PCT
    ]
    return dg.AssetCheckResult(
        passed=bool(rows) and not bad,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failing": dg.MetadataValue.json(bad), "stresses": len(rows)},
    )


ALL: Sequence[dg.AssetChecksDefinition] = [
    assumptions_are_current,
    reviews_are_held,
    stressed_nights_end_well,
]
