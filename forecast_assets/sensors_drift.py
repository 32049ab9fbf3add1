"""The sensor that trains a segment's forecaster again when monitoring says it fell behind.

Belongs here: gathering what is known and asking for the run. Does not: the decision
(`forecast_core.evaluation.retrain`), the scores (`assets.monitoring`), or letting the run in
(admission).

A run is asked for once a group and monitored day: its key names both. It goes through the queue
like any other, so a budget may still say no.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import dagster as dg
import polars as pl

from forecast_assets.jobs import training_job
from forecast_core.cells import Cells
from forecast_core.evaluation import retrain
from forecast_core.evaluation.drift import WINDOW_DAYS, verdict
from forecast_core.segments import SegmentPolicy
from resources import DataSpan
from resources.lake import Lake
from resources.meter import Meter
from resources.table_view import TableView

GROUP_TAG = "forecast/retrained_group"
WHY_TAG = "forecast/why"
OVER = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)


@dg.sensor(
    job=training_job,
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Drift or lost accuracy of a segment: that segment's forecaster, if it pays.",
)
def retrain_on_drift(
    context: dg.SensorEvaluationContext,
    span: dg.ResourceParam[DataSpan],
    lake: dg.ResourceParam[Lake],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    meter: dg.ResourceParam[Meter],
) -> dg.SensorResult | dg.SkipReason:
    """One run for each group whose training is worth its cost; the tick says why for every one."""
    scores = _view(lake, "monitor_drift").latest(span.as_of)
    if scores.is_empty():
        return dg.SkipReason("nothing is monitored yet: materialize monitor_drift")
    cutoff: date = scores["cutoff"].max()  # type: ignore[assignment]
    if cutoff < span.as_of:
        return dg.SkipReason(f"monitored up to {cutoff}, the data go to {span.as_of}")
    back = Cells(cutoff, cutoff).back(retrain.EARLIER_DAYS)
    made = retrain.decisions(
        _groups(context.instance, lake, segment_policy, meter, cutoff),
        cutoff,
        {str(name): verdict(rows) for (name,), rows in scores.group_by("segment_group")},
        _view(lake, "monitor_accuracy").frame(back),
        retrain.RetrainPolicy(),
    )
    for one in made:
        context.log.info(f"{one.group}: {'train' if one.train else 'wait'}: {one.reason}")
    runs = [
        dg.RunRequest(
            run_key=f"drift-{one.group}-{cutoff}",
            partition_key=one.group,
            tags={GROUP_TAG: one.group, WHY_TAG: one.reason[:200]},
        )
        for one in made
        if one.train
    ]
    if not runs:
        return dg.SkipReason("; ".join(f"{one.group}: {one.reason}" for one in made))
    return dg.SensorResult(run_requests=runs)


def _groups(
    instance: dg.DagsterInstance, lake: Lake, policy: SegmentPolicy, meter: Meter, cutoff: date
) -> Mapping[str, retrain.Group]:
    fitted = _view(lake, "forecasters").latest(cutoff, by=["segment_group"])
    segments = _view(lake, "demand_segments").latest(cutoff)
    revenue = dict(segments.group_by("segment_group").agg(pl.sum("revenue")).iter_rows())
    costs, flying = _costs(meter), _in_flight(instance)
    return {
        name: retrain.Group(
            name,
            rung,
            trained_to,
            revenue[name] * WINDOW_DAYS / policy.window_days,
            costs.get(name),
            flying.get(name),
        )
        for name, rung, trained_to in fitted["segment_group", "rung", "trained_to"].iter_rows()
        if name in revenue
    }


def _costs(meter: Meter) -> dict[str, float]:
    """What the last training of each group was charged, by the ledger."""
    first = date.today() - timedelta(days=retrain.EARLIER_DAYS)
    by = ("x_run_id", "x_asset", "x_segment_group", "date")
    totals = meter.ledger.totals(by, first=first)
    runs: dict[tuple[str, str], tuple[date, float]] = {}
    for (run, asset, group, day), cost in totals.items():
        if asset == "forecasters" and group is not None:
            known = runs.get((group, run), (day, 0.0))[1]
            runs[group, run] = (day, known + float(cost))
    newest: dict[str, tuple[date, float]] = {}
    for (group, _), found in runs.items():
        newest[group] = max(newest.get(group, found), found, key=lambda pair: pair[0])
    return {group: cost for group, (_, cost) in newest.items()}


def _in_flight(instance: dg.DagsterInstance) -> dict[str, str]:
    """Group -> run that is asked for or running, whoever asked."""
    open_ = [status for status in dg.DagsterRunStatus if status not in OVER]
    runs = instance.get_runs(dg.RunsFilter(job_name=training_job.name, statuses=open_), limit=100)
    named = ((run.tags.get("dagster/partition"), run.run_id) for run in runs)
    return {group: run for group, run in named if group is not None}


def _view(lake: Lake, name: str) -> TableView:
    return TableView(lake.table(name), lambda _: None)


ALL: Sequence[dg.SensorDefinition] = [retrain_on_drift]
