"""Writers at once: none is lost, none is doubled, and what is acknowledged is on disk."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.tiers import Tier
from resources import commits
from resources.commits import LakeConflict, commit
from resources.lake import Lake

AS_OF = date(2016, 5, 22)
MAY = Cells(date(2016, 5, 1), date(2016, 5, 31))
STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)


def stock(store: str, units: float) -> pl.DataFrame:
    days = pl.date_range(MAY.first, AS_OF, eager=True).alias("date").to_frame()
    return days.with_columns(
        item_id=pl.lit("i"), store_id=pl.lit(store), units=pl.lit(units, pl.Float64)
    )


def test_eight_writers_of_different_stores_lose_nothing(tmp_path: Path) -> None:
    """The table does not exist yet: they race to create it as well."""
    stores = [f"S_{n}" for n in range(8)]

    def work(store: str) -> list[int]:
        table = Lake(tmp_path, as_of=AS_OF).table(STOCK)
        return [table.replace(stock(store, float(n)), MAY.only(store)).version for n in range(1, 7)]

    with ThreadPoolExecutor(8) as pool:
        versions = [version for mine in pool.map(work, stores) for version in mine]
    assert len(set(versions)) == 48, "every acknowledged write has a version of its own"
    found = Lake(tmp_path).table(STOCK).read().frame.collect()
    assert found.height == 8 * 22
    assert found["units"].unique().to_list() == [6.0]


def test_writers_of_the_same_store_leave_the_rows_of_exactly_one(tmp_path: Path) -> None:
    Lake(tmp_path).table(STOCK).replace(stock("S", 0.0), MAY.only("S"))

    def work(n: int) -> None:
        table = Lake(tmp_path, as_of=AS_OF).table(STOCK)
        for _ in range(4):
            table.replace(stock("S", float(n)), MAY.only("S"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(1, 5)))
    found = Lake(tmp_path).table(STOCK).read().frame.collect()
    assert found.height == 22
    assert found["units"].n_unique() == 1


def test_every_acknowledged_file_folder_and_log_entry_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync

    def spy(handle: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", spy)
    table = Lake(tmp_path / "a+lake,=@~", as_of=AS_OF).table(STOCK)
    table.replace(stock("a b/ü%", 1.0), MAY.only("a b/ü%"))
    (file,) = table.pin().file_uris()
    folder = Path(file).parent
    root = Path(table.uri)
    assert str(folder).endswith("store_id=a%20b%2F%C3%BC%25")
    assert file in synced
    assert {str(folder), str(folder.parent), str(root), str(root / "_delta_log")} <= synced
    assert str(root / "_delta_log" / f"{table.version():020d}.json") in synced


def test_a_conflict_is_tried_again_on_a_fresh_handle_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Lake(tmp_path).table(STOCK)
    table.replace(stock("S", 0.0), MAY.only("S"))
    monkeypatch.setattr(commits.time, "sleep", lambda _: None)
    handles: list[DeltaTable] = []

    def conflicting(times: int) -> None:
        def write(handle: DeltaTable, properties: CommitProperties) -> None:
            handles.append(handle)
            if len(handles) <= times:
                raise CommitFailedError("somebody else was here")

        commit(table.pin, write)

    conflicting(3)
    assert len(handles) == 4
    assert len({id(handle) for handle in handles}) == 4
    handles.clear()
    with pytest.raises(LakeConflict, match=r"stock.*: gave up after .* one at a time"):
        conflicting(1000)


def test_a_commit_finds_its_own_entry_among_those_of_others(tmp_path: Path) -> None:
    lake = Lake(tmp_path, as_of=AS_OF)
    table = lake.table(STOCK)
    table.replace(stock("A", 0.0), MAY.only("A"))

    def write(handle: DeltaTable, properties: CommitProperties) -> None:
        lake.table(STOCK).replace(stock("B", 1.0), MAY.only("B"))
        mine = pl.concat([stock("A", 2.0)] * 3).with_columns(
            tier=pl.lit(Tier.HOT.value), period=pl.lit("2016-05")
        )
        from deltalake import write_deltalake

        write_deltalake(
            handle,
            mine.to_arrow(compat_level=pl.CompatLevel.oldest()),
            mode="overwrite",
            predicate="store_id = 'A'",
            commit_properties=properties,
        )

    done = commit(table.pin, write)
    assert done.version == table.version() == 3
    assert [(file.rows, file.partition["store_id"]) for file in done.added] == [(66, "A")]
    assert done.bytes == (Path(table.uri) / done.added[0].path).stat().st_size


@pytest.mark.slow
def test_eight_processes_lose_nothing(tmp_path: Path) -> None:
    script = (
        "import sys; from datetime import date\n"
        "sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "from test_lake_writers import stock, MAY, STOCK, AS_OF\n"
        "from resources.lake import Lake\n"
        "table = Lake(sys.argv[3], as_of=AS_OF).table(STOCK)\n"
        "for n in range(20): table.replace(stock(sys.argv[4], float(n)), MAY.only(sys.argv[4]))\n"
    )
    here = Path(__file__).resolve().parent
    root = here.parent.parent
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(root), str(here), str(tmp_path), f"S_{n}"]
        )
        for n in range(8)
    ]
    assert [process.wait() for process in running] == [0] * 8
    table = Lake(tmp_path).table(STOCK)
    found = table.read().frame.collect()
    assert (found.height, found["units"].unique().to_list()) == (8 * 22, [19.0])
    assert table.version() == 8 * 20
