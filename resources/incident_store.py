"""Incidents at rest: an append-only table of events, in SQLite or Postgres.

Belongs here: writing and reading events, with the database itself refusing to change them. Does
not: which event is allowed (`forecast_core.incidents`) or what opens an incident.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

import polars as pl
import sqlalchemy as sa

from forecast_core.incidents import (
    Action,
    Event,
    Incident,
    Refusal,
    apply,
    incident_id,
    owner_of,
    replay,
)

_METADATA = sa.MetaData()
_EVENTS = sa.Table(
    "incident_events",
    _METADATA,
    sa.Column("incident_id", sa.Text, primary_key=True),
    # Two writers that saw the same history cannot both append to it.
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
)
_REFUSAL = "incident events are append-only"
_GUARDS = {
    "sqlite": [
        f"CREATE TRIGGER IF NOT EXISTS incident_events_no_{verb} BEFORE {verb} ON incident_events "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        for verb in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION incident_events_refuse() RETURNS trigger AS $$ BEGIN "
        f"RAISE EXCEPTION '{_REFUSAL}'; END $$ LANGUAGE plpgsql",
        "CREATE OR REPLACE TRIGGER incident_events_guard BEFORE UPDATE OR DELETE "
        "ON incident_events FOR EACH ROW EXECUTE FUNCTION incident_events_refuse()",
    ],
}
_TRIES = 5


class IncidentStore:
    """Incidents by id. `url`: an SQLAlchemy URL; the table is made where it is missing."""

    def __init__(self, url: str) -> None:
        connect = {"timeout": 30} if url.startswith("sqlite") else {}
        self._engine = sa.create_engine(url, connect_args=connect)
        _METADATA.create_all(self._engine)
        with self._engine.begin() as connection:
            for statement in _GUARDS.get(self._engine.dialect.name, []):
                connection.exec_driver_sql(statement)

    def get(self, incident_id: str) -> Incident | None:
        """One incident with its history, or None."""
        with self._engine.connect() as connection:
            events = self._events(connection, incident_id)
        return replay(events) if events else None

    def all(self, *, active_only: bool = False) -> list[Incident]:
        """Every incident, oldest first."""
        order = sa.select(_EVENTS).order_by(_EVENTS.c.incident_id, _EVENTS.c.position)
        with self._engine.connect() as connection:
            events = [_event(row) for row in connection.execute(order)]
        found = [replay(own) for _, own in groupby(events, key=lambda e: e.incident_id)]
        kept = [i for i in found if i.active or not active_only]
        return sorted(kept, key=lambda i: (i.opened_at, i.incident_id))

    def append(self, event: Event) -> Incident | Refusal:
        """Apply and store one event; a refusal stores nothing."""
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    events = self._events(connection, event.incident_id)
                    result = apply(replay(events) if events else None, event)
                    if not isinstance(result, Refusal):
                        connection.execute(sa.insert(_EVENTS).values(**_row(event, len(events))))
                return result
            except sa.exc.IntegrityError:
                continue  # another writer was first: look at what it wrote
        return Refusal(f"incident {event.incident_id} is being written by too many at once")

    def record(self, found: pl.DataFrame, owners: dict[str, str], at: datetime) -> list[Incident]:
        """Open what `regressions.detect` found and is not here yet; a new kind reclassifies.

        Returns the incidents that are new. Running it twice on one ledger changes nothing.
        """
        new = []
        for row in found.iter_rows(named=True):
            key = incident_id(row["series"], _day(row["detected"]))
            known = self.get(key)
            if known is None:
                details = {k: str(row[k]) for k in ("kind", "series", "start", "detected")}
                details |= {
                    "severity": row["severity"],
                    "owner": owner_of(row["x_pipeline"], owners),
                    "evidence": json.loads(row["evidence"]),
                }
                opened = self.append(Event(key, at, "opened", details))
                if isinstance(opened, Incident):
                    new.append(opened)
            elif known.state in ("open", "acknowledged") and known.kind != row["kind"]:
                self.append(Event(key, at, "reclassified", {"kind": row["kind"]}))
        return new

    @staticmethod
    def _events(connection: sa.Connection, incident_id: str) -> list[Event]:
        own = sa.select(_EVENTS).where(_EVENTS.c.incident_id == incident_id)
        return [_event(row) for row in connection.execute(own.order_by(_EVENTS.c.position))]


def _day(value: Any) -> date:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _row(event: Event, position: int) -> dict[str, Any]:
    return {
        "incident_id": event.incident_id,
        "position": position,
        "at": event.at.astimezone(UTC).isoformat(),
        "action": event.action,
        "details": json.dumps(dict(event.details), default=str, sort_keys=True),
    }


def _event(row: sa.Row[Any]) -> Event:
    action: Action = row.action
    return Event(row.incident_id, datetime.fromisoformat(row.at), action, json.loads(row.details))
