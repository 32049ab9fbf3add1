"""The dashboard's way to the databases: it reads, and the database itself refuses the rest."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dashboard.stores import (
    NothingYet,
    ReadAdmission,
    ReadLedger,
    ReadLog,
    ReadPlans,
    ReadStorage,
    Unreadable,
    reading_engine,
    stamp_of,
)
from forecast_core.capacity.plan import Plan
from forecast_core.events import Event
from resources.admission_store import AdmissionStore
from resources.event_log import EventLog
from resources.ledger import Ledger, LedgerVersionError


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger in either database."""
    if request.param == "sqlite":
        made = f"sqlite:///{tmp_path / 'a ledger?#%41.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        name = f"dash_{abs(hash(request.node.nodeid)) % 10**8}"
        admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"create database {name}"))
        admin.dispose()
        made = server.replace("/postgres", f"/{name}")
    Ledger(made).close()
    return made


def test_what_would_write_is_refused_by_the_database(url: str) -> None:
    ledger = ReadLedger(url)
    assert ledger.totals() == {(): 0} or ledger.totals() == {}
    with pytest.raises(sa.exc.DBAPIError), ledger.engine.begin() as connection:
        connection.execute(sa.text("insert into cursors values ('a', 'b')"))
    with pytest.raises(PermissionError):
        ledger.move_cursor("a", "b")
    ledger.close()


def test_the_stamp_moves_with_every_write_and_only_then(url: str) -> None:
    reading, writing = ReadLedger(url), Ledger(url)
    before = stamp_of(reading.engine)
    assert stamp_of(reading.engine) == before
    writing.move_cursor("a", "b")
    assert stamp_of(reading.engine) != before
    writing.close()
    reading.close()


def test_a_ledger_of_another_version_is_named(url: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("insert into schema_version values (99)"))
    with pytest.raises(LedgerVersionError, match=r"newer version \(schema 99"):
        ReadLedger(url)
    with engine.begin() as connection:
        connection.execute(sa.text("delete from schema_version"))
    with pytest.raises(LedgerVersionError, match="older than this version"):
        ReadLedger(url)
    engine.dispose()


def test_a_reader_waits_for_no_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("begin immediate")
    holder.execute("insert into cursors values ('a', 'b')")
    reading = ReadLedger(url)
    assert reading.cursor("a") is None
    writing_is_free = reading.totals(("x_pipeline",))
    assert writing_is_free == {}
    holder.execute("commit")
    assert reading.cursor("a") == "b"


def test_nothing_is_created_where_nothing_is(tmp_path: Path) -> None:
    for store in (ReadLedger, ReadAdmission):
        with pytest.raises(NothingYet):
            store(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unreadable, match="SQLite or Postgres"):
        reading_engine("mysql://somewhere/else")


def test_logs_that_were_never_begun_are_empty(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    ledger = ReadLedger(url)
    log = ReadLog(ledger.engine, "incident_events")
    assert log.subjects() == {} and log.of("x") == []
    assert ReadPlans(ledger.engine).names() == []
    assert ReadStorage(ledger.engine).holds() == [] and not ReadStorage(ledger.engine).begun
    written = EventLog(url, "incident_events")
    from datetime import UTC, datetime

    entry = Event("x", datetime.now(UTC), "opened", {"a": 1})
    written.append(entry, lambda _history: (None, True))
    assert [e.action for e in log.of("x")] == ["opened"]
    with pytest.raises(PermissionError):
        log.append(entry, lambda _history: (None, True))


def test_admission_is_read_and_never_decided(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'admission.db'}"
    AdmissionStore(url).close()
    store = ReadAdmission(url)
    assert store.waiting_ids("dev") == []
    with pytest.raises(PermissionError), store.alone():
        pass
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("insert into admission_version values (99)"))
    engine.dispose()
    with pytest.raises(Unreadable, match="schema 99 is newer"):
        ReadAdmission(url)


def test_plans_are_not_put(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    plans: Any = ReadPlans(ReadLedger(url).engine)
    with pytest.raises(PermissionError):
        plans.put(Plan)
