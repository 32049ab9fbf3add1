"""Incidents at rest: an append-only log of their events.

Belongs here: opening, changing and listing incidents. Does not: which event is allowed
(`forecast_core.incidents`), the table (`event_log`) or what finds a regression.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import polars as pl

from forecast_core.events import Event
from forecast_core.incidents import Incident, apply, incident_id, owner_of
from resources.event_log import Histories


class IncidentStore(Histories[Incident]):
    """Incidents by id, behind an SQLAlchemy URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "incident_events", apply)

    def all(self, *, active_only: bool = False) -> list[Incident]:
        """Every incident, oldest first."""
        kept = [i for i in self._every() if i.active or not active_only]
        return sorted(kept, key=lambda i: (i.opened_at, i.incident_id))

    def record(
        self, found: pl.DataFrame, owners: Mapping[str, str], at: datetime, since: date
    ) -> list[Incident]:
        """Open what `regressions.detect` found and is not here yet; a new kind reclassifies.

        `since`: first day of the ledger that was looked at. An incident from then on that it no
        longer supports is withdrawn, as long as nobody has acknowledged it.
        Returns the new ones. Running it twice on one ledger changes nothing.
        """
        new, seen = [], set()
        for row in found.iter_rows(named=True):
            key = incident_id(row["series"], _day(row["detected"]))
            seen.add(key)
            known = self.get(key)
            if known is None:
                opened = self.append(Event(key, at, "opened", _details(row, owners)))
                if isinstance(opened, Incident):
                    new.append(opened)
            elif known.state in ("open", "acknowledged") and known.kind != row["kind"]:
                self.append(Event(key, at, "reclassified", {"kind": row["kind"]}))
        for incident in self.all(active_only=True):
            unsupported = incident.incident_id not in seen and _day(incident.detected) >= since
            if incident.state == "open" and unsupported:
                reason = "a later look at the ledger explains it or no longer shows it"
                self.append(Event(incident.incident_id, at, "withdrawn", {"reason": reason}))
        return new


def _details(row: Mapping[str, Any], owners: Mapping[str, str]) -> dict[str, Any]:
    return {
        **{k: str(row[k]) for k in ("kind", "series", "start", "detected", "severity")},
        "owner": owner_of(row["x_pipeline"], owners),
        "evidence": json.loads(row["evidence"]),
    }


def _day(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value
