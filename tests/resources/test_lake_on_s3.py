"""The same code on a real HTTP endpoint: writes, moves, classes, archives, and the probe."""

import os
from collections.abc import Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from forecast_core.cells import Cells
from forecast_core.cost.price_card import Rates
from forecast_core.schema import Table
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import Due, LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources import s3
from resources.lake import Lake, LakeTable
from resources.late_books import LateBooks
from resources.lifecycle import DamagedFile, Mover, parts_of
from resources.price_card import load_price_card
from resources.s3 import Archived, ObjectClasses, S3Files, UnsafeStore, probe
from resources.scrub import scrub
from resources.storage_ledger import StorageLedger
from resources.vacuum import vacuum

STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)
CLASSES = {Tier.HOT: "STANDARD", Tier.WARM: "STANDARD_IA", Tier.COLD: "GLACIER"}
POLICY = LifecyclePolicy(storage_class=CLASSES)
AS_OF = date(2016, 5, 22)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from benchmarks._moto_server import endpoint

    with endpoint() as environment, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        s3.client.cache_clear()
        yield "s3://lake"
        s3.client.cache_clear()


@pytest.fixture
def rates(project_root: Path) -> Rates:
    return load_price_card(project_root / "policies" / "price_card.yaml").on(AS_OF)


@pytest.fixture
def mover(endpoint: str, tmp_path: Path, rates: Rates) -> Mover:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    guard = partial(ObjectClasses(POLICY).check_readable, rates=rates)
    root = f"{endpoint}/{tmp_path.name}"
    lake = Lake(root, as_of=AS_OF, books=LateBooks(url, POLICY), guard=guard)
    return Mover(lake, StorageLedger(url), POLICY)


def rows(first: date) -> pl.DataFrame:
    days = pl.date_range(first, first.replace(day=28), eager=True).alias("date").to_frame()
    return days.with_columns(
        item_id=pl.lit("i"), store_id=pl.lit("S"), units=pl.col("date").dt.day() * 1.0
    )


@pytest.fixture
def table(mover: Mover) -> LakeTable:
    table = mover.lake.table(STOCK)
    for month in (4, 5):
        first = date(2016, month, 1)
        table.replace(rows(first), Cells(first, first.replace(day=28), ("S",)))
    return table


def classes(table: LakeTable) -> dict[str, str]:
    bucket, prefix = s3.split(table.uri)
    found = {}
    for part in parts_of(table):
        for path in part.paths:
            head: dict[str, Any] = s3.client().head_object(Bucket=bucket, Key=f"{prefix}/{path}")
            found[part.name] = head.get("StorageClass", "STANDARD")
    return found


def test_a_move_keeps_rows_and_sets_the_class(table: LakeTable, mover: Mover, rates: Rates) -> None:
    before = content_hash(table.read().frame.collect())
    mover.make(table, Due(parts_of(table)[0], Tier.WARM, "move", "old"))
    assert content_hash(table.read().frame.collect()) == before
    assert classes(table) == {
        "stock 2016-04 of S (warm)": "STANDARD_IA",
        "stock 2016-05 of S (hot)": "STANDARD",
    }
    assert not scrub(table, mover.books).damages
    assert vacuum(mover, table, rates).files == 0


def test_archived_objects_are_refused_with_a_quote_and_rehydrate(
    table: LakeTable, mover: Mover
) -> None:
    before = content_hash(table.read().frame.collect())
    mover.make(table, Due(parts_of(table)[0], Tier.COLD, "move", "old"))
    assert classes(table)["stock 2016 of S (cold)"] == "GLACIER"
    april = Cells(date(2016, 4, 1), date(2016, 4, 30))
    with pytest.raises(Archived, match=r"stock: 1 objects .* about 5 hours and 0\.0\d+ USD"):
        table.read(april)
    with pytest.raises(Archived):
        mover.make(table, Due(parts_of(table)[0], Tier.HOT, "move", "early"))
    seen = scrub(table, mover.books)
    assert (seen.files, seen.archived, seen.damages) == (1, 1, ()), "a scrub reads what it can"
    may = Cells(date(2016, 5, 1), date(2016, 5, 31))
    assert table.read(may).frame.collect().height == 28, "the rest reads"
    (moved,) = mover.rehydrate(table, april, Tier.WARM, date(2016, 6, 5), "a backfill")
    assert (moved.rows, moved.due.tier) == (28, Tier.WARM)
    assert content_hash(table.read().frame.collect()) == before


def test_a_missing_object_is_named(table: LakeTable, mover: Mover) -> None:
    part = parts_of(table)[0]
    bucket, prefix = s3.split(table.uri)
    s3.client().delete_object(Bucket=bucket, Key=f"{prefix}/{part.paths[0]}")
    with pytest.raises(DamagedFile, match=r"stock 2016-04 of S .* is missing"):
        mover.make(table, Due(part, Tier.WARM, "move", "old"))
    assert [damage.what for damage in scrub(table, mover.books).damages] == ["missing"]
    assert part.paths[0] not in S3Files(table.uri).sizes()


def test_the_probe_accepts_a_store_with_conditional_puts(endpoint: str) -> None:
    probe(f"{endpoint}/somewhere")
    found = s3.client().list_objects_v2(Bucket="lake", Prefix="somewhere")
    assert found.get("KeyCount", 0) == 0, "it leaves nothing behind"


def test_the_probe_refuses_a_store_that_ignores_if_none_match(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = s3.client()

    class Careless:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def put_object(self, **request: Any) -> Any:
            request.pop("IfNoneMatch")
            return real.put_object(**request)

    monkeypatch.setattr(s3, "client", Careless)
    with pytest.raises(UnsafeStore, match="overwrote an object although it was told If-None-Match"):
        probe(f"{endpoint}/careless")


def test_the_probe_names_a_bucket_that_is_not_there(endpoint: str) -> None:
    with pytest.raises(UnsafeStore, match=r"s3://nowhere/lake cannot be written .* AWS_"):
        probe("s3://nowhere/lake")
