"""The gate: a step works only for a run that admission let in, and only within what it was granted.

Belongs here: asking before a step works, the terms of a run, and its limits while it works. Does
not: the queue (`coordinator`), rules and money (`escrow`), who stops an offender (`quotas`).

Runs of the queue come with their decision. Those that pass no queue (`dagster asset materialize`,
`dagster job execute`, `forecast run`) are decided here: over budget they fail before they work.
They wait a while for room, which is free again soon, and never for money.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dagster as dg

from forecast_core.admission import Decision
from forecast_core.admission.grant import Grant, left_of
from forecast_core.admission.policy import nanos, units
from resources.admission_store import Row
from resources.escrow import Escrow
from resources.family import resident_gib
from resources.holders import HOLD, HOLDER, fates, this_process, withdraw_gone
from resources.quotas import Limits, guarded
from resources.run_facts import KnownAssets, facts_of

RUNG = "admission/rung"
REASON = "admission/reason"
WAITS_FOR = ("host", "stage", "cap", "load", "fan_out")  # what time alone gives back
PATIENCE_S = 120.0
LOOK_S = 1.0
MONEY_EVERY_S = 2.0
LEDGER_EVERY_S = 10.0


@dataclass(frozen=True)
class Refusal:
    """Why a run must not work. `str()` is what the operator reads."""

    run_id: str
    code: str
    reason: str

    def __str__(self) -> str:
        return (
            f"admission refuses run {self.run_id} before any work: {self.reason} ({self.code})."
            " See `forecast budget status`; raise the budget in the admission policy or for a time"
            " with `forecast admission override raise`, or wait for the next period"
        )


@dataclass(frozen=True)
class Terms:
    """What an admitted run may use: its rung and why, money, and the room of its stage."""

    run_id: str
    rung: str | None
    degraded: bool
    reason: str
    money: Decimal
    memory_gib: float
    cpu: float


class Gate:
    """Asked before each step; remembers in its process the runs that it let in."""

    def __init__(
        self,
        open_escrow: Callable[[], Escrow],
        *,
        patience_s: float = PATIENCE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`open_escrow` is called when the first step asks: loading definitions opens nothing."""
        self._open_escrow, self._patience_s, self._sleep = open_escrow, patience_s, sleep
        self._escrow: Escrow | None = None
        self._terms: dict[str, Terms] = {}
        self._pid = os.getpid()

    @property
    def escrow(self) -> Escrow:
        """The escrow behind the gate; a forked child opens its own."""
        if self._escrow is None or self._pid != os.getpid():
            self._escrow, self._pid = self._open_escrow(), os.getpid()
        return self._escrow

    def admit(self, step: Any) -> Terms:
        """The terms of the run of a step context.

        Raises:
            dg.Failure: admission refuses the run; nothing was done, and no retry would help.
            StoreError: the store cannot be used, so nothing starts.
        """
        run: dg.DagsterRun = step.dagster_run
        known = KnownAssets(step.job_def.asset_layer.asset_graph)
        answer = self(step.instance, run, known)
        if isinstance(answer, Refusal):
            raise dg.Failure(
                str(answer), metadata={"admission/code": answer.code}, allow_retries=False
            )
        return answer

    def __call__(
        self, instance: dg.DagsterInstance, run: dg.DagsterRun, known: KnownAssets
    ) -> Terms | Refusal:
        """The terms of a run that may work, or why it must not.

        Raises:
            StoreError: the store cannot be used, so nothing starts.
        """
        if run.run_id in self._terms:
            return self._terms[run.run_id]
        row = self.escrow.store.find(run.run_id)
        if row is None:
            self._ask(instance, run, known)
            row = self.escrow.store.find(run.run_id)
            assert row is not None
        if row["state"] != "admitted":
            return Refusal(
                run.run_id,
                row["code"] or row["state"],
                row["reason"] or f"the run is {row['state']}",
            )
        self._terms[run.run_id] = self._terms_of(row)
        return self._terms[run.run_id]

    def _ask(self, instance: dg.DagsterInstance, run: dg.DagsterRun, known: KnownAssets) -> None:
        """Decide on a run that passed no queue; it ends admitted, rejected or withdrawn."""
        escrow = self.escrow
        instance.add_run_tags(run.run_id, {HOLDER: this_process()})
        # Where no daemon runs, nobody else settles.
        withdraw_gone(instance, escrow)
        escrow.sweep(fates(instance, escrow))
        escrow.book_late_charges()
        facts = facts_of(run, instance, known, escrow.clock())
        decision = escrow.submit(facts)
        ends = time.monotonic() + self._patience_s
        while _passes(decision) and time.monotonic() < ends:
            self._sleep(LOOK_S)
            escrow.sweep(fates(instance, escrow))
            escrow.decide()
            row = escrow.store.find(run.run_id)
            if row is None or row["state"] != "waiting":
                break
            decision = decision._replace(code=row["code"] or "")
        if not escrow.withdraw(run.run_id):  # it no longer waits
            _write_terms(instance, run, escrow)

    def _terms_of(self, row: Row) -> Terms:
        stage = self.escrow.policy.stage_for(row["pipeline"])
        return Terms(
            run_id=row["run_id"],
            rung=None if row["rung"] in (None, "asked") else row["rung"],
            degraded=row["code"] != "fits",
            reason=f"{row['reason']} ({row['code']})",
            money=units(row["money"]),
            memory_gib=stage.memory_of_a_step(row["memory_gib"]),
            cpu=stage.of_a_step.cpu,
        )

    def within(
        self, terms: Terms, step_key: str, running: Callable[[], Decimal]
    ) -> AbstractContextManager[None]:
        """Work within the terms: memory, cores and money, or `QuotaExceeded` says why not.

        `running` gives what the step has cost and not charged yet.
        """
        bill = _Bill(self.escrow, terms.run_id, running)
        return guarded(limits_of(terms, bill.total, bill.more), step_key)

    def left(self, run_id: str, running: Decimal, cpu_s_price: Decimal) -> Grant | None:
        """What an admitted run may still use beyond its cheapest rung; None where it has one only.

        `running` is what its step has cost and not charged yet, `cpu_s_price` what a CPU-second of
        it costs.
        """
        held = self.escrow.store.holding(run_id)
        if held is None or held.quote.rung == held.request.shape.quotes[-1].rung:
            return None
        spent = running + sum(self.escrow.spent_by(run_id).values(), Decimal(0))
        return left_of(
            held.quote.money,
            held.request.shape.quotes[-1],
            nanos(spent),
            nanos(cpu_s_price),
            self.escrow.clock(),
            held.admitted,
            held.request.deadline,
        )

    def more(self, run_id: str) -> bool:
        """Whether budgets had room to hold more for a run that needs more than it holds."""
        held = self.escrow.store.holding(run_id)
        return held is not None and self.escrow.grow(run_id, held.quote.money) is not None


class _Bill:
    """What a run costs while it works: its charges so far, and what the step has not charged."""

    def __init__(self, escrow: Escrow, run_id: str, running: Callable[[], Decimal]) -> None:
        self._escrow, self._run_id, self._running = escrow, run_id, running
        self._charged, self._looked = Decimal(0), -math.inf

    def total(self) -> Decimal:
        """Money so far. The ledger is read now and then: other steps of the run charge too."""
        if time.monotonic() - self._looked > LEDGER_EVERY_S:
            costs = self._escrow.spent_by(self._run_id)
            self._charged, self._looked = sum(costs.values(), Decimal(0)), time.monotonic()
        return self._charged + self._running()

    def more(self, spent: Decimal) -> Decimal | None:
        """A larger hold, where the budgets have room for one."""
        grown = self._escrow.grow(self._run_id, nanos(spent))
        return None if grown is None else units(grown)


def limits_of(
    terms: Terms,
    spent: Callable[[], Decimal] | None = None,
    more: Callable[[Decimal], Decimal | None] | None = None,
) -> Limits:
    """The in-flight limits of a step. In a process of its own they bound the whole process; in a
    shared one its memory is counted from what the process had before."""
    own = multiprocessing.parent_process() is not None
    cores = math.ceil(terms.cpu)
    return Limits(
        memory_gib=terms.memory_gib + (0.0 if own else resident_gib()),
        threads=cores if cores < len(os.sched_getaffinity(0)) else None,
        money=terms.money,
        spent=spent,
        more=more,
        money_interval_s=MONEY_EVERY_S,
        end_with_parent=own,
        cgroup=own,
    )


@dataclass(frozen=True)
class Granted:
    """The rung that admission granted a run, None when it may do all it asked for, and why."""

    rung: str | None = None
    reason: str = ""


def granted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Granted:
    """What admission wrote on the run; a run whose tags were written while it ran is read again."""
    tags = run.tags
    if RUNG not in tags:
        fresh = instance.get_run_by_id(run.run_id)
        tags = fresh.tags if fresh is not None else {}
    rung = tags.get(RUNG)
    if rung in (None, "asked", "governed"):
        return Granted()
    return Granted(rung, tags.get(REASON, ""))


def _passes(decision: Decision) -> bool:
    """Is the run held by something that time alone gives back?"""
    return decision.action == "hold" and decision.code.startswith(WAITS_FOR)


def _write_terms(instance: dg.DagsterInstance, run: dg.DagsterRun, escrow: Escrow) -> None:
    """Say on the run what was decided, as the queue does for its own."""
    row = escrow.store.find(run.run_id)
    if row is None or row["state"] != "admitted":
        return
    instance.add_run_tags(
        run.run_id,
        {
            "admission/class": row["work_class"],
            REASON: f"{row['reason']} ({row['code']})",
            RUNG: row["rung"],
            "admission/money": str(units(row["money"])),
        },
    )
    escrow.store.told(run.run_id, row["pass_id"])


__all__ = ["HOLD", "REASON", "RUNG", "Gate", "Granted", "Refusal", "Terms", "granted", "limits_of"]
