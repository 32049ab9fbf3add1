"""A move keeps every row, one commit at a time, whatever dies or interferes."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import (
    Due,
    HeldError,
    Hold,
    LifecyclePolicy,
    Part,
    compaction,
    rollover,
)
from forecast_core.storage.tiers import Tier
from resources import lifecycle
from resources.commits import local_path
from resources.file_layout import FileLayout
from resources.lake import Lake, LakeTable
from resources.lifecycle import DamagedFile, MoveFailed, Mover, parts_of
from resources.storage_ledger import StorageLedger

AS_OF = date(2016, 5, 22)
MONTHS = [date(2016, m, 1) for m in (1, 2, 3, 4)]
STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)
POLICY = LifecyclePolicy()


def month(first: date, store: str = "S", items: int = 5, units: float = 1.0) -> pl.DataFrame:
    last = (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    days = pl.date_range(first, last, eager=True).alias("date").to_frame()
    named = pl.DataFrame({"item_id": [f"i{n}" for n in range(items)]})
    return days.join(named, how="cross").with_columns(
        store_id=pl.lit(store), units=(pl.col("date").dt.day() * units).cast(pl.Float64)
    )


def window(first: date, last: date | None = None, store: str = "S") -> Cells:
    end = ((last or first) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return Cells(first, end, (store,))


@pytest.fixture
def books(tmp_path: Path) -> StorageLedger:
    return StorageLedger(f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture
def lake(tmp_path: Path, books: StorageLedger) -> Lake:
    """Everything lands hot: nothing has an age while rows are written."""
    return Lake(tmp_path / "lake", books=books)


@pytest.fixture
def table(lake: Lake) -> LakeTable:
    table = lake.table(STOCK)
    for first in MONTHS:
        table.replace(month(first), window(first))
    return table


@pytest.fixture
def mover(lake: Lake, books: StorageLedger) -> Iterator[Mover]:
    yield Mover(lake, books, POLICY)


def part(table: LakeTable, period: str) -> Part:
    (found,) = [p for p in parts_of(table) if p.period == period]
    return found


def everything(table: LakeTable) -> tuple[int, int]:
    rows = table.read().frame.collect()
    return rows.height, content_hash(rows)


def test_parts_are_what_a_tier_holds_of_a_month_of_a_store(table: LakeTable) -> None:
    found = parts_of(table)
    assert [(p.tier, p.period, p.owner, p.rows, p.files) for p in found] == [
        (Tier.HOT, f"2016-0{m}", "S", rows * 5, 1)
        for m, rows in ((1, 31), (2, 29), (3, 31), (4, 30))
    ]
    assert found[1].last == date(2016, 2, 29)
    assert found[0].name == "stock 2016-01 of S (hot)"


@pytest.mark.parametrize("tier", [Tier.WARM, Tier.COLD])
def test_a_move_keeps_every_row_and_writes_as_its_tier_does(
    table: LakeTable, mover: Mover, tier: Tier
) -> None:
    before = everything(table)
    version = table.version()
    moved = mover.make(table, Due(part(table, "2016-02"), tier, "move", "test"))
    assert everything(table) == before
    assert (moved.rows, moved.version, table.version()) == (145, version + 1, version + 1)
    period = "2016" if tier is Tier.COLD else "2016-02"
    held = part(table, period)
    assert (held.tier, held.rows) == (tier, 145)
    footer = pq.read_metadata(local_path(table.uri) / held.paths[0])
    encodings = {str(footer.row_group(0).column(i).path_in_schema): footer.row_group(0).column(i)
                 for i in range(footer.num_columns)}  # fmt: skip
    assert ("DELTA_BINARY_PACKED" in encodings["date"].encodings) == (tier is Tier.COLD)
    items = pl.read_parquet(local_path(table.uri) / held.paths[0])["item_id"]
    assert items.is_sorted()


def test_months_widen_to_a_year_and_come_back(table: LakeTable, mover: Mover) -> None:
    before = everything(table)
    for first in MONTHS:
        mover.make(table, Due(part(table, f"{first:%Y-%m}"), Tier.COLD, "move", "old"))
    cold = part(table, "2016")
    assert (cold.files, cold.rows) == (4, before[0])
    mover.make(table, Due(cold, Tier.COLD, "compact", "small files"))
    assert part(table, "2016").files == 1
    assert everything(table) == before
    lake = Lake(table.lake.root, as_of=date(2018, 1, 1), books=table.lake.books)
    back = Mover(lake, mover.books, POLICY).rehydrate(
        table, window(date(2016, 2, 1)), Tier.WARM, date(2018, 1, 15), "a backfill"
    )
    assert [m.rows for m in back] == [before[0]]
    assert [(p.tier, p.period) for p in parts_of(table)] == [
        (Tier.WARM, f"{first:%Y-%m}") for first in MONTHS
    ]
    assert everything(table) == before
    stays = mover.books.stays(table.uri)
    due, waiting = rollover(parts_of(table), POLICY.tiers, date(2018, 1, 15), stays=stays)
    assert (len(due), len(waiting)) == (0, 4)
    due, _ = rollover(parts_of(table), POLICY.tiers, date(2018, 1, 16), stays=stays)
    assert [(d.kind, d.tier) for d in due] == [("return", Tier.COLD)] * 4


def test_rollover_asks_for_deeper_tiers_by_age_and_never_for_hotter(table: LakeTable) -> None:
    due, _ = rollover(parts_of(table), POLICY.tiers, AS_OF)
    assert [(d.part.period, d.tier) for d in due] == [("2016-01", "warm"), ("2016-02", "warm")]
    due, _ = rollover(parts_of(table), POLICY.tiers, date(2016, 1, 31))
    assert due == []


def test_small_files_become_one_and_files_that_are_needed_stay(lake: Lake, mover: Mover) -> None:
    table = lake.table(STOCK)
    rows = month(MONTHS[0])
    for day in range(1, 10):
        d = date(2016, 1, day)
        table.replace(rows.filter(date=d), Cells(d, d, ("S",)))
    before = everything(table)
    due, _ = compaction(parts_of(table), 8, 128 * 2**20)
    assert [d.reason for d in due] == ["9 files where 1 would do"]
    mover.make(table, due[0])
    assert (part(table, "2016-01").files, everything(table)) == (1, before)
    assert compaction(parts_of(table), 8, 128 * 2**20) == ([], [])


def test_every_written_file_has_its_hash_in_the_ledger(
    table: LakeTable, mover: Mover, books: StorageLedger
) -> None:
    import hashlib

    mover.make(table, Due(part(table, "2016-01"), Tier.WARM, "move", "old"))
    known = books.files(table.uri)
    live = [path for p in parts_of(table) for path in p.paths]
    assert len(live) == 4
    for path in live:
        content = (local_path(table.uri) / path).read_bytes()
        assert known[path].sha256 == hashlib.sha256(content).hexdigest()
        assert known[path].bytes == len(content)
    assert {known[p].origin for p in live} == {"write", "move"}


def test_a_writer_in_between_is_not_lost(
    table: LakeTable, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = month(MONTHS[0], units=7.0)
    real = lifecycle.check_files
    interfered: list[int] = []

    def interfere(*args: object) -> None:
        if not interfered:
            interfered.append(table.replace(late, window(MONTHS[0])).version)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(lifecycle, "check_files", interfere)
    moved = mover.make(table, Due(part(table, "2016-01"), Tier.COLD, "move", "old"))
    assert moved.version > interfered[0]
    found = table.read(window(MONTHS[0])).frame.collect()
    assert content_hash(found) == content_hash(late)
    assert not mover.books.open_moves()


def write_zeros_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real = FileLayout.batches
    broken: list[bool] = []

    def lossy(self, rows, tier, window):  # type: ignore[no-untyped-def]
        if not broken:
            broken.append(True)
            rows = rows.with_columns(units=pl.lit(0.0))
        return real(self, rows, tier, window)

    monkeypatch.setattr(FileLayout, "batches", lossy)


def test_what_reads_back_differently_is_put_back(
    table: LakeTable, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(table)
    write_zeros_once(monkeypatch)
    with pytest.raises(
        MoveFailed, match=r"stock 2016-02 of S \(hot\): what was written reads back"
    ):
        mover.make(table, Due(part(table, "2016-02"), Tier.COLD, "move", "old"))
    assert everything(table) == before
    assert not mover.books.open_moves()


def test_rows_that_were_replaced_since_are_not_put_back_nor_said_to_be(
    table: LakeTable, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The move wrote something else, and before it noticed, another writer replaced that."""
    real = Mover.put_back
    late = month(MONTHS[1], units=9.0)

    def after_another(self, *args):  # type: ignore[no-untyped-def]
        table.replace(late, window(MONTHS[1]))
        return real(self, *args)

    monkeypatch.setattr(Mover, "put_back", after_another)
    write_zeros_once(monkeypatch)
    with pytest.raises(MoveFailed, match="another writer has replaced them since; version"):
        mover.make(table, Due(part(table, "2016-02"), Tier.COLD, "move", "old"))
    assert mover.books.history(table.uri)["state"].to_list() == ["overtaken"]
    assert content_hash(table.read(window(MONTHS[1])).frame.collect()) == content_hash(late)


def test_what_a_move_fetched_is_counted_as_often_as_it_was_fetched(
    table: LakeTable, mover: Mover
) -> None:
    source = part(table, "2016-01")
    moved = mover.make(table, Due(source, Tier.COLD, "move", "old"))
    # The source for its hash and for its rows; what was written, not cold yet, for the same.
    assert moved.read["hot"].bytes == 2 * source.bytes + 2 * moved.bytes_after
    assert moved.read["hot"].files == 2 * source.files + 2 * moved.files_after


def test_a_move_that_died_after_its_commit_is_verified_later(
    table: LakeTable, mover: Mover, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(table)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "content_of", die)
        with pytest.raises(KeyboardInterrupt):
            mover.make(table, Due(part(table, "2016-01"), Tier.COLD, "move", "old"))
    (still_open,) = mover.books.open_moves(table.uri)
    assert mover.settle(table) == 0, "it may still be under way"
    assert mover.settle(table, timedelta(0)) == 1
    assert not mover.books.open_moves()
    (made,) = mover.books.moves_made(table.uri)
    assert (made.id, made.version) == (still_open.id, table.version())
    assert everything(table) == before
    (path,) = part(table, "2016").paths
    assert mover.books.files(table.uri)[path].origin == "move"


def test_a_move_that_died_before_its_commit_is_forgotten(table: LakeTable, mover: Mover) -> None:
    mover.books.begin(
        table.uri, Due(part(table, "2016-01"), Tier.COLD, "move", "old"), table.version()
    )
    assert mover.settle(table, timedelta(0)) == 1
    assert mover.books.history(table.uri)["state"].to_list() == ["abandoned"]


def test_a_part_under_legal_hold_is_not_moved(table: LakeTable, mover: Mover) -> None:
    feb = part(table, "2016-02")
    hold = Hold("case-12", "stock", "legal", table.version(), "audit", feb.first, feb.last, "S")
    mover.books.place(table.uri, hold)
    with pytest.raises(
        HeldError, match=r"2016-02 of S .* 'case-12' .*forecast lake release case-12"
    ):
        mover.make(table, Due(feb, Tier.WARM, "move", "old"))
    due, waiting = rollover(parts_of(table), POLICY.tiers, AS_OF, mover.books.holds(table.uri))
    assert [d.part.period for d in due] == ["2016-01"]
    assert [w.reason for w in waiting] == ["legal hold case-12: audit"]
    mover.books.release("case-12")
    assert mover.make(table, Due(feb, Tier.WARM, "move", "old")).rows == 145
    with pytest.raises(ValueError, match="no hold is named 'case-12'"):
        mover.books.release("case-12")


@pytest.mark.parametrize("how", ["flip", "missing"])
def test_a_damaged_source_is_never_given_a_new_hash(
    table: LakeTable, mover: Mover, how: str
) -> None:
    feb = part(table, "2016-02")
    file = local_path(table.uri) / feb.paths[0]
    if how == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    version = table.version()
    with pytest.raises(DamagedFile, match=r"stock 2016-02 of S \(hot\): .*lake scrub stock"):
        mover.make(table, Due(feb, Tier.WARM, "move", "old"))
    assert table.version() == version
    rest = table.read(window(MONTHS[2], MONTHS[3])).frame.collect()
    assert rest.height == 61 * 5, "the rest still reads"


def test_an_unknown_tier_is_named(table: LakeTable) -> None:
    with pytest.raises(ValueError, match="unknown tier 'tepid'; the tiers are hot, warm, cold"):
        Due(part(table, "2016-01"), Tier.named("tepid"), "move", "")


def test_a_part_that_vanished_is_said_to(table: LakeTable, mover: Mover) -> None:
    feb = part(table, "2016-02")
    table.replace(month(MONTHS[1]).clear(), window(MONTHS[1]))
    with pytest.raises(MoveFailed, match=r"2016-02 of S .* is gone"):
        mover.make(table, Due(feb, Tier.WARM, "move", "old"))


FULL = """
import resource, signal, sys
from datetime import date
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from test_lifecycle_moves import STOCK, POLICY, part
from forecast_core.storage.lifecycle import Due
from forecast_core.storage.tiers import Tier
from resources.lake import Lake
from resources.lifecycle import Mover, StorageFull
from resources.storage_ledger import StorageLedger
books = StorageLedger(sys.argv[4])
lake = Lake(sys.argv[3], books=books)
table = lake.table(STOCK)
due = Due(part(table, "2016-02"), Tier.WARM, "move", "old")
mover = Mover(lake, books, POLICY)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[5]), resource.RLIM_INFINITY))
try:
    mover.make(table, due)
except StorageFull as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("FULL", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit here")
def test_a_full_disk_in_mid_move_leaves_the_table_whole(tmp_path: Path) -> None:
    """A quota on file sizes stands for the disk: the write of the new file fails in the middle."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    books = StorageLedger(url)
    table = Lake(tmp_path / "lake", books=books).table(STOCK)
    rows = month(MONTHS[1], items=20_000)
    rows = rows.with_columns(units=pl.int_range(pl.len()).shuffle(seed=1).sqrt())
    table.replace(rows, window(MONTHS[1]))
    size = parts_of(table)[0].bytes
    assert size > 1_000_000, "the quota must bite on the data, not on the books"
    before = everything(table)
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(here.parent.parent), str(here), table.lake.root, url,
         str(size // 2)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert "FULL stock: no room for the new files of the move" in done.stdout, done.stderr[-2000:]
    assert f"unchanged at version {table.version()}" in done.stdout
    assert "forecast lake vacuum" in done.stdout
    assert everything(table) == before
    assert not books.open_moves()
    assert Mover(table.lake, books, POLICY).make(
        table, Due(part(table, "2016-02"), Tier.WARM, "move", "there is room again")
    )
    assert everything(table) == before


def test_policies_that_contradict_themselves_are_refused(project_root: Path) -> None:
    from resources.policies import load_policy

    ok = load_policy(project_root / "policies" / "lifecycle.yaml", LifecyclePolicy.parse)
    assert ok.tiers == LifecyclePolicy().tiers
    for content, said in (
        ({"vacuum_after_hours": 1}, "a job could lose the files that it reads"),
        ({"storage_class": {"cold": "FREEZER"}}, "storage_class.cold is 'FREEZER'"),
        ({"storage_class": {"icy": "GLACIER"}}, "unknown tier 'icy'"),
        ({"rehydrate_days": 0}, "rehydrate_days is 0"),
        ({"compact_files": "8"}, "compact_files is '8'"),
        ({"colour": 1}, "unknown setting 'colour'"),
        ({"tiers": {"hot": {"from_age": 0, "until_age": 70, "zstd_level": 1, "row_group_rows": 9},
                    "cold": {"from_age": 60, "zstd_level": 1, "row_group_rows": 9}}},
         "tiers: ages overlap: hot owns until 70 days, cold from 60"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            LifecyclePolicy.parse(content)
