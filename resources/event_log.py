"""An append-only log of events by subject, in SQLite or Postgres; the database refuses changes.

Belongs here: the table, its guard, the two statements on it, and the records that its events add
up to. Does not: what an event means (`forecast_core.incidents`, `forecast_core.levers.decisions`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from forecast_core.events import Apply, Event, Refusal, fold

_TRIES = 5
T = TypeVar("T")
Record = TypeVar("Record")


class EventLog:
    """Events in table `name` behind an SQLAlchemy `url`; the table is made where it is missing."""

    def __init__(self, url: str, name: str) -> None:
        self._engine = sa.create_engine(
            url, connect_args={"timeout": 30} if url.startswith("sqlite") else {}
        )
        self._table = events_table(name)
        self._table.metadata.create_all(self._engine)
        with self._engine.begin() as connection:
            for statement in _guards(connection, self._table):
                connection.exec_driver_sql(statement)

    def of(self, subject: str) -> list[Event]:
        """The events of one subject, oldest first."""
        with self._engine.connect() as connection:
            return self._read(connection, subject)

    def subjects(self) -> dict[str, list[Event]]:
        """Every subject's events, oldest first."""
        order = sa.select(self._table).order_by(self._table.c.subject, self._table.c.position)
        with self._engine.connect() as connection:
            events = [_event(row) for row in connection.execute(order)]
        return {key: list(own) for key, own in groupby(events, key=lambda e: e.subject)}

    def append(self, event: Event, judge: Callable[[list[Event]], tuple[T, bool]]) -> T:
        """Append the event if `judge(history)` says so; returns what it says.

        A writer that was overtaken looks at the new history and judges again.

        Raises:
            RuntimeError: too many writers at once on one subject.
        """
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    history = self._read(connection, event.subject)
                    answer, allowed = judge(history)
                    if allowed:
                        row = _row(event, len(history))
                        connection.execute(sa.insert(self._table).values(**row))
                return answer
            except sa.exc.IntegrityError:
                continue
        raise RuntimeError(f"{self._table.name}: too many writers at once on {event.subject}")

    def _read(self, connection: sa.Connection, subject: str) -> list[Event]:
        own = sa.select(self._table).where(self._table.c.subject == subject)
        return [_event(row) for row in connection.execute(own.order_by(self._table.c.position))]


class Histories(Generic[Record]):
    """Records behind an SQLAlchemy `url`, each the sum of its events in table `name`.

    `apply` says which event may follow which.
    """

    def __init__(self, url: str, name: str, apply: Apply[Record]) -> None:
        self._log, self._apply = EventLog(url, name), apply

    def get(self, key: str) -> Record | None:
        """One record, or None."""
        events = self._log.of(key)
        return fold(events, self._apply) if events else None

    def append(self, event: Event) -> Record | Refusal:
        """Apply and store one event; a refusal stores nothing."""

        def judge(history: list[Event]) -> tuple[Record | Refusal, bool]:
            result = self._apply(fold(history, self._apply) if history else None, event)
            return result, not isinstance(result, Refusal)

        return self._log.append(event, judge)

    def _every(self) -> list[Record]:
        return [fold(events, self._apply) for events in self._log.subjects().values()]


def events_table(name: str) -> sa.Table:
    """The table of a log, whether or not the database has it."""
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("subject", sa.Text, primary_key=True),
        # Two writers that saw the same history cannot both append to it.
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
    )


def _guards(connection: sa.Connection, table: sa.Table) -> list[str]:
    quote = connection.dialect.identifier_preparer.quote
    name = quote(table.name)
    if connection.dialect.name == "sqlite":
        return [
            f"CREATE TRIGGER IF NOT EXISTS {quote(f'{table.name}_no_{verb}')} "
            f"BEFORE {verb} ON {name} BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
            for verb in ("update", "delete")
        ]
    guard = quote(f"{table.name}_append_only")
    return [
        f"CREATE OR REPLACE FUNCTION {guard}() RETURNS trigger AS $$ BEGIN "
        "RAISE EXCEPTION 'events are append-only'; END $$ LANGUAGE plpgsql",
        f"CREATE OR REPLACE TRIGGER {guard} BEFORE UPDATE OR DELETE ON {name} "
        f"FOR EACH ROW EXECUTE FUNCTION {guard}()",
    ]


def _row(event: Event, position: int) -> dict[str, Any]:
    return {
        "subject": event.subject,
        "position": position,
        "at": event.at.astimezone(UTC).isoformat(),
        "action": event.action,
        "details": json.dumps(dict(event.details), default=str, sort_keys=True),
    }


def _event(row: sa.Row[Any]) -> Event:
    return Event(row.subject, datetime.fromisoformat(row.at), row.action, json.loads(row.details))
