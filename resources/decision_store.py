"""The decision log of the levers at rest.

Belongs here: proposing, changing and listing decisions. Does not: which event is allowed
(`forecast_core.levers.decisions`), the table (`event_log`) or choosing levers.
"""

from __future__ import annotations

from typing import cast

from forecast_core.levers.decisions import Action, Decision, Event, Refusal, apply, replay
from resources.event_log import Entry, EventLog


class DecisionStore:
    """Decisions by id, behind an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        self._log = EventLog(url, "lever_events")

    def get(self, decision_id: str) -> Decision | None:
        """One decision with its history, or None."""
        entries = self._log.of(decision_id)
        return replay(map(_event, entries)) if entries else None

    def all(self) -> list[Decision]:
        """Every decision, in the order they were proposed."""
        found = [replay(map(_event, own)) for own in self._log.subjects().values()]
        return sorted(found, key=lambda d: (d.history[0].at, d.decision_id))

    def append(self, event: Event) -> Decision | Refusal:
        """Apply and store one event; a refusal stores nothing."""

        def judge(history: list[Entry]) -> tuple[Decision | Refusal, bool]:
            current = replay(map(_event, history)) if history else None
            result = apply(current, event)
            return result, isinstance(result, Decision)

        entry = Entry(event.decision_id, event.at, event.action, event.details)
        return self._log.append(entry, judge)


def _event(entry: Entry) -> Event:
    return Event(entry.subject, entry.at, cast(Action, entry.action), entry.details)
