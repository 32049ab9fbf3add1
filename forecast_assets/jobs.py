"""Jobs and their schedules: the daily and the weekly rhythm.

Belongs here: which assets run together and when. Does not: what is stale (automation conditions
in `layers`), nor the end-to-end cycle of the console script (`batch`).
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from forecast_assets.batch import RANGE_END, RANGE_START, item_stores
from forecast_assets.partitions import ALIGNMENT, FREQUENCY, SPREAD, STORES
from forecast_core.admission.request import COVERS_TAG
from forecast_core.cells import Cells
from forecast_core.segments import SegmentPolicy, due
from resources import DataSpan
from resources.escrow import Escrow
from resources.lake import Lake

Job = Any  # what `define_asset_job` returns has no public name

LANDED = ("raw_sales", "raw_prices", "raw_inventory", "cleaned_sales", "quarantined_sales")

landing_job = dg.define_asset_job(
    "landing_job", dg.AssetSelection.assets(*LANDED), description="Land and clean sales."
)
features_job = dg.define_asset_job("features_job", dg.AssetSelection.assets("feature_sales"))
segments_job = dg.define_asset_job("segments_job", dg.AssetSelection.assets("demand_segments"))
training_job = dg.define_asset_job("training_job", dg.AssetSelection.groups("forecasters"))
prediction_job = dg.define_asset_job(
    "prediction_job",
    dg.AssetSelection.assets("prediction_floor", "prediction_daily", "prediction_stockout"),
    description="The floor for every item-store first, then the upgrades.",
)
publishing_job = dg.define_asset_job(
    "publishing_job", dg.AssetSelection.assets("prediction_reconciled")
)
capacity_job = dg.define_asset_job(
    "capacity_job",
    dg.AssetSelection.groups("capacity") - dg.AssetSelection.assets("capacity_stress"),
    description="Refit what runs cost, draw the plan again, set it against what happened.",
)
stress_job = dg.define_asset_job(
    "stress_job",
    dg.AssetSelection.assets("capacity_stress"),
    description="Tonight's plan under every stress, in the twin.",
)
# Watching is a job of its own: what goes wrong in it leaves serving and training alone.
scoring_job = dg.define_asset_job("scoring_job", dg.AssetSelection.assets("eval_accuracy"))

monitoring_job = dg.define_asset_job(
    "monitoring_job", dg.AssetSelection.assets("monitor_drift", "monitor_accuracy")
)

incidents_job = dg.define_asset_job(
    "incidents_job",
    dg.AssetSelection.assets("cost_incidents", "cost_levers"),
    description="Watch the ledger; open what rose without a reason, and propose an answer.",
)


# Every night; of weekly data the night after a week has ended.
_NIGHTS = f"* * {(FREQUENCY.anchor + 1) % 7}" if FREQUENCY.weekly else "* * *"


def _over_stores(instance: dg.DagsterInstance, day: str) -> dict[str, str]:
    """Tags of one run over `day` of every store; none while no store is registered."""
    stores = instance.get_dynamic_partitions(STORES.name or "")
    if not stores:
        return {}
    return {RANGE_START: f"{day}|{stores[0]}", RANGE_END: f"{day}|{stores[-1]}"}


def _each_store_today(
    name: str, job: Job, cron: str, by_month: bool, covers: bool = False
) -> dg.ScheduleDefinition:
    """One run over every store today. The first of the night opens the cycle, so that money for
    everyone's cheapest forecast is kept until the run that `covers` them has made it."""

    @dg.schedule(name=name, job=job, cron_schedule=cron)
    def schedule(
        context: dg.ScheduleEvaluationContext,
        span: dg.ResourceParam[DataSpan],
        lake: dg.ResourceParam[Lake],
        escrow: dg.ResourceParam[Escrow],
    ) -> dg.RunRequest | dg.SkipReason:
        day: date = span.as_of.replace(day=1) if by_month else span.as_of
        tags = _over_stores(context.instance, day.isoformat())
        if not tags:
            return dg.SkipReason("no store is registered yet: run `forecast stores register`")
        items = item_stores(lake, span.as_of)
        if job is landing_job:
            escrow.open_cycle(items)
        return dg.RunRequest(run_key=None, tags=tags | ({COVERS_TAG: str(items)} if covers else {}))

    return schedule


ALL: Sequence[Job] = [
    landing_job,
    segments_job,
    features_job,
    training_job,
    prediction_job,
    publishing_job,
    scoring_job,
    monitoring_job,
    incidents_job,
    capacity_job,
    stress_job,
]


@dg.schedule(job=training_job, cron_schedule="0 20 * * 0")
def weekly_training(
    context: dg.ScheduleEvaluationContext,
    span: dg.ResourceParam[DataSpan],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    lake: dg.ResourceParam[Lake],
) -> list[dg.RunRequest] | dg.SkipReason:
    """A run for each segment group whose forecaster is older than its policy's cadence."""
    table = lake.table("forecasters")
    known = Cells(span.first, span.as_of)
    trained: dict[str, date] = {}
    rungs: dict[str, str] = {}
    if table.exists():
        fits = table.read(known, ["segment_group", "trained_to", "rung"]).frame
        newest = fits.sort("trained_to").group_by("segment_group").last().collect()
        for name, day, rung in newest.select("segment_group", "trained_to", "rung").iter_rows():
            trained[name], rungs[name] = day, rung
    groups = due(segment_policy, trained, span.as_of, others=(ALIGNMENT, SPREAD), rungs=rungs)
    if not groups:
        return dg.SkipReason("every forecaster is younger than its cadence")
    return [dg.RunRequest(run_key=f"{name}-{span.as_of}", partition_key=name) for name in groups]


@dg.schedule(
    job=monitoring_job,
    cron_schedule=f"0 6 {_NIGHTS}",
    default_status=dg.DefaultScheduleStatus.RUNNING,  # monitoring is not something to opt into
)
def nightly_monitoring(span: dg.ResourceParam[DataSpan]) -> dg.RunRequest:
    """Drift and accuracy as of the last known day."""
    return dg.RunRequest(run_key=None, partition_key=span.as_of.isoformat())


SCHEDULES: Sequence[dg.ScheduleDefinition] = [
    _each_store_today("nightly_landing", landing_job, f"0 1 {_NIGHTS}", by_month=True),
    _each_store_today("nightly_features", features_job, f"30 1 {_NIGHTS}", by_month=True),
    _each_store_today(
        "nightly_prediction", prediction_job, f"0 3 {_NIGHTS}", by_month=False, covers=True
    ),
    weekly_training,
    nightly_monitoring,
    dg.ScheduleDefinition(
        name="daily_incidents",
        job=incidents_job,
        cron_schedule="0 7 * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    ),
    dg.ScheduleDefinition(name="weekly_capacity", job=capacity_job, cron_schedule="0 8 * * 1"),
    dg.ScheduleDefinition(name="nightly_stress", job=stress_job, cron_schedule="0 21 * * *"),
]
