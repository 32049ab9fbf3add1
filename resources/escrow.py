"""Escrow: money is held before a run starts and settled from the ledger after it ended.

Belongs here: one admission pass over the store, settlement, the fate of holders that died, replay.
Does not: Dagster (`coordinator`), SQL (`admission_store`), rules (`forecast_core.admission`).

Nothing here is remembered between calls: every process that has an `Escrow` on one store sees the
same money.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import sqlalchemy as sa

from forecast_core.admission import Decision, Load, Quote, Request, Shape, Snapshot, decide
from forecast_core.admission.growth import asked_again, may_hold
from forecast_core.admission.policy import NANO, PROTECTED, Policy, nanos
from forecast_core.admission.record import agrees, decisions_to_json, digest, snapshot_to_json
from forecast_core.admission.request import (
    Quoter,
    RunFacts,
    Work,
    quoted,
    quotes_of,
    request_of,
    seated,
)
from resources.admission_log import active_overrides, logged, write_pass
from resources.admission_store import AdmissionStore
from resources.spending import Spending

LATE_CHARGES_S = 6 * 3600.0  # how long after its end a run's charges may still grow
GRACE_S = 600.0
NEWS_S = 300.0  # an estimated start that moves by less is not worth a write
NEWS_SHARE = 0.1  # nor is a quote that moves by less of itself

Fate = Literal["running", "succeeded", "failed", "unknown"]


def measured_load() -> Load:
    """Pressures of this machine now; the queue's age is added by the pass."""
    import psutil

    cores = os.cpu_count() or 1
    return Load(
        memory_pressure=psutil.virtual_memory().percent / 100,
        cpu_pressure=min(1.0, os.getloadavg()[0] / cores),
    )


class Escrow:
    """Admission of one environment on a shared store."""

    def __init__(
        self,
        store: AdmissionStore,
        policy: Policy,
        environment: str,
        spending: Spending | None = None,
        quoter: Quoter | None = None,
        *,
        clock: Callable[[], float] = time.time,
        load: Callable[[], Load] = measured_load,
        reached: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """`reached` is told the name of each step of a pass: a crash test's way in."""
        self.store, self.policy, self.environment = store, policy, environment
        self.clock, self.quoter = clock, quoter
        self._spending, self._load, self._reached = spending, load, reached

    # ---- passes ------------------------------------------------------------------------------

    def submit(self, run: Request | RunFacts) -> Decision:
        """Write a run down and decide; a run that is known already keeps its decision.

        A run is given by its facts, and quoted now and again at each pass that it waits for; or
        as a request that keeps the quotes it comes with.

        Raises:
            StoreError: the store cannot be used; the run is not known and must not start.
        """
        decisions = self.decide([run])
        run_id = run.run_id if isinstance(run, RunFacts) else run.id
        if run_id in decisions:
            return decisions[run_id]
        row = self.store.find(run_id)
        assert row is not None
        starts = row["state"] in ("admitted", "settled")
        return Decision(
            run_id,
            "admit" if starts else "hold" if row["state"] == "waiting" else "reject",
            row["rung"] or "",
            0,
            row["code"] or row["state"],
            row["reason"] or f"the run is {row['state']}",
            row["earliest"] or 0.0,
            row["latest"] or 0.0,
            False,
        )

    def decide(self, runs: Iterable[Request | RunFacts] = ()) -> dict[str, Decision]:
        """One pass over everything that waits, `runs` included; run id -> decision."""
        now = self.clock()
        # Quotes are made before the store is locked: they may read months of the ledger.
        asked = [self._asked(run) for run in runs]
        prices = {
            key: quotes_of(work, self.policy, self.quoter)
            for key, work in self.store.works(self.environment).items()
        }
        with self.store.alone() as connection:
            for request, work in asked:
                self.store.enlist(connection, self.environment, request, work)
            self._reached("enlisted")
            waiting, repriced = self._waiting(connection, prices)
            snapshot = self._snapshot(connection, now, waiting)
            decisions = decide(snapshot, self.policy) if snapshot.waiting else []
            self._reached("decided")
            before = self.store.last_words(connection, self.environment)
            changed = [
                d for d in decisions
                if d.action != "hold" or d.id in repriced or _is_news(before[d.id], d)
            ]  # fmt: skip
            if changed:
                record = snapshot_to_json(snapshot)
                number = write_pass(
                    connection,
                    now,
                    self.environment,
                    self.policy,
                    record,
                    decisions_to_json(decisions),
                )
                self._reached("logged")
                judged = {request.id: request.shape for request in waiting}
                self.store.apply(
                    connection, number, ((d, judged[d.id]) for d in changed), now, GRACE_S
                )
                self._reached("applied")
        self._reached("committed")
        return {decision.id: decision for decision in decisions}

    def _asked(self, run: Request | RunFacts) -> tuple[Request, Work | None]:
        """A run with its quotes, and what to quote it by while it waits."""
        if isinstance(run, Request):
            return run, None
        request = request_of(run, self.policy, self.quoter)
        return request, None if request.shape.problem else run.work

    def _waiting(
        self, connection: sa.Connection, prices: Mapping[str, tuple[Quote, ...]]
    ) -> tuple[tuple[Request, ...], set[str]]:
        """What waits, at what it is quoted now, and the runs whose quote moved by enough to tell.

        A quote is the best that is known at a pass, not at submission: else one bad quote would
        hold a run for ever, or let it in too cheaply. Runs of equal shape and work share theirs.
        """
        requests, repriced = [], set()
        shapes: dict[tuple[int, str], Shape] = {}
        for stored, work in self.store.queue(connection, self.environment):
            request = stored
            if work is not None and work in prices:
                key = (id(stored.shape), work)
                if key not in shapes:
                    shapes[key] = quoted(stored.shape, prices[work], self.policy)
                request = stored._replace(shape=shapes[key])
                if _moved(stored.shape, shapes[key]):
                    repriced.add(stored.id)
            requests.append(seated(request, self.policy))
        return tuple(requests), repriced

    def _snapshot(
        self, connection: sa.Connection, now: float, waiting: tuple[Request, ...] = ()
    ) -> Snapshot:
        store = self.store
        policy = self.policy
        held = [
            (place, replace(h, request=seated(h.request, policy)))
            for place, h in store.admitted(connection)
        ]
        covered = sum(h.request.covers for place, h in held if place == self.environment)
        due = store.fact(connection, self.environment, "items_due")
        load = self._load()
        ages = [
            now - r.submitted
            for r in waiting
            if r.shape.work_class in PROTECTED and not r.shape.problem
        ]
        return Snapshot(
            now=now,
            environment=self.environment,
            waiting=waiting,
            running=tuple(h for place, h in held if place == self.environment),
            spent=self._spent(connection, now),
            items_due=max(0, int(due) - covered),
            load=Load(max(ages, default=0.0), load.memory_pressure, load.cpu_pressure),
            overrides=active_overrides(connection, now),
            last_start=store.last_starts(connection, self.environment),
        )

    def _spent(self, connection: sa.Connection, now: float) -> dict[str, dict[str, int]]:
        """Node -> class -> nanos of its period: what settled, and what other places hold."""
        policy = self.policy
        starts = {n: policy.period(b.period, now)[0] for n, b in policy.budgets.items()}
        rows = [
            (row["environment"], row["pipeline"], row["work_class"], row["admitted"], row["nanos"])
            for row in self.store.spent_since(connection, min(starts.values()))
        ]
        rows += [
            (place, pipeline, h.request.shape.work_class, h.admitted, amount)
            for place, h in self.store.admitted(connection)
            if place != self.environment
            for pipeline, amount in h.quote.charges
        ]
        spent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for place, pipeline, work_class, admitted, amount in rows:
            for node in policy.path(place, pipeline, work_class):
                if admitted >= starts[node]:
                    spent[node][work_class] += amount
        return {node: dict(classes) for node, classes in spent.items()}

    # ---- the end of a run --------------------------------------------------------------------

    def settle(self, run_id: str, *, succeeded: bool = True) -> bool:
        """Settle a run at what the ledger says (0 without charges); False if it held nothing.

        Idempotent; a later call books charges that came late.
        """
        costs = self._costs(run_id)
        with self.store.alone() as connection:
            ended = self.store.end(connection, run_id, costs, self.clock())
            self._reached("settled")
            row = self.store.find(run_id) if ended else None
            if row and row["covers"] and succeeded:
                due = self.store.fact(connection, self.environment, "items_due")
                left = max(0.0, due - row["covers"])
                self.store.state_fact(connection, self.environment, "items_due", left)
        return ended

    def spent_by(self, run_id: str) -> Mapping[str, Decimal]:
        """Pipeline -> money that the run has been charged so far."""
        return self._spending.of_run(run_id) if self._spending else {}

    def _costs(self, run_id: str) -> dict[str, int]:
        return {pipeline: nanos(cost) for pipeline, cost in self.spent_by(run_id).items()}

    def grow(self, run_id: str, spent: int) -> int | None:
        """A run at work has cost `spent` nanos, its whole hold: hold more where budgets have it.

        Returns the new hold in nanos, on record as a pass; None when no budget has room, or the
        run holds nothing any more.
        """
        now = self.clock()
        with self.store.alone() as connection:
            snapshot = self._snapshot(connection, now)
            try:
                tries = asked_again(snapshot, run_id, spent)
            except LookupError:
                return None
            for quote, again in tries:
                decision = may_hold(again, self.policy, quote)
                if decision.starts:
                    record = snapshot_to_json(again)
                    told = decisions_to_json([decision])
                    write_pass(connection, now, self.environment, self.policy, record, told)
                    self.store.rehold(connection, run_id, quote)
                    return quote.money
        return None

    def withdraw(self, run_id: str) -> bool:
        """A waiting run was cancelled; False when it did not wait."""
        with self.store.alone() as connection:
            return self.store.withdraw(connection, run_id, self.clock())

    def sweep(self, fate: Callable[[str], Fate]) -> list[str]:
        """Settle every holder that ended, keep the money of those that live.

        Money of a holder whose fate nobody knows is kept until it expires.
        """
        now = self.clock()
        ended = []
        for run_id, expires, wall_s in self.store.holders(self.environment):
            state = fate(run_id)
            if state in ("succeeded", "failed") or (state == "unknown" and now > expires):
                if self.settle(run_id, succeeded=state == "succeeded"):
                    ended.append(run_id)
            elif state == "running" and now > expires:
                with self.store.alone() as connection:
                    self.store.extend(connection, run_id, now + wall_s + GRACE_S)
        return ended

    def book_late_charges(self) -> int:
        """Book what the ledger charged after the settlement, or to runs that held nothing."""
        if self._spending is None:
            return 0
        now = self.clock()
        recent = self._spending.recent(now - LATE_CHARGES_S)
        states = self.store.states(sorted({run_id for _, run_id in recent if run_id}))
        unheld: dict[str, tuple[float, dict[str, int]]] = {}
        settled: dict[str, dict[str, int]] = {}
        for (day, run_id), costs in recent.items():
            amounts = {pipeline: nanos(cost) for pipeline, cost in costs.items()}
            if states.get(run_id or "") == "settled":
                settled[run_id or ""] = self._costs(run_id or "")
            elif states.get(run_id or "") not in ("admitted", "waiting"):
                at = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
                unheld[f"{run_id or 'no run'} on {day}"] = (at, amounts)
        booked = self.store.booked([*unheld, *settled])
        late = {name: due for name, due in settled.items() if due != booked.get(name, {})}
        new = {name: entry for name, entry in unheld.items() if entry[1] != booked.get(name, {})}
        if late or new:
            with self.store.alone() as connection:
                for name, due in late.items():
                    self.store.end(connection, name, due, now)
                for name, (at, due) in new.items():
                    self.store.book(connection, self.environment, name, "unheld", due, at)
        return len(late) + len(new)

    # ---- what people say ---------------------------------------------------------------------

    def open_cycle(self, items: int) -> None:
        """A forecast cycle begins: so many items have no forecast yet."""
        with self.store.alone() as connection:
            self.store.state_fact(connection, self.environment, "items_due", items)

    def balance(self) -> dict[str, dict[str, Decimal]]:
        """Node -> limit, spent, held, free of the current period, in currency units."""
        now = self.clock()
        with self.store.reading() as connection:
            spent = self._spent(connection, now)
            held = self.store.admitted(connection, self.environment)
            raised = active_overrides(connection, now)
        report = {}
        for name, budget in self.policy.budgets.items():
            start = self.policy.period(budget.period, now)[0]
            holds = sum(
                amount
                for _, h in held
                if h.admitted >= start
                for pipeline, amount in h.quote.charges
                if budget.covers(self.environment, pipeline, h.request.shape.work_class)
            )
            gone = sum(spent.get(name, {}).values())
            limit = budget.limit + sum(
                o.amount for o in raised if (o.effect, o.target) == ("raise", name)
            )
            report[name] = {
                "limit": Decimal(limit) / NANO,
                "spent": Decimal(gone) / NANO,
                "held": Decimal(holds) / NANO,
                "free": Decimal(limit - gone - holds) / NANO,
            }
        return report


@dataclass(frozen=True)
class Replayed:
    """The outcome of deciding logged passes again; `differing` holds pass numbers."""

    passes: int
    differing: tuple[int, ...]


def replay(store: AdmissionStore, *, run_id: str | None = None, since: float = 0.0) -> Replayed:
    """Decide every logged pass again from its record alone."""
    passes, differing = 0, []
    for number, _, policy, snapshot_hash, snapshot, decisions in logged(
        store, run_id=run_id, since=since
    ):
        passes += 1
        if digest(snapshot) != snapshot_hash or not agrees(snapshot, policy, decisions):
            differing.append(number)
    return Replayed(passes, tuple(differing))


def _is_news(before: tuple[str | None, float | None], decision: Decision) -> bool:
    """Worth writing down and telling the queue: another reason, or a start that moved."""
    code, earliest = before
    if code != decision.code:
        return True
    known = float("inf") if earliest is None else earliest
    return decision.earliest != known and abs(decision.earliest - known) > NEWS_S


def _moved(before: Shape, after: Shape) -> bool:
    """Has the quote of what was asked for changed by more than is worth a write?"""
    if before is after or before.quotes == after.quotes:
        return False
    old, new = before.quotes[0], after.quotes[0]
    pairs = ((old.money, new.money), (old.wall_s, new.wall_s))
    return any(abs(a - b) > NEWS_SHARE * max(a, b) for a, b in pairs)
