"""A run that has used up its hold: may it hold more, or must it stop?

Belongs here: asking `decide` again for a run at work. Does not: measuring what it has cost, or
stopping it (`resources.gate`).

A hold is a bound at 95 %, so one run in twenty passes it. Where every budget still has room the
hold grows and the run goes on; where none has, it stops, and the budget stands.
"""

from __future__ import annotations

from dataclasses import replace

from forecast_core.admission import Decision, Override, Quote, Snapshot, decide
from forecast_core.admission.policy import Policy

STEPS = ((2, 1), (11, 10))  # twice what it has cost; where that does not fit, a tenth more


def asked_again(snapshot: Snapshot, run_id: str, spent: int) -> list[tuple[Quote, Snapshot]]:
    """The larger holds to try, largest first, each with the snapshot that asks for it.

    Args:
        snapshot: with the run among `running`.
        spent: what the run has cost so far, nanos.

    Raises:
        LookupError: the run holds nothing.
    """
    own = next((h for h in snapshot.running if h.request.id == run_id), None)
    if own is None:
        raise LookupError(f"run {run_id} holds nothing")
    others = tuple(h for h in snapshot.running if h is not own)
    # It has its room and its hour already: only money is asked about.
    let_be = Override("release", run_id, "admission", "it is at work", snapshot.now + 1)
    tries = []
    for times, per in STEPS:
        quote = scaled(own.quote, spent * times // per)
        shape = replace(own.request.shape, quotes=(quote,), problem=None)
        request = own.request._replace(shape=shape, submitted=snapshot.now, launch="")
        again = replace(
            snapshot,
            waiting=(request,),
            running=others,
            items_due=snapshot.items_due + own.request.covers,
            overrides=(*snapshot.overrides, let_be),
        )
        tries.append((quote, again))
    return tries


def may_hold(snapshot: Snapshot, policy: Policy, quote: Quote) -> Decision:
    """The verdict on one try of `asked_again`; a class's cap on money holds for growth too."""
    decision = decide(snapshot, policy)[0]
    work_class = policy.classes[snapshot.waiting[0].shape.work_class]
    limits = work_class.environments.get(snapshot.environment)
    if limits and limits.max_money is not None and quote.money > limits.max_money:
        return decision._replace(action="hold", code="restricted", money=0)
    return decision


def scaled(quote: Quote, money: int) -> Quote:
    """The quote at another sum, its charges in the same proportions and exact in total."""
    whole = quote.money or 1
    charges = [(name, amount * money // whole) for name, amount in quote.charges]
    over = money - sum(amount for _, amount in charges)
    first, *rest = charges or [("", 0)]
    return replace(quote, charges=((first[0], first[1] + over), *rest))
