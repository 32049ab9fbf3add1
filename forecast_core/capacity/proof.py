"""The degradation proof: a stressed night on a tight budget, with estimates that are wrong.

Belongs here: a budget sized to the plan, one such night and its score, and the greedy queue that is
printed beside ours. Does not: the stresses (`stress`), running many nights (`benchmarks.stress`).
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forecast_core.admission import Decision, Request, Snapshot
from forecast_core.admission.policy import NANO, Policy, nanos
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.record import Record
from forecast_core.capacity.stress import CALM, Stress
from forecast_core.capacity.twin import Decide, Twin

WORST = 3.0  # by what factor an estimate may miss, either way
HEADROOM = 1.5  # of a calm day's money
RETRY = 1.5  # what stopped and failed runs take beside those that end well


@dataclass(frozen=True)
class Night:
    """One night's score, in percent. `kept`: skill of the forecasts there by the deadline, of the
    skill there would be with every upgrade at its first rung."""

    items: float
    watched: float
    overshoot: float
    kept: float
    stopped: int
    runs: int


def worst(name: str, nights: Sequence[Night]) -> dict[str, str | float]:
    """The worst of a stress's nights, in percent (of the skill kept: the mean)."""
    return {
        "stress": name,
        "items_forecast_pct_min": min(n.items for n in nights),
        "monitoring_done_pct_min": min(n.watched for n in nights),
        "overshoot_pct_max": max(n.overshoot for n in nights),
        "accuracy_kept_pct_mean": sum(n.kept for n in nights) / len(nights),
    }


def sized(policy: Policy, plan: Plan, rates: Rates) -> Policy:
    """The policy with the day's money sized to the plan: a calm day and little more.

    The serving floor is what a calm night's serving may cost; the watch's floor and the serving
    reserve allow for estimates `WORST` times too high and for runs that must be run again.
    """
    values = plan.mids()
    arrivals = Arrivals(plan, values, rates, policy, seed=0)
    calm = Twin(arrivals, 1, capped=False).run()
    day = calm.total * HEADROOM
    kinds = {batch.kind.name: batch for batch in arrivals.of(0)}
    per_item, watch, serving = 0.0, 0.0, 0.0
    for batch in kinds.values():
        quote = batch.kind.shape.quotes[-1]
        if batch.kind.work.covers:
            per_item = WORST * RETRY * quote.money / NANO / batch.kind.series
        if batch.kind.work.watches:
            watch += RETRY * batch.count * quote.money / NANO + WORST * RETRY * quote.money / NANO
        if batch.kind.shape.work_class == "serving":
            serving += batch.count * batch.kind.shape.quotes[0].money / NANO
    mapping: dict[str, Any] = json.loads(policy.text)
    node = f"{plan.environment}/day"
    for name, budget in mapping["budgets"].items():
        times = 1.0 if name == node else 31.0
        if policy.budgets[name].environment in (None, plan.environment):
            budget["limit"] = day * times
            if budget.get("floors"):
                budget["floors"] = {
                    "serving": min(serving, 0.65 * day) * times,
                    "monitoring": min(watch, 0.3 * day) * times,
                }
    mapping["budgets"] = {
        name: budget
        for name, budget in mapping["budgets"].items()
        if policy.budgets[name].work_class is None
        and policy.budgets[name].environment in (None, plan.environment)
    }
    # Every run of a plan has a rate; the bound for those that have none must not outgrow a floor.
    mapping["default_bound"]["money"] = min(
        float(policy.default_bound.money) / NANO, serving, 0.65 * day, watch, 0.3 * day
    )
    mapping["serving_reserve"]["money_per_item"] = float(nanos(f"{per_item:.12f}")) / NANO
    return Policy.parse(mapping)


def errors(plan: Plan, seed: int, worst: float = WORST) -> dict[str, float]:
    """By what factor the estimate of each work misses: log-uniform up to `worst` either way."""
    rng = random.Random(f"errors {seed}")
    return {name: worst ** rng.uniform(-1, 1) for name in plan.work}


def night(
    plan: Plan,
    rates: Rates,
    policy: Policy,
    stress: Stress,
    seed: int,
    decide: Decide | None = None,
) -> Night:
    """One night under a stress, its estimates wrong by up to `WORST`, refitted as it goes."""
    values = plan.mids()
    arrivals = Arrivals(plan, values, rates, policy, seed, stress=stress, errors=errors(plan, seed))
    twin = (
        Twin(arrivals, 1, seed=seed)
        if decide is None
        else Twin(arrivals, 1, seed=seed, decide=decide, capped=False)
    )
    return score(twin.run(), plan)


def score(record: Record, plan: Plan) -> Night:
    """What a night's record amounts to."""
    accuracy = plan.accuracy
    best = skill = 0.0
    for day, due in record.upgrades_due.items():
        done = record.upgraded.get(day, {})
        covered = record.share(record.covered)
        best += sum(amount * accuracy.skill(rung) for rung, amount in due.items())
        floor = accuracy.skill("floor")
        skill += sum(amount * accuracy.skill(rung) for rung, amount in done.items())
        skill += max(0.0, sum(due.values()) * covered - sum(done.values())) * floor
    return Night(
        100 * record.share(record.covered),
        100 * record.share(record.watched),
        100 * max(record.overshoot.values(), default=0.0),
        100 * skill / best if best else 100.0,
        record.stopped,
        record.runs,
    )


def greedy(snapshot: Snapshot, policy: Policy) -> list[Decision]:
    """A queue as many build it: first come first served while there is room, and money is left.

    The budget is hard (what runs holds its quote), yet there are no classes, floors, reserves,
    ladders or lanes kept free.
    """
    room = {"host": [policy.host.runs, policy.host.cpu, policy.host.memory_gib]}
    room |= {name: [s.runs, s.cpu, s.memory_gib] for name, s in policy.stages.items()}
    left = {
        name: budget.limit - sum(snapshot.spent.get(name, {}).values())
        for name, budget in policy.budgets.items()
    }
    environment = snapshot.environment
    for holding in snapshot.running:
        count = snapshot.counts.get(holding.request.id, 1)
        _take(room, left, holding.request, environment, policy, count)
    decisions = []
    for request in sorted(snapshot.waiting, key=lambda r: (r.submitted, r.id)):
        quote = request.shape.quotes[0]
        nodes = [
            node
            for pipeline, _ in quote.charges
            for node in policy.path(environment, pipeline, request.shape.work_class)
        ]
        for _ in range(snapshot.counts.get(request.id, 1)):
            places = (room["host"], room[request.shape.stage])
            needs = (1, quote.cpu, quote.memory_gib)
            fits = all(have + 1e-9 >= need for place in places
                       for have, need in zip(place, needs, strict=True))  # fmt: skip
            pays = all(left[node] >= quote.money for node in nodes)
            action = "admit" if fits and pays else "hold"
            decisions.append(
                Decision(
                    request.id, "admit" if action == "admit" else "hold", quote.rung, 0,
                    "fits" if fits and pays else "money" if fits else "host_room", "",
                    math.inf, request.submitted, False,
                )
            )  # fmt: skip
            if not (fits and pays):
                break
            _take(room, left, request, environment, policy, 1)
    return decisions


def _take(
    room: Mapping[str, list[float]],
    left: dict[str, int],
    request: Request,
    environment: str,
    policy: Policy,
    count: int,
) -> None:
    quote = request.shape.quotes[0]
    for place in (room["host"], room[request.shape.stage]):
        place[0] -= count
        place[1] -= count * quote.cpu
        place[2] -= count * quote.memory_gib
    for pipeline, amount in quote.charges:
        for node in policy.path(environment, pipeline, request.shape.work_class):
            left[node] -= count * amount


__all__ = ["CALM", "Night", "errors", "greedy", "night", "score", "sized", "worst"]
