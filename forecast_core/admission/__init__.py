"""Admission: which of the waiting runs may start now, at which rung, and why the others may not.

Belongs here: `decide`, the order in which runs are asked, and the names a caller needs. Does not:
clocks, stores, chance, Dagster. The live queue and the capacity simulator call this very function,
so that a plan is judged by the code that will judge the runs.

The rules, in the order in which they are asked:

1. What could never start is rejected with the reason (unless a cheaper rung could).
2. Pauses of the hour or of measured load, caps per class and per launch.
3. Room: lanes, cores, memory and GPU of the host and of the stage; the lanes of another class's
   floor are not to be had.
4. Money, at every node of the budget tree: limit - spent - held - what is kept for others (their
   floors, and the cheapest forecast of every item that still has none).

Overdue work goes first, up to its class's floor of lanes; when it lacks room, that room is set
aside for it, and classes take turns, so the head of each class waits no longer than `max_defer`
plus the end of what is running. Work that would
miss its latest start walks down to a cheaper rung if its class may; otherwise it is held and
reported late, never dropped.

Within one pass room and money only shrink, so a refusal holds for every later run of the same
shape: it is computed once. Equal runs keep the order of submission. An entry may stand for many
equal runs (`Snapshot.counts`): it gets a decision for each that starts and one for the rest.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import nsmallest
from operator import itemgetter

from forecast_core.admission.batch import overdue as batch_overdue
from forecast_core.admission.desk import Desk
from forecast_core.admission.policy import Policy
from forecast_core.admission.values import (
    Action,
    Decision,
    Holding,
    Load,
    Override,
    Quote,
    Request,
    Shape,
    Snapshot,
    latest_start,
)

__all__ = [
    "Action",
    "Decision",
    "Holding",
    "Load",
    "Override",
    "Quote",
    "Request",
    "Shape",
    "Snapshot",
    "at_risk",
    "decide",
    "latest_start",
]


def decide(snapshot: Snapshot, policy: Policy) -> list[Decision]:
    """One decision for every waiting run, the runs that were asked first coming first.

    Deterministic: equal snapshots and policies give equal lists.

    Raises:
        KeyError: a request names a class or stage that the policy does not know (the classifier
            gives such a run a `problem` instead).
    """
    with _uncollected():
        return _decided(snapshot, policy)


@contextmanager
def _uncollected() -> Iterator[None]:
    """A pass makes ten thousand tuples and no cycle: looking for some took longer than deciding,
    and made the slowest pass three times the usual one."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _decided(snapshot: Snapshot, policy: Policy) -> list[Decision]:
    desk = Desk(snapshot, policy)
    queues = _queues(snapshot, policy)
    decisions: list[Decision] = []
    lanes = {name: desk.free_floor(name) for name in queues}
    for request in _overdue(queues, policy, desk, lanes):
        name = request.shape.work_class
        if request.id in desk.counts:
            lanes[name] -= batch_overdue(
                desk, request, policy.classes[name], lanes[name], decisions
            )
        elif lanes[name] > 0:
            decision = desk.judge(request, policy.classes[name])
            lacks_room = desk.set_aside(request, decision.code)
            lanes[name] -= lacks_room or decision.starts
            decisions.append(decision)
    asked = {decision.id for decision in decisions if not desk.counts.get(decision.id)}
    for name, queue in queues.items():
        later = [request for request in queue if request[0] not in asked] if asked else queue
        decisions += desk.judge_all(later, policy.classes[name])
    return decisions


def at_risk(decisions: list[Decision]) -> list[Decision]:
    """The held runs that will miss their latest start: to be reported, never dropped."""
    return [decision for decision in decisions if decision.late and decision.action == "hold"]


def _queues(snapshot: Snapshot, policy: Policy) -> dict[str, list[Request]]:
    """The waiting runs by class, highest priority first, each in order of submission."""
    names = sorted(policy.classes, key=lambda name: (-policy.classes[name].priority, name))
    queues: dict[str, list[Request]] = {name: [] for name in names}
    for request in snapshot.waiting:
        queues[request[1].work_class].append(request)
    in_order = itemgetter(2, 0)  # submitted, id
    for queue in queues.values():
        queue.sort(key=in_order)
    return queues


def _overdue(
    queues: Mapping[str, list[Request]], policy: Policy, desk: Desk, lanes: Mapping[str, int]
) -> list[Request]:
    """Runs past their latest start that may claim their class's floor, longest overdue first.

    Classes take turns, the one that started longest ago first: an overloaded class has a longer
    overdue head at any moment, and would push out a poorer one for ever. Of equal runs no more
    than the class has free lanes: one verdict speaks for the others. Runs with a problem wait for
    a person and those of a full launch for their siblings, not for room.
    """
    overdue: list[tuple[float, float, float, str, Request]] = []
    now = desk.now
    for name, queue in queues.items():
        work_class, most = policy.classes[name], lanes[name]
        alike: dict[int, list[tuple[float, float, str, Request]]] = {}
        for request in queue if most > 0 else ():
            _, shape, submitted, deadline, launch, _ = request
            due = submitted + work_class.max_defer
            if deadline is not None:
                due = min(due, deadline - shape.quotes[0].wall_s)
            if due > now or shape.problem is not None:
                continue
            equals = alike.setdefault(desk.alike[id(shape)], [])
            if deadline is None and len(equals) >= most and equals[most - 1][0] <= due:
                continue  # the queue is in order: as many equal runs are due before it
            if not (launch and desk.launch_is_full(request, work_class)):
                equals.append((due, submitted, request.id, request))
        turn = desk.last_start.get(name, 0.0)
        for equals in alike.values():
            overdue += [(turn, *entry) for entry in nsmallest(most, equals)]
    return [entry[4] for entry in sorted(overdue)]
