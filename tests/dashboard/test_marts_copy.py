"""The marts are read from a copy: a rebuild is never locked out, half of one is never read."""

import os
import threading
from pathlib import Path

import duckdb
import pytest

from dashboard.marts import Marts
from dashboard.stores import NothingYet, Unreadable


def _build(path: Path, value: int, rows: int = 1000) -> None:
    with duckdb.connect(str(path)) as marts:
        marts.execute(f"create or replace table a_mart as select {value} as v from range({rows})")


def test_no_marts_yet_says_what_builds_them(tmp_path: Path) -> None:
    marts = Marts(tmp_path / "marts.duckdb")
    assert marts.stamp() == (0, 0, 0) and marts.built_at is None
    with pytest.raises(NothingYet, match="make demo"):
        marts.query("select 1")
    assert not (tmp_path / "marts.duckdb").exists()


def test_a_missing_mart_is_named_with_its_remedy(tmp_path: Path) -> None:
    path = tmp_path / "marts.duckdb"
    _build(path, 1)
    with pytest.raises(NothingYet, match=r"a mart is missing .*another_mart"):
        Marts(path).query("select * from another_mart")


def test_values_are_bound_and_the_copy_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "marts.duckdb"
    _build(path, 1)
    marts = Marts(path)
    hostile = "'; drop table a_mart; --"
    assert marts.query("select ? as said", [hostile])["said"].to_list() == [hostile]
    with pytest.raises(Unreadable, match="read-only"):
        marts.query("drop table a_mart")
    assert marts.query("select sum(v) as s from a_mart")["s"][0] == 1000


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    path = tmp_path / "marts.duckdb"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Unreadable, match="no DuckDB file"):
        Marts(path).query("select 1")


def test_readers_and_a_rebuild_side_by_side(tmp_path: Path) -> None:
    """Each answer is one whole version, versions never go back, no build is locked out."""
    path, rounds = tmp_path / "marts.duckdb", 15
    _build(path, 0)
    marts, stop = Marts(path), threading.Event()
    seen: list[list[tuple[int, int]]] = [[] for _ in range(3)]
    errors: list[BaseException] = []

    def ask(mine: list[tuple[int, int]]) -> None:
        try:
            while not stop.is_set():
                found = marts.query("select min(v) as low, max(v) as high from a_mart")
                mine.append(found.row(0))
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=ask, args=(own,)) for own in seen]
    for reader in readers:
        reader.start()
    for value in range(1, rounds + 1):
        _build(path, value, rows=20_000)  # fails when any reader holds the file
    assert marts.query("select max(v) as v from a_mart")["v"][0] == rounds
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    for own in seen:
        assert all(low == high for low, high in own)
        assert own == sorted(own)


def test_while_it_is_written_the_copy_of_before_serves(tmp_path: Path) -> None:
    path = tmp_path / "marts.duckdb"
    _build(path, 1)
    marts = Marts(path)
    assert marts.query("select max(v) as v from a_mart")["v"][0] == 1
    stamp = marts.stamp()
    writing = duckdb.connect(str(path))
    writing.execute("create or replace table a_mart as select 2 as v")
    writing.execute("insert into a_mart values (2)")
    assert marts.rebuilding
    assert marts.query("select max(v) as v from a_mart")["v"][0] == 1
    assert marts.stamp() == stamp
    writing.close()
    assert not marts.rebuilding
    assert marts.query("select max(v) as v from a_mart")["v"][0] == 2


def test_copies_do_not_pile_up(tmp_path: Path) -> None:
    path = tmp_path / "marts.duckdb"
    marts = Marts(path)
    for value in range(5):
        _build(path, value)
        os.utime(path, ns=(value, 10**18 + value))
        assert marts.query("select max(v) as v from a_mart")["v"][0] == value
    assert list(Path(marts._folder).iterdir()) == []
