"""Jobs, schedules and checks of storage: rollover, compaction, scrub, vacuum, its cost.

Belongs here: when storage is looked after, and what must hold afterwards. Does not: doing it
(`assets.storage`). A schedule applies what the asset by itself only plans.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.assets.storage import MoverResource, today
from resources.lifecycle import content_of, window_of
from resources.s3 import Archived

Job = Any  # what `define_asset_job` returns has no public name
RECENT = timedelta(days=2)


def _job(name: str, *assets: str, description: str) -> Job:
    return dg.define_asset_job(name, dg.AssetSelection.assets(*assets), description=description)


rollover_job = _job(
    "storage_rollover_job",
    "storage_plan",
    "storage_rollover",
    description="Plan where every part should lie and, when told to apply, move it there.",
)
compaction_job = _job(
    "storage_compaction_job", "storage_compaction", description="Small files into one."
)
scrub_job = _job("storage_scrub_job", "storage_scrub", description="Find damaged files.")
vacuum_job = _job("storage_vacuum_job", "storage_vacuum", description="Delete unnamed files.")
cost_job = _job("storage_cost_job", "cost_storage", description="Charge a day of storage.")


def _applied(name: str, job: Job, asset: str, cron: str) -> dg.ScheduleDefinition:
    config = {"ops": {asset: {"config": {"apply": True}}}}
    return dg.ScheduleDefinition(name=name, job=job, cron_schedule=cron, run_config=config)


@dg.schedule(name="daily_storage_cost", job=cost_job, cron_schedule="30 23 * * *")
def daily_storage_cost(_: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Charge today's storage late in the day."""
    return dg.RunRequest(run_key=today(), partition_key=today())


def _moves_conserve_rows(asset: str, compacted: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name="rows_conserved")
    def check(mover: MoverResource) -> dg.AssetCheckResult:
        """Every recent move, counted again: its rows before and after, from the two versions."""
        since = datetime.now(UTC) - RECENT
        checked, unreadable, wrong = 0, 0, []
        for table in mover.tables():
            for move in mover.books.moves_made(table.uri):
                if move.begun_at < since or move.version is None:
                    continue
                if (move.kind == "compact") != compacted:
                    continue
                cells, keys = window_of(table, move.first, move.last, move.owner)
                try:
                    before = content_of(table, cells, keys, move.base_version)
                    after = content_of(table, cells, keys, move.version)
                except (OSError, pl.exceptions.PolarsError, Archived):
                    unreadable += 1  # vacuumed or archived; it was compared when it was made
                    continue
                checked += 1
                if before != after:
                    wrong.append(f"{table.table.name} {move.first} of {move.owner}")
        return dg.AssetCheckResult(
            passed=not wrong,
            metadata={
                "moves": checked,
                "no_longer_comparable": unreadable,
                "wrong": ", ".join(wrong) or "none",
            },
        )

    return check


@dg.asset_check(asset="storage_scrub", name="nothing_damaged")
def nothing_damaged(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """The last scrub found every file as it was written."""
    event = context.instance.get_latest_materialization_event(dg.AssetKey("storage_scrub"))
    made = event.asset_materialization if event else None
    damaged = int(made.metadata["damaged"].value) if made else 0
    return dg.AssetCheckResult(passed=damaged == 0, metadata={"damaged": damaged})


JOBS: Sequence[Job] = [rollover_job, compaction_job, scrub_job, vacuum_job, cost_job]
SCHEDULES: Sequence[dg.ScheduleDefinition] = [
    _applied("nightly_rollover", rollover_job, "storage_rollover", "0 5 * * *"),
    _applied("nightly_compaction", compaction_job, "storage_compaction", "30 5 * * *"),
    _applied("weekly_vacuum", vacuum_job, "storage_vacuum", "0 7 * * 6"),
    dg.ScheduleDefinition(name="weekly_scrub", job=scrub_job, cron_schedule="0 6 * * 6"),
    daily_storage_cost,
]
CHECKS: Sequence[dg.AssetChecksDefinition] = [
    _moves_conserve_rows("storage_rollover", compacted=False),
    _moves_conserve_rows("storage_compaction", compacted=True),
    nothing_damaged,
]
