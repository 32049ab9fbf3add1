"""Many processes spend one budget at once: ours against check-then-run.

Belongs here: the race and its count. Each submitter offers runs until the budget refuses; a run
costs a random part of its held upper bound, sometimes a little more. Check-then-run reads the
spent sum, starts when it is below the limit and books the cost at the end, as alert-based tools do.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sqlite3
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from forecast_core.admission import Load, Quote, Request, Shape
from forecast_core.admission.policy import NANO, Policy
from resources.admission_store import AdmissionStore
from resources.escrow import Escrow

POLICY = Path(__file__).parents[1] / "policies" / "admission.yaml"
LIMIT = 4 * NANO  # of the backfill class, in nanos
HOLD = NANO // 50
WORKERS = (1, 8, 32)


def policy() -> Policy:
    """The shipped policy with one tight budget and room for every submitter."""
    mapping = yaml.safe_load(POLICY.read_text())
    mapping |= {"peaks": [], "throttles": [], "host": {"runs": 99, "cpu": 99, "memory_gib": 99}}
    mapping["stages"]["training"].pop("gpu")
    mapping["stages"]["ingest"] |= {"runs": 64, "cpu": 64, "memory_gib": 64}
    mapping["budgets"]["prod/backfill"]["limit"] = LIMIT / NANO
    return Policy.parse(mapping)


class _Booked:
    """What each run really cost; stands for the ledger."""

    def __init__(self) -> None:
        self.costs: dict[str, Decimal] = {}

    def of_run(self, run_id: str) -> dict[str, Decimal]:
        return {"ingest": self.costs[run_id]}

    def recent(self, since: float) -> dict[Any, Any]:
        return {}


def _cost(rng: random.Random) -> int:
    """Nanos: mostly well below the hold, one in fifty up to 5 % above it."""
    return int(HOLD * (rng.uniform(1.0, 1.05) if rng.random() < 0.02 else rng.uniform(0.3, 1.0)))


def _ours(url: str, worker: int, gate: Any, done: Any) -> None:
    rng = random.Random(worker)
    booked = _Booked()
    store = AdmissionStore(url, timeout_s=120)
    escrow = Escrow(store, policy(), "prod", booked, load=Load)
    shape = Shape("backfill", "ingest", (Quote("asked", (("ingest", HOLD),), 60.0),))
    gate.wait()
    spent, peak = 0, 0
    for number in range(10_000):
        name = f"{worker:02d}-{number:05d}"
        decision = escrow.submit(Request(name, shape, time.time()))
        if not decision.starts:
            escrow.withdraw(name)
            break
        cost = _cost(rng)
        booked.costs[name] = Decimal(cost) / NANO
        time.sleep(0.002)
        escrow.settle(name)
        spent += cost
        peak += 1
    done.put((spent, peak))


def _check_then_run(path: str, worker: int, gate: Any, done: Any) -> None:
    rng = random.Random(worker)
    database = sqlite3.connect(path, timeout=120, isolation_level=None)
    gate.wait()
    spent, runs = 0, 0
    while True:
        total = database.execute("SELECT coalesce(sum(cost), 0) FROM spent").fetchone()[0]
        if total >= LIMIT:
            break
        cost = _cost(rng)
        time.sleep(0.002)
        database.execute("INSERT INTO spent VALUES (?)", (cost,))
        spent += cost
        runs += 1
    done.put((spent, runs))


def _race(target: Any, where: str, workers: int) -> tuple[int, int]:
    context = multiprocessing.get_context("spawn")
    gate, done = context.Barrier(workers), context.Queue()
    processes = [
        context.Process(target=target, args=(where, worker, gate, done))
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    results = [done.get(timeout=540) for _ in processes]
    for process in processes:
        process.join()
    return sum(spent for spent, _ in results), sum(runs for _, runs in results)


def run(quick: bool) -> dict[str, float | int | str]:
    """Overshoot in percent of the budget, after settlement, at 1, 8 and 32 submitters."""
    figures: dict[str, float | int | str] = {"budget": LIMIT / NANO, "hold": HOLD / NANO}
    worst_ours, worst_theirs, workers = 0.0, 0.0, 0
    for workers in (1, 8) if quick else WORKERS:
        with tempfile.TemporaryDirectory() as folder:
            ours, runs = _race(_ours, f"sqlite:///{folder}/admission.db", workers)
            other = f"{folder}/other.db"
            with sqlite3.connect(other) as database:
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("CREATE TABLE spent (cost INTEGER)")
            theirs, _ = _race(_check_then_run, other, workers)
        figures[f"runs_{workers}"] = runs
        figures[f"ours_pct_{workers}"] = _over(ours)
        figures[f"used_pct_{workers}"] = 100 * ours / LIMIT
        figures[f"check_then_run_pct_{workers}"] = _over(theirs)
        worst_ours = max(worst_ours, _over(ours))
        worst_theirs = max(worst_theirs, _over(theirs))
    return figures | {
        "workers": workers,
        "ours_pct": worst_ours,
        "check_then_run_pct": worst_theirs,
    }


def _over(spent: int) -> float:
    return max(0.0, 100 * (spent - LIMIT) / LIMIT)


if __name__ == "__main__":
    print(json.dumps(run(quick=True)))
