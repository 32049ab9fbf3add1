"""Does the twin live the same life as the live queue? A real run set, replayed in a closed loop.

Belongs here: the run set (real processes under the real escrow and its store), the replay, and the
comparison. Does not: the twin, the escrow.

Processes of every class are submitted to the escrow in real time; a loop settles what ended and
decides again at every tick, as the live sensor does. Then (1) every pass on record is decided again
from its record, and (2) the twin gets the submissions, durations and charges alone and must find
the starts and the end by itself.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from forecast_core.admission import Load, Quote, Request, Shape
from forecast_core.admission.policy import NANO, Policy
from forecast_core.capacity.arrivals import Arrivals, Batch, Kind, Truth
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan, Work
from forecast_core.capacity.twin import Twin, Waiting
from resources.admission_store import AdmissionStore
from resources.escrow import Escrow, replay

POLICIES = Path(__file__).parents[1] / "policies"
CLASSES = (
    ("serving", "inference", "inference"),
    ("monitoring", "monitoring", "monitoring"),
    ("training", "training", "training"),
    ("backfill", "ingest", "ingest"),
    ("exploratory", "training", "tuning"),
)
TICK_S = 1.0


def the_policy(runs: int) -> Policy:
    """The shipped policy at a tick of a second, without the calendar, on a tight day's budget."""
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "admission.yaml").read_text())
    mapping |= {"tick": TICK_S, "peaks": [], "throttles": []}
    mapping["serving_reserve"]["money_per_item"] = 0.00001
    day = mapping["budgets"]["prod/day"]
    mapping["default_bound"]["money"] = 0.01
    limit = 0.0045 * runs
    day |= {"limit": limit, "floors": {"serving": 0.4 * limit, "monitoring": 0.15 * limit}}
    return Policy.parse(mapping)


@dataclass
class Life:
    """What happened to the runs: requests, when they started and ended, what they cost."""

    requests: dict[str, Request] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    walls: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    costs: dict[str, Decimal] = field(default_factory=dict)

    def of_run(self, run_id: str) -> Mapping[str, Decimal]:
        """The ledger's part of the escrow: what the run has cost."""
        pipeline = self.requests[run_id].shape.quotes[0].charges[0][0]
        return {pipeline: self.costs[run_id]}

    def recent(self, since: float) -> dict[Any, Any]:
        """Nothing is charged beside the runs."""
        return {}


def _wanted(runs: int, seed: int) -> list[tuple[float, Shape, float, float, str, int]]:
    """(seconds from the start, shape, seconds it takes, share of its quote, launch, covers)."""
    rng = random.Random(seed)
    shapes = [
        Shape(
            name,
            stage,
            tuple(
                Quote(rung, ((pipeline, round(scale * rng.uniform(0.004, 0.01) * NANO)),),
                      rng.uniform(2, 8), 1.0, rng.choice((0.5, 1.0)))
                for rung, scale in (("gbm", 1.0), ("floor", 0.2))
            ),
        )
        for name, stage, pipeline in CLASSES
        for _ in range(2)
    ]  # fmt: skip
    wanted = []
    for number in range(runs):
        shape = rng.choice(shapes)
        launch = f"launch-{number % 3}" if shape.work_class == "backfill" else ""
        covers = 50 if shape.work_class == "serving" and number % 2 else 0
        wanted.append(
            (
                rng.uniform(0, runs * 0.35),
                shape,
                rng.uniform(0.5, 1.0) * shape.quotes[0].wall_s,
                rng.uniform(0.4, 1.0),
                launch,
                covers,
            )
        )
    return sorted(wanted, key=lambda entry: entry[0])


def live(escrow: Escrow, life: Life, runs: int, seed: int) -> None:
    """Submit, start, end and settle in real time until nothing runs and nothing can start."""
    wanted = _wanted(runs, seed)
    escrow.open_cycle(sum(entry[5] for entry in wanted))
    takes: dict[str, tuple[float, float]] = {}
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    begin, quiet = time.time(), 0

    def start(decisions: Mapping[str, Any]) -> None:
        for name, decision in decisions.items():
            if decision.starts and name not in life.started:
                life.started[name] = decision.earliest
                process = subprocess.Popen(["sleep", f"{takes[name][0]:.3f}"])
                running[name] = (process, time.time())

    while wanted or running or quiet < 3:
        now = time.time()
        tick = (int(now / TICK_S) + 1) * TICK_S
        due = begin + wanted[0][0] if wanted else tick
        time.sleep(max(0.0, min(tick, due) - now))
        if due < tick:
            _, shape, seconds, share, launch, covers = wanted.pop(0)
            name = f"run-{len(life.requests):04d}"
            life.requests[name] = Request(name, shape, time.time(), None, launch, covers)
            takes[name] = (seconds, share)
            start(escrow.decide([life.requests[name]]))
            continue
        for name in list(running):
            process, since = running[name]
            if process.poll() is not None:
                life.ended[name], life.walls[name] = tick, time.time() - since
                money = life.requests[name].shape.quotes[0].money * takes[name][1]
                life.costs[name] = Decimal(round(money)) / NANO
                del running[name]
                escrow.settle(name)
        decisions = escrow.decide()
        start(decisions)
        quiet = quiet + 1 if not running and not wanted else 0


class Replay(Arrivals):
    """The submissions of a life as arrivals: what was asked, how long it took, what it cost."""

    def replaying(self, life: Life, first: float) -> Replay:
        """Take these submissions; `first` is the midnight of day 0."""
        self._life, self._first = life, first
        return self

    def of(self, day: int) -> list[Batch]:
        """The submissions of that day, one run each."""
        found = []
        for name, request in self._life.requests.items():
            if int((request.submitted - self._first) // 86_400) == day:
                found.append(self._one(name, request, day))
        return found

    def _one(self, name: str, request: Request, day: int) -> Batch:
        wall = self._life.walls.get(name, request.shape.quotes[0].wall_s)
        cost = self._life.costs.get(name)  # what never started would have cost what it asked for
        money = float(cost * NANO) if cost is not None else float(request.shape.quotes[0].money)
        truth = Truth(wall, money, 0.0, 0.0, 0.0, 0.0, [(1.0, 1.0)], 0.0)
        pipeline = request.shape.quotes[0].charges[0][0]
        work = Work.model_validate(
            {"stages": ["x"], "pipeline": pipeline, "at": "00:00", "covers": request.covers > 0}
        )
        rungs = {quote.rung: truth for quote in request.shape.quotes}
        tail = {rung: (1.0, 1.0) for rung in rungs}
        kind = Kind(name, work, pipeline, request.shape, rungs, float(request.covers), tail)
        return Batch(kind, 1, request.submitted, request.deadline, request.launch, None, day)


class Told(Twin):
    """A twin that remembers when each run started and ended."""

    def listening(self) -> Told:
        """Ready to be run."""
        self.begun: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        return self

    def _done(self, now: float, batch: Batch, count: int) -> None:
        self.ended[batch.kind.name] = now
        super()._done(now, batch, count)

    def _start(self, now: float, waiting: Waiting, rung: str, count: int) -> None:
        self.begun[waiting.batch.kind.name] = now
        super()._start(now, waiting, rung, count)


def replayed(life: Life, policy: Policy) -> tuple[dict[str, float], dict[str, float]]:
    """When each run starts and ends, as the twin finds them (that day: a budget is for a day)."""
    first = min(request.submitted for request in life.requests.values())
    day = datetime.fromtimestamp(first, UTC).date()
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    plan = Plan.parse(mapping | {"first": day})
    arrivals = Replay(plan, plan.mids(), Rates(), policy, 0)
    start = (day.toordinal() - date(1970, 1, 1).toordinal()) * 86_400.0
    twin = Told(arrivals.replaying(life, start), 2, capped=False).listening()
    twin.run()
    midnight = start + 86_400
    return (
        {name: at for name, at in twin.begun.items() if at < midnight},
        {name: at for name, at in twin.ended.items() if at < midnight},
    )


def run(quick: bool, seed: int = 5) -> dict[str, float | int | str]:
    """A set of 300 real processes (quick: 60), lived and replayed."""
    runs = 60 if quick else 300
    policy, life = the_policy(runs), Life()
    with tempfile.TemporaryDirectory() as folder:
        store = AdmissionStore(f"sqlite:///{folder}/admission.db", timeout_s=120)
        escrow = Escrow(store, policy, "prod", life, load=Load)
        began = time.perf_counter()
        live(escrow, life, runs, seed)
        lived = time.perf_counter() - began
        again = replay(store)
    twin_began = time.process_time()
    begun, ended = replayed(life, policy)
    cpu = time.process_time() - twin_began
    first = min(request.submitted for request in life.requests.values())
    makespan, foretold = max(life.ended.values()) - first, max(ended.values()) - first
    both = life.started.keys() & begun.keys()
    errors = sorted(abs(begun[name] - life.started[name]) for name in both)
    waited = [life.started[name] - life.requests[name].submitted for name in life.started]
    return {
        "runs": len(life.requests),
        "started": len(life.started),
        "started_in_twin": len(begun),
        "started_in_both": len(both),
        "passes": again.passes,
        "identical_pct": 100 * (1 - len(again.differing) / again.passes),
        "makespan_s": makespan,
        "makespan_error_pct": 100 * abs(foretold - makespan) / makespan,
        "tick_s": TICK_S,
        "start_error_median_s": statistics.median(errors),
        "start_error_p90_s": errors[int(0.9 * len(errors))],
        "start_delay_mean_s": statistics.mean(waited),
        "lived_s": lived,
        "twin_cpu_s": cpu,
    }


if __name__ == "__main__":
    print(json.dumps(run(quick=True)))
