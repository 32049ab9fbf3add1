"""A flipped bit is found in any tier and can be undone; vacuum keeps what may be asked for."""

import os
import random
import re
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from forecast_core.cells import Cells
from forecast_core.cost.price_card import Rates
from forecast_core.schema import Table
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import Due, Hold, LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources.commits import local_path
from resources.lake import Lake, LakeTable
from resources.lifecycle import Mover, parts_of
from resources.price_card import load_price_card
from resources.scrub import CannotRestore, drop, restore, scrub
from resources.storage_ledger import StorageLedger
from resources.vacuum import RetentionTooShort, vacuum

STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)
POLICY = LifecyclePolicy(longest_job_hours=1, vacuum_after_hours=2)
LONG_AGO = (datetime.now(UTC) - timedelta(days=50)).timestamp()


def rows(first: date, units: float = 1.0) -> pl.DataFrame:
    days = pl.date_range(first, first.replace(day=28), eager=True).alias("date").to_frame()
    named = pl.DataFrame({"item_id": [f"i{n}" for n in range(4)], "store_id": ["S"] * 4})
    return days.join(named, how="cross").with_columns(units=pl.col("date").dt.day() * units)


@pytest.fixture
def mover(tmp_path: Path) -> Mover:
    books = StorageLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    return Mover(Lake(tmp_path / "lake", books=books), books, POLICY)


@pytest.fixture
def table(mover: Mover) -> LakeTable:
    """January cold, February warm, March hot."""
    table = mover.lake.table(STOCK)
    for month in (1, 2, 3):
        first = date(2016, month, 1)
        table.replace(rows(first), Cells(first, first.replace(day=28), ("S",)))
    january, february, _ = parts_of(table)
    mover.make(table, Due(january, Tier.COLD, "move", "old"))
    mover.make(table, Due(february, Tier.WARM, "move", "old"))
    return table


@pytest.fixture
def rates(project_root: Path) -> Rates:
    return load_price_card(project_root / "policies" / "price_card.yaml").on(date(2016, 5, 1))


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def test_a_whole_table_is_clean(table: LakeTable, mover: Mover) -> None:
    seen = scrub(table, mover.books)
    assert (seen.files, seen.adopted, seen.damages) == (3, 0, ())
    assert seen.bytes == sum(part.bytes for part in parts_of(table))


def test_every_flipped_bit_is_found_in_every_tier_and_named(table: LakeTable, mover: Mover) -> None:
    rng = random.Random(0)
    found = 0
    for part in parts_of(table):
        file = local_path(table.uri) / part.paths[0]
        sound = file.read_bytes()
        for _ in range(40):
            flip(file, rng)
            (damage,) = scrub(table, mover.books).damages
            assert (damage.path, damage.tier, damage.what) == (part.paths[0], part.tier, "changed")
            assert damage.partition == part.name
            assert part.paths[0] in damage.message
            found += 1
            file.write_bytes(sound)
    assert found == 120
    assert not scrub(table, mover.books).damages


def test_a_missing_file_is_named_and_restored_from_where_it_was_moved(
    table: LakeTable, mover: Mover
) -> None:
    before = content_hash(table.read().frame.collect())
    january = parts_of(table)[0]
    (local_path(table.uri) / january.paths[0]).unlink()
    (damage,) = scrub(table, mover.books).damages
    assert (damage.what, damage.partition) == ("missing", "stock 2016 of S (cold)")
    assert f"forecast lake restore stock '{january.paths[0]}'" in damage.remedy
    restore(mover, table, january.paths[0])
    assert content_hash(table.read().frame.collect()) == before
    assert not scrub(table, mover.books).damages


def test_what_no_version_holds_is_made_anew_by_its_partition(
    table: LakeTable, mover: Mover
) -> None:
    march = parts_of(table)[2]
    flip(local_path(table.uri) / march.paths[0], random.Random(1))
    (damage,) = scrub(table, mover.books).damages
    assert "forecast partitions refresh stock --partitions '2016-03-01|S'" in damage.remedy
    assert f"forecast lake drop stock '{march.paths[0]}'" in damage.remedy
    with pytest.raises(CannotRestore, match="no earlier version holds its rows"):
        restore(mover, table, march.paths[0])
    with pytest.raises(ValueError, match="has no file nonsense"):
        restore(mover, table, "nonsense")
    (local_path(table.uri) / march.paths[0]).unlink()
    drop(table, march)
    table.replace(rows(date(2016, 3, 1)), Cells(march.first, march.last, ("S",)))
    assert table.read().frame.collect().height == 3 * 28 * 4
    assert not scrub(table, mover.books).damages


def test_a_file_whose_writer_died_before_recording_is_read_and_adopted(mover: Mover) -> None:
    silent = Lake(mover.lake.root).table(STOCK)
    first = date(2016, 1, 1)
    silent.replace(rows(first), Cells(first, first.replace(day=28), ("S",)))
    seen = scrub(silent, mover.books)
    assert (seen.adopted, seen.damages) == (1, ())
    assert scrub(silent, mover.books).adopted == 0
    broken = local_path(silent.uri) / parts_of(silent)[0].paths[0]
    broken.write_bytes(broken.read_bytes()[:-40])
    assert [damage.what for damage in scrub(silent, mover.books).damages] == ["changed"]


# -- vacuum ---------------------------------------------------------------------------------


def age(table: LakeTable) -> None:
    """Let everything that was removed so far have been removed long ago."""
    root = local_path(table.uri)
    for file in root.rglob("*.parquet"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    for entry in (root / "_delta_log").glob("*.json"):
        text = entry.read_text()
        old = int(LONG_AGO * 1000)
        text = re.sub(r'"deletionTimestamp":\d+', f'"deletionTimestamp":{old}', text)
        entry.write_text(text)
        os.utime(entry, (LONG_AGO, LONG_AGO))


def data_files(table: LakeTable) -> set[str]:
    root = local_path(table.uri)
    found = {str(path.relative_to(root)) for path in root.rglob("*.parquet")}
    return {path for path in found if not path.startswith("_delta_log")}


def live(table: LakeTable) -> set[str]:
    return {path for part in parts_of(table) for path in part.paths}


def test_old_files_go_and_the_newest_version_stays(
    table: LakeTable, mover: Mover, rates: Rates
) -> None:
    age(table)
    before = content_hash(table.read().frame.collect())
    dry = vacuum(mover, table, rates)
    assert (dry.files, dry.dry_run, len(data_files(table))) == (2, True, 5)
    done = vacuum(mover, table, rates, dry_run=False)
    assert (done.files, done.bytes) == (dry.files, dry.bytes)
    assert data_files(table) == live(table)
    assert content_hash(table.read().frame.collect()) == before
    assert not scrub(table, mover.books).damages


def test_nothing_younger_than_the_retention_goes(
    table: LakeTable, mover: Mover, rates: Rates
) -> None:
    assert vacuum(mover, table, rates, dry_run=False).files == 0
    with pytest.raises(RetentionTooShort, match="less than the longest job"):
        vacuum(mover, table, rates, hours=0)


def test_a_held_version_stays_readable_through_checkpoints_and_vacuum(
    mover: Mover, rates: Rates
) -> None:
    table = mover.lake.table(STOCK)
    first = date(2016, 1, 1)
    cells = Cells(first, first.replace(day=28), ("S",))
    table.replace(rows(first), cells)
    pinned = table.version()
    mover.books.place(table.uri, Hold("bt-7", "stock", "pin", pinned, "backtest 7"))
    expected = content_hash(table.read().frame.collect())
    for n in range(110):  # past the checkpoint at every hundredth version
        table.replace(rows(first, float(n)), cells)
    log = local_path(table.uri) / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    for checkpoint in (*log.glob("*.checkpoint.parquet"), log / "_last_checkpoint"):
        checkpoint.unlink()  # its tombstones are of today: it is made again from the aged log
    age(table)
    DeltaTable(table.uri).create_checkpoint()
    DeltaTable(table.uri).cleanup_metadata()
    done = vacuum(mover, table, rates, dry_run=False)
    assert done.kept_versions == (pinned,)
    assert len(data_files(table)) == 2
    held = table.read(handle=table.pin(pinned)).frame.collect()
    assert content_hash(held) == expected
    mover.books.release("bt-7")
    assert vacuum(mover, table, rates, dry_run=False).files == 1


def test_an_unsettled_move_keeps_what_it_started_from(
    table: LakeTable, mover: Mover, rates: Rates
) -> None:
    part = parts_of(table)[0]
    base = table.version()
    mover.books.begin(table.uri, Due(part, Tier.WARM, "move", "died"), base)
    table.replace(rows(date(2016, 1, 1), 2.0), Cells(part.first, part.last, ("S",)))
    age(table)
    kept = vacuum(mover, table, rates, dry_run=False)
    assert kept.kept_versions == (base,)
    assert set(part.paths) <= data_files(table)


def test_what_a_killed_writer_left_goes_by_its_age(
    table: LakeTable, mover: Mover, rates: Rates
) -> None:
    orphan = local_path(table.uri) / "tier=hot" / "period=2016-03" / "store_id=S" / "left.parquet"
    orphan.write_bytes(b"half a file")
    assert vacuum(mover, table, rates, dry_run=False).files == 0, "its writer may still be at work"
    os.utime(orphan, (time.time() - 9 * 3600,) * 2)
    assert vacuum(mover, table, rates, dry_run=False).files == 1
    assert not orphan.exists()


def test_leaving_a_tier_early_is_owed_to_its_minimum_duration(
    table: LakeTable, mover: Mover, rates: Rates
) -> None:
    part = parts_of(table)[0]
    table.replace(rows(date(2016, 1, 1), 3.0), Cells(part.first, part.last, ("S",)))
    age(table)
    done = vacuum(mover, table, rates, dry_run=False)
    billed = max(part.bytes, rates.minimum_bytes["cold"]) / 2**30
    month = (datetime.now(UTC).replace(day=28) + timedelta(days=4)).replace(day=1)
    days = (month - timedelta(days=1)).day
    owed = Decimal(billed * rates.minimum_days["cold"] / days) * rates.of("gib_month/cold")
    assert float(done.early_deletion) == pytest.approx(float(owed), rel=1e-3)


def test_vacuum_of_the_library_keeps_named_versions_only_when_told(tmp_path: Path) -> None:
    """The fact that holds rest on: `full` with `keep_versions` spares those versions' files."""
    uri = str(tmp_path / "t")
    for n in range(3):
        frame = pl.DataFrame({"n": [n]})
        write_deltalake(uri, frame.to_arrow(compat_level=pl.CompatLevel.oldest()), mode="overwrite")
    for file in Path(uri).glob("*.parquet"):
        os.utime(file, (LONG_AGO, LONG_AGO))
    old = {"retention_hours": 0, "enforce_retention_duration": False, "full": True}
    assert len(DeltaTable(uri).vacuum(dry_run=True, **old)) == 2
    DeltaTable(uri).vacuum(dry_run=False, keep_versions=[0], **old)
    assert pl.read_delta(DeltaTable(uri, version=0))["n"].to_list() == [0]  # type: ignore[arg-type]
    assert pl.read_delta(uri)["n"].to_list() == [2]
    with pytest.raises((FileNotFoundError, OSError, pl.exceptions.PolarsError)):
        pl.read_delta(DeltaTable(uri, version=1))  # type: ignore[arg-type]
