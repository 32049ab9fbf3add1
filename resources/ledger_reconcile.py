"""The reconciler: settles what died without a word, from Dagster's event log.

Belongs here: finding attempts without a closing settlement and charging them an estimate; idle
capacity of runs that declared what they hold. Does not: measuring (`meter`) or the fold from events
to attempts (`forecast_core.cost.attempts`).

An estimate is the declared quota times the wall clock since the last part that was measured, marked
`x_estimated`. A run declares its quota in the tags `cost/vcpus` and `cost/gib`; without them the
price card's `presumed_quota` stands. Run it as often as you like, from as many processes as you
like: a settlement's key is taken once, and the cursor only saves reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from forecast_core.cost.attempts import Attempt, Kind, StepEvent, attempts
from forecast_core.cost.charges import Usage
from forecast_core.cost.price_card import PriceCard, Quota
from forecast_core.cost.settlement import (
    IDLE,
    UNATTRIBUTED,
    Owner,
    Settlement,
    charge_set_of,
    common,
    ledger_rows,
    span_of,
)
from resources.ledger import Ledger
from resources.meter_step import CYCLE_TAGS, FORECASTER, PIPELINE, SEGMENT_GROUP

CURSOR = "reconcile"
VCPUS_TAG, GIB_TAG = "cost/vcpus", "cost/gib"
GRACE = timedelta(seconds=60)  # a step that just ended may still be writing its settlement
OVERLAP = timedelta(hours=1)  # clocks of processes differ; a run read again changes nothing
PAGE = 200

_KINDS: Mapping[dg.DagsterEventType, Kind] = {
    dg.DagsterEventType.STEP_START: "started",
    dg.DagsterEventType.STEP_RESTARTED: "started",
    dg.DagsterEventType.STEP_SUCCESS: "succeeded",
    dg.DagsterEventType.STEP_FAILURE: "failed",
    dg.DagsterEventType.STEP_UP_FOR_RETRY: "to_retry",
}
_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_RUNNING = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)

AssetMetadata = Callable[[str], Mapping[str, Any]]


@dataclass(frozen=True)
class Reconciled:
    """What a pass did: runs read, their attempts, those charged an estimate, idle rows."""

    runs: int
    attempts: int
    estimated: int
    idle: int


def reconcile(
    instance: dg.DagsterInstance,
    ledger: Ledger,
    card: PriceCard,
    environment: str,
    metadata_of: AssetMetadata = lambda asset: {},
    *,
    grace: timedelta = GRACE,
    everything: bool = False,
) -> Reconciled:
    """Settle every ended attempt that has no closing settlement.

    Reads the runs changed since the last pass (`everything`: all of them) and those under way.
    `metadata_of` gives an asset's metadata, for who pays.

    Raises:
        LedgerLocked: another process held the ledger too long; the next pass goes on from here.
    """
    now = datetime.now(UTC)
    books = _Books(instance, ledger, card, environment, metadata_of, now - grace)
    since = None if everything else _since(ledger)
    reached = since
    totals = [0, 0, 0, 0]
    for record in _changed_runs(instance, since):
        for index, count in enumerate(books.settle_run(record)):
            totals[index] += count
        if record.dagster_run.status in _ENDED:
            reached = max(reached or _utc(record.update_timestamp), _utc(record.update_timestamp))
    for record in instance.get_run_records(filters=dg.RunsFilter(statuses=list(_RUNNING))):
        for index, count in enumerate(books.settle_run(record)):
            totals[index] += count
    if reached is not None and reached != since:
        ledger.move_cursor(CURSOR, reached.isoformat())
    return Reconciled(*totals)


def _since(ledger: Ledger) -> datetime | None:
    value = ledger.cursor(CURSOR)
    return None if value is None else datetime.fromisoformat(value)


def _changed_runs(instance: dg.DagsterInstance, since: datetime | None) -> Iterator[dg.RunRecord]:
    """Ended runs that changed since, oldest first. Pages follow ids: a cursor knows no other."""
    after = None if since is None else since - OVERLAP
    cursor = None
    while True:
        page = instance.get_run_records(
            filters=dg.RunsFilter(statuses=list(_ENDED), updated_after=after),
            ascending=True,
            limit=PAGE,
            cursor=cursor,
        )
        yield from page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


@dataclass(frozen=True)
class _Books:
    """One pass over the runs."""

    instance: dg.DagsterInstance
    ledger: Ledger
    card: PriceCard
    environment: str
    metadata_of: AssetMetadata
    settled_before: datetime

    def settle_run(self, record: dg.RunRecord) -> tuple[int, int, int, int]:
        """Runs, attempts, estimates, idle rows: what this run added to the totals of a pass."""
        run = record.dagster_run
        ended = run.status in _ENDED
        run_end = _run_end(record) if ended else None
        status = "canceled" if run.status is dg.DagsterRunStatus.CANCELED else "killed"
        made = attempts(self._step_events(run.run_id), run_end, status)
        parts = self.ledger.parts(run.run_id)
        estimated = 0
        for attempt in made:
            had = parts.get((attempt.step_key, attempt.attempt), [])
            if not self._is_due(attempt, ended, had):
                continue
            estimated += self._estimate(run, attempt, had)
        idle = self._idle(record, run_end) if run_end is not None else 0
        return 1, len(made), estimated, idle

    def _is_due(
        self, attempt: Attempt, run_ended: bool, parts: Sequence[Mapping[str, Any]]
    ) -> bool:
        if attempt.end is None or any(part["x_final"] for part in parts):
            return False
        return attempt.end <= self.settled_before or (run_ended and attempt.status == "killed")

    def _step_events(self, run_id: str) -> Iterable[StepEvent]:
        for record in _records(self.instance, run_id, set(_KINDS)):
            event = record.event_log_entry.dagster_event
            if event is not None and event.step_key is not None:
                at = datetime.fromtimestamp(record.event_log_entry.timestamp, UTC)
                yield StepEvent(event.step_key, _KINDS[event.event_type], at)

    def _estimate(
        self, run: dg.DagsterRun, attempt: Attempt, parts: Sequence[Mapping[str, Any]]
    ) -> bool:
        assert attempt.end is not None
        start = parts[-1]["ChargePeriodEnd"] if parts else attempt.start
        end = max(attempt.end, start + timedelta(microseconds=1))
        quota = _quota(run.tags) or self.card.presumed
        wall_s = (end - start).total_seconds()
        owners = self._owners(run, attempt)
        settlement = Settlement(
            charge_set=charge_set_of(run.run_id, attempt.step_key, attempt.attempt, len(parts)),
            owner=common(owners),
            start=start,
            end=end,
            usage=Usage(
                cpu_s=quota.vcpus * wall_s,
                rss_gib_s=quota.gib * wall_s,
                peak_rss_gib=quota.gib,
                wall_s=wall_s,
            ),
            part=len(parts),
            status=attempt.status or "killed",
            estimated=True,
        )
        rates = self.card.on(start.date(), self.environment)
        shares = dict.fromkeys(owners, 1.0)
        return self.ledger.record(*ledger_rows(settlement, rates, shares, "quota x wall"))

    def _owners(self, run: dg.DagsterRun, attempt: Attempt) -> list[Owner]:
        """Who pays: the assets that the step was planned to make, evenly."""
        planned: dict[str, list[str]] = {}
        wanted = {dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED}
        for record in _records(self.instance, run.run_id, wanted):
            event = record.event_log_entry.dagster_event
            if event is not None and event.step_key == attempt.step_key and event.asset_key:
                keys = planned.setdefault(event.asset_key.to_user_string(), [])
                keys.append(event.partition or "")
        base = _owner(run, attempt, self.environment)
        return [self._payer(base, asset, keys) for asset, keys in sorted(planned.items())] or [base]

    def _payer(self, base: Owner, asset: str, keys: Sequence[str]) -> Owner:
        metadata = self.metadata_of(asset)

        def said(name: str) -> str | None:
            value = metadata.get(name)
            value = getattr(value, "value", value)
            return None if value is None else str(value)

        known = {f"{name}": getattr(base, name) for name in ("run_id", "step_key", "cycle")}
        return Owner(
            environment=base.environment,
            pipeline=said(PIPELINE) or UNATTRIBUTED,
            forecaster=said(FORECASTER),
            segment_group=said(SEGMENT_GROUP),
            asset=asset,
            partition=span_of(keys),
            attempt=base.attempt,
            **known,
        )

    def _idle(self, record: dg.RunRecord, run_end: datetime) -> int:
        """Capacity that the run declared and did not use; nothing where it declared none."""
        run, quota = record.dagster_run, _quota(record.dagster_run.tags)
        if quota is None or record.start_time is None:
            return 0
        start = datetime.fromtimestamp(record.start_time, UTC)
        wall_s = (run_end - start).total_seconds()
        used = self.ledger.settlements(run_id=run.run_id)
        cpu_s, rss_gib_s = (float(used[c].sum()) for c in ("cpu_s", "rss_gib_s"))
        usage = Usage(
            cpu_s=max(quota.vcpus * wall_s - cpu_s, 0.0),
            rss_gib_s=max(quota.gib * wall_s - rss_gib_s, 0.0),
            wall_s=wall_s,
        )
        if run_end > self.settled_before or not (usage.cpu_s or usage.rss_gib_s):
            return 0
        owner = Owner(
            environment=self.environment,
            cost_class=IDLE,
            pipeline=None,
            run_id=run.run_id,
            cycle=_cycle(run),
        )
        end = max(run_end, start + timedelta(microseconds=1))
        settlement = Settlement(f"{run.run_id}:idle", owner, start, end, usage)
        rates = self.card.on(start.date(), self.environment)
        return int(self.ledger.record(*ledger_rows(settlement, rates)))


def _records(
    instance: dg.DagsterInstance, run_id: str, kinds: set[dg.DagsterEventType]
) -> Iterator[dg.EventLogRecord]:
    cursor = None
    while True:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=kinds, limit=1000)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def _quota(tags: Mapping[str, str]) -> Quota | None:
    if VCPUS_TAG not in tags and GIB_TAG not in tags:
        return None
    try:
        return Quota(float(tags.get(VCPUS_TAG, 0)), float(tags.get(GIB_TAG, 0)))
    except ValueError:
        raise ValueError(
            f"run tags {VCPUS_TAG}={tags.get(VCPUS_TAG)!r}, {GIB_TAG}={tags.get(GIB_TAG)!r}:"
            " write numbers"
        ) from None


def _owner(run: dg.DagsterRun, attempt: Attempt, environment: str) -> Owner:
    return Owner(
        environment=environment,
        pipeline=run.tags.get(PIPELINE, UNATTRIBUTED),
        run_id=run.run_id,
        step_key=attempt.step_key,
        attempt=attempt.attempt,
        cycle=_cycle(run),
    )


def _cycle(run: dg.DagsterRun) -> str:
    return next((run.tags[tag] for tag in CYCLE_TAGS if run.tags.get(tag)), run.run_id)


def _run_end(record: dg.RunRecord) -> datetime:
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, UTC)
    return _utc(record.update_timestamp)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
