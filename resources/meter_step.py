"""What Dagster's contexts say about the step at hand, in one value object.

Belongs here: who the step is, which assets it makes, who pays for each, which store or segment
group a partition key names. Does not: measuring or charging (`meter`).

Who pays comes from asset metadata: `cost/pipeline`, `cost/forecaster`, `cost/forecaster_version`,
`cost/segment_group`. A check pays as monitoring. The run tag `cost/cycle` names the retraining
cycle; without it a backfill is one cycle, and so is a run with its retries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from forecast_core.cost.settlement import UNATTRIBUTED, Owner, span_of

PIPELINE = "cost/pipeline"
FORECASTER = "cost/forecaster"
FORECASTER_VERSION = "cost/forecaster_version"
SEGMENT_GROUP = "cost/segment_group"
CYCLE = "cost/cycle"
CYCLE_TAGS = (CYCLE, "dagster/backfill", "dagster/root_run_id")

Key = tuple[str, str, int]
AnyContext = (
    dg.InputContext
    | dg.OutputContext
    | dg.AssetExecutionContext
    | dg.OpExecutionContext
    | dg.AssetCheckExecutionContext
)


@dataclass(frozen=True)
class Step:
    """One attempt of one step of one run. `awaited`: outputs that an IO manager will settle."""

    run_id: str
    step_key: str
    attempt: int
    cycle: str
    awaited: int
    tags: Mapping[str, str]

    @property
    def key(self) -> Key:
        """What no two attempts share."""
        return (self.run_id, self.step_key, self.attempt)

    def owner(self, environment: str, **known: str | None) -> Owner:
        """An owner of this step's cost."""
        return replace(
            Owner(environment=environment, **known),  # type: ignore[arg-type]  # names are checked
            run_id=self.run_id,
            step_key=self.step_key,
            attempt=self.attempt,
            cycle=self.cycle,
        )


def step_of(context: AnyContext) -> Step:
    """The attempt that `context` belongs to."""
    step = step_context(context)
    tags: Mapping[str, str] = step.dagster_run.tags
    run_id = str(step.run_id)
    return Step(
        run_id=run_id,
        step_key=str(step.step.key),
        attempt=int(step.previous_attempt_count) + 1,
        cycle=next((tags[tag] for tag in CYCLE_TAGS if tags.get(tag)), run_id),
        awaited=len(_handled_outputs(step)),
        tags=tags,
    )


def key_of(context: AnyContext) -> Key:
    """`step_of(context).key`, cheaper: it is asked for at every read."""
    step = step_context(context)
    return (str(step.run_id), str(step.step.key), int(step.previous_attempt_count) + 1)


def step_context(context: AnyContext) -> Any:
    """Dagster's own context of the step."""
    if isinstance(context, dg.InputContext | dg.OutputContext):
        return context.step_context
    op_context = getattr(context, "op_execution_context", context)
    return op_context.get_step_execution_context()


def _handled_outputs(step: Any) -> list[str]:
    """Names of the step's outputs that reach an IO manager (those of type Nothing do not)."""
    made = {output.name for output in step.step.step_outputs}
    return [
        output.name
        for output in step.op_def.output_defs
        if output.name in made and not output.dagster_type.is_nothing
    ]


def payer_of_output(context: dg.OutputContext, step: Step, environment: str) -> Owner:
    """Who pays for the output at hand."""
    if not context.has_asset_key:
        return step.owner(environment, pipeline=step.tags.get(PIPELINE, UNATTRIBUTED))
    return _payer(step, environment, context.asset_key, context.asset_spec.metadata)


def payers_of_body(context: AnyContext, step: Step, environment: str) -> dict[str, Owner]:
    """Who pays for what the whole step makes, by asset (a check pays as monitoring)."""
    if isinstance(context, dg.AssetCheckExecutionContext):
        targets = sorted(
            {key.asset_key.to_user_string() for key in context.selected_asset_check_keys}
        )
        return {t: step.owner(environment, pipeline="monitoring", asset=t) for t in targets}
    op_context = getattr(context, "op_execution_context", context)
    if not isinstance(op_context, dg.OpExecutionContext) or not op_context.has_assets_def:
        pipeline = step.tags.get(PIPELINE, UNATTRIBUTED)
        return {"": step.owner(environment, pipeline=pipeline)}
    specs = {
        spec.key: spec
        for spec in op_context.assets_def.specs
        if spec.key in op_context.selected_asset_keys
    }
    return {
        key.to_user_string(): _payer(step, environment, key, specs[key].metadata)
        for key in sorted(specs)
    }


def _payer(step: Step, environment: str, key: dg.AssetKey, metadata: Mapping[str, Any]) -> Owner:
    def said(name: str) -> str | None:
        value = metadata.get(name)
        value = getattr(value, "value", value)
        return None if value is None else str(value)

    return step.owner(
        environment,
        asset=key.to_user_string(),
        pipeline=said(PIPELINE) or UNATTRIBUTED,
        forecaster=said(FORECASTER),
        forecaster_version=said(FORECASTER_VERSION),
        segment_group=said(SEGMENT_GROUP),
    )


def by_place(
    owner: Owner,
    rows_by_partition: Mapping[str, int],
    cut: dg.PartitionsDefinition | None,
    series: Mapping[str, int],
) -> dict[Owner, float]:
    """`owner` split by the store or segment group that the partition keys name, by rows.

    `series`: how many were written, by store ('' where rows belong to none).
    """
    places: dict[tuple[str | None, str | None], list[str]] = {}
    for key in rows_by_partition:
        places.setdefault(_place(owner, key, cut), []).append(key)
    shares: dict[Owner, float] = {}
    for (store_id, group), keys in places.items():
        rows = sum(rows_by_partition[key] for key in keys)
        named = replace(
            owner,
            store_id=store_id,
            segment_group=group,
            partition=span_of(keys),
            series=series.get(store_id, 0) if store_id else sum(series.values()) or None,
            rows=rows,
        )
        shares[named] = float(rows)
    return shares


def _place(
    owner: Owner, key: str, cut: dg.PartitionsDefinition | None
) -> tuple[str | None, str | None]:
    if isinstance(cut, dg.StaticPartitionsDefinition) and key:  # segment groups are the only ones
        return owner.store_id, key
    if not isinstance(cut, dg.MultiPartitionsDefinition) or not key:
        return owner.store_id, owner.segment_group
    # Keys spell the dimensions in order of their names; only a last one may hold the separator.
    names = sorted(dimension.name for dimension in cut.partitions_defs)
    values = dict(zip(names, key.split("|", len(names) - 1), strict=True))
    return values.get("store", owner.store_id), values.get("group", owner.segment_group)
