"""Looking after storage: what it costs, where parts should lie, and the work that follows.

Belongs here: one asset for each thing that is done to stored files. Does not: the rules
(`forecast_core.storage.lifecycle`, `forecast_core.storage.placement`) or the protocol of a move
(`resources.lifecycle`).

Nothing here computes data, so everything can be run again at any time: what is done is done once.
"""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl

from forecast_assets.storage_reads import GraphFacts
from forecast_core.cells import Cells
from forecast_core.storage.lifecycle import Due, rollover
from forecast_core.storage.placement import markdown
from resources import DataSpan, Settings
from resources.all_tables import COST_STORAGE
from resources.lifecycle import Moved, Mover, parts_of
from resources.meter import Meter, metered
from resources.placements import Applied, apply, due_of, plan, small_files
from resources.scrub import scrub
from resources.storage_ledger import Deleted
from resources.storage_usage import charge, charge_early, stored, usage
from resources.vacuum import vacuum

MoverResource = dg.ResourceParam[Mover]
MeterResource = dg.ResourceParam[Meter]
SpanResource = dg.ResourceParam[DataSpan]
GraphResource = dg.ResourceParam[GraphFacts]

# Storage is paid by the calendar day, so its partitions are days of the wall clock.
DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_offset=1)


class Apply(dg.Config):
    """`apply`: make the moves; the plan alone is made otherwise. `by`: 'cost' takes what the
    placement planner says, 'age' the ages of the policy. At most `limit` moves in a run."""

    apply: bool = False
    by: str = "cost"
    limit: int = 500


class Delete(dg.Config):
    """`apply`: delete; otherwise only count. `hours`: retention, the policy's when 0."""

    apply: bool = False
    hours: int = 0


@dg.asset(partitions_def=DAYS, kinds={"deltalake"}, metadata={"cost/pipeline": "storage"})
@metered
def cost_storage(
    context: dg.AssetExecutionContext,
    mover: MoverResource,
    meter: MeterResource,
    settings: dg.ResourceParam[Settings],
    graph: GraphResource,
) -> dg.MaterializeResult[None]:
    """What a day of storage costs, by table, tier, store and pipeline; charged once a day.

    Tombstones, logs, what deleted files still owe, and everything else under the data root are in
    it. A past day is charged for what lies there now: that is the best that can still be known.
    """
    day = date.fromisoformat(context.partition_key)
    rates = meter.card.on(day, meter.environment)
    held = stored(mover.lake, _beside(context, settings))
    rows = usage(held, day, rates, graph.pipelines, _deleted(mover, day))
    whose = (meter.environment, settings.dataset)
    charged = charge(meter.ledger, held, day, rates, *whose)
    for due in (day - timedelta(days=1), day):  # yesterday was charged before it was over
        dated = meter.card.on(due, meter.environment)
        charged += charge_early(meter.ledger, _deleted(mover, due), due, dated, *whose)
    written = mover.lake.table(COST_STORAGE).replace(rows, Cells(day, day))
    by = {
        f"{what}/{name}": value
        for what in ("bytes", "money")
        for column in ("storage_tier", "kind")
        for name, value in rows.group_by(column).agg(pl.col(what).sum()).sort(column).iter_rows()
    }
    return dg.MaterializeResult(
        metadata={
            "dagster/partition_row_count": written.rows,
            "charges": charged,
            "bytes": int(rows["bytes"].sum()),
            "rows": int(rows["rows"].sum()),
            "money": float(rows["money"].sum()),
            "currency": rates.currency,
            **by,
        }
    )


@dg.asset(kinds={"deltalake"}, metadata={"cost/pipeline": "storage"})
@metered
def storage_plan(
    mover: MoverResource, meter: MeterResource, span: SpanResource, graph: GraphResource
) -> dg.MaterializeResult[None]:
    """Where every part should lie and what that saves: a dry run, nothing is moved."""
    rates = meter.card.on(datetime.now(UTC).date(), meter.environment)
    placed = plan(mover, mover.tables(), graph.readers, rates, span.as_of)
    moves = [p for p in placed if p.moves]
    return dg.MaterializeResult(
        metadata={
            "plan": dg.MetadataValue.md(markdown(placed, rates.currency)),
            "parts": len(placed),
            "moves": len(moves),
            "saving": sum(p.saving for p in moves),
            "move_cost": sum(p.move_cost for p in moves),
        }
    )


@dg.asset(
    deps=[storage_plan], pool="storage", kinds={"deltalake"}, metadata={"cost/pipeline": "storage"}
)
@metered
def storage_rollover(
    context: dg.AssetExecutionContext,
    config: Apply,
    mover: MoverResource,
    meter: MeterResource,
    span: SpanResource,
    graph: GraphResource,
) -> dg.MaterializeResult[None]:
    """Parts moved to the tier where they are cheapest (or, by age, where they belong)."""
    if config.by not in ("cost", "age"):
        raise dg.Failure(f"by is {config.by!r}; write 'cost' or 'age'")
    settled = sum(mover.settle(table) for table in mover.tables())
    rates = meter.card.on(datetime.now(UTC).date(), meter.environment)
    if config.by == "cost":
        due = due_of(plan(mover, mover.tables(), graph.readers, rates, span.as_of))
    else:
        due = _by_age(mover, span.as_of)
    return _made(context, mover, meter, due[: config.limit], config.apply, settled=settled)


@dg.asset(pool="storage", kinds={"deltalake"}, metadata={"cost/pipeline": "storage"})
@metered
def storage_compaction(
    context: dg.AssetExecutionContext, config: Apply, mover: MoverResource, meter: MeterResource
) -> dg.MaterializeResult[None]:
    """Small files of a part written again as one, in the same tier."""
    due = [one for table in mover.tables() for one in small_files(mover, table)[0]]
    return _made(context, mover, meter, due[: config.limit], config.apply)


@dg.asset(kinds={"deltalake"}, metadata={"cost/pipeline": "storage"})
@metered
def storage_scrub(
    context: dg.AssetExecutionContext, mover: MoverResource, meter: MeterResource
) -> dg.MaterializeResult[None]:
    """Every file read and compared with what was recorded when it was written."""
    began = time.monotonic()
    seen = [scrub(table, mover.books) for table in mover.tables()]
    damages = [damage for one in seen for damage in one.damages]
    for damage in damages:
        context.log.error(damage.message)
    for one in seen:
        for tier, fetched in one.traffic.items():  # a look at a cold file is a retrieval too
            meter.read(context, fetched.bytes, fetched.files, tier)
    lines = ["| file | part | what | remedy |", "|---|---|---|---|"]
    lines += [f"| {d.path} | {d.partition} | {d.what} | {d.remedy} |" for d in damages]
    return dg.MaterializeResult(
        metadata={
            "files": sum(one.files for one in seen),
            "bytes": sum(one.bytes for one in seen),
            "adopted": sum(one.adopted for one in seen),
            "archived": sum(one.archived for one in seen),
            "damaged": len(damages),
            "damages": dg.MetadataValue.md("\n".join(lines)),
            "seconds": time.monotonic() - began,
        }
    )


@dg.asset(pool="storage", kinds={"deltalake"}, metadata={"cost/pipeline": "storage"})
@metered
def storage_vacuum(
    config: Delete, mover: MoverResource, meter: MeterResource
) -> dg.MaterializeResult[None]:
    """Files that no version in use names are deleted; held versions keep theirs."""
    rates = meter.card.on(datetime.now(UTC).date(), meter.environment)
    done = [
        vacuum(mover, table, rates, hours=config.hours or None, dry_run=not config.apply)
        for table in mover.tables()
    ]
    return dg.MaterializeResult(
        metadata={
            "applied": config.apply,
            "files": sum(one.files for one in done),
            "bytes": sum(one.bytes for one in done),
            "held_versions": sum(len(one.kept_versions) for one in done),
            "early_deletion": float(sum(one.early_deletion for one in done)),
        }
    )


def _made(
    context: dg.AssetExecutionContext,
    mover: Mover,
    meter: Meter,
    due: Sequence[Due],
    applied: bool,
    **more: int,
) -> dg.MaterializeResult[None]:
    """Make the moves (or only list them); what they read and write is charged to this step."""

    def said(moved: Moved) -> None:
        for tier, fetched in moved.read.items():
            meter.read(context, fetched.bytes, fetched.files, tier)
        for tier, sent in moved.written.items():
            meter.wrote(context, sent.bytes, sent.files, tier)

    done = apply(mover, due, said) if applied else Applied((), ())
    for part, reason in done.failed:
        context.log.warning(f"{part.name} was not moved: {reason}")
    lines = ["| part | to | reason | |", "|---|---|---|---|"]
    failed = {part.name: reason for part, reason in done.failed}
    for one in due[:100]:
        outcome = failed.get(one.part.name, "done" if applied else "dry run")
        lines.append(f"| {one.part.name} | {one.tier} | {one.reason} | {outcome} |")
    return dg.MaterializeResult(
        metadata={
            "applied": applied,
            "due": len(due),
            "moved": len(done.moved),
            "failed": len(done.failed),
            "rows": done.rows,
            "bytes_before": sum(moved.bytes_before for moved in done.moved),
            "bytes_after": sum(moved.bytes_after for moved in done.moved),
            "moves": dg.MetadataValue.md("\n".join(lines)),
            **more,
        }
    )


def _by_age(mover: Mover, as_of: date) -> list[Due]:
    due: list[Due] = []
    for table in mover.tables():
        holds, stays = mover.books.holds(table.uri), mover.books.stays(table.uri)
        due += rollover(parts_of(table), mover.policy.tiers, as_of, holds, stays)[0]
    return due


def _deleted(mover: Mover, day: date) -> dict[str, list[Deleted]]:
    """The files deleted on a day, by table."""
    return {table.table.name: mover.books.deleted_on(table.uri, day) for table in mover.tables()}


def _beside(context: dg.AssetExecutionContext, settings: Settings) -> dict[str, Path]:
    """What else lies under the data root, and Dagster's own store: by name.

    Without the folders of other data sets: their own lakes charge them.
    """
    state = settings.state_dir.resolve()
    found = {
        path.name: path
        for path in state.glob("*")
        if path.name == settings.dataset or not (path / "lake").is_dir()
    }
    home = Path(context.instance.root_directory).resolve()
    if home.is_dir() and home not in found.values():
        found["dagster"] = home
    return found


def today() -> str:
    """The partition of the current day."""
    return datetime.now(UTC).date().isoformat()


def yesterday() -> str:
    """The partition of the last whole day."""
    return (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
