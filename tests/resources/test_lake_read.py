"""Reads: only the files that may hold the rows are opened, from one version, as one table."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forecast_core.cells import Cells
from resources.lake import Lake, LakeTable, MissingTable, Read

AS_OF = date(2016, 5, 22)
STORES = ("CA_1", "TX_2", "WI_3")
HISTORY = Cells(date(2014, 1, 1), date(2016, 5, 31), STORES)
SIXTY_DAYS = Cells(date(2016, 3, 24), AS_OF, ("TX_2",))


def prices(stores: tuple[str, ...] = STORES) -> pl.DataFrame:
    days = pl.date_range(HISTORY.first, AS_OF, eager=True).alias("date").to_frame()
    items = pl.DataFrame({"item_id": ["a", "b"], "sell_price": [1.0, 2.0]})
    rows = days.join(items, how="cross").join(pl.DataFrame({"store_id": stores}), how="cross")
    return rows.with_columns(
        until=pl.col("date"), source_row=pl.lit(1, pl.Int64), defect=pl.lit(None, pl.String)
    )


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    table = Lake(tmp_path, as_of=AS_OF).table("raw_prices")
    table.replace(prices(), HISTORY)
    return table


def test_sixty_days_of_a_store_open_three_files_and_no_other(table: LakeTable) -> None:
    """Every file that the log rules out is deleted first: opening one would fail."""
    read = table.read(SIXTY_DAYS)
    actions = pl.DataFrame(table.pin().get_add_actions(flatten=True))
    needed = actions.filter(
        (pl.col("partition.store_id") == "TX_2") & (pl.col("max.date") >= SIXTY_DAYS.first)
    )
    assert (read.files, read.bytes) == (needed.height, needed["size_bytes"].sum())
    assert read.files <= 3 < actions.height
    for path in set(actions["path"]) - set(needed["path"]):
        (Path(table.uri) / path).unlink()
    expected = prices(("TX_2",)).filter(pl.col("date") >= SIXTY_DAYS.first)
    assert_frame_equal(
        read.frame.collect().sort("item_id", "date"),
        expected.select(read.frame.collect_schema().names()).sort("item_id", "date"),
    )


def test_reads_cross_tiers_and_hide_them(table: LakeTable) -> None:
    found = table.read().frame.collect()
    assert found.columns == list(table.table.columns)
    assert_frame_equal(
        found.sort("store_id", "item_id", "date"),
        prices().select(*table.table.columns).sort("store_id", "item_id", "date"),
    )


def test_columns_and_filters(table: LakeTable) -> None:
    read = table.read(SIXTY_DAYS, ["item_id", "sell_price"], where=pl.col("item_id") == "b")
    found = read.frame.collect()
    assert found.columns == ["item_id", "sell_price"]
    assert found.unique().rows() == [("b", 2.0)]
    assert found.height == 60


def test_a_read_stays_at_its_version_while_the_table_changes(table: LakeTable) -> None:
    read = table.read(HISTORY, where=pl.col("sell_price") == 1.0)
    stores = table.by_store(SIXTY_DAYS)
    before = table.version()
    table.replace(prices().clear(), HISTORY)
    assert table.read().frame.collect().is_empty()
    assert read.version == before
    assert read.frame.collect().height == prices().height // 2
    assert stores.load("TX_2").height == 120


def test_by_store_loads_one_store_at_a_time_and_tells_of_each_read(table: LakeTable) -> None:
    seen: list[Read] = []
    may = Cells(date(2016, 5, 1), date(2016, 5, 31))
    stores = table.by_store(may, ["store_id", "date"], observe=seen.append)
    assert stores.stores == STORES
    assert seen == []
    for store_id, frame in stores.frames():
        assert frame["store_id"].unique().to_list() == [store_id]
        assert frame.height == 44
    assert [read.files for read in seen] == [1, 1, 1]


def test_by_store_of_a_table_that_is_not_filed_by_store(tmp_path: Path) -> None:
    lake = Lake(tmp_path, as_of=AS_OF)
    segments = lake.table("demand_segments")
    rows = segments.empty().clear(3)
    rows = rows.with_columns(
        as_of=AS_OF, item_id=pl.lit("a"), store_id=pl.Series(["TX_2", "CA_1", "TX_2"])
    )
    segments.replace(rows, Cells(AS_OF, AS_OF))
    stores = segments.by_store(Cells(AS_OF, AS_OF))
    assert [(store, frame.height) for store, frame in stores.frames()] == [("CA_1", 1), ("TX_2", 2)]
    reconciled = lake.table("prediction_reconciled")
    with pytest.raises(ValueError, match="prediction_reconciled has no store_id"):
        reconciled.by_store()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    table = Lake(tmp_path / "nowhere").table("raw_prices")
    assert not table.exists()
    with pytest.raises(MissingTable, match="raw_prices does not exist yet: materialize it first"):
        table.read()


def test_an_older_version_can_be_pinned(table: LakeTable) -> None:
    version = table.version()
    table.replace(prices().clear(), HISTORY)
    old = table.read(handle=table.pin(version))
    assert old.frame.collect().height == prices().height
