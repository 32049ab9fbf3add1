"""Facts of deltalake, polars and duckdb that the lake is built around, one test each.

When an upgrade breaks one of these the lake's design has to be looked at again.
"""

import ast
import json
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from forecast_core.cells import Cells
from forecast_core.schema import Table
from resources.lake import Lake, LakeTable

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("forecast_core", "resources", "forecast_assets")
MAY = Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1",))
STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
    open_ended=True,
)


def stock(units: float, store: str = "CA_1") -> pl.DataFrame:
    days = pl.date_range(MAY.first, MAY.last, eager=True).alias("date").to_frame()
    return days.with_columns(
        item_id=pl.lit("i"), store_id=pl.lit(store), units=pl.lit(units, pl.Float64)
    )


def arrow(rows: pl.DataFrame) -> pa.Table:
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    table = Lake(tmp_path, as_of=MAY.last).table(STOCK)
    table.replace(stock(1.0), MAY)
    return table


def test_1_native_compaction_is_called_nowhere() -> None:
    """Two of them at once multiply rows."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("compact", "z_order"):
                raise AssertionError(f"{path.name}:{node.lineno} calls .{node.attr}")


@pytest.mark.parametrize(("predicate", "left"), [(None, [1.0, 2.0]), ("true", None)])
def test_2_an_overwrite_without_a_predicate_resurrects_and_true_is_checked(
    tmp_path: Path, predicate: str | None, left: list[float] | None
) -> None:
    """Rows appended since the handle was pinned: joined silently, or a conflict."""
    uri = str(tmp_path / "race")
    write_deltalake(uri, arrow(stock(0.0)))
    stale = DeltaTable(uri)
    write_deltalake(uri, arrow(stock(1.0)), mode="append")

    def overwrite() -> None:
        write_deltalake(stale, arrow(stock(2.0)), mode="overwrite", predicate=predicate)

    if left is None:
        with pytest.raises(CommitFailedError):
            overwrite()
    else:
        overwrite()
        found = pl.scan_delta(DeltaTable(uri)).collect()["units"]
        assert found.unique().sort().to_list() == left


def test_5_a_scan_by_path_binds_late_and_a_pinned_handle_does_not(table: LakeTable) -> None:
    late, pinned = pl.scan_delta(table.uri), pl.scan_delta(table.pin())
    table.replace(stock(2.0), MAY)
    assert late.collect()["units"].unique().to_list() == [2.0]
    assert pinned.collect()["units"].unique().to_list() == [1.0]


def test_6_files_can_be_filtered_by_a_reader_that_knows_no_string_views(table: LakeTable) -> None:
    rows = stock(3.0).with_columns(mood=pl.Series(["good"] * 31, dtype=pl.Categorical))
    table.replace(rows, MAY)
    path = table.uri
    native = SubTreeFileSystem(path, LocalFileSystem())
    found = table.pin().to_pyarrow_dataset(filesystem=native)
    picked = found.to_table(filter=(ds.field("item_id") == "i") & (ds.field("mood") == "good"))
    assert picked.num_rows == 31
    types = {str(field.type) for field in found.schema}
    assert not [name for name in types if "view" in name or "dictionary" in name]


def test_7_a_stale_handle_conflicts_on_the_same_rows_and_not_on_others(table: LakeTable) -> None:
    stale, other = table.pin(), table.pin()
    table.replace(stock(2.0), MAY)
    filed = stock(3.0).with_columns(tier=pl.lit("hot"), period=pl.lit("2016-05"))
    with pytest.raises(CommitFailedError):
        write_deltalake(stale, arrow(filed), mode="overwrite", predicate="store_id = 'CA_1'")
    elsewhere = filed.with_columns(store_id=pl.lit("TX_2"))
    write_deltalake(other, arrow(elsewhere), mode="overwrite", predicate="store_id = 'TX_2'")
    assert table.read().frame.collect()["units"].unique().sort().to_list() == [2.0, 3.0]


def test_8_a_predicate_on_the_tier_doubles_rows_that_were_moved(table: LakeTable) -> None:
    """A move by a stale idea of where rows are; the lake's own predicate is on date and store."""
    moved = Lake(table.lake.root, as_of=date(2017, 1, 31)).table(STOCK)
    moved.replace(stock(1.0), MAY)
    assert moved.read().frame.collect().height == 31
    filed = stock(1.0).with_columns(tier=pl.lit("hot"), period=pl.lit("2016-05"))
    write_deltalake(
        moved.pin(),
        arrow(filed),
        mode="overwrite",
        predicate="tier = 'hot' AND store_id = 'CA_1'",
    )
    assert moved.read().frame.collect().height == 62, "the trap is gone: say so in the lake"
    moved.replace(stock(1.0), MAY)
    assert moved.read().frame.collect().height == 31


def test_9_duckdb_reads_the_files_of_a_pinned_version_without_its_extension(
    table: LakeTable,
) -> None:
    table.replace(stock(5.0, "TX_2"), MAY.only("TX_2"))
    handle = table.pin()
    table.replace(stock(9.0), MAY)
    uris = handle.file_uris(file_pruning_predicate="store_id = 'CA_1'")
    assert len(uris) == 1
    con = duckdb.connect()
    files = con.read_parquet(uris, hive_partitioning=True)
    found = files.aggregate("store_id, sum(units) as units").to_arrow_table()
    assert found.to_pylist() == [{"store_id": "CA_1", "units": 31.0}]


def test_the_query_engine_reads_the_lake_as_well(table: LakeTable) -> None:
    found = QueryBuilder().register("stock", table.pin()).execute("select sum(units) u from stock")
    assert pl.DataFrame(found.read_all())["u"].to_list() == [31.0]


def test_the_log_holds_statistics_for_the_columns_that_reads_prune_by(table: LakeTable) -> None:
    """On wide feature tables the statistics of the rest would be most of the log."""
    wide = stock(1.0).with_columns(*(pl.lit(1.0).alias(f"f{n}") for n in range(40)))
    table.replace(wide, MAY)
    entry = Path(table.uri) / "_delta_log" / f"{table.version():020d}.json"
    (added,) = [
        json.loads(line)["add"] for line in entry.read_text().split("\n") if '"add"' in line
    ]
    assert set(json.loads(added["stats"])["minValues"]) == {"date", "item_id"}


def test_readers_that_hang_at_exit_are_called_nowhere() -> None:
    banned = {"to_pyarrow_table", "to_pyarrow_dataset", "fetch_arrow_table"}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in banned, f"{path.name}:{node.lineno} calls .{node.attr}"
