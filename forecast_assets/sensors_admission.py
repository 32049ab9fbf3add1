"""Sensors of the admission queue: ask again for what is held, and settle what has ended.

Belongs here: when to look. Does not: what a look does (`resources.coordinator.attend`).

A sensor has no clock of its own below the daemon's; each looks at most every `tick`, and the run
status sensors look as soon as a run ends, so that its money and room are used again at once.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from resources.coordinator import attend
from resources.escrow import Escrow
from resources.run_facts import KnownAssets

TICK_S = 30
ENDED = {
    "succeeded": dg.DagsterRunStatus.SUCCESS,
    "failed": dg.DagsterRunStatus.FAILURE,
    "cancelled": dg.DagsterRunStatus.CANCELED,
}


@dg.sensor(
    name="admission_queue",
    minimum_interval_seconds=TICK_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Decides again for every held run and settles the runs that ended.",
)
def admission_queue(
    context: dg.SensorEvaluationContext, escrow: dg.ResourceParam[Escrow]
) -> dg.SkipReason:
    """Look at the queue every tick; says in the tick's own words what it did and what is late."""
    graph = context.repository_def.asset_graph if context.repository_def else None
    attended = attend(context.instance, escrow, KnownAssets(graph))
    for run_id in attended.at_risk[:20]:
        context.log.warning(f"run {run_id} is held and will miss its latest start")
    return dg.SkipReason(str(attended))


def _when(word: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        name=f"admission_run_{word}",
        run_status=status,
        monitor_all_code_locations=True,
        minimum_interval_seconds=TICK_S // 3,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"A run {word}: settle its money and decide again for what waits.",
    )
    def ended(context: dg.RunStatusSensorContext, escrow: dg.ResourceParam[Escrow]) -> None:
        escrow.settle(context.dagster_run.run_id, succeeded=word == "succeeded")
        graph = context.repository_def.asset_graph if context.repository_def else None
        attended = attend(context.instance, escrow, KnownAssets(graph))
        context.log.info(f"run {context.dagster_run.run_id} {word}: {attended}")

    return ended


def _all() -> Iterator[dg.SensorDefinition]:
    yield admission_queue
    for word, status in ENDED.items():
        yield _when(word, status)


SENSORS: Sequence[dg.SensorDefinition] = list(_all())
