"""An append-only log of events by subject, in SQLite or Postgres; the database refuses changes.

Belongs here: the table, its guard and the two statements on it. Does not: what an event means
(`incident_store`, `decision_store`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeVar

import sqlalchemy as sa

_TRIES = 5
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One event of a subject: when, what, and its details (JSON values)."""

    subject: str
    at: datetime
    action: str
    details: Mapping[str, Any]


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

    def of(self, subject: str) -> list[Entry]:
        """The events of one subject, oldest first."""
        with self._engine.connect() as connection:
            return self._read(connection, subject)

    def subjects(self) -> dict[str, list[Entry]]:
        """Every subject's events, oldest first."""
        order = sa.select(self._table).order_by(self._table.c.subject, self._table.c.position)
        with self._engine.connect() as connection:
            entries = [_entry(row) for row in connection.execute(order)]
        return {key: list(own) for key, own in groupby(entries, key=lambda e: e.subject)}

    def append(self, entry: Entry, judge: Callable[[list[Entry]], tuple[T, bool]]) -> T:
        """Append the event if `judge(history)` says so; returns what it says.

        A writer that was overtaken looks at the new history and judges again.

        Raises:
            RuntimeError: too many writers at once on one subject.
        """
        for _ in range(_TRIES):
            try:
                with self._engine.begin() as connection:
                    history = self._read(connection, entry.subject)
                    answer, allowed = judge(history)
                    if allowed:
                        row = _row(entry, len(history))
                        connection.execute(sa.insert(self._table).values(**row))
                return answer
            except sa.exc.IntegrityError:
                continue
        raise RuntimeError(f"{self._table.name}: too many writers at once on {entry.subject}")

    def _read(self, connection: sa.Connection, subject: str) -> list[Entry]:
        own = sa.select(self._table).where(self._table.c.subject == subject)
        return [_entry(row) for row in connection.execute(own.order_by(self._table.c.position))]


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


def _row(entry: Entry, position: int) -> dict[str, Any]:
    return {
        "subject": entry.subject,
        "position": position,
        "at": entry.at.astimezone(UTC).isoformat(),
        "action": entry.action,
        "details": json.dumps(dict(entry.details), default=str, sort_keys=True),
    }


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(row.subject, datetime.fromisoformat(row.at), row.action, json.loads(row.details))
