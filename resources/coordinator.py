"""The live host of admission: the run queue and its hold.

Belongs here: the run coordinator named in `dagster.yaml`, what it writes on runs, asking again.
Does not: rules, money (`escrow`), runs that pass no queue (`gate`), the sensors that look
(`forecast_assets.sensors_admission`).

A held run is QUEUED with the tag `admission/hold: "1"`, which the queue may run zero of. Writing
"0" lets the stock daemon start it. The tag is set before the run enters the queue and lifted only
after its money is held, so whatever crashes or cannot be reached, nothing starts unpaid.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import dagster as dg

from forecast_core.admission.policy import Policy, units
from forecast_core.admission.request import RunFacts
from resources import Environment, Settings
from resources.admission_store import AdmissionStore, Row, StoreError
from resources.escrow import Escrow
from resources.gate import REASON, RUNG
from resources.holders import HOLD, fates, runs_by_id, withdraw_gone
from resources.ledger import open_ledger
from resources.measured_quotes import MeasuredQuoter
from resources.policies import load_policy
from resources.run_facts import KnownAssets, facts_of
from resources.spending import LedgerSpending

HOLD_LIMIT = {"key": HOLD, "value": "1", "limit": 0}
OVERRUN = 3.0  # a run is stopped after so many times its quoted p95
LEAST_RUNTIME_S = 300
_LOG = logging.getLogger("forecast.admission")


class HoldReplaced(RuntimeError):
    """`dagster.yaml` would let held runs start; nothing may be queued on such an instance."""


def admission_url(settings: Settings) -> str:
    """Where admission keeps its state."""
    return settings.admission


def build_escrow(settings: Settings, store_url: str | None = None) -> Escrow:
    """The escrow of an environment, over its store (or the one named), policy and ledger.

    Raises:
        PolicyError: the policy file is refused.
        StoreError: the store cannot be opened.
    """
    policy = load_policy(settings.admission_policy, Policy.parse)
    store = AdmissionStore(store_url or admission_url(settings))
    ledger = open_ledger(settings.ledger)
    return Escrow(
        store,
        policy,
        settings.environment,
        LedgerSpending(ledger),
        MeasuredQuoter(ledger, policy, settings.environment),
    )


@lru_cache(maxsize=8)
def escrow_of(settings: Settings) -> Escrow:
    """`build_escrow`, once a process for equal settings: what it has learned stays with it."""
    return build_escrow(settings)


class AdmissionRunCoordinator(dg.QueuedRunCoordinator):
    """A run queue that starts nothing the budget cannot carry.

    Set in `dagster.yaml`:

        run_coordinator: {module: resources.coordinator, class: AdmissionRunCoordinator}

    It takes the configuration of `QueuedRunCoordinator`, and `store`, `policy` and `environment`
    to use others than the settings name.
    """

    def __init__(
        self,
        store: str | None = None,
        policy: str | None = None,
        environment: str | None = None,
        **queue: Any,
    ) -> None:
        self._named = (store, policy, environment)
        self._escrow: Escrow | None = None
        super().__init__(**queue)
        for limit in self._tag_concurrency_limits:
            if limit["key"] == HOLD:
                raise HoldReplaced(
                    f"run_coordinator: {HOLD} is admission's own tag; drop its limit"
                )

    @classmethod
    def config_type(cls) -> Any:
        """The configuration of the stock queue, and where admission lives."""
        own = {
            name: dg.Field(dg.StringSource, is_required=False)
            for name in ("store", "policy", "environment")
        }
        return {**cast("Mapping[str, Any]", super().config_type()), **own}

    @classmethod
    def from_config_value(
        cls, inst_data: Any, config_value: Mapping[str, Any]
    ) -> AdmissionRunCoordinator:
        """Built by Dagster from `dagster.yaml`."""
        return cls(inst_data=inst_data, **config_value)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Refuse an instance whose settings would replace the hold.

        Raises:
            HoldReplaced: `concurrency.runs.tag_concurrency_limits` is set.
        """
        super().register_instance(instance)
        self._refuse_replacement()

    def _refuse_replacement(self) -> None:
        runs = (self._instance.get_settings("concurrency") or {}).get("runs") or {}
        if "tag_concurrency_limits" in runs:
            raise HoldReplaced(
                "dagster.yaml: concurrency.runs.tag_concurrency_limits replaces the limit that"
                " holds runs back, so everything would start; move those limits to"
                " run_coordinator.config.tag_concurrency_limits"
            )

    def get_run_queue_config(self) -> Any:
        """The queue's limits with the hold among them; read again by the daemon at each pass."""
        self._refuse_replacement()
        config = super().get_run_queue_config()
        return config._replace(
            tag_concurrency_limits=[HOLD_LIMIT, *(config.tag_concurrency_limits or ())]
        )

    @property
    def escrow(self) -> Escrow:
        """Opened when first needed: a queue must load where the store cannot be reached."""
        if self._escrow is None:
            store, policy, environment = self._named
            settings = Settings.from_environment()
            self._escrow = build_escrow(
                replace(
                    settings,
                    admission_policy=Path(policy or settings.admission_policy),
                    environment=cast("Environment", environment or settings.environment),
                ),
                store,
            )
        return self._escrow

    def submit_run(self, context: dg.SubmitRunContext) -> dg.DagsterRun:
        """Put a run into the queue on hold, then decide; it may start at once."""
        run, instance = context.dagster_run, self._instance
        if run.status == dg.DagsterRunStatus.NOT_STARTED:
            instance.add_run_tags(run.run_id, {HOLD: "1"})
        queued = super().submit_run(context)
        try:
            escrow, known = self.escrow, KnownAssets(context.workspace.asset_graph)
            escrow.submit(facts_of(queued, instance, known, escrow.clock()))
            tell(instance, escrow)
        except Exception as error:  # the run stays on hold; the sensor finds and asks for it again
            _LOG.exception("run %s stays on hold", run.run_id)
            note(instance, queued, f"held: admission could not decide ({error}); it asks again")
        reloaded = instance.get_run_by_id(run.run_id)
        return reloaded or queued


# ---- what the queue is told ------------------------------------------------------------------


def note(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    """A line in the run's own log."""
    instance.report_engine_event(f"Admission: {message}", run)


def tell(instance: dg.DagsterInstance, escrow: Escrow, limit: int = 500) -> int:
    """Carry decided passes out: lift holds, cancel the rejected, write reasons on the held.

    Safe to repeat and to run in several processes: a run that is no longer queued is left alone.
    """
    rows = escrow.store.untold(escrow.environment, limit)
    found = {run.run_id: run for run in runs_by_id(instance, [row["run_id"] for row in rows])}
    for row in rows:
        run = found.get(row["run_id"])
        if run is not None and run.status == dg.DagsterRunStatus.QUEUED:
            _tell(instance, run, row, escrow.policy)
        escrow.store.told(row["run_id"], row["pass_id"])
    return len(rows)


def _tell(instance: dg.DagsterInstance, run: dg.DagsterRun, row: Row, policy: Policy) -> None:
    reason = f"{row['reason']} ({row['code']})"
    tags = {"admission/class": row["work_class"], REASON: reason}
    if row["state"] == "rejected":
        instance.add_run_tags(run.run_id, tags)
        # Cancelled, not failed: a failed run would be retried.
        instance.report_run_canceled(run, f"Admission: rejected: {reason}")
        return
    if row["state"] == "waiting":
        tags["admission/earliest_start"] = _moment(row["earliest"])
        tags["admission/latest_start"] = _moment(row["latest"])
        instance.add_run_tags(run.run_id, tags)
        misses = "" if _reaches(row) else ", which it will miss as things are"
        note(
            instance,
            run,
            f"held: {reason}; may start {tags['admission/earliest_start']}, must start by"
            f" {tags['admission/latest_start']}{misses}",
        )
        return
    # Data may have grown since it was measured: nobody gets less than unknown work does.
    least = max(LEAST_RUNTIME_S, policy.default_bound.wall)
    longest = policy.stage_for(row["pipeline"]).max_runtime or math.inf
    runtime = int(min(max(least, row["wall_s"] * OVERRUN), longest))
    note(
        instance,
        run,
        f"admitted as {row['work_class']} at rung {row['rung']}: {reason}; holds up to"
        f" {units(row['money'])} {policy.currency}, stopped after {runtime} s",
    )
    instance.add_run_tags(
        run.run_id,
        tags
        | {
            RUNG: row["rung"],
            "admission/money": str(units(row["money"])),
            "dagster/priority": str(policy.classes[row["work_class"]].priority),
            "dagster/max_runtime": str(runtime),
            "dagster/max_retries": run.tags.get("dagster/max_retries", "0"),
            HOLD: "0",
        },
    )


def _reaches(row: Row) -> bool:
    """May a held run still start in time?"""
    return bool((row["earliest"] or math.inf) <= (row["latest"] or math.inf))


def _moment(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")


# ---- asking again ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Attended:
    """What one look at the queue did. `at_risk` are held runs that will miss their latest start."""

    found: int
    withdrawn: int
    settled: int
    booked: int
    started: int
    held: int
    at_risk: tuple[str, ...]

    def __str__(self) -> str:
        late = f"; {len(self.at_risk)} will miss their latest start" if self.at_risk else ""
        return (
            f"{self.started} started, {self.held} held, {self.settled} settled, {self.found} found,"
            f" {self.withdrawn} withdrawn{late}"
        )


def attend(
    instance: dg.DagsterInstance,
    escrow: Escrow,
    known: KnownAssets,
) -> Attended:
    """Look at the queue again: lost runs, ended runs, late charges, then one pass and its words.

    Raises:
        StoreError: the store cannot be used; nothing starts until it can.
    """
    queued = list(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])))
    found = _find_lost(instance, escrow, queued, known)
    withdrawn = withdraw_gone(instance, escrow)
    settled = escrow.sweep(fates(instance, escrow))
    booked = escrow.book_late_charges()
    decisions = escrow.decide(found)
    tell(instance, escrow)
    keep_pools(instance, escrow.policy)
    return Attended(
        found=len(found),
        withdrawn=withdrawn,
        settled=len(settled),
        booked=booked,
        started=sum(decision.starts for decision in decisions.values()),
        held=sum(decision.action == "hold" for decision in decisions.values()),
        at_risk=tuple(d.id for d in decisions.values() if d.action == "hold" and d.late),
    )


def keep_pools(instance: dg.DagsterInstance, policy: Policy) -> None:
    """Give each stage's pool its lanes, and `gpu` those of the host: they hold for steps of every
    process on this instance, whoever launched them."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    known = {
        limit.name: limit.limit for limit in storage.get_pool_limits() if not limit.from_default
    }
    wanted = {name: stage.runs for name, stage in policy.stages.items()} | {"gpu": policy.host.gpu}
    for name, lanes in wanted.items():
        if known.get(name) != lanes:
            storage.set_concurrency_slots(name, lanes)


def _find_lost(
    instance: dg.DagsterInstance,
    escrow: Escrow,
    queued: Sequence[dg.DagsterRun],
    known: KnownAssets,
) -> list[RunFacts]:
    """Facts of queued runs that admission has not seen: their submitter died, or went by it."""
    seen = escrow.store.states([run.run_id for run in queued])
    lost = [run for run in queued if run.run_id not in seen]
    for run in lost:
        if run.tags.get(HOLD) != "1":
            instance.add_run_tags(run.run_id, {HOLD: "1"})
    now = escrow.clock()
    return [facts_of(run, instance, known, now) for run in lost]


__all__ = [
    "AdmissionRunCoordinator", "Attended", "HoldReplaced", "StoreError", "attend", "build_escrow",
    "tell",
]  # fmt: skip
