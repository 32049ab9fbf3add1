"""The twin: an event loop that owns the clock and asks the live queue's own `decide`.

Belongs here: time, the queue, what runs, what is charged when. Does not: any rule of admission
(`forecast_core.admission`), what arrives (`arrivals`), statistics over draws (`outcomes`).

As in the live host a run is judged when it is submitted, and what is held is judged again at ticks:
the end of a run is noticed at the next one. A pass that could not change anything is left out: it
takes an arrival, an end, a pause or period that passed, or a run that became overdue. Equal runs
are one entry with a count, so a pass costs what there are kinds of runs, not runs.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from forecast_core.admission import (
    Decision,
    Holding,
    Load,
    Quote,
    Request,
    Shape,
    Snapshot,
    decide,
)
from forecast_core.admission_policy import PROTECTED, Policy
from forecast_core.capacity.arrivals import Arrivals, Batch, Kind, Truth
from forecast_core.capacity.calendar import DAY, midnight
from forecast_core.capacity.record import Record

Decide = Callable[[Snapshot, Policy], list[Decision]]
Progress = Callable[[int], None]

RETRIES = 6
REFIT_S = 600.0  # as live quotes are fitted again (`resources.measured_quotes`)
_BY_TIME = ("host", "stage", "cap", "fan_out")  # refused for room: time alone frees none


@dataclass(slots=True)
class Waiting:
    """An entry of the queue: `request.id` stands for `count` equal runs."""

    request: Request
    count: int
    batch: Batch
    attempt: int = 0


@dataclass(slots=True)
class Cohort:
    """Equal runs that started together: `count` of them still run."""

    holding: Holding
    rung: str
    count: int
    batch: Batch
    attempt: int


@dataclass(slots=True)
class _Ending:
    """Runs of a cohort that are noticed to have ended at one tick."""

    cohort: Cohort
    count: int = 0
    money: float = 0.0
    ratio: float = 0.0
    failed: bool = False


@dataclass
class Books:
    """Money gone in the current period of each node, as the live escrow counts it."""

    policy: Policy
    environment: str
    spent: dict[str, dict[str, int]] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    ends: float = -math.inf

    def turn(self, now: float) -> None:
        """Open the periods that hold `now`; what belonged to earlier ones is forgotten."""
        if now < self.ends:
            return
        self.ends = math.inf
        for name, budget in self.policy.budgets.items():
            opened, ends = self.policy.period(budget.period, now)
            if self.opened.get(name) != opened:
                self.opened[name] = opened
                self.spent.pop(name, None)
            self.ends = min(self.ends, ends)

    def settle(self, pipeline: str, work_class: str, admitted: float, money: int) -> None:
        """Book what a run that was admitted then has cost."""
        for node in self.policy.path(self.environment, pipeline, work_class):
            if admitted >= self.opened[node]:
                classes = self.spent.setdefault(node, {})
                classes[work_class] = classes.get(work_class, 0) + money

    def over(self) -> dict[str, float]:
        """Node -> share of its limit that is spent beyond it."""
        found = {}
        for node, classes in self.spent.items():
            limit = self.policy.budgets[node].limit
            gone = sum(classes.values())
            if gone > limit > 0:
                found[node] = gone / limit - 1
        return found


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
    ) -> None:
        """`luck`: day -> what multiplies that day's durations and charges. `spent`: node -> class
        -> nanos gone before the first day, in the periods that hold it."""
        self.arrivals, self.days, self.policy = arrivals, days, arrivals.policy
        self.environment = arrivals.plan.environment
        self.start = midnight(arrivals.plan.first, self.policy.offset_s)
        self.record = Record(self.start, self.policy.offset_s)
        self.books = Books(self.policy, self.environment)
        self.books.turn(self.start)
        self.books.spent.update({node: dict(classes) for node, classes in (spent or {}).items()})
        self._decide, self._luck, self._rng = decide, luck, random.Random(seed)
        self._events: list[tuple[float, int, str, Any]] = []
        self._number = 0
        self._waiting: dict[str, Waiting] = {}
        self._cohorts: dict[str, Cohort] = {}
        self._endings: dict[int, list[_Ending]] = {}
        self._left: dict[tuple[int, str], int] = {}
        self._later: dict[tuple[int, str], list[Batch]] = {}
        self._last_start: dict[str, float] = {}
        self._next_wake = math.inf
        self._items_due = 0
        self._covered = 0
        self._day_luck = 1.0
        self._positions: dict[tuple[str, str], int] = {}
        self._estimates = _Estimates(bool(arrivals.errors))

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
            self._ends(now, self._endings.pop(what))
        elif name == "arrive":
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
        self._enlist(now, batch, batch.count, 0)

    def _enlist(self, now: float, batch: Batch, count: int, attempt: int) -> None:
        self._number += 1
        kind = batch.kind
        covers = round(kind.series) if kind.work.covers else 0
        request = Request(
            f"w{self._number:09d}", self._estimates.shape(kind), now, batch.deadline, batch.launch,
            covers,
        )  # fmt: skip
        self._waiting[request.id] = Waiting(request, count, batch, attempt)

    def _pass(self, now: float) -> None:
        """One call of `decide` over everything that waits, and what follows from it."""
        self.books.turn(now)
        if self._estimates.refit(now):
            for waiting in self._waiting.values():
                shape = self._estimates.shape(waiting.batch.kind)
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
        for decision in refused:
            if decision.action == "reject":
                waiting = self._waiting.pop(decision.id)
                self.record.rejected(now, waiting.batch, waiting.count, decision)
                self._done(now, waiting.batch, waiting.count)
            else:
                self.record.held(now, decision)
                wake = min(wake, self._chance(now, decision))
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

    def _chance(self, now: float, decision: Decision) -> float:
        """The next moment at which time alone may change what a held run is told."""
        tick = self.policy.tick_s
        moments = [decision.latest, decision.latest - tick]
        if not decision.code.startswith(_BY_TIME):
            moments.append(decision.earliest)
        return min((m for m in moments if m > now), default=math.inf)

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
        cohort = Cohort(Holding(running, quote, now), rung, count, batch, waiting.attempt)
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
        chance, endings = self._rng.random, dict[tuple[int, bool], _Ending]()
        begun = now / tick_s
        each = wall * luck / tick_s
        for index in range(position, position + cohort.count):
            w, m = pool[index % size]
            failed = failures > 0.0 and chance() < failures
            if failed:  # it dies somewhere on its way
                share = chance()
                w, m = w * share, m * share
            slot = (int(begun + each * w) + 1, failed)
            ending = endings.get(slot)
            if ending is None:
                ending = endings[slot] = _Ending(cohort, failed=failed)
            ending.count += 1
            ending.ratio += m
        self._positions[key] = (position + cohort.count) % size
        for ending in endings.values():
            ending.money = ending.ratio * truth.money * luck
        return [(tick, ending) for (tick, _), ending in endings.items()]

    def _ends(self, now: float, endings: list[_Ending]) -> None:
        self.books.turn(now)
        for ending in endings:
            cohort, batch, count = ending.cohort, ending.cohort.batch, ending.count
            request = cohort.holding.request
            cohort.count -= count
            if cohort.count == 0:
                del self._cohorts[request.id]
            kind, money = batch.kind, math.ceil(ending.money)
            self.books.settle(
                kind.pipeline, request.shape.work_class, cohort.holding.admitted, money
            )
            truth = kind.truths[cohort.rung]
            self.record.ended(now, batch, cohort.rung, truth, count, ending.ratio, money)
            self._covered -= count * request.covers
            if ending.failed:
                self.record.failed += count
                if cohort.attempt < RETRIES:
                    self._enlist(now, batch, count, cohort.attempt + 1)
                    continue
                self.record.lost += count
            else:
                self._estimates.saw(kind.name, cohort.rung, count, ending.money, truth.money)
                self._items_due = max(0, self._items_due - count * request.covers)
                self.record.succeeded(now, batch, cohort.rung, count)
            self._done(now, batch, count)
        self.record.check(self.books.over())

    def _done(self, now: float, batch: Batch, count: int) -> None:
        """So many runs of a batch are over; what waited for the whole of it arrives."""
        key = (batch.day, batch.kind.name)
        self._left[key] -= count
        if self._left[key] == 0:
            del self._left[key]
            for later in self._later.pop(key, ()):
                self._push(max(now, later.at), "arrive", later)


class _Estimates:
    """What the platform believes of its runs, corrected by what it saw since (intraday refit)."""

    def __init__(self, wrong: bool) -> None:
        self._wrong = wrong
        self._fitted_at = -math.inf
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        self._factor: dict[tuple[str, str], tuple[int, float]] = {}
        self._shapes: dict[int, tuple[Kind, Shape]] = {}

    def saw(self, name: str, rung: str, count: int, money: float, mean: float) -> None:
        """Runs ended: what they cost in all, and what one costs in truth on average."""
        if self._wrong and mean > 0:
            number, total = self._seen.get((name, rung), (0, 0.0))
            self._seen[name, rung] = (number + count, total + money / mean)

    def refit(self, now: float) -> bool:
        """Fit again if it is time and something new was seen; has anything changed?"""
        if not self._wrong or now < self._fitted_at + REFIT_S or self._seen == self._factor:
            return False
        self._fitted_at = now
        self._factor = dict(self._seen)
        self._shapes.clear()
        return True

    def shape(self, kind: Kind) -> Shape:
        """What admission is told of a run of this kind by now."""
        if not self._factor:
            return kind.shape
        if id(kind) not in self._shapes:
            quotes = tuple(self._quote(kind, quote) for quote in kind.shape.quotes)
            self._shapes[id(kind)] = (kind, replace(kind.shape, quotes=quotes))
        return self._shapes[id(kind)][1]

    def _quote(self, kind: Kind, quote: Quote) -> Quote:
        """The quote as measured: the mean of what was seen, its tail, and room for few runs."""
        number, total = self._factor.get((kind.name, quote.rung), (0, 0.0))
        if number == 0:
            return quote
        truth = kind.truths[quote.rung]
        level = total / number * (1 + 0.5 / math.sqrt(number))
        wall, money = kind.tail[quote.rung]
        charges = tuple((p, math.ceil(truth.money * money * level)) for p, _ in quote.charges)
        return replace(quote, charges=charges, wall_s=truth.wall_s * wall * level)
