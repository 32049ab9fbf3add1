"""Proposals of levers: opened by hand or by themselves, applied where the policy says so.

Belongs here: measuring, choosing and logging one proposal, and when one opens by itself. Does not:
the choice (`forecast_core.levers`), a decision's states (`forecast_core.levers.decisions`), or
watching costs (`resources.cost_watch`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import polars as pl

from forecast_core import levers
from forecast_core.cost.spend_forecast import Spend, forecast
from forecast_core.events import Event, Refusal
from forecast_core.levers.decisions import (
    Decision,
    in_force,
    policy_version,
    preapproved,
    proposal,
    trust,
)
from resources.cost_policy import CostPolicy
from resources.decision_store import DecisionStore


def propose(
    store: DecisionStore,
    policy: CostPolicy,
    base_version: str,
    backtests: pl.DataFrame,
    saving: float,
    reason: str,
    now: datetime,
) -> Decision | Refusal:
    """Open a proposal of the best set of levers that saves `saving`; pre-approved ones apply.

    A group takes one lever at a time: those with one in force are left out.

    Args:
        base_version: the version that the segment policy's file states.
        backtests: `levers.BACKTEST_COLUMNS`, money per period.

    Raises:
        ValueError: backtests that cannot be used, in `levers.measure`'s words.
    """
    decisions = store.all()
    pulled, trusts = in_force(decisions), trust(decisions)
    measured = levers.trusted(levers.measure(backtests), trusts)
    plan = levers.best([o for o in measured if o.group not in pulled], saving)
    if isinstance(plan, levers.Unreachable):
        held = f"; a lever is in force already for {', '.join(sorted(pulled))}" if pulled else ""
        return Refusal(plan.reason + held)
    if not plan.taken:
        return Refusal("nothing to save: no lever is needed")
    details = proposal(plan, reason)
    text = f"{now.isoformat()}{json.dumps(details, sort_keys=True)}"
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    found = store.append(Event(key, now, "proposed", details))
    if isinstance(found, Decision) and preapproved(plan.taken, policy.preapproved, trusts):
        found = store.append(Event(key, now, "approved", {"by": "policy"}))
        return put_in_force(store, base_version, key, "policy", now)
    return found


def put_in_force(
    store: DecisionStore, base_version: str, decision_id: str, by: str, now: datetime
) -> Decision | Refusal:
    """Apply an approved decision; the segment policy's effective version comes to include it."""
    decision = store.get(decision_id)
    if decision is None:
        return Refusal(f"there is no decision {decision_id}; `forecast levers list` shows them")
    version = effective_version(store, base_version, decision.options)
    details = {"by": by, "policy_version": version}
    return store.append(Event(decision_id, now, "applied", details))


def effective_version(
    store: DecisionStore, base_version: str, extra: Iterable[Mapping[str, Any]] = ()
) -> str:
    """Version of the segment policy under the levers in force, and those of `extra`."""
    overrides = in_force(store.all())
    for option in extra:
        overrides[str(option["group"])] = {"lever": option["lever"], "level": option["level"]}
    return policy_version(base_version, overrides)


def waiting(decisions: Iterable[Decision]) -> list[str]:
    """Decisions that nobody has settled: a second proposal beside them would save twice."""
    return [d.decision_id for d in decisions if d.state in ("proposed", "approved")]


def answered(decisions: Iterable[Decision], incident_id: str) -> bool:
    """Whether a proposal was already opened for the incident, whatever came of it."""
    return any(incident_id in d.reason for d in decisions)


def period_end(totals: Mapping[tuple[Any, ...], Any], today: date, last: date) -> Spend:
    """What the month will have cost by `last`.

    `totals`: (pipeline or None, day) -> money, as `Ledger.totals` gives them.
    """
    daily = pl.DataFrame(
        [(pipeline or "unattributed", day, float(v)) for (pipeline, day), v in totals.items()],
        schema={"pipeline": pl.String, "day": pl.Date, "cost": pl.Float64},
        orient="row",
    )
    return forecast(daily, today, today.replace(day=1), last)
