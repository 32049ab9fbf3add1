"""Equal runs as one entry: a thousand of them are judged by a handful of verdicts.

Belongs here: what a pass does with an entry that `Snapshot.counts` says stands for many runs. Does
not: the verdict itself (`desk`). The outcome is that of as many single entries in a row:
as many start, at the same rungs, and the rest is told what the last of them would be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forecast_core.admission.policy import WorkClass
from forecast_core.admission.values import Decision, Quote, Request

if TYPE_CHECKING:
    from forecast_core.admission.desk import Desk

_SLACK = 1e-6  # of a run: what is taken at once must fit beyond doubt, the rest is asked singly


def judge_batch(desk: Desk, request: Request, work_class: WorkClass, count: int) -> list[Decision]:
    """A decision for each of `count` equal runs that starts, and one for the rest."""
    decisions: list[Decision] = []
    while count > 0:
        decision = desk.judge(request, work_class)
        decisions.append(decision)
        count -= 1
        if not decision.starts:
            break
        quote = next(q for q in request.shape.quotes if q.rung == decision.rung)
        more = min(count, _surely(desk, request, work_class, quote))
        if more > 0:
            desk.take(request, quote, desk.now, more)
            desk.items_due = max(0, desk.items_due - more * request.covers)
            decisions += [decision] * more
            count -= more
    return decisions


def overdue(
    desk: Desk, request: Request, work_class: WorkClass, lanes: int, decisions: list[Decision]
) -> int:
    """Judge as many of an overdue entry as its class has floor lanes; the lanes taken.

    Starts go into `decisions`; what is left of the entry waits for its turn in the queue.
    """
    taken = 0
    while taken < lanes and desk.counts[request.id] > 0:
        decision = desk.judge(request, work_class)
        if decision.starts:
            decisions.append(decision)
            desk.counts[request.id] -= 1
        elif not desk.set_aside(request, decision.code):
            break
        taken += 1
    return taken


def _surely(desk: Desk, request: Request, work_class: WorkClass, quote: Quote) -> int:
    """How many more runs equal to the one that just started will start too, at least."""
    shape = request.shape
    name = shape.work_class
    kept = desk.floor_lanes(name, desk.lanes)
    fits = []
    for room, lanes in ((desk.stages[shape.stage], 0), (desk.host, kept)):
        fits.append(float(room.runs - lanes))
        for free, each in (
            (room.cpu, quote.cpu),
            (room.memory_gib, quote.memory_gib),
            (room.gpu, quote.gpu),
        ):
            if each:
                fits.append(free / each - _SLACK)
    if request.launch:
        fits.append(float(work_class.fan_out - desk.launches.get(request.launch, 0)))
    if name in desk.caps:
        fits.append(float(desk.caps[name][0] - desk.lanes[name]))
    unit = desk.policy.serving_reserve.money_per_item
    reserve = unit * max(0, desk.items_due - request.covers)
    for purse, amount in desk.bill(name, quote):
        if amount:
            fits.append(float(purse.free(name, reserve) // amount))
    return max(0, int(min(fits)))
