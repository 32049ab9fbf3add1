"""From the plan to runs that arrive: when, how many equal ones, what they take and what is quoted.

Belongs here: `Arrivals`, which expands a draw of the plan (and a stress) day by day. Does not: who
may start when (`forecast_core.admission`, asked by `twin`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time

import numpy as np

from forecast_core.admission import Quote, Shape
from forecast_core.admission.policy import NANO, Policy
from forecast_core.capacity.calendar import DAY, midnight
from forecast_core.capacity.fit import QUANTITIES, Rate, Rates
from forecast_core.capacity.plan import MIX, Plan, Work, price_index
from forecast_core.capacity.stress import CALM, Extra, Stress

MEMORY_MARGIN = 1.2  # as live quotes have it (`resources.measured_quotes`)
POOL = 1024
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Truth:
    """What a run at one rung really takes, were it an average one; `pool` holds (wall, money)
    ratios of real runs, to be drawn."""

    wall_s: float
    money: float  # nanos
    cpu_s: float
    gpu_s: float
    gib_s: float
    bytes_written: float
    pool: Sequence[tuple[float, float]]
    failures: float


@dataclass(frozen=True, slots=True)
class Size:
    """What one run covers: series, the rows a series that stages were stated to write, and how many
    days after the last measured one it runs."""

    series: float
    rows: Mapping[str, float]
    ahead: float

    def takes(self, rate: Rate, quantity: str) -> float:
        """What the stage of a rate takes of a quantity in such a run."""
        return rate.of(quantity, self.series, self.rows.get(rate.stage), self.ahead)


@dataclass(frozen=True, slots=True)
class Kind:
    """Equal runs: what admission is told of one (`shape`), and the truth by rung.

    `tail`: rung -> the 95th percentile of (wall, money) over the mean.
    """

    name: str
    work: Work
    pipeline: str
    shape: Shape
    truths: Mapping[str, Truth]
    series: float
    tail: Mapping[str, tuple[float, float]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """`count` runs of a kind that arrive at `at`, or when `after` of the same day is done."""

    kind: Kind
    count: int
    at: float
    deadline: float | None
    launch: str = ""
    after: str | None = None
    day: int = 0


@dataclass
class Arrivals:
    """The work of each day under one draw of the assumptions.

    `errors`: work -> by what factor its quotes miss the truth (1: they are right). `levels`:
    (stage, rung) -> by what factor it takes more than its rate says.
    """

    plan: Plan
    values: Mapping[str, float]
    rates: Rates
    policy: Policy
    seed: int
    stress: Stress = CALM
    errors: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[tuple[str, str], float] = field(default_factory=dict)
    _kinds: dict[tuple[object, ...], Kind] = field(default_factory=dict)
    _pools: dict[tuple[object, ...], list[tuple[float, float]]] = field(default_factory=dict)

    def series(self, day: int) -> float:
        """Item-stores on that day of the plan: growth, and stores that opened by then."""
        base = self.plan.base
        grown: float = base.series * (1 + self.values["series_growth"]) ** (day / 365)
        return grown * self.stores(day) / base.stores

    def stores(self, day: int) -> int:
        """Stores open on that day of the plan."""
        return self.plan.base.stores + int(self.values["store_openings"] * day / 365)

    def kinds(self) -> list[Kind]:
        """Every kind of run that has arrived so far."""
        return list(self._kinds.values())

    def of(self, day: int) -> list[Batch]:
        """What arrives on day `day` of the plan, in order of time."""
        when = date.fromordinal(self.plan.first.toordinal() + day)
        stress = self.stress if self.stress.on(day) else CALM
        batches = [
            self._batch(name, work, count, day, when, stress)
            for name, work in self.plan.work.items()
            if (count := self._times(work, day, when)) > 0
        ]
        for extra in stress.extra:
            if extra.work in self.plan.work:
                batches.append(self._extra(extra, day, when, stress))
        return sorted(batches, key=lambda batch: (batch.at, batch.kind.name))

    def _times(self, work: Work, day: int, when: date) -> int:
        """How often a work is due on a day (a backfill: once for each day it replays)."""
        if work.every == "day":
            return 1
        if work.every == "week":
            return int(when.weekday() == 6)
        if work.every == "month":
            return int(when.day == 1)
        if work.every == "retrain":
            step = max(self.values["retrain_days"], 1.0)
            return int(math.floor((day + 1) / step) - math.floor(day / step))
        each = self.values["backfills"] * 12 / 365
        started = int(math.floor((day + 1) * each) - math.floor(day * each))
        return started * max(1, round(self.values["backfill_days"]))

    def _batch(
        self, name: str, work: Work, times: int, day: int, when: date, stress: Stress
    ) -> Batch:
        series = self.series(day) * self.values.get(MIX + (work.group or ""), 1.0)
        runs = 1
        if work.per == "store":
            runs = self.stores(day)
        elif work.per == "chunk":
            runs = max(1, math.ceil(series / work.chunk))
        start = midnight(when, self.policy.offset_s)
        at = start + _seconds(work.at) + stress.delay_s.get(work.pipeline, 0.0)
        kind = self._kind(name, work, series / runs, stress, day, when)
        launch = f"{name}/{day}" if work.origin == "backfill" else ""
        return Batch(
            kind,
            runs * times,
            at,
            start + _seconds(work.deadline) if work.deadline else None,
            launch,
            work.after,
            day,
        )

    def _extra(self, extra: Extra, day: int, when: date, stress: Stress) -> Batch:
        """Work that a stress adds: another run of a planned work, at another hour."""
        work = self.plan.work[extra.work]
        name = f"{extra.work}+{extra.name}"
        changed = work.model_copy(
            update={"origin": extra.origin, "after": None, "covers": False, "watches": False}
        )
        batch = self._batch(name, changed, 1, day, when, stress)
        at = midnight(when, self.policy.offset_s) + extra.at_s
        count = max(1, math.ceil(batch.count * extra.times))
        launch = f"{name}/{day}" if extra.origin == "backfill" else ""
        return replace(batch, count=count, at=at, deadline=None, launch=launch)

    def _kind(
        self, name: str, work: Work, series: float, stress: Stress, day: int, when: date
    ) -> Kind:
        factor = stress.rows.get(work.pipeline, 1.0) * work.volume
        size = float(f"{series:.3g}")  # equal runs for weeks, so that they are told apart no finer
        ahead = self._ahead(work, day)
        rows = {stage: written.on(when.day) for stage, written in work.rows.items()}
        key = (name, size, stress.name, tuple(rows.values()), ahead)
        if key not in self._kinds:
            kind = self._new_kind(name, work, Size(size * factor, rows, ahead), stress)
            self._kinds[key] = replace(kind, series=series)
        return self._kinds[key]

    def _ahead(self, work: Work, day: int) -> float:
        """How far rates have drifted by that day: the middle of its week, told apart no finer."""
        drifts = (self.rates.drifts(stage, rung) for stage in work.stages for rung in work.rungs)
        return day // 7 * 7 + 4.0 if any(drifts) else 0.0

    def _new_kind(self, name: str, work: Work, size: Size, stress: Stress) -> Kind:
        truths, quotes, tail, notes = {}, [], {}, []
        error = self.errors.get(name.partition("+")[0], 1.0)
        for rung in work.rungs:
            rates = [self.rates.of(stage, rung, self.plan.defaults) for stage in work.stages]
            notes += [f"{rate.stage}: {rate.note}" for rate in rates if rate.note]
            truth = self._truth(name, work, rung, rates, size, stress)
            truths[rung] = truth
            wall, money = (float(v) for v in np.quantile(np.array(truth.pool), LEVEL, axis=0))
            tail[rung] = (max(wall, 1.0), max(money, 1.0))
            quotes.append(self._quote(work, rung, truth, tail[rung], rates, error))
        work_class = self.policy.class_of(work.pipeline, work.origin)
        if work_class is None:
            raise LookupError(
                f"work {name}: no rule of the admission policy gives a class to pipeline"
                f" {work.pipeline} started by {work.origin}"
            )
        shape = Shape(work_class, self.policy.stage_of[work.pipeline], tuple(quotes))
        return Kind(name, work, work.pipeline, shape, truths, size.series, tail, tuple(notes))

    def _truth(
        self,
        name: str,
        work: Work,
        rung: str,
        rates: Sequence[Rate],
        size: Size,
        stress: Stress,
    ) -> Truth:
        levels = [self.levels.get((rate.stage, rate.rung), 1.0) for rate in rates]
        totals = {
            q: sum(size.takes(rate, q) * level for rate, level in zip(rates, levels, strict=True))
            for q in QUANTITIES
        }
        prices = price_index(self.values["price_change"])
        return Truth(
            wall_s=max(totals["wall_s"] * stress.wall.get(work.pipeline, 1.0), 0.001),
            money=totals["money"] * prices * stress.money * NANO,
            cpu_s=totals["cpu_s"],
            gpu_s=totals["gpu_s"],
            gib_s=totals["rss_gib_s"],
            bytes_written=totals["bytes_written"],
            pool=self._pool(name, rung, rates, size),
            failures=min(0.9, self.values["failures"] + stress.failures.get(work.pipeline, 0.0)),
        )

    def _pool(
        self, name: str, rung: str, rates: Sequence[Rate], size: Size
    ) -> list[tuple[float, float]]:
        """Ratios of a run of several stages: one of each stage's, by their share of the run."""
        key = (name, rung)
        if key not in self._pools:
            rng = np.random.default_rng([self.seed, *f"{name}/{rung}".encode()])
            drawn = np.zeros((POOL, 2))
            for column, quantity in ((0, "wall_s"), (1, "money")):
                parts = [size.takes(rate, quantity) for rate in rates]
                total = sum(parts) or 1.0
                for rate, part in zip(rates, parts, strict=True):
                    ratios = np.array(rate.ratios)[:, column]
                    order = rng.permutation(np.arange(POOL) % len(ratios))
                    drawn[:, column] += part / total * ratios[order]
            self._pools[key] = [(float(w), float(m)) for w, m in np.maximum(drawn, 1e-3)]
        return self._pools[key]

    def _quote(
        self,
        work: Work,
        rung: str,
        truth: Truth,
        tail: tuple[float, float],
        rates: Sequence[Rate],
        error: float,
    ) -> Quote:
        bound = self.policy.default_bound
        memory = work.memory_gib or MEMORY_MARGIN * max(rate.memory_gib for rate in rates)
        return Quote(
            rung,
            ((work.pipeline, math.ceil(truth.money * tail[1] * error)),),
            truth.wall_s * tail[0] * error,
            bound.cpu,
            memory or bound.memory_gib,
            bound.gpu if truth.gpu_s else 0,
        )


def _seconds(clock: time) -> float:
    return clock.hour * 3600.0 + clock.minute * 60.0 + clock.second


__all__ = ["DAY", "Arrivals", "Batch", "Kind", "Truth"]
