"""The ledger: charges and settlements, written once and never changed.

Belongs here: opening the store, recording a settlement with its charges, reading them back. Does
not: pricing (`forecast_core.cost.charges`), measuring (`meter`), settling the dead
(`ledger_reconcile`), rating again (`forecast_core.cost.rerate`), or the tables themselves
(`ledger_tables`).

Exactly once: a settlement's key is (run, step, attempt, part), it is inserted together with its
charges in one transaction, and an insert that finds the key taken writes nothing. Whoever comes
second, the meter or the reconciler, is told so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from forecast_core.cost.focus import CHARGE_COLUMNS, STEP_COLUMNS
from resources.ledger_tables import (
    SCHEMA_VERSION,
    ExactSum,
    charges,
    cursors,
    exact_sum,
    guards,
    metadata,
    missing_columns,
    settlements,
    version,
)

LOCK_TIMEOUT_S = 30.0
_SCHEMA_LOCK = 0x666F7265  # advisory lock that serializes schema creation in Postgres

Row = Mapping[str, Any]


class LedgerError(RuntimeError):
    """The ledger cannot be used; the message names it, the cause and the remedy."""


class LedgerVersionError(LedgerError):
    """The ledger was written by a newer version of this project."""


class LedgerLocked(LedgerError):
    """Another process held the ledger for longer than the timeout. Nothing was written."""


class Ledger:
    """A ledger in SQLite or Postgres. Safe for any number of processes at once."""

    def __init__(self, url: str, *, timeout_s: float = LOCK_TIMEOUT_S) -> None:
        """Open `url` (SQLAlchemy), creating it where it is missing.

        Raises:
            LedgerVersionError: written by a newer version.
            LedgerError: cannot be opened.
        """
        self.url = sa.make_url(url)
        self._timeout_s = timeout_s
        try:
            self._engine = _engine(self.url, timeout_s)
            self._prepare()
        except DBAPIError as error:
            raise self._explained(error) from error

    @property
    def name(self) -> str:
        """The ledger as shown in messages, without a password."""
        return self.url.render_as_string(hide_password=True)

    @property
    def engine(self) -> sa.Engine:
        """The connections, for other books that are kept in the same database."""
        return self._engine

    def record(
        self, settlement: Row, rows: Sequence[Row], cursor: tuple[str, str] | None = None
    ) -> bool:
        """Write a settlement with its charges, unless its attempt is settled already.

        Returns whether anything was written: False when the key is taken or the attempt is closed.
        `cursor`: a name and a value that it moves to, together with what is written.

        Raises:
            LedgerLocked: another writer held the ledger too long; nothing was written.
        """
        now = {"recorded_at": datetime.now(UTC)}
        with self._write() as connection:
            written = self._record(connection, settlement, rows, now)
            if written and cursor is not None:
                _move(connection, *cursor)
            return written

    def record_all(self, batch: Sequence[tuple[Row, Sequence[Row]]]) -> list[bool]:
        """`record` for each, in the order given, in one transaction."""
        now = {"recorded_at": datetime.now(UTC)}
        with self._write() as connection:
            return [self._record(connection, *pair, now) for pair in batch]

    def _record(
        self, connection: sa.Connection, settlement: Row, rows: Sequence[Row], now: Row
    ) -> bool:
        if self._closed(connection, settlement):
            return False
        if not _inserted(connection, settlements, {**settlement, **now}):
            return False
        if rows:
            connection.execute(sa.insert(charges), [{**row, **now} for row in rows])
        return True

    def _closed(self, connection: sa.Connection, settlement: Row) -> bool:
        # Overhead and idle are no attempts, nor is what a process does outside any run.
        if settlement["x_step_key"] is None or settlement["x_run_id"] is None:
            return False
        attempt = [settlements.c[k] == settlement[k] for k in ("x_run_id", "x_step_key")]
        query = sa.select(sa.literal(1)).where(
            *attempt,
            settlements.c.x_attempt == settlement["x_attempt"],
            settlements.c.x_final.is_(True),
        )
        return connection.execute(query.limit(1)).first() is not None

    def append(self, rows: Sequence[Row]) -> int:
        """Write charges that belong to no new settlement; returns how many were not there yet."""
        now = {"recorded_at": datetime.now(UTC)}
        with self._write() as connection:
            return sum(_inserted(connection, charges, {**row, **now}) for row in rows)

    def correct(self, pairs: Sequence[tuple[Row, Row]]) -> int:
        """Write corrections (what takes a charge back, what charges it anew), all or none.

        A charge is taken back once: where another process was first, its new charge stands and
        ours is left out. Returns how many were written.
        """
        now = {"recorded_at": datetime.now(UTC)}
        written = 0
        with self._write() as connection:
            for back, anew in pairs:
                if _inserted(connection, charges, {**back, **now}):
                    connection.execute(sa.insert(charges), {**anew, **now})
                    written += 1
        return written

    def charges(
        self, *, first: date | None = None, last: date | None = None, run_id: str | None = None
    ) -> pl.DataFrame:
        """Charges whose period starts on the UTC days `first`..`last`: `CHARGE_COLUMNS`."""
        where = self._where(charges, first, last, run_id)
        return self._frame(charges, CHARGE_COLUMNS, where, ("ChargePeriodStart", "x_charge_id"))

    def settlements(
        self, *, first: date | None = None, last: date | None = None, run_id: str | None = None
    ) -> pl.DataFrame:
        """Settlements of those days: `STEP_COLUMNS`."""
        where = self._where(settlements, first, last, run_id)
        order = ("ChargePeriodStart", "x_charge_set")
        return self._frame(settlements, STEP_COLUMNS, where, order)

    def item_stores(self, *, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """How many item-stores each asset of a run served (`x_run_id`, `x_asset`, `x_series`),
        where its charges of those days name the stores; what names none is left out."""
        place = (charges.c.x_run_id, charges.c.x_asset, charges.c.x_store_id)
        key = (*place, charges.c.x_segment_group)
        query = sa.select(*key, sa.func.max(charges.c.x_series).label("x_series")).where(
            *self._where(charges, first, last, None), *(column.is_not(None) for column in place)
        )
        with self._read() as connection:
            rows = connection.execute(query.group_by(*key)).all()
        names = ("x_run_id", "x_asset", "x_store_id", "x_segment_group", "x_series")
        schema = dict.fromkeys(names[:4], pl.String) | {"x_series": pl.Int64}
        found = pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
        return found.group_by("x_run_id", "x_asset").agg(pl.col("x_series").sum())

    def totals(
        self, by: Sequence[str] = (), *, first: date | None = None, last: date | None = None
    ) -> dict[tuple[Any, ...], Decimal]:
        """Money by the columns `by`, summed exactly by the database; `()` alone is the total."""
        unknown = [name for name in by if name not in CHARGE_COLUMNS]
        if unknown:
            raise ValueError(f"no column {unknown[0]!r} in a charge; use {list(CHARGE_COLUMNS)}")
        keys = [charges.c[name] for name in by]
        query = sa.select(*keys, exact_sum(charges.c.BilledCost)).where(
            *self._where(charges, first, last, None)
        )
        with self._read() as connection:
            rows = connection.execute(query.group_by(*keys) if keys else query).all()
        return {tuple(row[:-1]): row[-1] or Decimal(0) for row in rows}

    def days(self) -> dict[date, tuple[int, int]]:
        """Number of charges and of settlements by UTC day: what an export compares with."""
        of_charges, of_settlements = (self._count_by_day(t) for t in (charges, settlements))
        return {
            day: (of_charges.get(day, 0), of_settlements.get(day, 0))
            for day in sorted({*of_charges, *of_settlements})
        }

    def _count_by_day(self, table: sa.Table) -> dict[date, int]:
        with self._read() as connection:
            counted = sa.select(table.c.date, sa.func.count()).group_by(table.c.date)
            return {row[0]: row[1] for row in connection.execute(counted)}

    def parts(self, run_id: str) -> dict[tuple[str, int], list[Row]]:
        """Settlements of a run by (step key, attempt), parts in order."""
        query = sa.select(settlements).where(settlements.c.x_run_id == run_id).order_by("x_part")
        found: dict[tuple[str, int], list[Row]] = {}
        with self._read() as connection:
            for row in connection.execute(query).mappings():
                found.setdefault((row["x_step_key"], row["x_attempt"]), []).append(dict(row))
        return found

    def cursor(self, name: str) -> str | None:
        """Where a reader named `name` stopped."""
        with self._read() as connection:
            query = sa.select(cursors.c.value).where(cursors.c.name == name)
            return connection.execute(query).scalar()

    def move_cursor(self, name: str, value: str) -> None:
        """Remember where `name` stopped. Not part of the append-only record."""
        with self._write() as connection:
            _move(connection, name, value)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @staticmethod
    def _where(
        table: sa.Table, first: date | None, last: date | None, run_id: str | None
    ) -> list[sa.ColumnElement[bool]]:
        conditions: list[sa.ColumnElement[bool]] = []
        if first is not None:
            conditions.append(table.c.date >= first)
        if last is not None:
            conditions.append(table.c.date <= last)
        if run_id is not None:
            conditions.append(table.c.x_run_id == run_id)
        return conditions

    def _frame(
        self,
        table: sa.Table,
        columns: Mapping[str, pl.DataType],
        where: Sequence[sa.ColumnElement[bool]],
        order: Sequence[str],
    ) -> pl.DataFrame:
        query = sa.select(*(table.c[name] for name in columns)).where(*where).order_by(*order)
        with self._read() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        return pl.DataFrame(rows, schema=dict(columns), orient="row")

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        try:
            writer = self._engine.execution_options(writes=True)
            with writer.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise self._explained(error) from error

    def _explained(self, error: DBAPIError) -> LedgerError:
        cause = str(error.orig)
        if isinstance(error, OperationalError) and "locked" in cause:
            return LedgerLocked(
                f"{self.name}: locked by another process for over {self._timeout_s:g} s; nothing"
                " was written. End the process that holds it (a backup, a database browser), or"
                " use Postgres for many writers (FORECAST_LEDGER_URL)"
            )
        if isinstance(error, IntegrityError) or "append-only" in cause:
            return LedgerError(f"{self.name}: refused: {cause}")
        return LedgerError(
            f"{self.name}: cannot be used: {cause}; check FORECAST_LEDGER_URL and that its folder"
            " or server can be reached and written"
        )

    def _prepare(self) -> None:
        """Create what is missing, bring an older schema up; refuse a newer one, untouched."""
        with self._engine.connect() as connection:
            if self._up_to_date(connection):
                return
        with self._engine.execution_options(writes=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            if self._up_to_date(connection):
                return  # whoever came second would lock tables that the first now writes to
            for statement in missing_columns(connection):
                connection.execute(sa.text(statement))
            metadata.create_all(connection)
            for statement in guards(connection.dialect.name):
                connection.execute(sa.text(statement))
            _inserted(connection, version, {"version": SCHEMA_VERSION})

    def _up_to_date(self, connection: sa.Connection) -> bool:
        if not sa.inspect(connection).has_table(version.name):
            return False
        found = connection.execute(sa.select(sa.func.max(version.c.version))).scalar()
        if found is not None and found > SCHEMA_VERSION:
            raise LedgerVersionError(
                f"{self.name}: written by a newer version (schema {found}, this one knows"
                f" {SCHEMA_VERSION}); upgrade this installation, or point"
                " FORECAST_LEDGER_URL at another ledger"
            )
        return bool(found == SCHEMA_VERSION)


def open_ledger(url: str) -> Ledger:
    """The ledger at `url`, opened once in a process (and again after a fork)."""
    return _open(url, os.getpid())


@lru_cache(maxsize=16)
def _open(url: str, pid: int) -> Ledger:
    return Ledger(url)


def _inserted(connection: sa.Connection, table: sa.Table, row: Row) -> bool:
    """Insert `row` unless its key is taken; whether it was inserted.

    Asks for the row back: a driver's row count after a conflict is not to be relied on.
    """
    statement = _insert_once(connection.dialect.name, table)
    return connection.execute(statement, dict(row)).first() is not None


def _move(connection: sa.Connection, name: str, value: str) -> None:
    _inserted(connection, cursors, {"name": name, "value": value})
    connection.execute(sa.update(cursors).where(cursors.c.name == name).values(value=value))


@lru_cache(maxsize=16)
def _insert_once(dialect: str, table: sa.Table) -> Any:
    """Made once: building it anew for each row took as long as the row itself."""
    insert: Any
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert
    once = insert(table).on_conflict_do_nothing()
    return once.returning(*table.primary_key.columns)


def _engine(url: sa.URL, timeout_s: float) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        # A lock that is never given back must not hang a step.
        options = f"-c lock_timeout={int(timeout_s * 1000)} -c timezone=UTC"
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"options": options})
    if url.get_backend_name() != "sqlite":
        raise LedgerError(
            f"{url.render_as_string(hide_password=True)}: a ledger is kept in SQLite or Postgres;"
            " write FORECAST_LEDGER_URL as sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        )
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": timeout_s})
    sa.event.listen(engine, "connect", _on_sqlite_connect)
    sa.event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # transactions are begun below, not by the driver
    dbapi_connection.create_aggregate("exact_sum", 1, ExactSum)
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # a charge that was acknowledged survives a power cut
    cursor.execute("PRAGMA recursive_triggers=ON")
    cursor.close()


def _on_sqlite_begin(connection: sa.Connection) -> None:
    # A writer takes the lock at once: two that read first and write later would deadlock.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
