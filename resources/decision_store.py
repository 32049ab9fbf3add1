"""The decision log of the levers at rest.

Belongs here: listing decisions in their order. Does not: which event is allowed
(`forecast_core.levers.decisions`), the table (`event_log`) or choosing levers.
"""

from __future__ import annotations

from forecast_core.levers.decisions import Decision, apply
from resources.event_log import Histories


class DecisionStore(Histories[Decision]):
    """Decisions by id, behind an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "lever_events", apply)

    def all(self) -> list[Decision]:
        """Every decision, in the order they were proposed."""
        return sorted(self._every(), key=lambda d: (d.history[0].at, d.decision_id))
