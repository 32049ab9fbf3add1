"""What is known of a Dagster run before it starts: origin, assets, pipelines, size.

Belongs here: reading a run, its plan and its assets' metadata. Does not: what follows from it
(`forecast_core.admission_request`).

Job tags are lost when assets are launched directly, so a run is known by its assets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import dagster as dg

from forecast_core.admission_request import PIPELINE_KEY, RUNGS_KEY, AssetFacts, RunFacts

DEADLINE_KEY = "admission/deadline"
# The tags that Dagster leaves, the surest sign first: an automation condition that covers many
# partitions launches a backfill, and is still the platform's own doing.
_ORIGINS = (
    ("dagster/from_automation_condition", "automation"),
    ("dagster/auto_materialize", "automation"),
    ("dagster/backfill", "backfill"),
    ("dagster/schedule_name", "schedule"),
    ("dagster/sensor_name", "sensor"),
)
_LAUNCHES = ("dagster/backfill", "dagster/root_run_id")
MetadataOf = Callable[[dg.AssetKey], Mapping[str, Any] | None]


class _Graph(Protocol):
    def has(self, key: dg.AssetKey) -> bool: ...
    def get(self, key: dg.AssetKey) -> Any: ...


def metadata_in(graph: _Graph | None) -> MetadataOf:
    """Metadata of an asset in a graph (of a workspace, a repository or a job); None if unknown."""

    def metadata_of(key: dg.AssetKey) -> Mapping[str, Any] | None:
        if graph is None or not graph.has(key):
            return None
        metadata: Mapping[str, Any] = graph.get(key).metadata
        return metadata

    return metadata_of


def origin_of(tags: Mapping[str, str]) -> str:
    """Who started a run: schedule, sensor, automation, backfill; manual when nothing says so."""
    return next((origin for tag, origin in _ORIGINS if tag in tags), "manual")


def facts_of(
    run: dg.DagsterRun, instance: dg.DagsterInstance, metadata_of: MetadataOf, submitted: float
) -> RunFacts:
    """What admission needs to know of a run. Assets that nobody knows come without a pipeline."""
    keys = sorted(asset_keys(run, instance), key=lambda key: key.to_user_string())
    return RunFacts(
        run_id=run.run_id,
        origin=origin_of(run.tags),
        assets=tuple(_asset(key, metadata_of(key) or {}) for key in keys),
        submitted=submitted,
        partitions=_partitions(run),
        launch=next((run.tags[tag] for tag in _LAUNCHES if tag in run.tags), ""),
        tags=dict(run.tags),
    )


def asset_keys(run: dg.DagsterRun, instance: dg.DagsterInstance) -> frozenset[dg.AssetKey]:
    """The assets a run will make: its selection, or what its plan produces."""
    if run.asset_selection:
        return frozenset(run.asset_selection)
    if run.execution_plan_snapshot_id is None:
        return frozenset()
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    chosen = set(plan.step_keys_to_execute)
    return frozenset(
        output.properties.asset_key
        for step in plan.steps
        if step.key in chosen
        for output in step.outputs
        if output.properties and output.properties.asset_key
    )


def _asset(key: dg.AssetKey, metadata: Mapping[str, Any]) -> AssetFacts:
    rungs = _plain(metadata.get(RUNGS_KEY))
    if isinstance(rungs, str):
        rungs = [part.strip() for part in rungs.split(",")]
    pipeline, deadline = _plain(metadata.get(PIPELINE_KEY)), _plain(metadata.get(DEADLINE_KEY))
    return AssetFacts(
        key.to_user_string(),
        str(pipeline) if pipeline else None,
        tuple(str(rung) for rung in rungs or ()),
        str(deadline) if deadline else None,
    )


def _plain(value: Any) -> Any:
    """A metadata value as it was written: definitions wrap it."""
    return value.value if isinstance(value, dg.MetadataValue) else value


def _partitions(run: dg.DagsterRun) -> int:
    """1 without partitions; a range counts as what its tags span, unknown as 1."""
    return 1 if "dagster/partition" in run.tags else int(run.tags.get("admission/partitions", "1"))
