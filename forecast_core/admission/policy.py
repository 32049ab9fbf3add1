"""The admission policy: who may start what, on whose money, in which hours.

Belongs here: the typed policy, its parser from a YAML mapping, its validation, and what it says
about a period or an hour. Does not: any decision about a run (`admission.py`), files, clocks.

Money inside is a whole number of nanos (1e-9 of the currency unit), so that sums are exact and
fast; the file speaks in currency units. Times are seconds since the epoch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import takewhile
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from forecast_core.cost.focus import PIPELINES

__all__ = ["CLASSES", "NANO", "ORIGINS", "PIPELINES", "PROTECTED", "Policy", "PolicyError"]

NANO = 10**9
CLASSES = ("serving", "monitoring", "training", "backfill", "exploratory")
PROTECTED = ("serving", "monitoring")
ORIGINS = ("schedule", "sensor", "automation", "backfill", "manual")
Period = Literal["day", "week", "month", "quarter"]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class PolicyError(ValueError):
    """A policy that must not govern anything; `problems` lists every fault, each with a remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the admission policy is refused:\n  " + "\n  ".join(self.problems))


def nanos(amount: Decimal | str | float) -> int:
    """Currency units to nanos, rounded up: what is held must never fall short of what is due.

    Raises:
        ValueError: the amount is no finite number.
    """
    try:
        exact = Decimal(str(amount))
        return int((exact * NANO).to_integral_value(rounding=ROUND_CEILING))
    except (InvalidOperation, OverflowError, ValueError):
        raise ValueError(f"{amount!r} is no amount of money") from None


def units(amount: int) -> Decimal:
    """Nanos back to currency units, exactly."""
    return Decimal(amount) / NANO


def _seconds(value: object) -> float:
    """'90s', '15m', '2h', '3d', '1w', or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    if text[-1:] in _UNITS:
        try:
            return float(text[:-1]) * _UNITS[text[-1]]
        except ValueError:
            pass
    raise ValueError(f"{value!r} is no duration; write it as 90s, 15m, 2h, 3d or 1w")


def _clock(value: object) -> time:
    if isinstance(value, int) and not isinstance(value, bool):  # YAML 1.1 reads 02:30 as 150
        return time(value // 60 % 24, value % 60)
    return time.fromisoformat(str(value))


Nanos = Annotated[int, BeforeValidator(nanos), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
Clock = Annotated[time, BeforeValidator(_clock)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Restriction(_Model):
    """What a class may do in one environment."""

    allowed: bool = True
    max_money: Nanos | None = None
    max_runs: int | None = Field(default=None, ge=0)


class WorkClass(_Model):
    """One kind of work. Durations in seconds; `floor_runs` lanes are always kept free for it."""

    priority: int
    max_defer: Seconds
    max_chunk: Seconds | None = None
    floor_runs: int = Field(default=0, ge=0)
    fan_out: int = Field(default=8, ge=1)
    may_degrade: bool = False
    environments: dict[str, Restriction] = Field(default_factory=dict)


class Quota(_Model):
    """Room for runs at once: lanes, busy cores, GiB, GPU lanes."""

    runs: int = Field(ge=0)
    cpu: Share
    memory_gib: Share
    gpu: int = Field(default=0, ge=0)


class StepQuota(_Model):
    """What one step may use at most: busy cores, GiB."""

    cpu: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    memory_gib: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Stage(Quota):
    """The room of the pipelines named, which no other pipeline may take.

    `step` is what one step of theirs may use of it. Left out it is a lane's share, so that a step
    which takes all it may leaves the other lanes theirs. `max_runtime` ends a run of the queue.
    """

    pipelines: tuple[str, ...]
    step: StepQuota | None = None
    max_runtime: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] | None = None

    @cached_property
    def of_a_step(self) -> StepQuota:
        """What one step may use."""
        if self.step is not None:
            return self.step
        lanes = max(self.runs, 1)  # a stage without room is for `checks` to judge
        return StepQuota.model_construct(cpu=self.cpu / lanes, memory_gib=self.memory_gib / lanes)

    @property
    def most_memory_gib(self) -> float:
        """What a run may hold at most, whatever was measured of it."""
        return self.step.memory_gib if self.step else self.memory_gib

    def memory_of_a_step(self, held_gib: float) -> float:
        """GiB at which a step is stopped whose run holds so much: its lane's share where no `step`
        is stated, or all that it holds, since nobody else was promised that."""
        return min(self.most_memory_gib, max(self.of_a_step.memory_gib, held_gib))


class Budget(_Model):
    """One node of the tree: money for what matches it, in one period. Floors are by class."""

    parent: str | None = None
    period: Period = "month"
    limit: Nanos
    environment: str | None = None
    pipeline: str | None = None
    work_class: str | None = Field(default=None, alias="class")
    floors: dict[str, Nanos] = Field(default_factory=dict)

    def covers(self, environment: str, pipeline: str, work_class: str) -> bool:
        """Does money of this environment, pipeline and class count against this node?"""
        return (
            self.environment in (None, environment)
            and self.pipeline in (None, pipeline)
            and self.work_class in (None, work_class)
        )


class Rule(_Model):
    """`pipeline` and `origin` (any, when left out) give a class; the first that matches wins."""

    work_class: str = Field(alias="class")
    pipeline: tuple[str, ...] | None = None
    origin: tuple[str, ...] | None = None


class Bound(_Model):
    """The stated upper bound for a run that the estimator cannot price yet.

    `rungs`: rung -> its share of money and wall; a rung that is not named takes all of both.
    """

    money: Nanos
    wall: Seconds
    cpu: Share = 1.0
    memory_gib: Share = 1.0
    gpu: int = Field(default=0, ge=0)
    rungs: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)


class Peak(_Model):
    """Hours (or dates) in which classes pause, or run at most so many at once; in the environments
    named, or in all."""

    name: str
    start: Clock | None = Field(default=None, alias="from")
    end: Clock | None = Field(default=None, alias="until")
    first: date | None = None
    last: date | None = None
    weekdays: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    pause: tuple[str, ...] = ()
    runs: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    environments: tuple[str, ...] = ()

    def applies(self, environment: str) -> bool:
        """Does the window speak of this environment?"""
        return not self.environments or environment in self.environments

    def ends(self, now: float, offset_s: float) -> float | None:
        """When the window that holds `now` ends, in epoch seconds; None outside of it.

        A window of whole days ends with the last of them, and one of every day never (inf).
        """
        local = datetime.fromtimestamp(now + offset_s, UTC)
        start, end = self.start or time.min, self.end or time.min
        for day in (local.date(), local.date() - timedelta(days=1)):
            if not self._falls_on(day):
                continue
            opens = datetime.combine(day, start, UTC)
            closes = datetime.combine(day, end, UTC)
            closes += timedelta(days=1) if end <= start else timedelta()
            if opens <= local < closes:
                more = self._days_after(day) if start == end else 0
                return closes.timestamp() - offset_s + more * 86_400.0
        return None

    def _days_after(self, day: date) -> float:
        """The days in a row that it falls on after `day`."""
        if self.weekdays and len(set(self.weekdays)) < len(_WEEKDAYS):
            days = (day + timedelta(days=n) for n in range(1, len(_WEEKDAYS) + 1))
            return len(list(takewhile(self._falls_on, days)))
        return math.inf if self.last is None else float((self.last - day).days)

    def _falls_on(self, day: date) -> bool:
        return (
            (self.first is None or day >= self.first)
            and (self.last is None or day <= self.last)
            and (not self.weekdays or _WEEKDAYS[day.weekday()] in self.weekdays)
        )


class Throttle(_Model):
    """Measured load above which classes pause until it falls again."""

    queue_age: Seconds | None = None
    memory_pressure: Annotated[float, Field(gt=0, le=1)] | None = None
    cpu_pressure: Annotated[float, Field(gt=0, le=1)] | None = None
    pause: tuple[str, ...]


class ServingReserve(_Model):
    """Money kept for the cheapest forecast of every item that still has none."""

    pipeline: str = "inference"
    money_per_item: Nanos


class _File(_Model):
    version: str
    currency: str = Field(pattern="^[A-Z]{3}$")
    utc_offset_hours: float = Field(default=0.0, ge=-14, le=14)
    host: Quota
    stages: dict[str, Stage]
    classes: dict[str, WorkClass]
    budgets: dict[str, Budget]
    classify: tuple[Rule, ...]
    default_bound: Bound
    serving_reserve: ServingReserve
    peaks: tuple[Peak, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    tick: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] = 30.0


@dataclass(frozen=True)
class Policy:
    """A checked policy. Build it with `parse`; `text` is the canonical JSON it was read from."""

    text: str
    version: str
    currency: str
    offset_s: float
    host: Quota
    stages: Mapping[str, Stage]
    classes: Mapping[str, WorkClass]
    budgets: Mapping[str, Budget]
    classify: tuple[Rule, ...]
    default_bound: Bound
    serving_reserve: ServingReserve
    peaks: tuple[Peak, ...]
    throttles: tuple[Throttle, ...]
    tick_s: float
    _paths: dict[tuple[str, str, str], tuple[str, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Policy:
        """Read and check a policy.

        Raises:
            PolicyError: everything that is wrong with it, each fault with its place and remedy.
        """
        try:
            file = _File.model_validate(mapping)
        except ValidationError as error:
            raise PolicyError(
                f"{'.'.join(map(str, fault['loc'])) or 'policy'}: {fault['msg']}"
                f" (found {str(fault['input'])[:80]})"
                for fault in error.errors()
            ) from None
        policy = cls(
            text=json.dumps(mapping, sort_keys=True, separators=(",", ":"), default=str),
            version=file.version,
            currency=file.currency,
            offset_s=file.utc_offset_hours * 3600,
            host=file.host,
            stages=file.stages,
            classes=file.classes,
            budgets=file.budgets,
            classify=file.classify,
            default_bound=file.default_bound,
            serving_reserve=file.serving_reserve,
            peaks=file.peaks,
            throttles=file.throttles,
            tick_s=file.tick,
        )
        from forecast_core.admission.checks import faults

        if problems := tuple(faults(policy)):
            raise PolicyError(problems)
        return policy

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text: two policies with one hash are one policy."""
        return sha256(self.text.encode()).hexdigest()

    @cached_property
    def stage_of(self) -> Mapping[str, str]:
        """Pipeline -> the stage whose room it uses."""
        return {p: name for name, stage in self.stages.items() for p in stage.pipelines}

    def stage_name(self, pipeline: str) -> str:
        """The stage whose room a pipeline uses; the first one for a pipeline that none names."""
        return self.stage_of.get(pipeline, next(iter(self.stages)))

    def stage_for(self, pipeline: str) -> Stage:
        """The room of that stage."""
        return self.stages[self.stage_name(pipeline)]

    def ancestors(self, name: str) -> tuple[str, ...]:
        """The parents of a budget node, nearest first (a checked tree has no cycle)."""
        chain: list[str] = []
        node = self.budgets[name].parent
        while node is not None and node not in chain and node in self.budgets:
            chain.append(node)
            node = self.budgets[node].parent
        return tuple(chain)

    def path(self, environment: str, pipeline: str, work_class: str) -> tuple[str, ...]:
        """Every budget node that such money counts against, in the file's order."""
        key = (environment, pipeline, work_class)
        if key not in self._paths:
            self._paths[key] = tuple(n for n, b in self.budgets.items() if b.covers(*key))
        return self._paths[key]

    @cached_property
    def floors(self) -> Mapping[str, Mapping[str, int]]:
        """Node -> class -> money kept for that class: its own floor, or its children's if more."""
        lifted: dict[str, dict[str, int]] = {n: dict(b.floors) for n, b in self.budgets.items()}
        for name in sorted(self.budgets, key=lambda n: -len(self.ancestors(n))):
            children = [
                child
                for child, budget in self.budgets.items()
                if budget.parent == name and budget.period == self.budgets[name].period
            ]
            for work_class in {c for child in children for c in lifted[child]}:
                below = sum(lifted[child].get(work_class, 0) for child in children)
                lifted[name][work_class] = max(lifted[name].get(work_class, 0), below)
        return lifted

    def class_of(self, pipeline: str, origin: str) -> str | None:
        """The class of work of a pipeline that starts this way; None when no rule speaks of it."""
        for rule in self.classify:
            if (rule.pipeline is None or pipeline in rule.pipeline) and (
                rule.origin is None or origin in rule.origin
            ):
                return rule.work_class
        return None

    def period(self, kind: Period, now: float) -> tuple[float, float]:
        """First and last (exclusive) second of the budget period that holds `now`."""
        return _period(kind, now, self.offset_s)


@lru_cache(maxsize=256)
def _period_of_day(kind: Period, day: date) -> tuple[date, date]:
    if kind == "day":
        return day, day + timedelta(days=1)
    if kind == "week":
        monday = day - timedelta(days=day.weekday())
        return monday, monday + timedelta(days=7)
    months = 3 if kind == "quarter" else 1
    first = day.replace(month=(day.month - 1) // months * months + 1, day=1)
    beyond = first.month + months
    return first, first.replace(year=first.year + (beyond > 12), month=(beyond - 1) % 12 + 1)


def _period(kind: Period, now: float, offset_s: float) -> tuple[float, float]:
    first, last = _period_of_day(kind, datetime.fromtimestamp(now + offset_s, UTC).date())
    return _midnight(first) - offset_s, _midnight(last) - offset_s


def _midnight(day: date) -> float:
    return (day.toordinal() - 719_163) * 86_400.0
