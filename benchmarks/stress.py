"""Five stresses, and all of them together, many seeds each, on the budget of a calm night: ours
beside a greedy queue with the same hard budget.

Belongs here: the seeds and the worst of each figure. Does not: the stresses
(`forecast_core.capacity.stress`) or how a night is scored (`forecast_core.capacity.proof`).

Every estimate misses by up to three times, either way, drawn anew for each seed and kind of work.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import yaml

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.proof import Night, greedy, night, sized
from forecast_core.capacity.stress import ALL_AT_ONCE, CALM, CATALOGUE

POLICIES = Path(__file__).parents[1] / "policies"
STRESSES = (*CATALOGUE, ALL_AT_ONCE)


def the_plan() -> Plan:
    """The shipped plan on a Wednesday in spring: nothing of the calendar comes to our help."""
    mapping = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    return Plan.parse(mapping | {"first": "2027-03-10"})


def the_policy(plan: Plan) -> Policy:
    """The shipped policy, its money sized to a calm night of the plan."""
    policy = Policy.parse(yaml.safe_load((POLICIES / "admission.yaml").read_text()))
    return sized(policy, plan, Rates())


def nights(job: tuple[int, int, int, bool]) -> list[Night]:
    """The nights of one stress (by number) for a range of seeds, ours or the greedy queue's."""
    number, first, last, by_greed = job
    plan = the_plan()
    policy = the_policy(plan)
    stress = CALM if number < 0 else STRESSES[number]
    decide = greedy if by_greed else None
    return [night(plan, Rates(), policy, stress, seed, decide) for seed in range(first, last)]


def _all(seeds: int, by_greed: bool) -> dict[int, list[Night]]:
    step = max(1, min(50, seeds))
    jobs = [
        (number, first, min(first + step, seeds), by_greed)
        for number in range(-1, len(STRESSES))
        for first in range(0, seeds, step)
    ]
    found: dict[int, list[Night]] = {}
    for job in jobs:
        found.setdefault(job[0], []).extend(nights(job))
    return found


def run(quick: bool, seeds: int | None = None) -> dict[str, float | int | str]:
    """1,000 seeds a stress (quick: 40); the worst night counts.."""
    seeds = seeds or (40 if quick else 1000)
    began, cpu = time.perf_counter(), time.process_time()
    ours = _all(seeds, False)
    ours_s, ours_cpu = time.perf_counter() - began, time.process_time() - cpu
    peers = _all(max(10, seeds // 5), True)
    figures: dict[str, float | int | str] = {
        "seeds": seeds,
        "scenarios": len(STRESSES),
        "nights": sum(len(found) for found in ours.values()),
    }
    stressed = [n for number, found in ours.items() if number >= 0 for n in found]
    greedy_nights = [n for number, found in peers.items() if number >= 0 for n in found]
    for prefix, found in (("", stressed), ("greedy_", greedy_nights)):
        figures |= {
            f"{prefix}items_forecast_pct_min": min(n.items for n in found),
            f"{prefix}nights_all_items_pct": _share(n.items >= 100 - 1e-7 for n in found),
            f"{prefix}monitoring_done_pct_min": min(n.watched for n in found),
            f"{prefix}overshoot_pct_max": max(n.overshoot for n in found),
            f"{prefix}accuracy_kept_pct_min": min(n.kept for n in found),
            f"{prefix}accuracy_kept_pct_mean": sum(n.kept for n in found) / len(found),
        }
    for number, found in ours.items():
        name = "calm" if number < 0 else STRESSES[number].name.replace(" ", "_")
        figures[f"kept_pct_mean_{name}"] = sum(n.kept for n in found) / len(found)
    return figures | {"seconds": ours_s, "cpu_s": ours_cpu}


def _share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return 100 * sum(values) / len(values)
