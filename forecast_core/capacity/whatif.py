"""What if: a lever pulled, a policy or quota changed, as a delta in money, minutes, accuracy, risk.

Belongs here: turning a lever into a changed plan, a delta of two outcomes, and the gate's verdict.
Does not: measuring levers (`forecast_core.levers`), running draws (`resources.capacity_draws`).

Both sides are drawn with the same seeds, so their difference is the change and not the luck.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forecast_core.capacity.outcomes import Outcome
from forecast_core.capacity.plan import Plan


@dataclass(frozen=True)
class Delta:
    """The change from one outcome to another. Money in currency units and percent; minutes of the
    p95 delay by class; accuracy as percent of skill kept; risks as shares."""

    money: float
    money_pct: float
    minutes: Mapping[str, float]
    accuracy_kept: float
    error_pct: float
    risk_deadline: float
    risk_budget: float
    breaks: tuple[str, ...]


@dataclass(frozen=True)
class Bounds:
    """What a change may do at most: money in percent, risks as shares of the draws."""

    money_pct: float = 5.0
    risk_deadline: float = 0.01
    risk_budget: float = 0.05
    accuracy_pct: float = 1.0


def pulled(plan: Plan, lever: str) -> Plan:
    """The plan with a lever pulled.

    Raises:
        LookupError: the plan knows no such lever; the message lists those it knows.
    """
    if lever not in plan.levers:
        raise LookupError(f"no lever {lever!r} in the plan; there are {', '.join(plan.levers)}")
    effect = plan.levers[lever]
    content: dict[str, Any] = json.loads(plan.text)
    for name, factor in effect.volume.items():
        work = content["work"][name]
        work["volume"] = work.get("volume", 1.0) * factor
    for name in effect.drop_rung:
        rungs = content["work"][name].get("rungs", ["asked"])
        content["work"][name]["rungs"] = rungs[1:] or rungs
    days = content["assumptions"]["retrain_days"]
    for key in ("low", "mid", "high"):
        days[key] = min(365.0, days[key] * effect.retrain)
    return Plan.parse(content).believing(plan.accuracy, plan.levers)


def delta(before: Outcome, after: Outcome, error: float = 0.0) -> Delta:
    """What changes from `before` to `after`; `error`: by what share the error rises besides."""
    money = after.total.mid - before.total.mid
    classes = before.delay_p95_min.keys() & after.delay_p95_min.keys()
    known = {name for _, name, _ in before.breaks}
    return Delta(
        money=money,
        money_pct=100 * money / before.total.mid if before.total.mid else 0.0,
        minutes={
            name: after.delay_p95_min[name].mid - before.delay_p95_min[name].mid
            for name in sorted(classes)
        },
        accuracy_kept=after.kept.mid - before.kept.mid,
        error_pct=100 * error,
        risk_deadline=before.p_every_item_always - after.p_every_item_always,
        risk_budget=after.p_over_budget - before.p_over_budget,
        breaks=tuple(f"{m} {name}" for m, name, _ in after.breaks if name not in known),
    )


def verdict(before: Outcome, after: Outcome, bounds: Bounds) -> list[str]:
    """Why a change must not go in; empty when it may."""
    change = delta(before, after)
    missed = 1 - after.p_every_item_always
    faults = []
    if change.money_pct > bounds.money_pct:
        faults.append(
            f"cost rises by {change.money_pct:.1f} %, {bounds.money_pct:g} % is the bound"
        )
    if missed > bounds.risk_deadline:
        faults.append(
            f"an item misses its forecast in {100 * missed:.1f} % of the futures,"
            f" {100 * bounds.risk_deadline:g} % is the bound"
        )
    if after.p_over_budget > bounds.risk_budget:
        first = next((f"{n} in {m}" for m, n, _ in after.breaks if n.startswith("budget")), "")
        faults.append(
            f"a budget runs short in {100 * after.p_over_budget:.1f} % of the futures"
            f" (first {first}), {100 * bounds.risk_budget:g} % is the bound"
        )
    if -change.accuracy_kept > bounds.accuracy_pct:
        faults.append(
            f"the skill kept falls by {-change.accuracy_kept:.1f} points,"
            f" {bounds.accuracy_pct:g} is the bound"
        )
    if after.rejected.keys() - before.rejected.keys():
        new = sorted(after.rejected.keys() - before.rejected.keys())[0]
        faults.append(f"work is rejected that was not before: {new}")
    return faults
