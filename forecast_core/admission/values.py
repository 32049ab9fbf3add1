"""What admission speaks of: quotes, requests, holdings, the snapshot of a pass, the decisions.

Belongs here: frozen value objects without behaviour beyond their own fields. Does not: rules.
Requests and decisions come by the ten thousand and are tuples for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from forecast_core.admission.policy import WorkClass

Action = Literal["admit", "degrade", "hold", "reject"]
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Quote:
    """What a run takes at one rung. `charges` are upper bounds, (pipeline, nanos) pairs.

    `wall_s` is the measured p95 of its duration in seconds; `cpu` counts busy cores.
    """

    rung: str
    charges: tuple[tuple[str, int], ...]
    wall_s: float
    cpu: float = 1.0
    memory_gib: float = 1.0
    gpu: int = 0

    @property
    def money(self) -> int:
        """The whole upper bound, nanos."""
        return sum(amount for _, amount in self.charges)


@dataclass(frozen=True, slots=True)
class Shape:
    """What equal runs share. `quotes` from the rung asked for down to the cheapest.

    `problem` says why the run cannot be classified; it is then held until someone releases it.
    Hand equal runs the same object: verdicts are remembered by identity.
    """

    work_class: str
    stage: str
    quotes: tuple[Quote, ...]
    problem: str | None = None


class Request(NamedTuple):
    """A run that waits. Times in epoch seconds; `covers` counts items it gives a first forecast."""

    id: str
    shape: Shape
    submitted: float
    deadline: float | None = None
    launch: str = ""
    covers: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """A run that was admitted and is not settled: its request, the quote it holds, since when."""

    request: Request
    quote: Quote
    admitted: float


@dataclass(frozen=True, slots=True)
class Override:
    """A person's exception, always with an owner, a reason and an end.

    `release` lets a run (target: its id) or a class pass problems, pauses and restrictions;
    `block` holds it; `raise` adds `amount` nanos to a budget node (target: its name). No override
    passes a budget: it can only be raised.
    """

    effect: Literal["release", "block", "raise"]
    target: str
    owner: str
    reason: str
    expires: float
    amount: int = 0

    def __post_init__(self) -> None:
        if not (self.owner.strip() and self.reason.strip()):
            raise ValueError("an override needs an owner and a reason")
        if not self.expires < NEVER:
            raise ValueError("an override needs an expiry")
        if self.amount < 0 or (self.effect == "raise") != (self.amount > 0):
            raise ValueError("a raise needs an amount above zero, other overrides take none")


@dataclass(frozen=True, slots=True)
class Load:
    """Measured load of the host: age of the queue in seconds, pressures from 0 to 1."""

    queue_age_s: float = 0.0
    memory_pressure: float = 0.0
    cpu_pressure: float = 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision rests on.

    `spent`: node -> class -> nanos already gone in the node's current period: what settled, and
    what other environments hold. `items_due`: items that have no forecast of this cycle yet and no
    holding that covers them. `last_start`: class -> when a run of it last started. `counts`: id of
    an entry (waiting or running) that stands for so many equal runs; absent means one.
    """

    now: float
    environment: str
    waiting: tuple[Request, ...]
    running: tuple[Holding, ...] = ()
    spent: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    items_due: int = 0
    load: Load = Load()
    overrides: tuple[Override, ...] = ()
    last_start: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class Decision(NamedTuple):
    """The verdict on one run. Times in epoch seconds, `money` in nanos held (0 unless it starts).

    `earliest` is when it may start or next has a chance; `latest` when it must have started;
    `late` says that the one is past the other.
    """

    id: str
    action: Action
    rung: str
    money: int
    code: str
    reason: str
    earliest: float
    latest: float
    late: bool

    @property
    def starts(self) -> bool:
        """Does the run start now?"""
        return self.action in ("admit", "degrade")


def latest_start(request: Request, work_class: WorkClass, quote: Quote) -> float:
    """When the run must have started: deferral ends, or the deadline less its p95 duration."""
    latest = request.submitted + work_class.max_defer
    if request.deadline is not None and request.deadline - quote.wall_s < latest:
        return request.deadline - quote.wall_s
    return latest
