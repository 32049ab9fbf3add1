"""What is known of a Dagster run before it starts: origin, assets, pipelines, size.

Belongs here: reading a run, its plan and its assets' metadata. Does not: what follows from it
(`forecast_core.admission.request`).

Job tags are lost when assets are launched directly, so a run is known by its assets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg

from forecast_core.admission.request import (
    GPU_KEY,
    PIPELINE_KEY,
    RUNGS_KEY,
    AssetFacts,
    RunFacts,
)

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
_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
LAUNCH_TAG = "admission/launch"  # joins the pieces of one launch
_LAUNCHES = (LAUNCH_TAG, "dagster/backfill", "dagster/root_run_id")


class _Graph(Protocol):
    def has(self, key: dg.AssetKey) -> bool: ...
    def get(self, key: dg.AssetKey) -> Any: ...


@dataclass(frozen=True)
class KnownAssets:
    """What a graph (of a workspace, a repository or a job) says about assets."""

    graph: _Graph | None

    def metadata(self, key: dg.AssetKey) -> Mapping[str, Any]:
        """The asset's metadata; empty for an asset that nobody knows."""
        if self.graph is None or not self.graph.has(key):
            return {}
        metadata: Mapping[str, Any] = self.graph.get(key).metadata
        return metadata

    def partitions(self, key: dg.AssetKey) -> dg.PartitionsDefinition[str] | None:
        """How the asset is cut; None when it is not, or nobody knows it."""
        if self.graph is None or not self.graph.has(key):
            return None
        cut: dg.PartitionsDefinition[str] | None = self.graph.get(key).partitions_def
        return cut


def origin_of(tags: Mapping[str, str]) -> str:
    """Who started a run: schedule, sensor, automation, backfill; manual when nothing says so."""
    return next((origin for tag, origin in _ORIGINS if tag in tags), "manual")


def facts_of(
    run: dg.DagsterRun, instance: dg.DagsterInstance, known: KnownAssets, submitted: float
) -> RunFacts:
    """What admission needs to know of a run. Assets that nobody knows come without a pipeline."""
    keys = sorted(asset_keys(run, instance), key=lambda key: key.to_user_string())
    assets = tuple(_asset(key, known.metadata(key)) for key in keys)
    if not assets and (run.asset_check_selection or any(_outputs(run, instance))):
        assets = (AssetFacts("asset checks", "monitoring"),)  # as the meter charges them
    return RunFacts(
        run_id=run.run_id,
        origin=origin_of(run.tags),
        assets=assets,
        submitted=submitted,
        partitions=_partitions(run, instance, keys, known),
        launch=next((run.tags[tag] for tag in _LAUNCHES if tag in run.tags), ""),
        tags=dict(run.tags),
    )


def asset_keys(run: dg.DagsterRun, instance: dg.DagsterInstance) -> frozenset[dg.AssetKey]:
    """The assets a run will make: its selection, or what its plan produces."""
    if run.asset_selection:
        return frozenset(run.asset_selection)
    return frozenset(
        output.asset_key for output in _outputs(run, instance) if output.asset_key is not None
    )


def _outputs(run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[Any]:
    """The assets and checks that the run's plan produces."""
    if run.execution_plan_snapshot_id is None:
        return
    plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
    chosen = set(plan.step_keys_to_execute)
    for step in plan.steps:
        for output in step.outputs if step.key in chosen else ():
            if output.properties and (
                output.properties.asset_key or output.properties.asset_check_key
            ):
                yield output.properties


def _asset(key: dg.AssetKey, metadata: Mapping[str, Any]) -> AssetFacts:
    rungs = plain(metadata.get(RUNGS_KEY))
    if isinstance(rungs, str):
        rungs = [part.strip() for part in rungs.split(",")]
    pipeline, deadline = plain(metadata.get(PIPELINE_KEY)), plain(metadata.get(DEADLINE_KEY))
    return AssetFacts(
        key.to_user_string(),
        str(pipeline) if pipeline else None,
        tuple(str(rung) for rung in rungs or ()),
        str(deadline) if deadline else None,
        int(plain(metadata.get(GPU_KEY)) or 0),
    )


def plain(value: Any) -> Any:
    """A metadata value as it was written: definitions wrap it."""
    return value.value if isinstance(value, dg.MetadataValue) else value


def _partitions(
    run: dg.DagsterRun,
    instance: dg.DagsterInstance,
    keys: Iterable[dg.AssetKey],
    known: KnownAssets,
) -> int:
    """Partitions that the run covers: 1 without a range, the longest range of its assets else."""
    if _RANGE[0] not in run.tags or _RANGE[1] not in run.tags:
        return 1
    span = dg.PartitionKeyRange(run.tags[_RANGE[0]], run.tags[_RANGE[1]])
    most = 1
    for cut in filter(None, map(known.partitions, keys)):
        try:
            covered = (
                cut.get_partition_keys_in_range(span, dynamic_partitions_store=instance)
                if isinstance(cut, dg.MultiPartitionsDefinition)
                else cut.get_partition_keys_in_range(span)
            )
        except Exception:  # not this asset's range, or its dimension is not registered here
            continue
        most = max(most, len(covered))
    return most
