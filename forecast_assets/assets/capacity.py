"""Capacity: what runs cost, refitted; the plan drawn again, stressed, set against what happened.

Belongs here: one asset for each record of the planner, with its figures and plot. Does not: the
planner (`forecast_core.capacity`), the console (`commands.capacity`).
"""

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from resources import Settings
from resources.meter import Meter, metered

if TYPE_CHECKING:
    from resources.plan_store import PlanStore

DRAWS = 8
NIGHTS = 20  # of each stress, each night
SettingsResource = dg.ResourceParam[Settings]


def store_of(settings: Settings) -> "PlanStore":
    """Where plans, outcomes and reviews are kept."""
    from resources.plan_store import PlanStore

    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return PlanStore(settings.ledger)


@dg.asset(deps=["cost_steps"], metadata={"cost/pipeline": "monitoring"})
@metered
def capacity_fit(
    settings: SettingsResource, meter: dg.ResourceParam[Meter]
) -> dg.MaterializeResult[None]:
    """What a run of each stage at each rung takes: lines in volume and their tail, refitted."""
    from resources.capacity_inputs import fitted, read_plan

    rates = fitted(settings, read_plan(settings.capacity_plan))
    rows = [
        {
            "stage": rate.stage,
            "rung": rate.rung,
            "runs": rate.runs,
            "money_fixed": rate.lines["money"].a,
            "money_each": rate.lines["money"].b,
            "driver": "series" if rate.by_series else "rows",
            "failures": rate.failures,
            "note": rate.note,
        }
        for rate in rates.by_stage.values()
    ]
    return dg.MaterializeResult(
        metadata={
            "stages": len(rows),
            "runs": sum(rate.runs for rate in rates.by_stage.values()),
            "days": len(rates.days),
            "not_measured_well": sum(bool(rate.note) for rate in rates.by_stage.values()),
            "rates": dg.MetadataValue.json(rows),
        }
    )


@dg.asset(deps=[capacity_fit], metadata={"cost/pipeline": "monitoring"})
@metered
def capacity_plan(
    settings: SettingsResource, meter: dg.ResourceParam[Meter]
) -> dg.MaterializeResult[None]:
    """The plan drawn through the policy: money with bands, risks, what breaks first."""
    from forecast_core.capacity.outcomes import summarise
    from forecast_core.capacity.report import markdown, plain
    from resources.capacity_draws import run_draws
    from resources.capacity_inputs import read_inputs
    from resources.capacity_records import save
    from resources.plan_store import OUTCOME

    inputs = read_inputs(settings)
    # One process: the step's own lane is what admission gave it.
    outcome = summarise(run_draws(inputs.jobs(DRAWS), workers=1))
    store = store_of(settings)
    version = store.put(inputs.plan).number
    details = {"version": version, "policy": inputs.policy.hash, **plain(outcome)}
    store.note(inputs.plan.name, OUTCOME, details)
    text = markdown(inputs.plan, version, outcome, datetime.now(UTC).date())
    folder = save(settings, inputs.plan, version, text, outcome)
    picture = base64.b64encode((folder / "outcome.png").read_bytes()).decode()
    metadata: dict[str, Any] = {
        "version": version,
        "money": outcome.total.mid,
        "money_low": outcome.total.low,
        "money_high": outcome.total.high,
        "every_item_every_night": outcome.p_every_item_always,
        "over_budget": outcome.p_over_budget,
        "first_break": " in ".join(outcome.breaks[0][1::-1]) if outcome.breaks else "none",
        "not_measured": len(outcome.notes),
        "record": dg.MetadataValue.path(str(folder / "plan.md")),
        "plot": dg.MetadataValue.md(f"![outcome](data:image/png;base64,{picture})"),
    }
    return dg.MaterializeResult(metadata=metadata)


@dg.asset(deps=["cost_steps"], metadata={"cost/pipeline": "monitoring"})
@metered
def capacity_stress(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    meter: dg.ResourceParam[Meter],
) -> dg.MaterializeResult[None]:
    """Tonight's plan under every stress, estimates wrong by up to 3x: the worst of many nights."""
    from forecast_core.capacity.proof import night, sized, worst
    from forecast_core.capacity.stress import EVERY
    from resources.capacity_inputs import read_inputs
    from resources.plan_store import STRESS

    inputs = read_inputs(settings)
    tight = sized(inputs.policy, inputs.plan, inputs.rates)
    rows: list[dict[str, Any]] = []
    for stress in EVERY:
        nights = [night(inputs.plan, inputs.rates, tight, stress, seed) for seed in range(NIGHTS)]
        rows.append(worst(stress.name, nights))
        context.log.info(f"{stress.name}: {rows[-1]}")
    store = store_of(settings)
    version = store.put(inputs.plan).number
    details = {"version": version, "policy": inputs.policy.hash, "nights": NIGHTS, "rows": rows}
    store.note(inputs.plan.name, STRESS, details)
    figures = [name for name in rows[0] if name != "stress"]
    lines = ["| stress | " + " | ".join(figures) + " |", "|---|" + "---|" * len(figures)]
    lines += [
        f"| {row['stress']} | " + " | ".join(f"{row[name]:.2f}" for name in figures) + " |"
        for row in rows
    ]
    return dg.MaterializeResult(
        metadata={
            "version": version,
            "nights": NIGHTS,
            "items_forecast_pct_min": min(row["items_forecast_pct_min"] for row in rows),
            "monitoring_done_pct_min": min(row["monitoring_done_pct_min"] for row in rows),
            "overshoot_pct_max": max(row["overshoot_pct_max"] for row in rows),
            "accuracy_kept_pct_mean": min(row["accuracy_kept_pct_mean"] for row in rows),
            "by_stress": dg.MetadataValue.md("\n".join(lines)),
        }
    )


@dg.asset(deps=[capacity_plan, "cost_ledger"], metadata={"cost/pipeline": "monitoring"})
@metered
def capacity_variance(
    settings: SettingsResource, meter: dg.ResourceParam[Meter]
) -> dg.MaterializeResult[None]:
    """The plan against what was charged, month by month: volume, mix, policy, rate and price."""
    from forecast_core.capacity.variance import PARTS
    from resources.capacity_inputs import read_plan
    from resources.capacity_records import variances

    plan = read_plan(settings.capacity_plan)
    months = variances(settings, store_of(settings), plan, datetime.now(UTC).date())
    lines = ["| month | planned | actual | " + " | ".join(PARTS) + " |", "|---|" + "---|" * 7]
    for month, found in months.items():
        parts = " | ".join(f"{found.parts[part]:+.4f}" for part in PARTS)
        lines.append(f"| {month} | {found.planned:.4f} | {found.actual:.4f} | {parts} |")
    return dg.MaterializeResult(
        metadata={
            "months": len(months),
            "residual_pct": max((v.residual_pct for v in months.values()), default=0.0),
            "variance": dg.MetadataValue.md("\n".join(lines)),
        }
    )
