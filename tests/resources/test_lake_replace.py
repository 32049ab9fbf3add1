"""Replace: the cells hold exactly the rows given, everything else stays, whatever the tiers."""

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from forecast_core.cells import Cells
from forecast_core.schema import TABLES, Table
from forecast_core.storage.tiers import Tier, TierPolicy, TierRule
from resources.lake import Lake, LakeTable

AS_OF = date(2016, 5, 22)
SALES = Table(
    "sales",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
    open_ended=True,
)
KEY = ["store_id", "item_id", "date"]


def sales(first: date, last: date, stores: tuple[str, ...] = ("CA_1",), units: float = 1.0):
    days = pl.date_range(first, last, eager=True).alias("date").to_frame()
    return days.join(
        pl.DataFrame({"item_id": ["b", "a"], "units": [units, units + 0.5]}), how="cross"
    ).join(pl.DataFrame({"store_id": list(stores)}), how="cross")


def whole(table: LakeTable) -> pl.DataFrame:
    return table.read().frame.collect().sort(KEY)


def files(table: LakeTable) -> list[Mapping[str, object]]:
    actions = pl.DataFrame(table.pin().get_add_actions(flatten=True))
    return actions.sort("path").to_dicts()


@pytest.fixture
def table(tmp_path: Path) -> LakeTable:
    return Lake(tmp_path / "lake", as_of=AS_OF).table(SALES)


def test_rows_land_in_the_tier_of_their_age_each_with_its_codec(table: LakeTable) -> None:
    rows = sales(date(2014, 6, 1), AS_OF)
    written = table.replace(rows, Cells(date(2014, 6, 1), date(2016, 5, 31), ("CA_1",)))

    assert_frame_equal(whole(table), rows.sort(KEY), check_column_order=False)
    expected = dict.fromkeys(("hot", "warm", "cold"), 0)
    for day in rows["date"]:
        expected[table.lake.policy.owner(day, AS_OF).value] += 1
    assert written.tiers == expected
    for file in files(table):
        tier = Tier(str(file["partition.tier"]))
        period = str(file["partition.period"])
        assert len(period) == (4 if tier is Tier.COLD else 7)
        path = Path(table.uri) / str(file["path"])
        footer = pq.ParquetFile(path).metadata
        date_chunk = next(
            chunk
            for n in range(footer.num_columns)
            if (chunk := footer.row_group(0).column(n)).path_in_schema == "date"
        )
        assert date_chunk.compression == "ZSTD"
        assert ("DELTA_BINARY_PACKED" in date_chunk.encodings) == (tier is Tier.COLD)
    assert sum(int(str(file["size_bytes"])) for file in files(table)) == written.bytes
    assert len(files(table)) == written.files
    by_tier: dict[str, tuple[int, int]] = {}
    for file in files(table):
        count, size = by_tier.get(str(file["partition.tier"]), (0, 0))
        by_tier[str(file["partition.tier"])] = (count + 1, size + int(str(file["size_bytes"])))
    assert written.traffic == by_tier
    assert table.read().traffic == by_tier


def test_a_replace_is_one_commit_for_each_tier_it_spans(table: LakeTable) -> None:
    one = Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1",))
    assert table.replace(sales(one.first, AS_OF), one).version == 1
    spanning = Cells(date(2014, 6, 1), date(2016, 5, 31), ("CA_1",))
    assert table.replace(sales(spanning.first, AS_OF), spanning).version == 4


def test_files_are_sorted_whatever_order_the_rows_come_in(table: LakeTable) -> None:
    rows = sales(date(2014, 1, 1), AS_OF, ("CA_1", "TX_2")).sample(fraction=1, shuffle=True, seed=3)
    table.replace(rows, Cells(date(2014, 1, 1), date(2016, 5, 31), ("CA_1", "TX_2")))
    for file in files(table):
        found = pl.read_parquet(Path(table.uri) / str(file["path"]), hive_partitioning=False)
        assert found.equals(found.sort("item_id", "date"))


def test_many_row_groups_stay_sorted(tmp_path: Path) -> None:
    """The writer runs several streams: only a file that is one batch keeps its order."""
    policy = TierPolicy({Tier.HOT: TierRule(0, None, 1, row_group_rows=500)})
    table = Lake(tmp_path, policy).table(SALES)
    items = pl.DataFrame({"item_id": [f"i{n:04}" for n in range(2000)], "units": 1.0})
    days = pl.DataFrame({"date": [date(2016, 4, d) for d in range(1, 31)], "store_id": "CA_1"})
    table.replace(items.join(days, how="cross"), Cells(date(2016, 4, 1), date(2016, 4, 30)))
    (file,) = files(table)
    path = Path(table.uri) / str(file["path"])
    assert pq.ParquetFile(path).metadata.num_row_groups == 120
    found = pl.read_parquet(path, hive_partitioning=False)
    assert found.equals(found.sort("item_id", "date"))


def test_a_rerun_replaces(table: LakeTable) -> None:
    cells = Cells(date(2015, 1, 1), date(2016, 5, 31), ("CA_1",))
    for units in (1.0, 2.0, 2.0):
        table.replace(sales(cells.first, AS_OF, units=units), cells)
    assert_frame_equal(
        whole(table), sales(cells.first, AS_OF, units=2.0).sort(KEY), check_column_order=False
    )


def test_late_data_goes_to_the_tier_that_owns_the_day_and_its_neighbours_stay(
    table: LakeTable,
) -> None:
    history = Cells(date(2014, 1, 1), date(2016, 5, 31), ("CA_1", "TX_2"))
    table.replace(sales(history.first, AS_OF, ("CA_1", "TX_2")), history)
    late = Cells(date(2014, 3, 1), date(2014, 3, 31), ("CA_1",))
    written = table.replace(sales(late.first, late.last, units=9.0), late)
    assert written.tiers == {"cold": 62}
    expected = pl.concat(
        [
            sales(history.first, AS_OF, ("CA_1", "TX_2")).filter(
                ~(pl.col("date").is_between(late.first, late.last) & (pl.col("store_id") == "CA_1"))
            ),
            sales(late.first, late.last, units=9.0),
        ],
        how="diagonal",
    )
    assert_frame_equal(whole(table), expected.sort(KEY), check_column_order=False)


def test_rows_filed_in_another_tier_are_replaced_too(tmp_path: Path) -> None:
    """The predicate is on logical columns: as time passes the tier of the old rows is stale."""
    day = date(2016, 5, 1)
    cells = Cells(day, date(2016, 5, 31), ("CA_1",))
    for as_of in (AS_OF, AS_OF + timedelta(days=200), AS_OF + timedelta(days=900), AS_OF):
        table = Lake(tmp_path, as_of=as_of).table(SALES)
        table.replace(sales(day, AS_OF), cells)
        assert whole(table).height == 44
        assert {file["partition.tier"] for file in files(table)} == {
            table.lake.policy.owner(day, as_of).value
        }


def test_no_rows_empty_the_cells(table: LakeTable) -> None:
    both = Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1", "TX_2"))
    rows = sales(both.first, AS_OF, ("CA_1", "TX_2"))
    table.replace(rows, both)
    written = table.replace(rows.clear(), both.only("CA_1"))
    assert (written.rows, written.files) == (0, 0)
    assert whole(table)["store_id"].unique().to_list() == ["TX_2"]


def test_no_rows_create_the_table(table: LakeTable) -> None:
    empty = SALES.schema.to_frame()
    table.replace(empty, Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1",)))
    assert table.exists()
    assert_frame_equal(whole(table), empty)


def test_landing_tier_holds_for_young_rows_only(table: LakeTable) -> None:
    cells = Cells(date(2014, 1, 1), date(2016, 5, 31), ("CA_1",))
    written = table.replace(sales(cells.first, AS_OF), cells, landing_tier="warm")
    assert set(written.tiers) == {"warm", "cold"}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (sales(date(2016, 4, 30), date(2016, 5, 2)), "2 of 6 rows lie outside .*2016, 4, 30"),
        (sales(date(2016, 5, 1), date(2016, 5, 2), ("TX_2",)), "4 of 4 rows lie outside.*'TX_2'"),
        (
            sales(date(2016, 5, 1), date(2016, 5, 1)).with_columns(date=pl.lit(None, pl.Date)),
            "2 of 2 rows lie outside",
        ),
        (sales(date(2016, 5, 1), date(2016, 5, 1)).drop("units"), "column 'units' is missing"),
        (
            sales(date(2016, 5, 1), date(2016, 5, 1)).with_columns(tier=pl.lit("x")),
            "column 'tier' is the lake's own",
        ),
        (
            sales(date(2016, 5, 1), date(2016, 5, 1)).with_columns(promo=pl.lit(None)),
            "column 'promo' has no type",
        ),
    ],
)
def test_rows_that_do_not_belong_are_refused_and_nothing_changes(
    table: LakeTable, rows: pl.DataFrame, complaint: str
) -> None:
    cells = Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1",))
    table.replace(sales(cells.first, AS_OF), cells)
    with pytest.raises(ValueError, match=f"(?s)sales: .*{complaint}"):
        table.replace(rows, cells)
    assert table.version() == 1


@pytest.mark.parametrize("store", ["", "__HIVE_DEFAULT_PARTITION__"])
def test_a_store_name_that_the_format_reads_as_null_is_refused(
    table: LakeTable, store: str
) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        table.replace(sales(AS_OF, AS_OF, (store,)), Cells(AS_OF, AS_OF))


def test_an_open_table_takes_new_columns_and_types_without_a_match(table: LakeTable) -> None:
    may = Cells(date(2016, 5, 1), date(2016, 5, 31), ("CA_1",))
    table.replace(sales(may.first, AS_OF), may)
    april = Cells(date(2016, 4, 1), date(2016, 4, 30), ("CA_1",))
    typed = sales(april.first, april.last).with_columns(
        mood=pl.lit("good").cast(pl.Categorical),
        size=pl.lit("L").cast(pl.Enum(["L"])),
        count=pl.lit(2**32 - 1, pl.UInt32),
    )
    table.replace(typed, april)
    found = whole(table)
    assert found.schema["mood"] == pl.String
    assert found.schema["size"] == pl.String
    assert found.schema["count"] == pl.Int64
    assert found.filter(pl.col("date") < may.first)["count"].unique().to_list() == [2**32 - 1]
    assert found.filter(pl.col("date") >= may.first)["count"].null_count() == 44


def test_a_table_that_is_not_cut_is_replaced_whole(tmp_path: Path) -> None:
    table = Lake(tmp_path, as_of=AS_OF).table("raw_calendar")
    for length in (900, 30):
        days = pl.date_range(AS_OF - timedelta(days=length - 1), AS_OF, eager=True)
        calendar = TABLES["raw_calendar"].schema.to_frame().clear(length)
        calendar = calendar.with_columns(date=days, snap_CA=pl.lit(True))
        table.replace(calendar, None)
        assert_frame_equal(table.read().frame.collect().sort("date"), calendar)
    assert len(files(table)) == 1


def test_groups_keep_their_history_and_are_replaced_by_key(tmp_path: Path) -> None:
    table = Lake(tmp_path, as_of=AS_OF).table("forecasters")

    def model(group: str, day: date, version: str) -> pl.DataFrame:
        row = {
            "segment_group": [group],
            "trained_to": [day],
            "version": [version],
            "rung": ["gbm"],
            "artefact": [b"\x00tree"],
            "drivers": ["{}"],
        }
        return pl.DataFrame(row)

    early, late = date(2016, 4, 24), AS_OF
    for group, day, version in [
        ("A", early, "1"),
        ("B", early, "1"),
        ("A", late, "2"),
        ("A", early, "3"),
    ]:
        table.replace(model(group, day, version), Cells(day, day), keys={"segment_group": group})
    found = table.read().frame.collect().sort("segment_group", "trained_to")
    assert found.select("segment_group", "trained_to", "version").rows() == [
        ("A", early, "3"),
        ("A", late, "2"),
        ("B", early, "1"),
    ]
    assert found["artefact"].to_list() == [b"\x00tree"] * 3
    only = table.read(keys={"segment_group": ["B"]})
    assert (only.files, only.frame.collect().height) == (1, 1)
    with pytest.raises(ValueError, match="lie outside"):
        table.replace(model("C", late, "1"), Cells(late, late), keys={"segment_group": "A"})


def test_an_unknown_dataset_or_tier_is_named(table: LakeTable) -> None:
    with pytest.raises(ValueError, match="unknown dataset 'sails'; declared are"):
        table.lake.table("sails")
    with pytest.raises(ValueError, match="unknown tier 'tepid'"):
        table.replace(sales(AS_OF, AS_OF), Cells(AS_OF, AS_OF), landing_tier="tepid")


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[date, date, str, float, date]]:
    found = []
    for n in range(draw(st.integers(2, 4))):
        first = draw(st.dates(date(2014, 11, 1), date(2016, 5, 1)))
        last = first + timedelta(days=draw(st.integers(0, 500)))
        as_of = draw(st.sampled_from([AS_OF, date(2016, 12, 1), date(2018, 3, 1)]))
        found.append((first, last, draw(st.sampled_from(["CA_1", "TX_2"])), float(n), as_of))
    return found


@given(edits())
@settings(max_examples=12, deadline=None)
def test_any_sequence_of_replaces_equals_the_obvious_dictionary(
    tmp_path_factory: pytest.TempPathFactory, todo: list[tuple[date, date, str, float, date]]
) -> None:
    root = tmp_path_factory.mktemp("lake")
    expected: dict[tuple[str, str, date], float] = {}
    for first, last, store, units, as_of in todo:
        table = Lake(root, as_of=as_of).table(SALES)
        rows = sales(first, last, (store,), units)
        table.replace(rows, Cells(first, last, (store,)))
        expected.update({(r[2], r[1], r[0]): r[3] for r in rows.select(*SALES.columns).iter_rows()})
    found = {(r[2], r[1], r[0]): r[3] for r in whole(table).select(*SALES.columns).iter_rows()}
    assert found == expected
    assert whole(table).height == len(expected)
