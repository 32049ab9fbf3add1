"""The life of a lever: proposed, approved, applied, then reviewed or reverted.

Belongs here: the value objects of a decision, which event may follow which, when a proposal opens
by itself, and the policy's effective version. Does not: choosing levers (`levers`), storing
(`resources.decision_store`) or the clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from forecast_core.events import Event, Refusal, fold, unsaid
from forecast_core.levers import Option, Plan, Trust

State = Literal["proposed", "approved", "rejected", "applied", "reviewed", "reverted"]

_AFTER: Mapping[State, tuple[State, ...]] = {
    "proposed": ("approved", "rejected"),
    "approved": ("applied", "rejected"),
    "rejected": (),
    "applied": ("reviewed", "reverted"),
    "reviewed": ("reverted",),
    "reverted": (),
}
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "proposed": ("reason", "options"),
    "approved": ("by",),
    "rejected": ("by", "reason"),
    "applied": ("by", "policy_version"),
    "reviewed": ("by", "saving_realised", "loss_realised"),
    "reverted": ("by", "reason"),
}


@dataclass(frozen=True)
class Decision:
    """What the events add up to. `options`: group, lever, level, saving and loss expected."""

    decision_id: str
    reason: str
    options: tuple[Mapping[str, Any], ...]
    state: State = "proposed"
    policy_version: str | None = None
    saving_realised: float | None = None
    loss_realised: float | None = None
    history: tuple[Event, ...] = ()

    @property
    def saving_expected(self) -> float:
        """Money per period."""
        return float(sum(o["saving"] for o in self.options))

    @property
    def loss_expected(self) -> float:
        """Value-weighted error, in the currency of the value."""
        return float(sum(o["loss"] for o in self.options))


def proposal(plan: Plan, reason: str) -> dict[str, Any]:
    """The details of a `proposed` event for a plan."""
    return {
        "reason": reason,
        "shadow_price": plan.shadow_price,
        "options": [
            {
                "group": o.group,
                "lever": o.lever,
                "level": o.level,
                "saving": o.saving,
                "saving_interval": [o.saving_low, o.saving_high],
                "loss": o.loss,
                "loss_interval": [o.loss_low, o.loss_high],
            }
            for o in plan.taken
        ],
    }


def apply(decision: Decision | None, event: Event) -> Decision | Refusal:
    """The decision after the event, or why it may not happen."""
    if refused := unsaid("a decision", event, REQUIRED):
        return refused
    given = event.details
    if decision is None:
        if event.action != "proposed":
            return Refusal(f"there is no decision {event.subject}")
        options = tuple(given["options"])
        return Decision(event.subject, str(given["reason"]), options, history=(event,))
    state = next((state for state in _AFTER[decision.state] if state == event.action), None)
    if state is None:
        allowed = " or ".join(_AFTER[decision.state]) or "nothing more"
        return Refusal(f"a decision that is {decision.state} can be {allowed}")
    known = ("policy_version", "saving_realised", "loss_realised")
    said = {k: given[k] for k in known if k in given}
    return replace(decision, state=state, history=(*decision.history, event), **said)


def replay(events: Iterable[Event]) -> Decision:
    """The decision that stored events add up to; raises as `events.fold` does."""
    return fold(events, apply)


def trust(decisions: Iterable[Decision]) -> dict[str, Trust]:
    """How far each lever's promises have held, over all reviewed decisions.

    A decision's realised figures are split over its levers as they were predicted.
    """
    found: dict[str, Trust] = {}
    for d in decisions:
        if d.saving_realised is None or d.loss_realised is None:
            continue
        kept = d.saving_realised / d.saving_expected if d.saving_expected else 1.0
        lost = d.loss_realised / d.loss_expected if d.loss_expected > 0 else 1.0
        for lever in sorted({str(o["lever"]) for o in d.options}):
            found[lever] = found.get(lever, Trust()).reviewed(kept, lost)
    return found


def in_force(decisions: Iterable[Decision]) -> dict[str, dict[str, Any]]:
    """The levers in force by group; of two for one group, the one that was applied later."""
    held = [d for d in decisions if d.state in ("applied", "reviewed")]
    return {
        str(o["group"]): {"lever": o["lever"], "level": o["level"]}
        for d in sorted(held, key=_applied_at)
        for o in d.options
    }


def _applied_at(decision: Decision) -> datetime:
    return next(e.at for e in reversed(decision.history) if e.action == "applied")


def policy_version(base: str, overrides: Mapping[str, Mapping[str, Any]]) -> str:
    """Effective version of a policy under the levers in force: its own where there are none."""
    if not overrides:
        return base
    text = base + "\n" + json.dumps(overrides, sort_keys=True)
    return f"{base}+{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def preapproved(
    options: Iterable[Option], most: Mapping[str, int], trust: Mapping[str, Trust]
) -> bool:
    """Whether every option may apply itself: its level is allowed, and its lever kept its word.

    `most`: lever -> highest level that the policy allows. A lever that reviews have shown to save
    clearly less or to cost clearly more than promised asks a person again.
    """
    return all(
        o.level <= most.get(o.lever, 0) and trust.get(o.lever, Trust()).good for o in options
    )


def why_propose(
    active_cost_incidents: Iterable[str], expected: float, low: float, budget: float | None
) -> str | None:
    """Why a proposal opens by itself, or None: an open cost incident, or a period heading over."""
    incidents = sorted(active_cost_incidents)
    if incidents:
        return f"open cost incident {', '.join(incidents)}"
    if budget is not None and expected > budget:
        sure = "surely" if low > budget else "probably"
        return f"the period will {sure} end over budget: {expected:.2f} of {budget:.2f}"
    return None
