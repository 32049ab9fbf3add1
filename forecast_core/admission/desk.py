"""The desk of one admission pass: what is free, what is refused already, and who gets it.

Belongs here: the books of a pass and the verdict on one run. Does not: the order in which runs are
asked (`admission.py`), stores, clocks. A desk lives for one call of `decide`.

Within a pass room and money only shrink, so a refusal found once holds for every later run of the
same shape; that is what makes ten thousand held runs cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from forecast_core.admission.batch import judge_batch
from forecast_core.admission.policy import Peak, Policy, Quota, WorkClass, units
from forecast_core.admission.values import (
    NEVER,
    Action,
    Decision,
    Load,
    Override,
    Quote,
    Request,
    Shape,
    Snapshot,
    latest_start,
)

ROOM = ("host", "stage")


class Block(NamedTuple):
    """Why a quote does not start now. `never`: it could not start on an empty host either."""

    code: str
    reason: str
    earliest: float
    never: bool = False


class _Refusal(NamedTuple):
    """What every later run of a shape is told."""

    action: Action
    rung: str
    wall_s: float
    code: str
    reason: str
    earliest: float


class _Room:
    """What is free of one quota during a pass."""

    __slots__ = ("cpu", "free_at", "gpu", "memory_gib", "quota", "runs")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.runs, self.gpu = quota.runs, quota.gpu
        self.cpu, self.memory_gib = quota.cpu, quota.memory_gib
        self.free_at = NEVER  # when the first of what runs in it should end

    def take(self, quote: Quote, count: int = 1) -> None:
        self.runs -= count
        self.cpu -= quote.cpu * count
        self.memory_gib -= quote.memory_gib * count
        self.gpu -= quote.gpu * count

    def lacks(self, quote: Quote, kept_runs: int = 0) -> str | None:
        return _short(
            quote, self.runs - kept_runs, self.cpu + 1e-9, self.memory_gib + 1e-9, self.gpu
        )

    def could_never(self, quote: Quote, kept_runs: int = 0) -> str | None:
        quota = self.quota
        return _short(quote, quota.runs - kept_runs, quota.cpu, quota.memory_gib, quota.gpu)


def _short(quote: Quote, runs: int, cpu: float, memory_gib: float, gpu: int) -> str | None:
    if runs < 1:
        return "lanes"
    if quote.cpu > cpu:
        return "cpu"
    if quote.memory_gib > memory_gib:
        return "memory"
    # what is set aside may leave less than none: that must not block those who need none
    return "gpu" if quote.gpu and quote.gpu > gpu else None


class _Purse:
    """The money of one budget node during a pass, in nanos."""

    __slots__ = ("ends", "floors", "kept", "left", "limit", "name", "opened", "serves", "used")

    def __init__(
        self, name: str, limit: int, period: tuple[float, float], floors: Mapping[str, int]
    ) -> None:
        self.name, self.limit, self.floors = name, limit, floors
        self.opened, self.ends = period
        self.left = limit
        self.used: dict[str, int] = {}
        self.kept = dict(floors)  # what is left of each class's floor
        self.serves = False  # holds the reserve for items without a forecast

    def take(self, work_class: str, amount: int) -> None:
        self.left -= amount
        used = self.used[work_class] = self.used.get(work_class, 0) + amount
        if work_class in self.kept:
            self.kept[work_class] = max(0, self.floors[work_class] - used)

    def free(self, work_class: str, reserve: int) -> int:
        """What this class may still take when `reserve` is kept for items without a forecast."""
        left = self.left
        for name, amount in self.kept.items():
            if name != work_class:
                left -= amount
        if self.serves:
            own = 0 if work_class == "serving" else self.kept.get("serving", 0)
            left -= max(0, reserve - own)
        return left

    def ever(self, work_class: str) -> int:
        """What this class could take of an untouched period."""
        return self.limit - sum(v for name, v in self.floors.items() if name != work_class)


class Desk:
    """The state of one pass. `judge` takes the room and money of every run that it starts."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.now = snapshot.now
        self.tick = snapshot.now + policy.tick_s
        self.environment = snapshot.environment
        self.policy = policy
        self.last_start = snapshot.last_start
        self.items_due = snapshot.items_due
        self.lanes: dict[str, int] = dict.fromkeys(policy.classes, 0)
        self.launches: dict[str, int] = {}
        self.host = _Room(policy.host)
        self.stages = {name: _Room(stage) for name, stage in policy.stages.items()}
        active = [o for o in snapshot.overrides if o.expires > snapshot.now]
        self.released = {o.target for o in active if o.effect == "release"}
        self.blocked = {o.target: o for o in active if o.effect == "block"}
        self.purses = self._purses(snapshot.spent, active)
        self.pauses: dict[str, Block] = {}
        for name, block in self._pauses(snapshot.load):  # what lasts longest is what it waits for
            if name not in self.pauses or block.earliest > self.pauses[name].earliest:
                self.pauses[name] = block
        self.caps = self._caps()
        self.alike = _alike(request[1] for request in snapshot.waiting)
        self._verdicts: dict[tuple[int, int, int, bool], Block | None] = {}
        self._refusals: dict[tuple[int, int], _Refusal] = {}
        self.counts = dict(snapshot.counts)
        for holding in snapshot.running:
            count = self.counts.get(holding.request.id, 1)
            self.take(holding.request, holding.quote, holding.admitted, count)
            ends = max(self.tick, holding.admitted + holding.quote.wall_s)
            for room in (self.host, self.stages[holding.request.shape.stage]):
                room.free_at = min(room.free_at, ends)

    # ---- the books ---------------------------------------------------------------------------

    def _purses(
        self, spent: Mapping[str, Mapping[str, int]], active: list[Override]
    ) -> dict[str, _Purse]:
        policy = self.policy
        purses = {}
        for name, budget in policy.budgets.items():
            if budget.environment in (None, self.environment):
                raised = sum(o.amount for o in active if (o.effect, o.target) == ("raise", name))
                period = policy.period(budget.period, self.now)
                purse = _Purse(name, budget.limit + raised, period, policy.floors[name])
                for work_class, amount in spent.get(name, {}).items():
                    purse.take(work_class, amount)
                purses[name] = purse
        for name in policy.path(self.environment, policy.serving_reserve.pipeline, "serving"):
            purses[name].serves = True
        return purses

    def _pauses(self, load: Load) -> Iterator[tuple[str, Block]]:
        for throttle in self.policy.throttles:
            measured = (
                ("queue age", load.queue_age_s, throttle.queue_age),
                ("memory pressure", load.memory_pressure, throttle.memory_pressure),
                ("cpu pressure", load.cpu_pressure, throttle.cpu_pressure),
            )
            over = [f"{w} {v:.3g} is above {x:.3g}" for w, v, x in measured if x and v > x]
            for name in throttle.pause if over else ():
                yield name, Block("load", f"{name} pauses while {over[0]}", self.tick)
        for peak in self.policy.peaks:
            ends = self._peak_ends(peak) if peak.pause else None
            for name in peak.pause if ends is not None else ():
                assert ends is not None
                yield name, Block("peak", f"{name} pauses during '{peak.name}'", ends)
        for name in self.blocked.keys() & self.policy.classes.keys():
            yield name, self._blocked_by(self.blocked[name])

    def _peak_ends(self, peak: Peak) -> float | None:
        applies = peak.applies(self.environment)
        return peak.ends(self.now, self.policy.offset_s) if applies else None

    def _blocked_by(self, override: Override) -> Block:
        return Block("blocked", f"{override.owner}: {override.reason}", override.expires)

    def _caps(self) -> dict[str, tuple[int, str, float]]:
        """Class -> most runs at once now, the reason, and when it ends."""
        caps = {}
        for name, work_class in self.policy.classes.items():
            limits = work_class.environments.get(self.environment)
            if limits is not None and limits.max_runs is not None:
                caps[name] = (limits.max_runs, self.environment, self.tick)
        for peak in self.policy.peaks:
            ends = self._peak_ends(peak) if peak.runs else None
            for name, most in peak.runs.items() if ends is not None else ():
                assert ends is not None
                if name not in caps or (most, -ends) < (caps[name][0], -caps[name][2]):
                    caps[name] = (most, f"'{peak.name}'", ends)
        return caps

    def take(self, request: Request, quote: Quote, admitted: float, count: int = 1) -> None:
        """Book `count` equal runs as running with that quote since `admitted`."""
        shape = request.shape
        self.host.take(quote, count)
        self.stages[shape.stage].take(quote, count)
        self.lanes[shape.work_class] += count
        if request.launch:
            self.launches[request.launch] = self.launches.get(request.launch, 0) + count
        for purse, amount in self.bill(shape.work_class, quote):
            if admitted >= purse.opened:
                purse.take(shape.work_class, amount * count)

    def bill(self, work_class: str, quote: Quote) -> list[tuple[_Purse, int]]:
        """The nodes that this quote counts against, each with its nanos."""
        bill: dict[str, int] = {}
        for pipeline, amount in quote.charges:
            for name in self.policy.path(self.environment, pipeline, work_class):
                bill[name] = bill.get(name, 0) + amount
        return [(self.purses[name], amount) for name, amount in bill.items()]

    def free_floor(self, work_class: str) -> int:
        """Lanes of the class's floor that it does not use."""
        return self.policy.classes[work_class].floor_runs - self.lanes[work_class]

    def launch_is_full(self, request: Request, work_class: WorkClass) -> bool:
        """Does the launch of this run have as many pieces running as it may?"""
        return bool(request.launch) and (self.launches.get(request.launch, 0) >= work_class.fan_out)

    def set_aside(self, request: Request, code: str) -> bool:
        """Keep room for an overdue run that lacks it, so that nothing slips in before it."""
        if not code.startswith(ROOM):
            return False
        quote = request.shape.quotes[0]
        self.stages[request.shape.stage].take(quote)
        if code.startswith("host"):
            self.host.take(quote)
        return True

    # ---- the verdicts ------------------------------------------------------------------------

    def judge_all(self, queue: list[Request], work_class: WorkClass) -> list[Decision]:
        """`judge` for a queue of one class; what is known to be refused is answered at a glance."""
        decisions: list[Decision] = []
        refusals, alike, defer = self._refusals, self.alike, work_class.max_defer
        named = self.released | self.blocked.keys()
        quick = tuple.__new__  # a named tuple's own constructor costs twice as much
        for request in queue:
            name, shape, submitted, deadline, _, covers = request
            refusal = refusals.get((alike[id(shape)], covers))
            if refusal is None or name in named:
                if name in self.counts:
                    decisions += judge_batch(self, request, work_class, self.counts[name])
                else:
                    decisions.append(self.judge(request, work_class))
                continue
            action, rung, wall_s, code, reason, earliest = refusal
            latest = submitted + defer
            if deadline is not None and deadline - wall_s < latest:
                latest = deadline - wall_s
            late = earliest > latest
            decisions.append(
                quick(Decision, (name, action, rung, 0, code, reason, earliest, latest, late))
            )
        return decisions

    def judge(self, request: Request, work_class: WorkClass) -> Decision:
        """The verdict on one run; takes its room and money when it starts."""
        shape = request.shape
        released = request.id in self.released or shape.work_class in self.released
        if block := self._personal(request, work_class, released):
            return self._answer(request, work_class, block)
        quotes = shape.quotes if work_class.may_degrade else shape.quotes[:1]
        blocks = [
            self._verdict(shape, rung, request.covers, released) for rung in range(len(quotes))
        ]
        if None not in blocks:
            block = next((b for b in blocks if b and not b.never), blocks[0])
            assert block is not None
            answer = self._answer(request, work_class, block)
            if not released:
                self._refusals[self.alike[id(shape)], request.covers] = _Refusal(
                    answer.action, answer.rung, quotes[0].wall_s, *block[:3]
                )
            return answer
        for rung in range(blocks.index(None)):
            block = blocks[rung]
            assert block is not None
            can_wait = block.earliest <= latest_start(request, work_class, quotes[rung])
            if can_wait and not block.never:
                return self._answer(request, work_class, block)
        return self._start(request, work_class, blocks)

    def _answer(self, request: Request, work_class: WorkClass, block: Block) -> Decision:
        latest = latest_start(request, work_class, request.shape.quotes[0])
        return Decision(
            request.id,
            "reject" if block.never else "hold",
            request.shape.quotes[0].rung,
            0,
            block.code,
            block.reason,
            block.earliest,
            latest,
            block.earliest > latest,
        )

    def _start(
        self, request: Request, work_class: WorkClass, blocks: list[Block | None]
    ) -> Decision:
        rung = blocks.index(None)
        quote = request.shape.quotes[rung]
        latest = latest_start(request, work_class, quote)
        self.take(request, quote, self.now)
        self.items_due = max(0, self.items_due - request.covers)
        above = blocks[0]
        return Decision(
            request.id,
            "degrade" if above else "admit",
            quote.rung,
            quote.money,
            above.code if above else "fits",
            above.reason if above else "room and money suffice",
            self.now,
            latest,
            self.now > latest,
        )

    def _personal(self, request: Request, work_class: WorkClass, released: bool) -> Block | None:
        """What holds this one run, whatever its equals are told."""
        if request.id in self.blocked:
            return self._blocked_by(self.blocked[request.id])
        if request.shape.problem and not released:
            return Block("problem", request.shape.problem, NEVER)
        if self.launch_is_full(request, work_class):
            most = work_class.fan_out
            return Block("fan_out", f"{most} pieces of {request.launch} run already", self.tick)
        return None

    def _verdict(self, shape: Shape, rung: int, covers: int, released: bool) -> Block | None:
        key = (self.alike[id(shape)], rung, covers, released)
        known = self._verdicts.get(key)
        if known is None:  # what fitted may not fit any more; what did not never will
            quote = shape.quotes[rung]
            known = self._verdicts[key] = (
                self._never(shape, quote, released)
                or self._pause(shape.work_class, released)
                or self._no_room(shape, quote)
                or self._no_money(shape.work_class, quote, covers)
            )
        return known

    def _never(self, shape: Shape, quote: Quote, released: bool) -> Block | None:
        """Why this quote could not start on an empty host in a fresh period."""
        work_class = self.policy.classes[shape.work_class]
        limits = work_class.environments.get(self.environment)
        if limits is not None and not released:
            if not limits.allowed:
                return _never(
                    "restricted", f"{shape.work_class} work is not allowed in {self.environment}"
                )
            if limits.max_money is not None and quote.money > limits.max_money:
                return _never(
                    "restricted",
                    f"{shape.work_class} runs in {self.environment} may hold"
                    f" {units(limits.max_money)}, this needs up to {units(quote.money)}",
                )
        if work_class.max_chunk is not None and quote.wall_s > work_class.max_chunk:
            pieces = -(-quote.wall_s // work_class.max_chunk)
            return _never(
                "chunk",
                f"takes {quote.wall_s:.0f} s where {shape.work_class} chunks end after"
                f" {work_class.max_chunk:.0f} s: split it into {pieces:.0f} pieces or more",
            )
        kept = self.floor_lanes(shape.work_class, {})
        for word, room, lanes in (
            ("stage " + shape.stage, self.stages[shape.stage], 0),
            ("host", self.host, kept),
        ):
            if lack := room.could_never(quote, lanes):
                return _never("too_big", f"needs more {lack} than the {word} has")
        for purse, amount in self.bill(shape.work_class, quote):
            most = purse.ever(shape.work_class)
            if amount > most:
                return _never(
                    "too_dear",
                    f"needs up to {units(amount)}; {purse.name} never has more than"
                    f" {units(most)} for {shape.work_class}",
                )
        return None

    def _pause(self, work_class: str, released: bool) -> Block | None:
        if work_class in self.pauses and not released:
            return self.pauses[work_class]
        if work_class in self.caps and not released:
            most, where, ends = self.caps[work_class]
            if self.lanes[work_class] >= most:
                reason = f"{most} {work_class} runs at once in {where}"
                frees = ends if most == 0 else min(ends, self._next_end(self.host))
                return Block("cap", reason, frees)
        return None

    def floor_lanes(self, work_class: str, lanes: Mapping[str, int]) -> int:
        """Lanes kept for the floors of other classes that are not used up."""
        return sum(
            max(0, other.floor_runs - lanes.get(name, 0))
            for name, other in self.policy.classes.items()
            if name != work_class
        )

    def _next_end(self, room: _Room) -> float:
        return self.tick if room.free_at == NEVER else room.free_at

    def _no_room(self, shape: Shape, quote: Quote) -> Block | None:
        stage = self.stages[shape.stage]
        if lack := stage.lacks(quote):
            reason = f"stage {shape.stage} has no {lack} free"
            return Block(f"stage_{lack}", reason, self._next_end(stage))
        if lack := self.host.lacks(quote, self.floor_lanes(shape.work_class, self.lanes)):
            reason = f"the host has no {lack} free for {shape.work_class}"
            return Block(f"host_{lack}", reason, self._next_end(self.host))
        return None

    def _no_money(self, work_class: str, quote: Quote, covers: int) -> Block | None:
        unit = self.policy.serving_reserve.money_per_item
        reserve = unit * max(0, self.items_due - covers)
        for purse, amount in self.bill(work_class, quote):
            free = purse.free(work_class, reserve)
            if amount > free:
                return Block(
                    "money",
                    f"{purse.name} has {units(max(0, free))} left for {work_class}, this needs up"
                    f" to {units(amount)}",
                    purse.ends,
                )
        return None


def _alike(shapes: Iterable[Shape]) -> dict[int, int]:
    """A number for each shape object by identity, the same for equal shapes: what is said of one
    must not depend on who built it, or a replay could differ by a word."""
    numbers: dict[int, int] = {}
    known: dict[Shape, int] = {}
    for shape in shapes:
        if id(shape) not in numbers:
            numbers[id(shape)] = known.setdefault(shape, len(known))
    return numbers


def _never(code: str, reason: str) -> Block:
    return Block(code, reason, NEVER, never=True)
