"""Capacity plans at rest: every version, outcome and review, written once and never changed.

Belongs here: versions by plan name, what was drawn from them, reviews with their sign-off. Does
not: the table (`event_log`), what a plan means (`forecast_core.capacity`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from forecast_core.capacity.plan import Plan
from forecast_core.events import Event
from resources.event_log import EventLog

PLAN, OUTCOME, STRESS, REVIEW, SIGNED = "plan", "outcome", "stress", "review", "signed"


@dataclass(frozen=True)
class Version:
    """One version of a plan, numbered from 1; `text` is its canonical JSON."""

    number: int
    at: datetime
    hash: str
    text: str


class PlanStore:
    """Plans behind an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self._log = EventLog(url, "capacity_events")

    def put(self, plan: Plan) -> Version:
        """Keep a plan; the version that it already is, where nothing changed since the last."""

        def judge(history: list[Event]) -> tuple[Version, bool]:
            known = [entry for entry in history if entry.action == PLAN]
            if known and known[-1].details["hash"] == plan.hash:
                return _version(len(known), known[-1]), False
            return _version(len(known) + 1, entry), True

        details = {"hash": plan.hash, "text": plan.text, "owner": plan.owner}
        entry = Event(plan.name, datetime.now(UTC), PLAN, details)
        return self._log.append(entry, judge)

    def versions(self, name: str) -> list[Version]:
        """Every version of a plan, oldest first."""
        known = [entry for entry in self._log.of(name) if entry.action == PLAN]
        return [_version(index + 1, entry) for index, entry in enumerate(known)]

    def note(self, name: str, action: str, details: Mapping[str, Any]) -> None:
        """Append what came of a plan: an outcome, a review or its sign-off."""
        entry = Event(name, datetime.now(UTC), action, details)
        self._log.append(entry, lambda _history: (None, True))

    def notes(self, name: str, action: str) -> list[Event]:
        """What was noted of a plan under that action, oldest first."""
        return [entry for entry in self._log.of(name) if entry.action == action]


def _version(number: int, entry: Event) -> Version:
    return Version(number, entry.at, str(entry.details["hash"]), str(entry.details["text"]))
