"""The twin against a slow and obvious queue: every run by itself, a pass at every tick."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecast_core.admission import Holding, Load, Request, Snapshot, decide
from forecast_core.admission.policy import PROTECTED, Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.books import Books
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.stress import ALL_AT_ONCE, CALM, CATALOGUE
from forecast_core.capacity.twin import Twin

POLICIES = Path(__file__).parents[3] / "policies"


def the_policy(**changes: Any) -> Policy:
    mapping = yaml.safe_load((POLICIES / "admission.yaml").read_text())
    for node, limit in changes.items():
        budget = mapping["budgets"][node.replace("_", "/")]
        scale = limit / budget["limit"]
        budget["limit"] = limit
        budget["floors"] = {k: v * scale for k, v in budget.get("floors", {}).items()}
        mapping["default_bound"]["money"] *= min(scale, 1.0)
    return Policy.parse(mapping)


def the_plan(**changes: Any) -> Plan:
    mapping = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    return Plan.parse(mapping | changes)


def arrivals(policy: Policy, seed: int = 1, **more: Any) -> Arrivals:
    plan = the_plan(first="2027-03-28")  # a Sunday: weekly work too, and no holiday season
    values = plan.mids() | {"failures": 0.0, "backfills": 6.0, "backfill_days": 4.0}
    return Arrivals(plan, values, Rates(), policy, seed, **more)


def _steady(found: Arrivals) -> Arrivals:
    """Every run takes its mean: the order in which chance is asked must not matter here."""
    for key in [(n, r) for n, w in found.plan.work.items() for r in w.rungs]:
        found._pools[key] = [(1.0, 1.0)]
    for extra in found.stress.extra:
        for rung in found.plan.work[extra.work].rungs:
            found._pools[f"{extra.work}+{extra.name}", rung] = [(1.0, 1.0)]
    return found


def _end(twin: Twin) -> float:
    return twin.start + twin.days * 86_400 + 6 * 3600


def _slowly(found: Arrivals, days: int) -> dict[str, Any]:
    """The same days with one entry a run, each judged at every tick and at its submission."""
    policy, tick = found.policy, found.policy.tick_s
    twin = Twin(found, days)
    start, books = twin.start, Books(policy, found.plan.environment)
    todo = [batch for day in range(days) for batch in found.of(day)]
    left = {(b.day, b.kind.name): b.count for b in todo}
    waiting: list[tuple[Request, Any]] = []
    running: list[tuple[Holding, Any, float]] = []
    due, last_start, begun, number = {}, {}, [], 0
    now, opened, moments = start, -1, sorted({b.at for b in todo})
    while (todo or waiting or running) and now < _end(twin):
        on_tick = now % tick == 0
        ended = [r for r in running if r[2] <= now] if on_tick else []
        running = [r for r in running if r[2] > now or not on_tick]
        books.turn(now)
        for holding, batch, _ in ended:
            truth = batch.kind.truths[holding.quote.rung]
            money = math.ceil(truth.money)
            work_class = holding.request.shape.work_class
            books.settle(batch.kind.pipeline, work_class, holding.admitted, money)
            left[batch.day, batch.kind.name] -= 1
            due[batch.day] -= holding.request.covers
        if now < start + days * 86_400 and int((now - start) // 86_400) > opened:
            opened = int((now - start) // 86_400)
            due[opened] = sum(round(b.kind.series) * b.count for b in todo
                              if b.day == opened and b.kind.work.covers)  # fmt: skip
        ready = [b for b in todo if b.at <= now
                 and not left.get((b.day, b.after or ""), 0)]  # fmt: skip
        for batch in ready:
            todo.remove(batch)
            covers = round(batch.kind.series) if batch.kind.work.covers else 0
            for _ in range(batch.count):
                number += 1
                waiting.append((Request(f"w{number:09d}", batch.kind.shape, now, batch.deadline,
                                        batch.launch, covers), batch))  # fmt: skip
        covered = sum(h.request.covers for h, _, _ in running)
        ages = [now - r.submitted for r, _ in waiting if r.shape.work_class in PROTECTED]
        snapshot = Snapshot(
            now, found.plan.environment, tuple(r for r, _ in waiting),
            tuple(h for h, _, _ in running), books.spent,
            max(0, due.get(opened, 0) - covered), Load(max(ages, default=0.0)), (), last_start,
        )  # fmt: skip
        by_id = {r.id: (r, b) for r, b in waiting}
        for decision in decide(snapshot, policy) if waiting else ():
            if decision.starts:
                request, batch = by_id.pop(decision.id)
                quote = next(q for q in request.shape.quotes if q.rung == decision.rung)
                wall = batch.kind.truths[quote.rung].wall_s
                running.append((Holding(request, quote, now), batch, now + wall))
                begun.append((now, batch.kind.name, quote.rung))
                last_start[request.shape.work_class] = now
            elif decision.action == "reject":
                _, batch = by_id.pop(decision.id)
                left[batch.day, batch.kind.name] -= 1
        waiting = list(by_id.values())
        later = [m for m in moments if m > now]
        now = min([math.floor(now / tick + 1) * tick, *later[:1]])
    return {"begun": sorted(begun)}


@pytest.mark.parametrize(
    ("stress", "day_limit"),
    [(CALM, 20.0), *((stress, 0.095) for stress in (*CATALOGUE, ALL_AT_ONCE))],
    ids=lambda value: getattr(value, "name", None),
)
def test_batches_and_left_out_passes_change_nothing(stress: Any, day_limit: float) -> None:
    policy = the_policy(prod_day=day_limit)
    stress = type(stress)(**{**_fields(stress), "failures": {}})
    found = _steady(arrivals(policy, stress=stress))
    days = 1
    slow = _slowly(found, days)
    twin = Twin(found, days)
    begun: list[tuple[float, str, str]] = []
    original = twin._start

    def start(now: float, waiting: Any, rung: str, count: int) -> None:
        begun.extend([(now, waiting.batch.kind.name, rung)] * count)
        original(now, waiting, rung, count)

    twin._start = start  # type: ignore[method-assign]
    record = twin.run()
    assert record.superseded == 0
    assert sorted(b for b in begun if b[0] < _end(twin)) == slow["begun"]
    assert len(begun) > 40


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def test_equal_seeds_give_equal_futures_and_others_do_not() -> None:
    policy = the_policy()
    first, again, other = (Twin(arrivals(policy, seed), 5, seed=seed).run() for seed in (3, 3, 4))
    assert first.money == again.money and first.delays == again.delays
    assert first.money != other.money


def test_failed_runs_are_charged_and_run_again() -> None:
    found = arrivals(the_policy())
    found.values = dict(found.values) | {"failures": 0.2}
    record = Twin(found, 3).run()
    assert record.failed > 0 and record.lost == 0
    assert record.share(record.covered) == 1.0


def test_what_can_never_start_is_named() -> None:
    policy = the_policy(prod_day=0.0005)
    record = Twin(arrivals(policy), 1).run()
    assert any("prod/day never has more" in reason for reason in record.rejections)
