"""Does a plan fit what it is drawn with: the policy, the measured rates, the price card?

Belongs here: contradictions between the plan and another file, which would make every figure wrong
without a word. Does not: faults of the plan by itself (`plan`), of the policy (`admission.checks`).
"""

from __future__ import annotations

from collections.abc import Iterator

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan


def contradictions(plan: Plan, policy: Policy, rates: Rates, currency: str) -> Iterator[str]:
    """Each contradiction in one sentence, with its remedy; `currency` is the price card's."""
    for other, theirs in (("admission policy", policy.currency), ("price card", currency)):
        if theirs != plan.currency:
            yield (
                f"currency: the plan is in {plan.currency}, the {other} in {theirs};"
                " amounts are never converted: use one currency"
            )
    known = sorted({b.environment for b in policy.budgets.values() if b.environment})
    if known and plan.environment not in known:
        yield (
            f"environment: {plan.environment!r} has no budget in the admission policy, so nothing"
            f" could run short; use one of {', '.join(known)}"
        )
    unpriced = set()
    for work in plan.work.values():
        for stage in work.stages:
            for rung in work.rungs:
                try:
                    rates.of(stage, rung, plan.defaults)
                except LookupError as error:
                    unpriced.add(str(error.args[0]))
    yield from sorted(unpriced)
