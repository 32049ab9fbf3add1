"""The placement planner beside the offline optimum, all-hot and the usual age rule.

Belongs here: generated access traces and what each rule pays on them. Does not: the planner
(`forecast_core.storage.placement`). The planner sees what is declared and what it measured so far;
the optimum knows the whole trace. Its dynamic programme is proved against plain enumeration in the
tests. Sizes go from M5's files (45 KB) to 1 GiB.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from forecast_core.cost.price_card import Rates
from forecast_core.storage.placement import (
    GIB,
    SHRINK,
    STEP_DAYS,
    TIERS,
    Costs,
    Floats,
    Reader,
    cheapest,
    cost_of,
    expected_reads,
    unplanned_rate,
)
from forecast_core.storage.tiers import Tier
from resources import Settings
from resources.price_card import load_price_card

DAYS = 1096
AHEAD = 104  # steps that the planner looks ahead
SIZES = (45_000, 1_000_000, 64 * 2**20, GIB)


@dataclass(frozen=True)
class Trace:
    """Reads of one part, by step, and what was declared about them."""

    name: str
    readers: tuple[Reader, ...]
    reads: Floats


def run(quick: bool, seed: int = 0) -> dict[str, float | int]:
    """Every trace at every size; the worst ratios."""
    began = time.process_time()
    rates = load_price_card(Settings.from_environment().price_card).on(date(2016, 5, 1))
    rng = np.random.default_rng(seed)
    traces = [trace for _ in range(1 if quick else 6) for trace in _traces(rng)]
    sizes = SIZES[:3:2] if quick else SIZES
    rows = [_compare(trace, size, rates) for trace in traces for size in sizes]
    planner, hot, age = (np.array([row[i] for row in rows]) for i in range(3))
    training = [row for row, (trace, _) in zip(rows, _pairs(traces, sizes), strict=True)
                if trace.name == "weekly training"]  # fmt: skip
    return {
        "traces": len(rows),
        "max_ratio_to_optimum": float(planner.max()),
        "mean_ratio_to_optimum": float(planner.mean()),
        "all_hot_ratio": float(hot.max()),
        "age_rule_ratio": float(age.max()),
        "age_rule_to_all_hot_under_weekly_training": max(row[2] / row[1] for row in training),
        "cpu_s": time.process_time() - began,
        "seed": seed,
    }


def _pairs(traces: Sequence[Trace], sizes: Sequence[int]) -> list[tuple[Trace, int]]:
    return [(trace, size) for trace in traces for size in sizes]


def _traces(rng: np.random.Generator) -> list[Trace]:
    steps = DAYS // STEP_DAYS
    nightly = Reader("t", "nightly", 60, 1)
    weekly = Reader("t", "weekly training", 730, 7)
    monthly = Reader("t", "monthly training", 400, 30)
    quarterly = Reader("t", "quarterly backtest", 1000, 91)
    declared = {
        "nobody": (),
        "nightly": (nightly,),
        "weekly training": (nightly, weekly),
        "monthly training": (nightly, monthly),
        "quarterly backtest": (nightly, quarterly),
        "all of them": (nightly, weekly, monthly, quarterly),
    }
    made = []
    for name, readers in declared.items():
        reads = (rng.random(steps) < 0.01).astype(float)  # backfills that nobody announced
        for reader in readers:
            reads += _kept(reader, steps, rng)
        made.append(Trace(name, readers, reads))
    return made


def _kept(reader: Reader, steps: int, rng: np.random.Generator) -> Floats:
    """A cadence as it is kept: from a random day on, early or late, and left out at times."""
    days = np.arange(rng.uniform(0, reader.every_days), DAYS, reader.every_days)
    days = days[rng.random(len(days)) > 0.03]
    days += rng.normal(0, 0.15 * reader.every_days, len(days))
    inside = days[(days >= reader.from_age) & (days <= reader.to_age)]
    counted, _ = np.histogram(inside, bins=np.arange(steps + 1) * STEP_DAYS)
    return counted.astype(np.float64)


def _compare(trace: Trace, size: int, rates: Rates) -> tuple[float, float, float]:
    costs = Costs.of({tier: size * SHRINK[tier] for tier in Tier}, 1, rates)
    steps = len(trace.reads)
    best = cheapest(costs, trace.reads, Tier.HOT).total
    planned = cost_of(costs, trace.reads, _planned(trace, costs), Tier.HOT).sum()
    hot = cost_of(costs, trace.reads, [0] * steps, Tier.HOT).sum()
    ages = STEP_DAYS * np.arange(steps)
    by_age = np.where(ages < 30, 0, np.where(ages < 180, 1, 2))
    age = cost_of(costs, trace.reads, by_age, Tier.HOT).sum()
    return float(planned / best), float(hot / best), float(age / best)


def _planned(trace: Trace, costs: Costs) -> list[int]:
    """Plan again at every step, with what was declared and the unplanned reads seen so far."""
    tier, held, surplus = 0, 0.0, 0.0
    chosen: list[int] = []
    for step, seen in enumerate(trace.reads):
        unplanned = unplanned_rate(surplus, step * STEP_DAYS)
        ahead = expected_reads(trace.readers, step * STEP_DAYS, AHEAD, unplanned_a_day=unplanned)
        now = int(cheapest(costs, ahead, TIERS[tier], held).tiers[0])
        held = STEP_DAYS if now != tier else held + STEP_DAYS
        tier = now
        chosen.append(now)
        surplus += float(seen) - float(expected_reads(trace.readers, step * STEP_DAYS, 1)[0])
    return chosen
