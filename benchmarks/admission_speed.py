"""How long one call of `decide` takes with many runs held; wall and CPU, none of it warmed up
away: every call decides another queue.

Belongs here: the queues and the clock. Does not: what `decide` should answer (tests).
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import yaml

from forecast_core.admission import Quote, Request, Shape, Snapshot, decide
from forecast_core.admission.policy import NANO, Policy

POLICY = Path(__file__).parents[1] / "policies" / "admission.yaml"
NOW = 1_790_000_000.0
WORK = (
    ("serving", "inference", "inference"),
    ("monitoring", "monitoring", "monitoring"),
    ("training", "training", "training"),
    ("backfill", "ingest", "ingest"),
    ("exploratory", "training", "tuning"),
)


def queue(held: int, seed: int) -> Snapshot:
    """`held` runs of fifty shapes, some with a deadline, some overdue, on tight money."""
    rng = random.Random(seed)
    shapes = [
        Shape(
            work_class,
            stage,
            tuple(
                Quote(rung, ((pipeline, rng.randrange(10**6, 10**9)),), rng.uniform(10, 3000))
                for rung in ("gbm", "statistical", "floor")
            ),
        )
        for work_class, stage, pipeline in WORK
        for _ in range(10)
    ]
    waiting = tuple(
        Request(
            f"run-{number:06d}",
            rng.choice(shapes),
            NOW - rng.uniform(0, 20 * 86_400),
            NOW + rng.uniform(-3600, 86_400) if rng.random() < 0.3 else None,
            f"launch-{rng.randrange(50)}",
        )
        for number in range(held)
    )
    spent = {"prod/day": {"training": 13 * NANO}}
    return Snapshot(NOW, "prod", waiting, spent=spent, items_due=30_490)


def run(quick: bool, seed: int = 1) -> dict[str, float | int | str]:
    """Decide queues of 10,000 held runs; percentiles over the calls, in milliseconds."""
    policy = Policy.parse(yaml.safe_load(POLICY.read_text()))
    held, calls = 10_000, 60 if quick else 500
    wall, cpu = [], []
    snapshot = queue(held, seed)
    held_after = 0
    for number in range(calls):
        if number % 5 == 0:  # making a queue takes longer than deciding it
            snapshot = queue(held, seed + number)
        before, cpu_before = time.perf_counter(), time.thread_time()
        decisions = decide(snapshot, policy)
        wall.append((time.perf_counter() - before) * 1e3)
        cpu.append((time.thread_time() - cpu_before) * 1e3)
        held_after = sum(decision.action == "hold" for decision in decisions)
    wall.sort()
    cpu.sort()
    return {
        "held": held,
        "held_after_pass": held_after,
        "calls": calls,
        "p50_ms": wall[calls // 2],
        "p99_ms": wall[min(calls - 1, round(calls * 0.99))],
        "cpu_p50_ms": cpu[calls // 2],
        "cpu_p99_ms": cpu[min(calls - 1, round(calls * 0.99))],
    }
