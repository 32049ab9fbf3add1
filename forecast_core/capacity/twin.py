"""The twin: an event loop that owns the clock and asks the live queue's own `decide`.

Belongs here: time, the queue, what runs, what is charged when. Does not: any rule of admission
(`forecast_core.admission`), what arrives (`arrivals`), statistics over draws (`outcomes`).

As in the live host a run is judged when it is submitted, and what is held is judged again at ticks:
the end of a run is noticed at the next one. A pass that could not change anything is left out: it
takes an arrival, the end of what something waits for, a pause or period that passed, or a run that
became overdue. Equal runs are one entry with a count, so a pass costs what there are kinds of runs.

A run that has cost what was held for it is stopped (the live host writes that cap on it); it runs
again under twice the quote.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forecast_core.admission import (
    Decision,
    Holding,
    Load,
    Request,
    Snapshot,
    decide,
)
from forecast_core.admission.policy import PROTECTED, Policy
from forecast_core.capacity.arrivals import Arrivals, Batch, Truth
from forecast_core.capacity.beliefs import Beliefs
from forecast_core.capacity.books import Books
from forecast_core.capacity.calendar import DAY, midnight
from forecast_core.capacity.record import Record

DONE, FAILED, STOPPED = "done", "failed", "stopped"

Decide = Callable[[Snapshot, Policy], list[Decision]]
Progress = Callable[[int], None]

RETRIES = 6
STOP_S = 1.0  # how long a run may go on beyond its cap before the watchdog ends it
_FOR_ROOM = ("host", "stage", "cap", "fan_out")  # refused for room: time alone frees none


@dataclass(slots=True)
class Waiting:
    """An entry of the queue: `request.id` stands for `count` equal runs."""

    request: Request
    count: int
    batch: Batch
    attempt: int = 0
    raised: int = 0


@dataclass(slots=True)
class Cohort:
    """Equal runs that started together: `count` of them still run."""

    holding: Holding
    rung: str
    count: int
    batch: Batch
    attempt: int
    raised: int


@dataclass(slots=True)
class _Ending:
    """Runs of a cohort that are noticed to have ended at one tick."""

    cohort: Cohort
    count: int = 0
    money: float = 0.0
    ratio: float = 0.0
    fate: str = DONE


class Twin:
    """One draw of the future. Build it, `run` it once, read its `record`."""

    def __init__(
        self,
        arrivals: Arrivals,
        days: int,
        *,
        seed: int = 0,
        luck: Callable[[int], float] = lambda _day: 1.0,
        spent: Mapping[str, Mapping[str, int]] | None = None,
        decide: Decide = decide,
        capped: bool = True,
    ) -> None:
        """`capped`: runs are stopped at the money held for them. `luck`: day -> what multiplies
        that day's durations and charges. `spent`: node -> class -> nanos gone before the first day,
        in the periods that hold it."""
        self.arrivals, self.days, self.policy = arrivals, days, arrivals.policy
        self.environment = arrivals.plan.environment
        self.start = midnight(arrivals.plan.first, self.policy.offset_s)
        self.record = Record(self.start, self.policy.offset_s)
        self.books = Books(self.policy, self.environment)
        self.books.turn(self.start)
        self.books.spent.update({node: dict(classes) for node, classes in (spent or {}).items()})
        self._capped = capped
        self._decide, self._luck, self._rng = decide, luck, random.Random(seed)
        self._events: list[tuple[float, int, str, Any]] = []
        self._number = 0
        self._waiting: dict[str, Waiting] = {}
        self._cohorts: dict[str, Cohort] = {}
        self._endings: dict[int, list[_Ending]] = {}
        self._left: dict[tuple[int, str], int] = {}
        self._later: dict[tuple[int, str], list[Batch]] = {}
        self._last_start: dict[str, float] = {}
        self._again_as: dict[tuple[int, int, int], str] = {}
        self._next_wake = math.inf
        self._reasons: set[tuple[str, str]] = set()
        self._items_due = 0
        self._covered = 0
        self._day_luck = 1.0
        self._positions: dict[tuple[str, str], int] = {}
        self._beliefs = Beliefs(bool(arrivals.errors))

    # ---- time --------------------------------------------------------------------------------

    def run(self, progress: Progress | None = None) -> Record:
        """Everything that arrives within the days, to its end (two days later at most)."""
        self._push(self.start, "day", 0)
        last = self.start + (self.days + 2) * DAY
        while self._events and self._events[0][0] < last:
            now = self._events[0][0]
            stirred = False
            while self._events and self._events[0][0] == now:
                _, _, name, what = heapq.heappop(self._events)
                stirred |= self._happens(now, name, what)
                if name == "day" and progress is not None:
                    progress(int(what))
            if stirred and self._waiting:
                self._pass(now)
        for waiting in self._waiting.values():
            self.record.never(waiting.batch, waiting.count)
        return self.record

    def _push(self, at: float, name: str, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, name, what))

    def _happens(self, now: float, name: str, what: Any) -> bool:
        """Let an event happen; does it call for a pass?"""
        if name == "end":
            return self._ends(now, self._endings.pop(what))
        if name == "arrive":
            self._arrive(now, what)
        elif name == "day":
            self._open_day(now, what)
            return False
        elif now >= self._next_wake:  # a wake that a later pass did not put off
            self._next_wake = math.inf
        else:
            return False
        return True

    def _open_day(self, now: float, day: int) -> None:
        if day >= self.days:
            return
        self._push(now + DAY, "day", day + 1)
        self._day_luck = self._luck(day)
        batches = self.arrivals.of(day)
        names = {batch.kind.name for batch in batches}
        covering = [batch for batch in batches if batch.kind.work.covers]
        self._items_due = round(sum(batch.count * batch.kind.series for batch in covering))
        for batch in batches:
            self._left[day, batch.kind.name] = batch.count
            self.record.due(batch)
            if batch.after in names:
                self._later.setdefault((day, batch.after or ""), []).append(batch)
            else:
                self._push(batch.at, "arrive", batch)

    # ---- the queue ---------------------------------------------------------------------------

    def _arrive(self, now: float, batch: Batch) -> None:
        work = batch.kind.work
        if work.deadline is not None and not work.watches and not work.covers:
            for name, old in list(self._waiting.items()):  # yesterday's forecast is worth nothing
                if old.batch.kind.name == batch.kind.name and old.batch.day < batch.day:
                    del self._waiting[name]
                    self.record.superseded += old.count
                    self._done(now, old.batch, old.count)
        self._enlist(now, batch, batch.count)

    def _enlist(
        self, now: float, batch: Batch, count: int, attempt: int = 0, raised: int = 0
    ) -> None:
        self._reasons.add(("", ""))  # nobody has judged it yet
        again = self._again_as.get((id(batch), attempt, raised), "") if attempt else ""
        if again in self._waiting:  # runs that failed like others before them join those
            self._waiting[again].count += count
            return
        self._number += 1
        kind = batch.kind
        covers = round(kind.series) if kind.work.covers else 0
        request = Request(
            f"w{self._number:09d}",
            self._beliefs.shape(kind, raised),
            now,
            batch.deadline,
            batch.launch,
            covers,
        )
        self._waiting[request.id] = Waiting(request, count, batch, attempt, raised)
        if attempt:
            self._again_as[id(batch), attempt, raised] = request.id

    def _pass(self, now: float) -> None:
        """One call of `decide` over everything that waits, and what follows from it."""
        self.books.turn(now)
        if self._beliefs.refit(now):
            for waiting in self._waiting.values():
                shape = self._beliefs.shape(waiting.batch.kind, waiting.raised)
                waiting.request = waiting.request._replace(shape=shape)
        snapshot = self.snapshot(now)
        decisions = self._decide(snapshot, self.policy)
        self.record.passes += 1
        starts: dict[tuple[str, str], int] = {}
        refused = []
        for decision in decisions:
            if decision[1] == "admit" or decision[1] == "degrade":
                key = (decision[0], decision[2])
                starts[key] = starts.get(key, 0) + 1
                if decision[1] == "degrade":
                    self.record.short(now, decision)
            else:
                refused.append(decision)
        for (name, rung), count in starts.items():
            self._start(now, self._waiting[name], rung, count)
        wake = math.inf
        self._reasons = set()
        for decision in refused:
            if decision.action == "reject":
                waiting = self._waiting.pop(decision.id)
                self.record.rejected(now, waiting.batch, waiting.count, decision)
                self._done(now, waiting.batch, waiting.count)
            else:
                self.record.held(now, decision)
                wake = min(wake, self._chance(now, decision, bool(starts)))
                self._reasons.add(self._reason(decision))
        if wake < math.inf:
            self._next_wake = wake = math.ceil(wake / self.policy.tick_s) * self.policy.tick_s
            self._push(wake, "wake", None)

    def snapshot(self, now: float) -> Snapshot:
        """What a pass rests on, built as the live escrow builds it."""
        counts = {w.request.id: w.count for w in self._waiting.values() if w.count > 1}
        counts |= {c.holding.request.id: c.count for c in self._cohorts.values() if c.count > 1}
        ages = [
            now - w.request.submitted
            for w in self._waiting.values()
            if w.request.shape.work_class in PROTECTED
        ]
        return Snapshot(
            now=now,
            environment=self.environment,
            waiting=tuple(w.request for w in self._waiting.values()),
            running=tuple(c.holding for c in self._cohorts.values()),
            spent=self.books.spent,
            items_due=max(0, self._items_due - self._covered),
            load=Load(max(ages, default=0.0)),
            last_start=self._last_start,
            counts=counts,
        )

    def _chance(self, now: float, decision: Decision, started: bool) -> float:
        """The next moment at which time alone may change what a held run is told."""
        tick, code = self.policy.tick_s, decision.code
        moments = [decision.latest, decision.latest - tick]
        if code == "load":  # the queue's age falls only when one of it has started
            moments.append(now + tick if started else math.inf)
        elif not code.startswith(_FOR_ROOM):
            moments.append(decision.earliest)
        return min((m for m in moments if m > now), default=math.inf)

    def _reason(self, decision: Decision) -> tuple[str, str]:
        """What must end before a held run can be told otherwise; ('', '') for anything."""
        request, code = self._waiting[decision.id].request, decision.code
        if code.startswith("stage"):
            return "stage", request.shape.stage
        if code == "cap":
            return "class", request.shape.work_class
        if code == "fan_out":
            return "launch", request.launch
        return ("time", "") if code in ("peak", "load", "blocked", "problem") else ("", "")

    # ---- runs --------------------------------------------------------------------------------

    def _start(self, now: float, waiting: Waiting, rung: str, count: int) -> None:
        batch, request = waiting.batch, waiting.request
        waiting.count -= count
        if waiting.count == 0:
            del self._waiting[request.id]
        kind, work_class = batch.kind, request.shape.work_class
        quote = next(q for q in request.shape.quotes if q.rung == rung)
        self._number += 1
        running = request._replace(id=f"h{self._number:09d}")
        cohort = Cohort(
            Holding(running, quote, now), rung, count, batch, waiting.attempt, waiting.raised
        )
        self._cohorts[running.id] = cohort
        self._covered += count * request.covers
        self._last_start[work_class] = now
        self.record.started(work_class, now - request.submitted, count)
        for tick, ending in self._fates(now, cohort, kind.truths[rung]):
            if tick not in self._endings:
                self._endings[tick] = []
                self._push(tick * self.policy.tick_s, "end", tick)
            self._endings[tick].append(ending)

    def _fates(self, now: float, cohort: Cohort, truth: Truth) -> list[tuple[int, _Ending]]:
        """When the runs of a cohort end (tick number) and what they will have cost."""
        pool, wall, luck = truth.pool, truth.wall_s, self._day_luck
        size, tick_s, failures = len(pool), self.policy.tick_s, truth.failures
        key = (cohort.batch.kind.name, cohort.rung)
        position = self._positions.get(key)
        if position is None:
            position = self._rng.randrange(size)
        chance = self._rng.random
        endings: dict[tuple[int, str], _Ending] = {}
        begun, each = now / tick_s, wall * luck / tick_s
        cap = cohort.holding.quote.money / (truth.money * luck) if truth.money else math.inf
        cap = cap if self._capped else math.inf
        for index in range(position, position + cohort.count):
            w, m = pool[index % size]
            fate = DONE
            if failures > 0.0 and chance() < failures:  # it dies somewhere on its way
                fate, share = FAILED, chance()
                w, m = w * share, m * share
            if m > cap:
                longer = min(m - cap, m / (w * wall * luck) * STOP_S)
                fate, w, m = STOPPED, w * cap / m, cap + longer
            slot = (int(begun + each * w) + 1, fate)
            ending = endings.get(slot)
            if ending is None:
                ending = endings[slot] = _Ending(cohort, fate=fate)
            ending.count += 1
            ending.ratio += m
        self._positions[key] = (position + cohort.count) % size
        for ending in endings.values():
            ending.money = ending.ratio * truth.money * luck
        return [(tick, ending) for (tick, _), ending in endings.items()]

    def _ends(self, now: float, endings: list[_Ending]) -> bool:
        """Settle what ended; may it let something that waits start?"""
        self.books.turn(now)
        freed = {("", "")}
        for ending in endings:
            cohort, batch, count = ending.cohort, ending.cohort.batch, ending.count
            request = cohort.holding.request
            cohort.count -= count
            if cohort.count == 0:
                del self._cohorts[request.id]
            shape = request.shape
            freed |= {("stage", shape.stage), ("class", shape.work_class)}
            freed.add(("launch", request.launch))
            kind, money = batch.kind, math.ceil(ending.money)
            self.books.settle(kind.pipeline, shape.work_class, cohort.holding.admitted, money)
            truth = kind.truths[cohort.rung]
            self.record.ended(now, batch, cohort.rung, truth, count, ending.ratio, money)
            self._covered -= count * request.covers
            if ending.fate != DONE:
                self._again(now, cohort, ending)
                continue
            self._beliefs.saw(kind.name, cohort.rung, count, ending.money, truth.money)
            self._items_due = max(0, self._items_due - count * request.covers)
            self.record.succeeded(now, batch, cohort.rung, count)
            self._done(now, batch, count)
        self.record.check(self.books.over())
        return not freed.isdisjoint(self._reasons)

    def _again(self, now: float, cohort: Cohort, ending: _Ending) -> None:
        """Runs failed or were stopped: they run again, up to a number of times."""
        batch, count, raised = cohort.batch, ending.count, cohort.raised
        if ending.fate == STOPPED:
            self.record.stopped += count
            self._beliefs.stopped(batch.kind, cohort.rung, count, cohort.holding.quote.money)
            raised += 1
        else:
            self.record.failed += count
        if cohort.attempt < RETRIES:
            self._enlist(now, batch, count, cohort.attempt + 1, raised)
        else:
            self.record.lost += count
            self._done(now, batch, count)

    def _done(self, now: float, batch: Batch, count: int) -> None:
        """So many runs of a batch are over; what waited for the whole of it arrives."""
        key = (batch.day, batch.kind.name)
        self._left[key] -= count
        if self._left[key] == 0:
            del self._left[key]
            for later in self._later.pop(key, ()):
                self._push(max(now, later.at), "arrive", later)
