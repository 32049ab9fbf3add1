"""From draws of the future to figures with bands.

Belongs here: one draw as plain figures, and what many of them say: money, hours, storage, delays,
the chance that every item is forecast in time, what breaks first. Does not: the twin itself, nor
processes (`resources.capacity_draws`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forecast_core.admission.policy import CLASSES, Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.calendar import month_of
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.storage import Bytes, by_day, by_month
from forecast_core.capacity.stress import CALM, Stress
from forecast_core.capacity.twin import Progress, Twin
from forecast_core.cost.price_card import Rates as Prices

BAND = (0.1, 0.5, 0.9)
STORED = "stored bytes"  # the work of keeping what is there; its units are GiB-months
GIB = 2.0**30


@dataclass(frozen=True)
class Job:
    """All that a draw needs; plain values, so that it can be sent to another process."""

    plan: Plan
    policy: Policy
    rates: Rates
    prices: Prices
    stored: Bytes
    seed: int
    days: int
    stress: Stress = CALM
    middling: bool = False
    capped: bool = True
    notes: tuple[str, ...] = ()  # what the plan only states


@dataclass(frozen=True)
class Draw:
    """One future in figures. By month: money (and by pipeline), hours, GiB stored.

    `tally`: (month, work, rung) -> (series x runs, money), for STORED in GiB-months. `broke`: what
    ran short -> month in which it first did. `missed`: month -> nights on which an item had no
    forecast by the deadline. `kept`: skill of the forecasts, of the most there could be. `idle`:
    works of which nothing ran.
    """

    seed: int
    money: Mapping[str, float]
    pipelines: Mapping[tuple[str, str], float]
    tally: Mapping[tuple[str, str, str], tuple[float, float]]
    hours: Mapping[tuple[str, str], float]
    stored_gib: Mapping[tuple[str, str], float]
    delay_p95_min: Mapping[str, float]
    missed: Mapping[str, int]
    watched: float
    kept: float
    overshoot: float
    broke: Mapping[str, str]
    runs: int
    rejected: Mapping[str, int]
    notes: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    def of_work(self, name: str) -> float:
        """Money of one work over the whole plan."""
        return sum(money for (_, work, _), (_, money) in self.tally.items() if work == name)


def draw(job: Job, progress: Progress | None = None) -> Draw:
    """One future: assumptions drawn, then the twin through every day."""
    rng = np.random.default_rng([job.seed, 20])
    values = job.plan.mids() if job.middling else job.plan.draw(rng)
    chance = random.Random(job.seed * 7919 + 1)
    spread = 0.0 if job.middling else 1.0
    level = math.exp(spread * chance.gauss(0.0, job.rates.level))
    own = {
        key: math.exp(spread * chance.gauss(0.0, rate.level))
        for key, rate in sorted(job.rates.by_stage.items())
    }
    arrivals = Arrivals(
        job.plan, values, job.rates, job.policy, job.seed, stress=job.stress, levels=own
    )
    lucks = [level * chance.choice(job.rates.days) for _ in range(job.days)]
    twin = Twin(arrivals, job.days, seed=job.seed, luck=lucks.__getitem__, capped=job.capped)
    record = twin.run(progress)
    stored = by_day(arrivals, job.stored, job.days, job.plan.storage.retain_days)
    pipelines = dict(record.money)
    tally = {key: (units, money) for key, (units, money) in record.tally.items()}
    kept = by_month(stored, job.plan.first, job.prices, values["price_change"])
    for month, (gib_months, money) in kept.items():
        pipelines[month, "storage"] = pipelines.get((month, "storage"), 0.0) + money
        tally[month, STORED, ""] = (gib_months, money)
    months = sorted({month for month, _ in pipelines})
    last_days = {month_of(twin.start + day * 86_400.0): day for day in range(job.days)}
    missed: dict[str, int] = {}
    for day, (done, due) in record.covered.items():
        if done < due * (1 - 1e-9):
            month = month_of(twin.start + day * 86_400.0)
            missed[month] = missed.get(month, 0) + 1
    broke = {
        name: month_of(twin.start + first * 86_400.0) for name, (first, _) in record.breaks.items()
    }
    from forecast_core.capacity.proof import score

    return Draw(
        job.seed,
        {m: sum(v for (month, _), v in pipelines.items() if month == m) for m in months},
        pipelines,
        tally,
        dict(record.used),
        {(m, tier): float(sizes[day]) / GIB
         for tier, sizes in stored.items() for m, day in last_days.items()},
        {name: record.delay(name, 0.95) for name in CLASSES if name in record.delays},
        missed,
        100 * record.share(record.watched),
        score(record, job.plan).kept,
        100 * max(record.overshoot.values(), default=0.0),
        broke,
        record.runs,
        dict(record.rejections),
        tuple(sorted({note for kind in arrivals.kinds() for note in kind.notes} | {*job.notes})),
        tuple(sorted(job.plan.work.keys() - {work for _, work, _ in record.tally})),
    )  # fmt: skip


@dataclass(frozen=True)
class Band:
    """10th, 50th and 90th percentile over the draws."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Band:
        """The band of some values (all zero where there are none)."""
        found = np.array(list(values) or [0.0], dtype=np.float64)
        return cls(*(float(v) for v in np.quantile(found, BAND)))


@dataclass(frozen=True)
class Outcome:
    """What the draws say. Shares from 0 to 1. `tally`: medians of (month, work, rung) ->
    (series x runs, money). `breaks`: (first month, what, share of draws)."""

    draws: int
    months: tuple[str, ...]
    money: Mapping[str, Band]
    total: Band
    pipelines: Mapping[tuple[str, str], Band]
    work: Mapping[str, Band]
    tally: Mapping[tuple[str, str, str], tuple[float, float]]
    hours: Mapping[tuple[str, str], Band]
    stored_gib: Mapping[tuple[str, str], Band]
    delay_p95_min: Mapping[str, Band]
    p_every_item: Mapping[str, float]
    p_every_item_always: float
    p_over_budget: float
    watched_min: float
    kept: Band
    overshoot_max: float
    runs: Band
    breaks: Sequence[tuple[str, str, float]] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def summarise(draws: Sequence[Draw]) -> Outcome:
    """Bands and chances over some draws.

    Raises:
        ValueError: there are none.
    """
    if not draws:
        raise ValueError("no draws: ask for at least one")
    months = sorted({month for d in draws for month in d.money})
    keys = sorted({key for d in draws for key in d.pipelines})
    works = sorted({work for d in draws for _, work, _ in d.tally})
    hours = sorted({key for d in draws for key in d.hours})
    stored = sorted({key for d in draws for key in d.stored_gib})
    rejected: dict[str, int] = {}
    for d in draws:
        for reason, count in d.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    return Outcome(
        draws=len(draws),
        months=tuple(months),
        money={m: Band.of(d.money.get(m, 0.0) for d in draws) for m in months},
        total=Band.of(sum(d.money.values()) for d in draws),
        pipelines={k: Band.of(d.pipelines.get(k, 0.0) for d in draws) for k in keys},
        work={w: Band.of(d.of_work(w) for d in draws) for w in works},
        tally={
            key: (
                float(np.median([d.tally.get(key, (0.0, 0.0))[0] for d in draws])),
                float(np.median([d.tally.get(key, (0.0, 0.0))[1] for d in draws])),
            )
            for key in sorted({key for d in draws for key in d.tally})
        },
        hours={k: Band.of(d.hours.get(k, 0.0) for d in draws) for k in hours},
        stored_gib={k: Band.of(d.stored_gib.get(k, 0.0) for d in draws) for k in stored},
        delay_p95_min={
            c: Band.of(d.delay_p95_min.get(c, 0.0) for d in draws)
            for c in CLASSES
            if any(c in d.delay_p95_min for d in draws)
        },
        p_every_item={m: _share(m not in d.missed for d in draws) for m in months},
        p_every_item_always=_share(not d.missed for d in draws),
        p_over_budget=_share(any(n.startswith("budget ") for n in d.broke) for d in draws),
        watched_min=min(d.watched for d in draws),
        kept=Band.of(d.kept for d in draws),
        overshoot_max=max(d.overshoot for d in draws),
        runs=Band.of(float(d.runs) for d in draws),
        breaks=_breaks(draws),
        rejected=rejected,
        notes=(*sorted({note for d in draws for note in d.notes}), *_idle(draws)),
    )


def _idle(draws: Sequence[Draw]) -> list[str]:
    """A work that costs nothing because it never ran is said, not left as a zero."""
    works = sorted({work for d in draws for work in d.idle})
    counts = {work: sum(work in d.idle for d in draws) for work in works}
    return [f"{work}: nothing of it ran in {n} of {len(draws)} draws" for work, n in counts.items()]


def _breaks(draws: Sequence[Draw]) -> list[tuple[str, str, float]]:
    """(earliest month, what, share of draws), the earliest and likeliest first."""
    names = {name for d in draws for name in d.broke}
    found = [
        (
            min(d.broke[name] for d in draws if name in d.broke),
            name,
            _share(name in d.broke for d in draws),
        )
        for name in names
    ]
    return sorted(found, key=lambda entry: (entry[0], -entry[2], entry[1]))


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)
