"""The databases of the platform, opened so that nothing can be written through them.

Belongs here: read-only engines, and the stores of `resources` over them. Does not: what is asked
(`dashboard.figures`).

A store of `resources` creates what is missing and brings an older schema up when it is opened. A
dashboard may do neither: it says what it found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from forecast_core.events import Event
from forecast_core.storage.lifecycle import Hold
from resources.admission_store import AdmissionStore
from resources.admission_tables import SCHEMA_VERSION as ADMISSION_VERSION
from resources.admission_tables import version as admission_version
from resources.event_log import EventLog, events_table
from resources.ledger import Ledger, LedgerVersionError
from resources.ledger_tables import SCHEMA_VERSION, ExactSum, version
from resources.plan_store import PlanStore
from resources.storage_ledger import StorageLedger
from resources.storage_tables import metadata as storage_metadata

LOCK_TIMEOUT_S = 2.0  # a page rather says that the ledger is busy than hangs


class NothingYet(LookupError):
    """What a page needs has never been written; the message says which command writes it."""


class Unreadable(RuntimeError):
    """What a page needs is there and cannot be read; the message names it and the remedy."""


def reading_engine(url: str) -> sa.Engine:
    """An engine through which the database itself refuses to write.

    Raises:
        NothingYet: SQLite, and the file does not exist.
        Unreadable: neither SQLite nor Postgres.
    """
    parsed = sa.make_url(url)
    name = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "postgresql":
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        options = f"-c default_transaction_read_only=on -c timezone=UTC \
-c statement_timeout=30000 -c lock_timeout={int(LOCK_TIMEOUT_S * 1000)}"
        arguments = {"options": options, "connect_timeout": 5}
        return sa.create_engine(parsed, pool_pre_ping=True, pool_size=4, connect_args=arguments)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise Unreadable(f"{name}: a ledger is kept in SQLite or Postgres; see FORECAST_LEDGER_URL")
    path = Path(parsed.database).absolute()
    if not path.exists():
        raise NothingYet(f"no ledger yet at {path}: `make demo` or `forecast run` writes the first")

    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(str(path))}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S, check_same_thread=False)

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool)
    sa.event.listen(engine, "connect", _prepared)
    return engine


def _prepared(connection: Any, _record: Any) -> None:
    connection.create_aggregate("exact_sum", 1, ExactSum)
    connection.execute("PRAGMA query_only=ON")


def stamp_of(engine: sa.Engine) -> tuple[Any, ...]:
    """A value that changes whenever the database may have changed; cheap to ask for."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            # The next transaction to be numbered: it moves with every write of the server.
            asked = sa.text("select pg_snapshot_xmax(pg_current_snapshot())::text")
            return (connection.execute(asked).scalar(),)
    with engine.connect() as connection:
        path = connection.exec_driver_sql("PRAGMA database_list").fetchall()[0][2]
    return file_stamp(Path(path)) + file_stamp(Path(f"{path}-wal"))


def file_of(url: str) -> int:
    """The inode of a SQLite file, 0 where there is none: another file is another database."""
    parsed = sa.make_url(url)
    local = parsed.get_backend_name() == "sqlite" and parsed.database
    return file_stamp(Path(parsed.database or ""))[0] if local else 0


def file_stamp(path: Path) -> tuple[int, int, int]:
    """Inode, change and size of a file; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


def _refused(*_: object, **__: object) -> NoReturn:
    raise PermissionError("the dashboard only reads")


@contextmanager
def plainly(name: str) -> Iterator[None]:
    """Errors of a driver as a message for people."""
    try:
        yield
    except DBAPIError as error:
        raise Unreadable(f"{name}: cannot be read now: {error.orig}") from error


class ReadLedger(Ledger):
    """The cost ledger without a way to write."""

    def __init__(self, url: str) -> None:
        """Raises `NothingYet` without a ledger, `LedgerVersionError` for one of another version."""
        self.url, self._timeout_s = sa.make_url(url), LOCK_TIMEOUT_S
        self._engine = reading_engine(url)
        with plainly(self.name), self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(version.name):
                raise NothingYet(f"{self.name}: no charge yet; `make demo` writes the first ones")
            found = connection.execute(sa.select(sa.func.max(version.c.version))).scalar() or 0
        if found > SCHEMA_VERSION:
            raise LedgerVersionError(
                f"{self.name}: written by a newer version (schema {found}, this one knows"
                f" {SCHEMA_VERSION}); upgrade this installation, or point FORECAST_LEDGER_URL at"
                " another ledger"
            )
        if found < SCHEMA_VERSION:
            raise LedgerVersionError(
                f"{self.name}: schema {found} is older than this version ({SCHEMA_VERSION}); any"
                " writing command brings it up, such as `forecast cost reconcile`"
            )

    _write = _refused


class ReadAdmission(AdmissionStore):
    """Admission without a way to decide."""

    def __init__(self, url: str) -> None:
        """Raises `NothingYet` before the first decision, `Unreadable` for a newer store."""
        self.url, self._shapes = sa.make_url(url), {}
        try:
            self._engine = reading_engine(url)
        except NothingYet:
            raise NothingYet("admission has decided nothing yet: it keeps its record at the first"
                             " run") from None  # fmt: skip
        with plainly(self.name), self._engine.connect() as connection:
            if not sa.inspect(connection).has_table(admission_version.name):
                raise NothingYet("admission has decided nothing yet")
            found = connection.execute(sa.select(sa.func.max(admission_version.c.version))).scalar()
        if (found or 0) > ADMISSION_VERSION:
            raise Unreadable(f"{self.name}: schema {found} is newer; upgrade this installation")

    @property
    def engine(self) -> sa.Engine:
        """The connections, read-only."""
        return self._engine

    alone = _refused


class ReadLog(EventLog):
    """A log of events; one that was never begun has none."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self._engine, self._table = engine, events_table(name)

    def _begun(self) -> bool:
        return sa.inspect(self._engine).has_table(self._table.name)

    def of(self, subject: str) -> list[Event]:
        """The events of one subject, oldest first."""
        return super().of(subject) if self._begun() else []

    def subjects(self) -> dict[str, list[Event]]:
        """Every subject's events, oldest first."""
        return super().subjects() if self._begun() else {}

    append = _refused


class ReadPlans(PlanStore):
    """Capacity plans on record."""

    def __init__(self, engine: sa.Engine) -> None:
        self._log = ReadLog(engine, "capacity_events")

    def names(self) -> list[str]:
        """Every plan that has a version."""
        return sorted(self._log.subjects())

    put = note = _refused


class ReadStorage(StorageLedger):
    """The books of storage; a ledger that has none yet records nothing."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        found = set(sa.inspect(engine).get_table_names())
        self.begun = set(storage_metadata.tables) <= found

    def holds(self, *arguments: Any, **named: Any) -> list[Hold]:
        """Holds in force."""
        return super().holds(*arguments, **named) if self.begun else []

    _write = _refused
