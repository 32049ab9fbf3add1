"""The plan: assumptions with range, owner, source and revisit date, and the rhythm of work.

Belongs here: the typed plan, everything that makes it unusable, drawing its assumptions. Does not:
what work costs (`fit`), what happens (`twin`), keeping versions (`resources.plan_store`).

`low` and `high` are the 10th and 90th percentile, `mid` the median: a draw is a two-piece normal
with exactly these quantiles, correlated where the plan says so by a Gaussian copula.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from copy import copy
from datetime import date, time
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from forecast_core.admission.policy import ORIGINS, PIPELINES, Clock
from forecast_core.capacity.calendar import add_months

Z80 = 1.2815515655446004  # the normal's 90th percentile
LIMITS: Mapping[str, tuple[float, float]] = {
    # what an assumption may be at all; a draw is held within it
    "series_growth": (-0.9, 100.0),  # share a year
    "store_openings": (0.0, 10_000.0),  # a year
    "backfills": (0.0, 1_000.0),  # a month
    "backfill_days": (0.0, 4_000.0),  # days replayed by each
    "retrain_days": (1.0, 365.0),  # between two trainings
    "failures": (0.0, 0.5),  # share of runs that fail and run again
    "price_change": (-0.9, 10.0),  # share a year, on top of the price card
    "hot_days": (1.0, 4_000.0),
    "warm_days": (1.0, 10_000.0),
}
MIX = "mix."  # mix.GROUP: the group's share of all series


class PlanError(ValueError):
    """A plan that must not be believed; `problems` lists every fault, each with its remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the capacity plan is refused:\n  " + "\n  ".join(self.problems))


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Assumption(_Model):
    """What is believed of one driver, by whom, why, and until when it may go unquestioned."""

    low: float = Field(allow_inf_nan=False)
    mid: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    owner: str = Field(min_length=1)
    source: str = Field(min_length=1)
    made: date
    revisit: date

    def at(self, z: float) -> float:
        """The value at a standard normal `z`: mid at 0, low and high at -+1.28."""
        return self.mid + z / Z80 * (self.high - self.mid if z > 0 else self.mid - self.low)


class Correlation(_Model):
    """Two assumptions that move together (rank correlation of the copula's normals)."""

    between: tuple[str, str]
    rho: float = Field(ge=-1, le=1)
    source: str = Field(min_length=1)


class Base(_Model):
    """The platform on the first day of the plan."""

    series: int = Field(ge=1)
    stores: int = Field(ge=1)
    history_days: int = Field(ge=1)
    horizon: int = Field(ge=1, default=28)


class Written(_Model):
    """Rows a series that one run of a stage writes: `each`, and `by_day` more for each day of the
    month so far, as where a night writes its month again."""

    each: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    by_day: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def on(self, day: int) -> float:
        """Rows a series on that day of a month."""
        return self.each + self.by_day * day


class Work(_Model):
    """One kind of run and its rhythm.

    `stages`: the ledger's assets that a run of it materializes. `rungs`: its ladder, dearest first.
    `per`: a run for all series, for each store, or for each `chunk` series. `group`: only that
    segment group's share of the series. `after`: starts when that work of the same day is done.
    `covers`: gives every series of it its first forecast of the cycle. `watches`: must be done by
    its deadline, as serving must. `volume`: of what the stages have been measured to take.
    `rows`: stage -> the rows that it writes, where the ledger's runs were not of this kind.
    """

    stages: tuple[str, ...] = Field(min_length=1)
    pipeline: str
    origin: str = "schedule"
    rungs: tuple[str, ...] = Field(default=("asked",), min_length=1)
    every: Literal["day", "week", "month", "retrain", "backfill"] = "day"
    at: Clock
    deadline: Clock | None = None
    per: Literal["all", "store", "chunk"] = "all"
    chunk: int = Field(default=10_000, ge=1)
    group: str | None = None
    after: str | None = None
    covers: bool = False
    watches: bool = False
    memory_gib: float | None = Field(default=None, gt=0)
    volume: float = Field(default=1.0, gt=0)
    rows: dict[str, Written] = Field(default_factory=dict)


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Default(_Model):
    """The stated cost of a stage at a rung that has no history: `a` + `b` x a million rows.

    Money in currency units, wall and CPU in seconds, memory in GiB held.
    """

    money: tuple[Amount, Amount]
    wall_s: tuple[Amount, Amount]
    cpu_s: tuple[Amount, Amount]
    gpu_s: tuple[Amount, Amount] = (0.0, 0.0)
    memory_gib: Amount = 1.0
    rows_each: float = Field(default=1.0, gt=0)
    bytes_each: float = Field(default=0.0, ge=0)
    spread: float = Field(default=0.25, ge=0, le=2)
    source: str = Field(min_length=1)


class Accuracy(_Model):
    """WRMSSE by rung, and of the forecast that a stressed night is compared with."""

    none: float = Field(gt=0)
    rungs: dict[str, Annotated[float, Field(gt=0)]]
    source: str = Field(min_length=1)

    def skill(self, rung: str) -> float:
        """What a rung takes off the error of having nothing better than last week's sales."""
        return self.none - self.rungs.get(rung, self.none)


class Storage(_Model):
    """Stated bytes that a day of one series takes in each tier, until the lake has measured them;
    rows are kept for `retain_days`."""

    hot: float = Field(ge=0)
    warm: float = Field(ge=0)
    cold: float = Field(ge=0)
    retain_days: int = Field(ge=1)
    source: str = Field(min_length=1)


class Lever(_Model):
    """What a lever does to the plan: factors on the volume of works and on the days between two
    trainings, works that lose their dearest rung, and the share by which the error rises."""

    volume: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    retrain: float = Field(default=1.0, gt=0)
    drop_rung: tuple[str, ...] = ()
    error: float = Field(default=0.0, ge=-1)
    source: str = Field(min_length=1)


class Change(_Model):
    """A declared change of the business that calls for a review of the plan."""

    on: date
    what: str = Field(min_length=1)
    owner: str = Field(min_length=1)


def _rows(value: object) -> object:
    return value if isinstance(value, Mapping) else {"default": value}


class _File(_Model):
    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: str
    currency: str = Field(pattern="^[A-Z]{3}$")
    environment: str
    first: date
    months: int = Field(ge=1, le=60)
    owner: str = Field(min_length=1)
    base: Base
    assumptions: dict[str, Assumption]
    correlations: tuple[Correlation, ...] = ()
    work: dict[str, Work]
    defaults: Annotated[dict[str, Default], BeforeValidator(_rows)]
    accuracy: Accuracy
    storage: Storage
    levers: dict[str, Lever] = Field(default_factory=dict)
    business_changes: tuple[Change, ...] = ()
    review_days: int = Field(default=92, ge=1)


class Plan:
    """A checked plan. `Plan.parse(mapping)` is the way in; `text` the canonical JSON it was."""

    def __init__(self, file: _File, text: str) -> None:
        self.text = text
        self.name, self.version, self.currency = file.name, file.version, file.currency
        self.environment, self.owner = file.environment, file.owner
        self.first, self.months, self.base = file.first, file.months, file.base
        self.assumptions, self.correlations = file.assumptions, file.correlations
        self.work, self.defaults, self.accuracy = file.work, file.defaults, file.accuracy
        self.storage, self.levers = file.storage, file.levers
        self.business_changes, self.review_days = file.business_changes, file.review_days

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Plan:
        """Read and check a plan.

        Raises:
            PlanError: everything that is wrong with it, each fault with its place and remedy.
        """
        try:
            file = _File.model_validate(content)
        except ValidationError as error:
            raise PlanError(
                f"{'.'.join(map(str, fault['loc'])) or 'plan'}: {fault['msg']}"
                f" (found {str(fault['input'])[:80]})"
                for fault in error.errors()
            ) from None
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
        plan = cls(file, text)
        if problems := list(_faults(plan)):
            raise PlanError(problems)
        return plan

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text: two plans with one hash are one plan."""
        return sha256(self.text.encode()).hexdigest()

    @property
    def last(self) -> date:
        """The last day of the plan."""
        return date.fromordinal(add_months(self.first, self.months).toordinal() - 1)

    def changed(self, **fields: Any) -> Plan:
        """The plan with top-level fields replaced (as the file writes them), checked again."""
        return Plan.parse(json.loads(self.text) | fields)

    def believing(self, accuracy: Accuracy, levers: Mapping[str, Lever]) -> Plan:
        """The same plan, of the same text, with what was measured in place of what it states."""
        other = copy(self)
        other.accuracy, other.levers = accuracy, dict(levers)
        return other

    def mids(self) -> dict[str, float]:
        """Every assumption at its median."""
        return {name: assumption.mid for name, assumption in self.assumptions.items()}

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """Every assumption once, correlated as stated; mix shares are scaled to sum to 1."""
        names = sorted(self.assumptions)
        z = _factor(self) @ rng.standard_normal(len(names))
        values = {
            name: held(name, self.assumptions[name].at(float(z[i]))) for i, name in enumerate(names)
        }
        shares = [name for name in names if name.startswith(MIX)]
        total = sum(values[name] for name in shares)
        return values | {name: values[name] / total for name in shares if total > 0}

    def overdue(self, today: date) -> list[str]:
        """The assumptions whose revisit date has passed, with owner and date."""
        return [
            f"{name}: {a.owner} was to revisit it on {a.revisit} (source: {a.source})"
            for name, a in self.assumptions.items()
            if a.revisit < today
        ]


def held(name: str, value: float) -> float:
    """A value within what its driver may be at all."""
    low, high = (0.0, 1.0) if name.startswith(MIX) else LIMITS[name]
    return min(max(value, low), high)


def price_index(change: float) -> float:
    """Prices of a plan's year over its first day's, at a yearly change: those of its middle."""
    index: float = (1 + change) ** 0.5
    return index


def _factor(plan: Plan) -> npt.NDArray[np.float64]:
    """A square root of the correlation matrix of the assumptions."""
    eigenvalues, vectors = np.linalg.eigh(_matrix(plan))
    root: npt.NDArray[np.float64] = vectors * np.sqrt(np.maximum(eigenvalues, 0.0))
    return root


def _matrix(plan: Plan) -> npt.NDArray[np.float64]:
    names = sorted(plan.assumptions)
    matrix = np.eye(len(names))
    for correlation in plan.correlations:
        a, b = (names.index(name) for name in correlation.between)
        matrix[a, b] = matrix[b, a] = correlation.rho
    return matrix


def _faults(plan: Plan) -> Iterable[str]:
    yield from _assumption_faults(plan)
    yield from _correlation_faults(plan)
    yield from _work_faults(plan)
    for name, lever in plan.levers.items():
        for work in (*lever.volume, *lever.drop_rung):
            if work not in plan.work:
                yield f"levers.{name}: {work!r} is no work of this plan"
    for change in plan.business_changes:
        if change.on < plan.first:
            yield (
                f"business_changes: {change.what!r} is on {change.on}, before the plan's first day"
                f" {plan.first}; drop it, its review belongs to the plan before"
            )
        if change.on > plan.last:
            yield (
                f"business_changes: {change.what!r} is on {change.on}, after the plan's last day"
                f" {plan.last}; lengthen `months` or drop it"
            )


def _assumption_faults(plan: Plan) -> Iterable[str]:
    for name, a in plan.assumptions.items():
        where = f"assumptions.{name}"
        if name not in LIMITS and not name.startswith(MIX):
            yield f"{where}: unknown; use one of {', '.join(LIMITS)} or mix.GROUP"
            continue
        if not a.low <= a.mid <= a.high:
            yield f"{where}: low {a.low}, mid {a.mid}, high {a.high} are not in this order; sort"
        for value in (a.low, a.high):
            if held(name, value) != value:
                limits = (0.0, 1.0) if name.startswith(MIX) else LIMITS[name]
                yield f"{where}: {value} is outside of {limits[0]} to {limits[1]}"
        if a.revisit <= a.made:
            yield f"{where}: revisit {a.revisit} is not after {a.made}, when it was made"
    missing = [name for name in LIMITS if name not in plan.assumptions]
    if missing:
        yield f"assumptions: {', '.join(missing)} missing; state a low, mid and high for each"
    shares = [a.mid for name, a in plan.assumptions.items() if name.startswith(MIX)]
    if shares and abs(sum(shares) - 1) > 1e-6:
        yield f"assumptions: the mids of mix.* sum to {sum(shares):.4g}; they are shares, make it 1"
    hot, warm = plan.assumptions.get("hot_days"), plan.assumptions.get("warm_days")
    if hot and warm and hot.mid >= warm.mid:
        yield (
            f"assumptions: hot_days {hot.mid:g} and warm_days {warm.mid:g} contradict each other:"
            " rows leave hot before they leave warm, so hot_days must be the smaller"
        )


def _correlation_faults(plan: Plan) -> Iterable[str]:
    seen = set()
    for index, correlation in enumerate(plan.correlations):
        where, pair = f"correlations[{index}]", frozenset(correlation.between)
        unknown = sorted(pair - plan.assumptions.keys())
        if unknown:
            yield f"{where}: {unknown[0]!r} is no assumption of this plan"
            return
        if len(pair) < 2 or pair in seen:
            yield f"{where}: {' and '.join(correlation.between)} must be two, and named once"
            return
        seen.add(pair)
    if plan.correlations and float(np.linalg.eigvalsh(_matrix(plan))[0]) < -1e-9:
        yield (
            "correlations: they contradict each other (no variables can be correlated so):"
            " weaken one, or drop it"
        )


def _work_faults(plan: Plan) -> Iterable[str]:
    if not plan.work:
        yield "work: none; a plan without runs says nothing: list at least one kind of work"
        return
    for flag, promise in (
        ("covers", "gives every item its first forecast"),
        ("watches", "is monitoring that must be done by a deadline"),
    ):
        if not any(getattr(work, flag) for work in plan.work.values()):
            yield f"work: none {promise}; set `{flag}: true` on one, or the risk is not known"
    for name, work in plan.work.items():
        where = f"work.{name}"
        if work.pipeline not in PIPELINES:
            yield f"{where}.pipeline: {work.pipeline!r} is none of {', '.join(PIPELINES)}"
        if work.origin not in ORIGINS:
            yield f"{where}.origin: {work.origin!r} is none of {', '.join(ORIGINS)}"
        if work.group and MIX + work.group not in plan.assumptions:
            yield f"{where}.group: no assumption {MIX}{work.group}; state its share of the series"
        for stage in work.rows.keys() - set(work.stages):
            yield f"{where}.rows: {stage!r} is no stage of it; it has {', '.join(work.stages)}"
        for stage, written in work.rows.items():
            if written.on(1) == 0:
                yield f"{where}.rows.{stage}: no rows at all; state each or by_day, or drop it"
        if work.watches and work.deadline is None:
            yield f"{where}: watches, but has no deadline to be done by"
        for rung in work.rungs if len(work.rungs) > 1 else ():
            if rung not in plan.accuracy.rungs:
                yield f"{where}.rungs: {rung!r} has no accuracy; state accuracy.rungs.{rung}"
        before, chain = work.after, {name}
        while before is not None:
            if before not in plan.work:
                yield f"{where}.after: {before!r} is no work of this plan"
                break
            if before in chain:
                yield f"{where}.after: waits for itself through {before!r}; break the circle"
                break
            if plan.work[before].every != work.every:
                yield f"{where}.after: {before!r} comes every {plan.work[before].every}, not daily"
                break
            earliest = plan.work[before].at
            if work.deadline and _minutes(earliest) >= _minutes(work.deadline):
                yield (
                    f"{where}: waits for {before!r}, which starts at {earliest:%H:%M}, after its"
                    f" own deadline {work.deadline:%H:%M}; start that earlier"
                )
            chain.add(before)
            before = plan.work[before].after
        if work.deadline and work.every == "day" and _minutes(work.deadline) <= _minutes(work.at):
            yield f"{where}: deadline {work.deadline} is not after its start at {work.at}"


def _minutes(clock: time) -> int:
    return clock.hour * 60 + clock.minute
