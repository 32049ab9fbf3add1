"""`decide` against a slow and obvious oracle, and its promises on random traces."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecast_core.admission import (
    Decision,
    Holding,
    Load,
    Override,
    Quote,
    Request,
    Shape,
    Snapshot,
    at_risk,
    decide,
    latest_start,
)
from forecast_core.admission.policy import NANO, Policy
from forecast_core.admission.values import NEVER

SHIPPED = Path(__file__).parents[2] / "policies" / "admission.yaml"
NOW = 1_790_000_000.0
HOME = {  # class -> (stage, pipeline)
    "serving": ("inference", "inference"),
    "monitoring": ("monitoring", "monitoring"),
    "training": ("training", "training"),
    "backfill": ("ingest", "ingest"),
    "exploratory": ("training", "tuning"),
}


def small_policy(**changes: Any) -> Policy:
    """A tight policy: four lanes, ten units of money a day, floors for the protected classes."""
    mapping: dict[str, Any] = {
        "version": "test",
        "currency": "USD",
        "host": {"runs": 6, "cpu": 6, "memory_gib": 12, "gpu": 1},
        "stages": {
            "ingest": {
                "pipelines": ["ingest", "features", "storage"],
                "runs": 2,
                "cpu": 1,
                "memory_gib": 2,
            },
            "inference": {
                "pipelines": ["inference", "reconciliation"],
                "runs": 3,
                "cpu": 2,
                "memory_gib": 4,
            },
            "training": {
                "pipelines": ["training", "tuning", "backtest"],
                "runs": 3,
                "cpu": 2,
                "memory_gib": 4,
                "gpu": 1,
            },
            "monitoring": {"pipelines": ["monitoring"], "runs": 1, "cpu": 1, "memory_gib": 2},
        },
        "classes": {
            "serving": {
                "priority": 100,
                "max_defer": "0s",
                "floor_runs": 1,
                "may_degrade": True,
                "fan_out": 4,
            },
            "monitoring": {"priority": 90, "max_defer": "5m", "floor_runs": 1},
            "training": {
                "priority": 50,
                "max_defer": "1h",
                "floor_runs": 1,
                "max_chunk": "20m",
                "fan_out": 2,
                "may_degrade": True,
            },
            "backfill": {"priority": 30, "max_defer": "2h", "floor_runs": 1, "max_chunk": "20m"},
            "exploratory": {"priority": 10, "max_defer": "4h", "max_chunk": "20m", "fan_out": 1},
        },
        "classify": [
            {"class": "monitoring", "pipeline": ["monitoring"]},
            {"class": "backfill", "origin": ["backfill"]},
            {"class": "serving", "pipeline": ["ingest", "features", "inference", "reconciliation"]},
            {"class": "exploratory", "pipeline": ["tuning"]},
            {"class": "training"},
        ],
        "budgets": {
            "all": {"period": "day", "limit": 12, "floors": {"serving": 3, "monitoring": 1}},
            "prod": {
                "parent": "all",
                "environment": "prod",
                "period": "day",
                "limit": 10,
                "floors": {"serving": 3, "monitoring": 1},
            },
            "prod/training": {
                "parent": "prod",
                "environment": "prod",
                "pipeline": "training",
                "period": "day",
                "limit": 4,
            },
        },
        "serving_reserve": {"money_per_item": 0.01},
        "default_bound": {"money": 0.5, "wall": "10m"},
        **changes,
    }
    return Policy.parse(mapping)


POLICY = small_policy()


def quote(
    money: float, work_class: str, wall_s: float = 600, rung: str = "gbm", **room: Any
) -> Quote:
    return Quote(rung, ((HOME[work_class][1], int(money * NANO)),), wall_s, **room)


def shape(work_class: str, *quotes: Quote, problem: str | None = None) -> Shape:
    return Shape(work_class, HOME[work_class][0], quotes, problem)


def waiting(work_class: str, money: float = 0.1, n: int = 1, **fields: Any) -> list[Request]:
    kind = shape(work_class, quote(money, work_class))
    return [Request(f"{work_class}-{i}", kind, NOW - 1, **fields) for i in range(n)]


def one(requests: Sequence[Request], **fields: Any) -> Decision:
    (decision,) = decide(
        replace(Snapshot(NOW, "prod", tuple(requests)), **fields), fields.pop("policy", POLICY)
    )
    return decision


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    work_class = draw(st.sampled_from(sorted(HOME)))
    top = draw(st.floats(0.001, 6))
    quotes = [
        Quote(
            rung,
            ((HOME[work_class][1], int(top * part * NANO)),),
            draw(st.sampled_from([30.0, 300.0, 1100.0, 1300.0])),
            draw(st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0])),
            draw(st.sampled_from([0.5, 1.0, 2.0, 5.0])),
            draw(st.sampled_from([0, 0, 0, 1])),
        )
        for rung, part in (("gbm", 1.0), ("statistical", 0.3), ("floor", 0.02))
    ]
    return Shape(
        work_class,
        HOME[work_class][0],
        tuple(quotes[: draw(st.integers(1, 3))]),
        draw(st.sampled_from([None, None, None, None, "no metadata"])),
    )


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    kinds = draw(st.lists(shapes(), min_size=1, max_size=6))
    requests = [
        Request(
            f"run-{i:03d}",
            draw(st.sampled_from(kinds)),
            NOW - draw(st.sampled_from([-50.0, 0.0, 10.0, 400.0, 4_000.0, 9_000.0, 20_000.0])),
            draw(st.sampled_from([None, None, NOW + 100, NOW + 5_000])),
            draw(st.sampled_from(["", "a", "b"])),
            draw(st.sampled_from([0, 0, 50])),
        )
        for i in range(draw(st.integers(0, 30)))
    ]
    cut = draw(st.integers(0, 3))
    spent = st.integers(0, 3 * NANO)
    return Snapshot(
        now=NOW,
        environment="prod",
        waiting=tuple(requests[cut:]),
        running=tuple(
            Holding(r, r.shape.quotes[0], NOW - draw(st.sampled_from([5.0, 90_000.0])))
            for r in requests[:cut]
        ),
        spent={"prod": {c: draw(spent) for c in draw(st.sets(st.sampled_from(sorted(HOME))))}},
        items_due=draw(st.sampled_from([0, 100, 250])),
        load=draw(st.sampled_from([Load(), Load(2_000, 0.5, 0.5)])),
        overrides=draw(
            st.sampled_from(
                [
                    (),
                    (Override("release", "run-005", "ops", "known run", NOW + 60),),
                    (Override("block", "exploratory", "ops", "stop it", NOW + 60),),
                    (Override("raise", "prod", "cfo", "launch", NOW + 60, 5 * NANO),),
                ]
            )
        ),
    )


# ---- the oracle: every rule written out from the whole list of what was taken, no caches


def bill(policy: Policy, quote: Quote, work_class: str) -> dict[str, int]:
    due: dict[str, int] = defaultdict(int)
    for pipeline, amount in quote.charges:
        for node in policy.path("prod", pipeline, work_class):
            due[node] += amount
    return due


def fits(
    snapshot: Snapshot,
    policy: Policy,
    taken: list[Holding],
    aside: list[tuple[Request, str]],
    request: Request,
    quote: Quote,
) -> bool:
    name = request.shape.work_class
    work_class = policy.classes[name]
    free = [o.target for o in snapshot.overrides if o.effect == "release"]
    released = request.id in free or name in free
    stopped = [o.target for o in snapshot.overrides if o.effect == "block"]
    if request.id in stopped or (name in stopped and not released):
        return False
    if request.shape.problem and not released:
        return False
    if work_class.max_chunk is not None and quote.wall_s > work_class.max_chunk:
        return False
    siblings = [h for h in taken if request.launch and h.request.launch == request.launch]
    if len(siblings) >= work_class.fan_out:
        return False
    for throttle in policy.throttles if not released else ():
        over = throttle.queue_age and snapshot.load.queue_age_s > throttle.queue_age
        if over and name in throttle.pause:
            return False
    stage = policy.stages[request.shape.stage]
    in_stage = [h.quote for h in taken if h.request.shape.stage == request.shape.stage]
    in_stage += [r.shape.quotes[0] for r, _ in aside if r.shape.stage == request.shape.stage]
    on_host = [h.quote for h in taken]
    on_host += [r.shape.quotes[0] for r, code in aside if code.startswith("host")]
    for room, quotes in ((stage, in_stage), (policy.host, on_host)):
        if len(quotes) + 1 > room.runs:
            return False
        if quote.gpu and sum(q.gpu for q in quotes) + quote.gpu > room.gpu:
            return False
        if sum(q.cpu for q in quotes) + quote.cpu > room.cpu + 1e-6:
            return False
        if sum(q.memory_gib for q in quotes) + quote.memory_gib > room.memory_gib + 1e-6:
            return False
    kept_lanes = 0
    for other, kind in policy.classes.items():
        if other != name:
            busy = sum(h.request.shape.work_class == other for h in taken)
            kept_lanes += max(0, kind.floor_runs - busy)
    if len(on_host) + 1 + kept_lanes > policy.host.runs:
        return False
    due = snapshot.items_due
    due -= sum(h.request.covers for h in taken if h not in snapshot.running)
    reserve = policy.serving_reserve.money_per_item * max(0, max(0, due) - request.covers)
    for node, amount in bill(policy, quote, name).items():
        opened = policy.period(policy.budgets[node].period, snapshot.now)[0]
        used: dict[str, int] = defaultdict(int, snapshot.spent.get(node, {}))
        for h in taken:
            if h.admitted >= opened:
                used[h.request.shape.work_class] += bill(
                    policy, h.quote, h.request.shape.work_class
                ).get(node, 0)
        limit = policy.budgets[node].limit
        limit += sum(o.amount for o in snapshot.overrides if o.target == node)
        kept = {c: max(0, floor - used[c]) for c, floor in policy.floors[node].items() if c != name}
        if "inference" in (policy.budgets[node].pipeline, "inference") and node != "prod/training":
            kept["serving"] = reserve if name == "serving" else max(kept["serving"], reserve)
        if sum(used.values()) + amount + sum(kept.values()) > limit:
            return False
    return True


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(snapshots())
def test_every_verdict_is_the_oracles(snapshot: Snapshot) -> None:
    """What starts fits; what is refused does not, at the moment it is asked."""
    policy = small_policy(throttles=[{"queue_age": "30m", "pause": ["exploratory"]}])
    by_id = {request.id: request for request in snapshot.waiting}
    taken, aside = list(snapshot.running), list[tuple[Request, str]]()
    decisions = decide(snapshot, policy)
    assert sorted(d.id for d in decisions) == sorted(by_id), "each run has exactly one decision"
    for decision in decisions:
        request = by_id[decision.id]
        work_class = policy.classes[request.shape.work_class]
        quotes = request.shape.quotes if work_class.may_degrade else request.shape.quotes[:1]
        latest = latest_start(request, work_class, quotes[0])
        if decision.starts:
            rung = [q.rung for q in quotes].index(decision.rung)
            assert fits(snapshot, policy, taken, [], request, quotes[rung])
            assert not any(fits(snapshot, policy, taken, [], request, q) for q in quotes[:rung])
            assert decision.money == quotes[rung].money > 0
            assert decision.action == ("degrade" if rung else "admit")
            taken.append(Holding(request, quotes[rung], snapshot.now))
        else:
            able = [fits(snapshot, policy, taken, aside, request, q) for q in quotes]
            if any(able):  # it may wait for a better rung, if that can come in time
                assert not able[0] and decision.action == "hold" and decision.earliest <= latest
            if latest <= snapshot.now and decision.code.startswith(("stage", "host")):
                aside.append((request, decision.code))  # room is kept for it
        assert decision.late == (decision.earliest > decision.latest)


@given(snapshots(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_input_changes_nothing(snapshot: Snapshot, random: Any) -> None:
    shuffled = list(snapshot.waiting)
    random.shuffle(shuffled)
    assert decide(replace(snapshot, waiting=tuple(shuffled)), POLICY) == decide(snapshot, POLICY)


@given(snapshots())
@settings(max_examples=50, deadline=None)
def test_equal_shapes_need_not_be_one_object(snapshot: Snapshot) -> None:
    copies = tuple(r._replace(shape=replace(r.shape)) for r in snapshot.waiting)
    assert decide(replace(snapshot, waiting=copies), POLICY) == decide(snapshot, POLICY)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), st.floats(0.01, 3))
def test_equal_runs_start_in_the_order_of_submission(ages: list[int], money: float) -> None:
    kind = shape("training", quote(money, "training", cpu=0.5))
    requests = [Request(f"r{i:02d}", kind, NOW - age) for i, age in enumerate(ages)]
    decisions = decide(Snapshot(NOW, "prod", tuple(requests)), POLICY)
    wanted = sorted(requests, key=lambda r: (r.submitted, r.id))
    assert [d.id for d in decisions] == [r.id for r in wanted]
    started = [d.starts for d in decisions]
    assert started == sorted(started, reverse=True)


# ---- traces --------------------------------------------------------------------------------------


def run_trace(
    policy: Policy, arrivals: Sequence[Request], actual: float, tick: float = 30.0, hours: int = 30
) -> tuple[dict[str, tuple[float, Decision]], dict[tuple[str, float], int]]:
    """Admit at every tick; each run costs `actual` of what it holds and lasts its quoted time.

    Gives the start of each run with its decision, and the money of each (node, period).
    """
    pending = sorted(arrivals, key=lambda r: r.submitted)
    queue: list[Request] = []
    running: list[Holding] = []
    settled: list[tuple[Holding, int]] = []
    started: dict[str, tuple[float, Decision]] = {}
    books: dict[tuple[str, float], int] = defaultdict(int)
    last_start: dict[str, float] = {}
    now = NOW
    while now < NOW + hours * 3600 and (pending or queue or running):
        while pending and pending[0].submitted <= now:
            queue.append(pending.pop(0))
        for h in [h for h in running if h.admitted + h.quote.wall_s <= now]:
            running.remove(h)
            settled.append((h, int(h.quote.money * actual)))
        spent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for h, cost in settled:
            for node in bill(policy, h.quote, h.request.shape.work_class):
                if h.admitted >= policy.period(policy.budgets[node].period, now)[0]:
                    spent[node][h.request.shape.work_class] += cost
        snapshot = Snapshot(now, "prod", tuple(queue), tuple(running), spent, last_start=last_start)
        by_id = {r.id: r for r in queue}
        for decision in decide(snapshot, policy):
            request = by_id[decision.id]
            if decision.starts:
                assert decision.id not in started
                started[decision.id] = (now, decision)
                last_start[request.shape.work_class] = now
                (took,) = (q for q in request.shape.quotes if q.rung == decision.rung)
                running.append(Holding(request, took, now))
            if decision.action != "hold":
                queue.remove(request)
        for node, budget in policy.budgets.items():
            period = policy.period(budget.period, now)[0]
            held = sum(
                bill(policy, h.quote, h.request.shape.work_class).get(node, 0)
                for h in running
                if h.admitted >= period
            )
            books[node, period] = sum(spent[node].values()) + held
            assert books[node, period] <= budget.limit, "admitted money passed a budget"
        now += tick if not queue or running else tick * 10
    return started, books


@st.composite
def traces(draw: st.DrawFn) -> list[Request]:
    kinds = [k for k in draw(st.lists(shapes(), min_size=2, max_size=5)) if not k.problem]
    kinds.append(shape("serving", quote(0.02, "serving", 60)))
    return [
        Request(f"t{i:03d}", draw(st.sampled_from(kinds)), NOW + draw(st.floats(0, 20_000)))
        for i in range(draw(st.integers(1, 40)))
    ]


@given(traces(), st.sampled_from([0.2, 0.7, 1.0]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_budget_is_passed_and_serving_runs(arrivals: list[Request], actual: float) -> None:
    cheap = [r for r in arrivals if r.shape.work_class == "serving" and len(r.shape.quotes) == 1]
    cheap = [r for r in cheap if r.shape.quotes[0].money < NANO // 40]
    started, _ = run_trace(POLICY, arrivals, actual)
    for request in cheap:  # together below the floor of serving, whatever the others do
        assert request.id in started


def test_starvation_is_bounded_by_max_defer_plus_one_chunk() -> None:
    """An endless stream of better work of the same stage cannot push a run out for ever."""
    stream = [
        Request(
            f"train-{i:04d}",
            shape("training", quote(0.002, "training", 1100, cpu=1.0)),
            NOW + 60.0 * i,
        )
        for i in range(300)
    ]
    poor = Request(
        "poor", Shape("backfill", "training", (quote(0.01, "training", 600, cpu=2.0),)), NOW + 5
    )
    started, _ = run_trace(POLICY, [*stream, poor], 1.0, hours=5)
    wait = started["poor"][0] - poor.submitted
    assert wait <= POLICY.classes["backfill"].max_defer + 1200 + 60
    assert wait > 3600, "the stream was no stream"


# ---- one rule at a time --------------------------------------------------------------------------


def test_a_budget_that_is_spent_holds_until_the_period_ends() -> None:
    decision = one(waiting("backfill", 1.0), spent={"prod": {"backfill": 6 * NANO}})
    assert (decision.action, decision.code) == ("hold", "money")
    assert decision.earliest == POLICY.period("day", NOW)[1]


def test_floors_of_others_are_not_to_be_had() -> None:
    spent = {"prod": {"backfill": int(5.5 * NANO)}}  # 10 - 5.5 = 4.5, of which 4 are kept
    assert one(waiting("backfill", 0.6), spent=spent).code == "money"
    assert one(waiting("backfill", 0.4), spent=spent).starts
    assert one(waiting("serving", 3.4), spent=spent).starts


def test_the_reserve_is_for_items_without_a_forecast_alone() -> None:
    spent = {"prod": {"serving": 4 * NANO, "backfill": NANO}}  # 5 left, 1 kept for monitoring
    due = {"spent": spent, "items_due": 390}  # 3.9 reserved
    assert one(waiting("backfill", 0.2), **due).code == "money"
    assert one(waiting("serving", 0.2), **due).code == "money", "an upgrade may not take it either"
    assert one(waiting("serving", 0.2, covers=30), **due).starts


def test_room_set_aside_for_a_gpu_does_not_block_those_who_need_none() -> None:
    needs = shape("training", quote(0.1, "training", gpu=1, cpu=0.1))
    plain = shape("training", quote(0.1, "training", cpu=0.1))
    busy = Holding(Request("b", needs, NOW), needs.quotes[0], NOW)
    requests = (Request("late", needs, NOW - 9000), Request("plain", plain, NOW))
    policy = small_policy()
    lanes = policy.classes["training"].model_copy(update={"floor_runs": 2})
    policy = replace(policy, classes={**policy.classes, "training": lanes})
    snapshot = Snapshot(NOW, "prod", requests, (busy,))
    assert {d.id: d.starts for d in decide(snapshot, policy)} == {"late": False, "plain": True}


def test_monitoring_keeps_its_lane_and_its_stage() -> None:
    flood = [r for c in ("serving", "training", "backfill", "exploratory") for r in waiting(c, n=9)]
    decisions = decide(Snapshot(NOW, "prod", (*flood, *waiting("monitoring"))), POLICY)
    assert {d.id for d in decisions if d.starts} >= {"monitoring-0", "serving-0"}
    assert sum(d.starts for d in decisions) <= POLICY.host.runs


def test_work_that_would_be_late_walks_down_the_ladder() -> None:
    ladder = shape(
        "serving",
        quote(4.0, "serving", rung="gbm"),
        quote(2.5, "serving", rung="statistical"),
        quote(0.1, "serving", rung="floor"),
    )
    spent = {"prod": {"serving": 6 * NANO}}
    decision = one([Request("r", ladder, NOW)], spent=spent)
    assert (decision.action, decision.rung, decision.code) == ("degrade", "statistical", "money")


def test_work_that_can_wait_keeps_its_rung() -> None:
    ladder = shape(
        "training", quote(0.1, "training", cpu=2.0), quote(0.01, "training", cpu=0.5, rung="floor")
    )
    busy = Holding(waiting("training")[0], quote(0.1, "training", 300, cpu=1.0), NOW - 10)
    held = one([Request("r", ladder, NOW)], running=(busy,))
    assert (held.action, held.code, held.earliest) == ("hold", "stage_cpu", NOW + 290)
    late = one([Request("r", ladder, NOW - 4000)], running=(busy,))
    assert (late.action, late.rung) == ("degrade", "floor")


def test_what_would_miss_its_latest_start_is_reported_not_dropped() -> None:
    (request,) = waiting("backfill", 1.0, deadline=NOW + 700)
    decisions = decide(
        Snapshot(NOW, "prod", (request,), spent={"prod": {"backfill": 6 * NANO}}), POLICY
    )
    assert [d.id for d in at_risk(decisions)] == ["backfill-0"]
    assert decisions[0].latest == NOW + 100


def test_a_launch_runs_no_more_pieces_than_its_cap() -> None:
    kind = shape("serving", quote(0.01, "serving", cpu=0.1, memory_gib=0.1))
    pieces = [Request(f"p{i}", kind, NOW, launch="refill") for i in range(6)]
    policy = small_policy()
    capped = policy.classes["serving"].model_copy(update={"fan_out": 2})
    policy = replace(policy, classes={**policy.classes, "serving": capped})
    decisions = decide(Snapshot(NOW, "prod", tuple(pieces)), policy)
    assert [d.starts for d in decisions] == [True, True, False, False, False, False]
    assert decisions[-1].code == "fan_out"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Request("r", shape("backfill", quote(0.1, "backfill", 5000)), NOW), "chunk"),
        (Request("r", shape("backfill", quote(0.1, "backfill", cpu=64)), NOW), "too_big"),
        (Request("r", shape("backfill", quote(9.9, "backfill")), NOW), "too_dear"),
    ],
)
def test_what_can_never_start_is_rejected_with_the_reason(request_: Request, code: str) -> None:
    decision = one([request_])
    assert (decision.action, decision.code) == ("reject", code)
    assert decision.reason


def test_a_run_without_metadata_waits_for_a_person() -> None:
    lost = Request("r", shape("exploratory", quote(0.1, "exploratory"), problem="no metadata"), NOW)
    assert one([lost]).code == "problem"
    release = Override("release", "r", "ops", "it is mine", NOW + 60)
    assert one([lost], overrides=(release,)).starts
    assert not one([lost], overrides=(replace(release, expires=NOW - 1),)).starts


def test_an_override_names_its_owner_reason_and_end() -> None:
    for fields in (("", "why", NOW), ("ops", " ", NOW), ("ops", "why", float("inf"))):
        with pytest.raises(ValueError):
            Override("release", "r", *fields)
    with pytest.raises(ValueError):
        Override("raise", "prod", "ops", "why", NOW)


def test_a_raise_lifts_one_node_until_it_expires() -> None:
    spent = {"prod": {"backfill": 6 * NANO}}
    up = Override("raise", "prod", "cfo", "launch week", NOW + 9, NANO)
    assert one(waiting("backfill", 0.5), spent=spent, overrides=(up,)).starts
    assert not one(waiting("backfill", 0.5), spent=spent).starts


def test_production_holds_exploratory_work_short() -> None:
    policy = Policy.parse(yaml.safe_load(SHIPPED.read_text()))
    day = policy.period("day", NOW)[0] + 12 * 3600
    dear = Request("dear", shape("exploratory", quote(0.3, "exploratory")), day)
    fine = [
        Request(f"r{i}", shape("exploratory", quote(0.1, "exploratory")), day) for i in range(2)
    ]
    by_id = {d.id: d for d in decide(Snapshot(day, "prod", (dear, *fine)), policy)}
    assert (by_id["dear"].action, by_id["dear"].code) == ("reject", "restricted")
    assert by_id["r0"].starts and by_id["r1"].code == "cap"
    assert decide(Snapshot(day, "dev", (dear,)), policy)[0].starts


def test_peaks_pause_and_say_until_when() -> None:
    policy = Policy.parse(yaml.safe_load(SHIPPED.read_text()))
    night = policy.period("day", NOW)[0] + 3 * 3600
    (request,) = waiting("exploratory")
    (decision,) = decide(Snapshot(night, "prod", (request,)), policy)
    assert (decision.code, decision.earliest) == ("peak", night + 3 * 3600)


@pytest.mark.parametrize(
    ("window", "ends"),
    [
        ({"first": "2026-11-20", "last": "2026-12-31"}, "2027-01-01"),
        ({"last": "2026-11-30"}, "2026-12-01"),
        ({"weekdays": ["mon", "tue", "wed"]}, "2026-12-03"),
        ({"weekdays": ["mon", "tue"], "last": "2026-11-30"}, "2026-12-01"),
        ({"last": "2026-12-05", "from": "10:00", "until": "10:00"}, "2026-12-06T10:00"),
        ({"last": "2026-12-05", "from": "10:00", "until": "14:00"}, "2026-11-30T14:00"),
        ({}, None),
    ],
)
def test_a_peak_of_whole_days_ends_with_its_last_and_what_misses_its_start_is_late(
    window: dict[str, Any], ends: str | None
) -> None:
    """On Monday the 30th, at noon."""
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    mapping = yaml.safe_load(SHIPPED.read_text()) | {"throttles": [], "peaks": [
        {"name": "short", "first": "2026-11-30", "last": "2026-11-30", "pause": ["training"]},
        {"name": "p", "pause": ["training"], **window},
        {"name": "later", "first": "2027-02-01", "pause": ["training"]},
    ]}  # fmt: skip
    request = Request("r", shape("training", quote(0.1, "training")), noon.timestamp())
    snapshot = Snapshot(noon.timestamp(), "prod", (request,))
    (decision,) = decide(snapshot, Policy.parse(mapping))
    until = datetime.fromisoformat(ends).replace(tzinfo=UTC).timestamp() if ends else NEVER
    until = max(until, datetime(2026, 12, 1, tzinfo=UTC).timestamp())  # of 'short'
    assert (decision.code, decision.earliest) == ("peak", until)
    assert decision.late == (until > noon.timestamp() + 2 * 86_400), "two days may it wait"
    assert at_risk([decision]) == [decision] * decision.late


@given(st.floats(0, 4e9), st.sampled_from(["day", "week", "month", "quarter"]))
def test_a_clock_that_jumps_still_has_one_period(now: float, kind: Any) -> None:
    first, last = POLICY.period(kind, now)
    assert first <= now < last
    assert POLICY.period(kind, first) == (first, last) == POLICY.period(kind, last - 1)
    decide(Snapshot(now, "prod", tuple(waiting("serving"))), POLICY)


def test_a_pass_leaves_the_garbage_collector_as_it_found_it() -> None:
    one(waiting("backfill"))
    assert gc.isenabled()
    with pytest.raises(KeyError):
        one([Request("r", Shape("backfill", "nowhere", (quote(0.1, "backfill"),)), NOW)])
    assert gc.isenabled(), "after a pass that failed too"
    gc.disable()
    try:
        one(waiting("backfill"))
        assert not gc.isenabled()
    finally:
        gc.enable()
