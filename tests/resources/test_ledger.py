"""The ledger keeps every row once, changes none, and says clearly what it cannot do."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from forecast_core.cost.charges import Usage
from forecast_core.cost.price_card import SKUS, Rates
from forecast_core.cost.settlement import Owner, Settlement, charge_set_of, ledger_rows
from resources.ledger import Ledger, LedgerError, LedgerLocked, LedgerVersionError

RATES = Rates("t", date(2020, 1, 1), "USD", {sku: Decimal("0.000000007") for sku in SKUS})
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def settled(
    step: str = "s", *, part: int = 0, final: bool = True, cpu_s: float = 1.1, attempt: int = 1
) -> tuple[dict[str, object], list[dict[str, object]]]:
    owner = Owner("dev", pipeline="training", run_id="r", step_key=step, attempt=attempt)
    usage = Usage(cpu_s=cpu_s, rss_gib_s=2.5)
    end = NOON + timedelta(seconds=1)
    name = charge_set_of("r", step, attempt, part)
    return ledger_rows(Settlement(name, owner, NOON, end, usage, part, final), RATES)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgres_server")
    name = f"ledger_{abs(hash(str(tmp_path)))}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres", f"/{name}")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger(url)
    yield opened
    opened.close()


def test_a_settlement_is_written_once(ledger: Ledger) -> None:
    assert ledger.record(*settled())
    assert not ledger.record(*settled())
    assert not ledger.record(*settled(cpu_s=99))  # whoever comes second, with whatever
    assert ledger.totals() == {(): Decimal("0.0000000252")}
    assert ledger.settlements()["money"].to_list() == [Decimal("0.0000000252")]


def test_a_part_is_written_once(ledger: Ledger) -> None:
    assert ledger.record(*settled(part=0, final=False))
    assert not ledger.record(*settled(part=0, final=False))
    assert not ledger.record(*settled(part=0, final=True))
    _, rows = settled("other")
    assert [ledger.append(rows), ledger.append(rows)] == [2, 0]


def test_nothing_is_added_to_a_closed_attempt(ledger: Ledger) -> None:
    assert ledger.record(*settled(part=0, final=False))
    assert ledger.record(*settled(part=1, final=True))
    assert not ledger.record(*settled(part=2))
    assert ledger.record(*settled(attempt=2))
    assert [len(parts) for parts in ledger.parts("r").values()] == [2, 1]


def test_a_batch_is_one_transaction(ledger: Ledger) -> None:
    bad = settled("bad")
    bad[1][0]["x_charge_id"] = None
    with pytest.raises(LedgerError):
        ledger.record_all([settled("good"), bad])
    assert ledger.settlements().is_empty()


def test_sums_are_exact_where_floats_are_not(ledger: Ledger) -> None:
    for index in range(30):
        ledger.record(*settled(str(index), cpu_s=0.1 + index * 1e-9))
    money = sum(ledger.charges()["BilledCost"].to_list(), Decimal(0))
    assert ledger.totals()[()] == money == sum(ledger.settlements()["money"].to_list(), Decimal(0))
    by_step = ledger.totals(["x_step_key", "SkuId"])
    assert sum(by_step.values()) == money
    assert len(by_step) == 60
    assert ledger.totals(first=date(2026, 5, 2)) == {(): Decimal(0)}


def test_an_unknown_column_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no column 'nope'"):
        ledger.totals(["nope"])


@pytest.mark.parametrize("table", ["charges", "settlements"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET x_status = 'x'", "DELETE FROM {}", "TRUNCATE {}"]
)
def test_the_database_itself_refuses_a_change(ledger: Ledger, table: str, statement: str) -> None:
    if "TRUNCATE" in statement and ledger.url.get_backend_name() == "sqlite":
        pytest.skip("SQLite has no TRUNCATE")
    ledger.record(*settled())
    engine = sa.create_engine(ledger.url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement.format(table)))
    engine.dispose()
    assert ledger.charges().height == 2


def test_sqlite_does_not_let_a_row_be_replaced(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}")
    ledger.record(*settled())
    before = ledger.charges()
    with sqlite3.connect(tmp_path / "l.db") as raw:  # a connection that knows none of our settings
        raw.execute(
            "INSERT OR REPLACE INTO charges (x_charge_id, recorded_at) VALUES (?, '2026-01-01')",
            [before["x_charge_id"][0]],
        )
    assert ledger.charges().equals(before)


def test_a_newer_ledger_is_refused(url: str) -> None:
    Ledger(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO schema_version VALUES (99)"))
    engine.dispose()
    with pytest.raises(LedgerVersionError, match=r"schema 99.*upgrade this installation"):
        Ledger(url)


def test_an_older_ledger_is_brought_up_and_keeps_its_rows(url: str) -> None:
    first = Ledger(url)
    first.record(*settled())
    before = first.charges()
    first.close()
    engine = sa.create_engine(url)
    new = ("x_series", "x_rows", "x_code_version", "x_config_version")
    with engine.begin() as connection:
        for name in new:
            connection.execute(sa.text(f"ALTER TABLE charges DROP COLUMN {name}"))
        connection.execute(sa.text("UPDATE schema_version SET version = 1"))
    engine.dispose()
    with sa.create_engine(url).connect() as connection:
        assert not {"x_series"} & {c["name"] for c in sa.inspect(connection).get_columns("charges")}
    upgraded = Ledger(url)
    assert upgraded.charges().equals(before)
    assert upgraded.record(*settled("another"))
    with pytest.raises(LedgerError, match="append-only"), upgraded._write() as connection:
        connection.execute(sa.text("DELETE FROM charges"))


def test_a_locked_database_is_a_clear_error_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    ledger = Ledger(f"sqlite:///{path}", timeout_s=0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerLocked, match=r"locked by another process.*nothing was written"):
        ledger.record(*settled())
    holder.execute("ROLLBACK")
    holder.close()
    assert ledger.settlements().is_empty()
    assert ledger.record(*settled())


def test_an_impossible_place_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="kept in SQLite or Postgres"):
        Ledger("mysql://user:secret@localhost/x")
    (tmp_path / "no.db").write_text("this is no database" * 100)
    with pytest.raises(LedgerError, match=r"no\.db: cannot be used"):
        Ledger(f"sqlite:///{tmp_path / 'no.db'}")
    with pytest.raises(LedgerError) as error:
        Ledger("postgresql://user:secret@127.0.0.1:1/x")
    assert "secret" not in str(error.value)


WRITER = """
import runpy, sys
this = runpy.run_path(sys.argv[1])
ledger = this["Ledger"](sys.argv[2])
rows = [this["settled"](str(step), final=step % 2 == 0) for step in range(20)]
print(*(step for step in range(20) if ledger.record(*rows[step])))
"""


def test_many_processes_on_one_ledger_charge_nothing_twice(url: str) -> None:
    """They even create it together."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, __file__, url], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    recorded = [step for writer in writers for step in writer.communicate(timeout=120)[0].split()]
    assert sorted(map(int, recorded)) == list(range(20))
    assert Ledger(url).charges().height == 40


def test_a_cursor_moves(ledger: Ledger) -> None:
    assert ledger.cursor("c") is None
    ledger.move_cursor("c", "1")
    ledger.move_cursor("c", "2")
    assert ledger.cursor("c") == "2"


def test_days_count_what_is_there(ledger: Ledger) -> None:
    ledger.record_all([settled("a"), settled("b")])
    assert ledger.days() == {date(2026, 5, 1): (4, 2)}
