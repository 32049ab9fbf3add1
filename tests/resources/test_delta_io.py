"""The IO manager inside real Dagster runs: what goes in comes out, each partition told its own."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from forecast_core.schema import TABLES
from resources.delta_io import TieredDeltaIOManager, content_hash, series_by_store, shares
from resources.lake import Lake
from resources.partition_keys import cells_of
from resources.table_view import TableView

AS_OF = date(2016, 5, 22)
STORES = ("CA_1", "TX_2")
MONTH_STORE = dg.MultiPartitionsDefinition(
    {
        "month": dg.MonthlyPartitionsDefinition("2016-01-01", end_date="2016-06-01"),
        "store": dg.DynamicPartitionsDefinition(name="stores"),
    }
)
RANGE = {
    "dagster/asset_partition_range_start": "2016-03-01|CA_1",
    "dagster/asset_partition_range_end": "2016-05-01|TX_2",
}
ONE_RUN = dg.BackfillPolicy.single_run()


def raw_prices_of(store_id: str, cells: Cells, price: float = 1.0) -> pl.DataFrame:
    days = pl.date_range(cells.first, min(cells.last, AS_OF), eager=True).alias("date").to_frame()
    rows = days.with_columns(
        until=pl.col("date"),
        item_id=pl.lit("i"),
        store_id=pl.lit(store_id),
        sell_price=pl.lit(price),
        source_row=pl.lit(2, pl.Int64),
        defect=pl.lit(None, pl.String),
    )
    return TABLES["raw_prices"].conform(rows)


@dg.asset(partitions_def=MONTH_STORE, backfill_policy=ONE_RUN, io_manager_key="hot_io_manager")
def raw_prices(context: dg.AssetExecutionContext) -> ByStore:
    cells = cells_of(context.partition_keys)
    assert cells.stores is not None
    return ByStore(cells.stores, lambda store_id: raw_prices_of(store_id, cells))


class Ledger:
    """Hears what the meter hears; charges a thousandth a row."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, int]] = []
        self.settled: list[Mapping[str, int]] = []
        self.series: list[Mapping[str, int]] = []
        self.opens = 0

    def opened(self, context: object) -> None:
        self.opens += 1

    def read(self, context: object, bytes: int, files: int, tier: str) -> None:
        assert tier == "hot"
        self.reads.append((bytes, files))

    def wrote(self, context: object, bytes: int, files: int, tier: str) -> None:
        self.writes.append((bytes, files))

    def within(self, context: object) -> AbstractContextManager[None]:
        return nullcontext()

    def settle(
        self, context: object, rows: Mapping[str, int], series: Mapping[str, int]
    ) -> Mapping[str, Mapping[str, Any]]:
        self.settled.append(dict(rows))
        self.series.append(dict(series))
        return {key: {"cost/money": count / 1000} for key, count in rows.items()}


class Rig:
    """A lake, a Dagster instance with two stores, and a way to run assets on both."""

    def __init__(self, root: Path) -> None:
        self.lake = Lake(root / "lake", as_of=AS_OF)
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions("stores", list(STORES))
        self.ledger = Ledger()

    def run(self, *assets: dg.AssetsDefinition, **kwargs: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            list(assets),
            instance=self.instance,
            resources={
                f"{tier}_io_manager": TieredDeltaIOManager(self.lake, tier, self.ledger)
                for tier in ("hot", "warm", "cold")
            },
            **kwargs,
        )

    def rows(self, name: str) -> pl.DataFrame:
        return self.lake.table(name).read().frame.collect()

    def version(self, name: str, partition: str) -> str:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), asset_partitions=[partition]),
            limit=1,
        ).records
        tags = records[0].asset_materialization.tags  # type: ignore[union-attr]
        return str((tags or {})["dagster/data_version"])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_range_in_one_run_gives_each_partition_its_own_figures(rig: Rig) -> None:
    result = rig.run(raw_prices, tags=RANGE)
    events = {
        event.partition: {key: value.value for key, value in event.metadata.items()}
        for event in result.asset_materializations_for_node("raw_prices")
    }
    rows = {"2016-03-01": 31, "2016-04-01": 30, "2016-05-01": 22}
    expected = {f"{month}|{store}": n for month, n in rows.items() for store in STORES}
    assert {key: found["dagster/partition_row_count"] for key, found in events.items()} == expected
    assert {key: found["cost/money"] for key, found in events.items()} == {
        key: n / 1000 for key, n in expected.items()
    }
    handle = rig.lake.table("raw_prices").pin()
    size = pl.DataFrame(handle.get_add_actions(flatten=True))["size_bytes"].sum()
    assert sum(found["bytes_written"] for found in events.values()) == size
    (tiers,) = {json.dumps(found["tiers"]) for found in events.values()}
    assert json.loads(tiers) == {"hot": 166}
    assert {found["table_version"] for found in events.values()} == {2}, "one commit a store"
    assert rig.ledger.settled == [expected]
    assert rig.rows("raw_prices").height == sum(expected.values())


def test_a_rerun_of_one_partition_replaces_it_and_leaves_the_rest(rig: Rig) -> None:
    rig.run(raw_prices, tags=RANGE)
    rig.run(raw_prices, partition_key="2016-04-01|CA_1")
    rig.run(raw_prices, partition_key="2016-04-01|CA_1")
    found = rig.rows("raw_prices")
    assert found.height == 166
    assert found.unique().height == 166


def test_a_store_is_written_before_the_next_is_computed(rig: Rig) -> None:
    seen: list[int] = []

    def load(store_id: str) -> pl.DataFrame:
        table = rig.lake.table("raw_prices")
        seen.append(table.read().frame.collect().height if table.exists() else 0)
        return raw_prices_of(store_id, Cells(date(2016, 5, 1), AS_OF))

    @dg.asset(name="raw_prices", partitions_def=MONTH_STORE, io_manager_key="hot_io_manager")
    def prices() -> ByStore:
        return ByStore(STORES, load)

    rig.run(
        prices,
        tags=RANGE | {"dagster/asset_partition_range_start": "2016-05-01|CA_1"},
    )
    assert seen == [0, 22]


def test_inputs_come_as_annotated_and_pruned(rig: Rig) -> None:
    @dg.asset(partitions_def=MONTH_STORE, backfill_policy=ONE_RUN)
    def by_store(raw_prices: ByStore) -> None:
        assert raw_prices.stores == STORES
        assert [frame.height for _, frame in raw_prices.frames()] == [83, 83]

    @dg.asset(partitions_def=MONTH_STORE, backfill_policy=ONE_RUN)
    def framed(raw_prices: pl.DataFrame) -> None:
        assert raw_prices.height == 166
        assert raw_prices.columns == list(TABLES["raw_prices"].columns)

    @dg.asset(ins={"raw_prices": dg.AssetIn(metadata={"lake/columns": ["date"]})})
    def everything(raw_prices: pl.DataFrame) -> None:
        assert (raw_prices.columns, raw_prices.height) == (["date"], 166)

    @dg.asset
    def viewed(raw_prices: TableView) -> None:
        day = Cells(AS_OF, AS_OF, ("TX_2",))
        assert raw_prices.frame(day)["store_id"].to_list() == ["TX_2"]

    rig.run(raw_prices, tags=RANGE)
    rig.ledger.reads.clear()
    for asset, files in ((by_store, [3, 3]), (framed, [6])):
        rig.run(asset, raw_prices, tags=RANGE, selection=[asset])
        assert [count for _, count in rig.ledger.reads] == files
        assert all(size > 0 for size, _ in rig.ledger.reads)
        rig.ledger.reads.clear()
    for whole_table, files in ((everything, [6]), (viewed, [1])):
        rig.run(whole_table, raw_prices, selection=[whole_table])
        assert [count for _, count in rig.ledger.reads] == files
        rig.ledger.reads.clear()


def test_history_before_the_partition_is_read_when_asked_for(rig: Rig) -> None:
    @dg.asset(
        partitions_def=MONTH_STORE,
        ins={"raw_prices": dg.AssetIn(metadata={"lake/back_days": 10})},
    )
    def features(raw_prices: ByStore) -> None:
        assert raw_prices.load("CA_1")["date"].min() == date(2016, 4, 21)

    rig.run(raw_prices, tags=RANGE)
    rig.run(features, raw_prices, partition_key="2016-05-01|CA_1", selection=[features])


def test_a_mapping_that_reaches_before_the_first_partition_reads_no_rows(rig: Rig) -> None:
    back = dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping(
                "month",
                dg.TimeWindowPartitionMapping(
                    start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True
                ),
            ),
            "store": dg.DimensionPartitionMapping("store", dg.IdentityPartitionMapping()),
        }
    )

    @dg.asset(partitions_def=MONTH_STORE, ins={"raw_prices": dg.AssetIn(partition_mapping=back)})
    def last_month(raw_prices: pl.DataFrame) -> None:
        assert raw_prices.is_empty()
        assert raw_prices.schema == TABLES["raw_prices"].schema

    rig.run(raw_prices, tags=RANGE)
    rig.run(last_month, raw_prices, partition_key="2016-01-01|CA_1", selection=[last_month])


def test_a_table_that_does_not_exist_is_named_or_empty_when_optional(rig: Rig) -> None:
    @dg.asset(partitions_def=MONTH_STORE)
    def strict(raw_prices: pl.DataFrame) -> None: ...

    @dg.asset(
        partitions_def=MONTH_STORE,
        ins={"raw_prices": dg.AssetIn(metadata={"lake/optional": True})},
    )
    def lenient(raw_prices: ByStore) -> None:
        assert raw_prices.stores == ("CA_1",)
        assert raw_prices.load("CA_1").schema == TABLES["raw_prices"].schema

    key = "2016-05-01|CA_1"
    with pytest.raises(dg.Failure, match="raw_prices does not exist yet: materialize raw_prices"):
        rig.run(strict, raw_prices, partition_key=key, selection=[strict])
    rig.run(lenient, raw_prices, partition_key=key, selection=[lenient])


def test_an_input_of_another_type_is_refused(rig: Rig) -> None:
    @dg.asset(partitions_def=MONTH_STORE)
    def guess(raw_prices: dict) -> None: ...  # type: ignore[type-arg]

    with pytest.raises(TypeError, match="annotate it ByStore"):
        rig.run(guess, raw_prices, partition_key="2016-05-01|CA_1", selection=[guess])


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (ByStore(("WI_3",), lambda s: raw_prices_of(s, Cells(AS_OF, AS_OF))), "store 'WI_3'"),
        (
            ByStore(("CA_1",), lambda s: raw_prices_of(s, Cells(date(2016, 4, 1), AS_OF))),
            "30 of 52 rows lie outside",
        ),
        (ByStore(("CA_1",), lambda s: raw_prices_of("TX_2", Cells(AS_OF, AS_OF))), "lie outside"),
        (42, "returned int; return ByStore, pl.DataFrame or None"),
    ],
)
def test_an_output_that_does_not_fit_its_partition_fails(
    rig: Rig, answer: object, complaint: str
) -> None:
    @dg.asset(name="raw_prices", partitions_def=MONTH_STORE, io_manager_key="hot_io_manager")
    def prices() -> Any:
        return answer

    with pytest.raises((ValueError, TypeError), match=complaint):
        rig.run(prices, partition_key="2016-05-01|CA_1")


def test_a_frame_of_several_stores_is_filed_by_store_and_absent_ones_become_empty(
    rig: Rig,
) -> None:
    rig.run(raw_prices, tags=RANGE)
    may = Cells(date(2016, 5, 1), AS_OF)

    @dg.asset(name="raw_prices", partitions_def=MONTH_STORE, io_manager_key="hot_io_manager")
    def prices() -> pl.DataFrame:
        return raw_prices_of("TX_2", may, price=7.0)

    rig.run(prices, tags=RANGE | {"dagster/asset_partition_range_start": "2016-05-01|CA_1"})
    found = rig.rows("raw_prices").filter(pl.col("date") >= may.first)
    assert found.select("store_id", "sell_price").unique().rows() == [("TX_2", 7.0)]
    assert rig.ledger.settled[-1] == {"2016-05-01|CA_1": 0, "2016-05-01|TX_2": 22}


def test_none_writes_nothing_and_is_still_settled(rig: Rig) -> None:
    @dg.asset(name="raw_prices", partitions_def=MONTH_STORE, io_manager_key="hot_io_manager")
    def prices() -> Any:
        return None

    rig.run(prices, partition_key="2016-05-01|CA_1")
    assert not rig.lake.table("raw_prices").exists()
    assert rig.ledger.settled == [{"2016-05-01|CA_1": 0}]


def test_the_other_cuts(rig: Rig) -> None:
    groups = dg.StaticPartitionsDefinition(["A", "B"])
    days = dg.DailyPartitionsDefinition("2016-04-01", end_date="2016-06-01")

    @dg.asset(io_manager_key="warm_io_manager")
    def raw_calendar() -> pl.DataFrame:
        empty = TABLES["raw_calendar"].schema.to_frame().clear(2)
        return empty.with_columns(date=pl.Series([AS_OF, AS_OF + timedelta(days=1)]))

    @dg.asset(partitions_def=groups, backfill_policy=ONE_RUN, io_manager_key="hot_io_manager")
    def forecasters(context: dg.AssetExecutionContext) -> pl.DataFrame:
        models = TABLES["forecasters"].schema.to_frame().clear(len(context.partition_keys))
        return models.with_columns(
            segment_group=pl.Series(context.partition_keys), trained_to=AS_OF
        )

    every_group = dg.AssetIn(partition_mapping=dg.AllPartitionMapping())

    @dg.asset(
        partitions_def=days, io_manager_key="hot_io_manager", ins={"forecasters": every_group}
    )
    def prediction_reconciled(
        forecasters: pl.DataFrame, raw_calendar: pl.DataFrame
    ) -> pl.DataFrame:
        assert sorted(forecasters["segment_group"]) == ["A", "B"]
        assert raw_calendar.height == 2
        row = TABLES["prediction_reconciled"].schema.to_frame().clear(1)
        return row.with_columns(cutoff=AS_OF, ds=AS_OF, level=pl.lit("Total"), node=pl.lit("x"))

    result = rig.run(raw_calendar)
    (event,) = result.asset_materializations_for_node("raw_calendar")
    assert event.metadata["dagster/row_count"].value == 2
    tags = {
        "dagster/asset_partition_range_start": "A",
        "dagster/asset_partition_range_end": "B",
    }
    for _ in range(2):
        rig.run(forecasters, tags=tags)
    rig.run(forecasters, partition_key="A")
    assert rig.rows("forecasters")["segment_group"].sort().to_list() == ["A", "B"]
    for _ in range(2):
        rig.run(
            prediction_reconciled,
            forecasters,
            raw_calendar,
            partition_key="2016-05-22",
            selection=[prediction_reconciled],
        )
    assert rig.rows("prediction_reconciled").height == 1
    assert rig.ledger.settled[-1] == {"2016-05-22": 1}


def test_the_same_content_has_the_same_data_version(rig: Rig) -> None:
    key = "2016-05-01|CA_1"

    def prices(price: float) -> dg.AssetsDefinition:
        @dg.asset(name="raw_prices", partitions_def=MONTH_STORE, io_manager_key="hot_io_manager")
        def raw() -> pl.DataFrame:
            rows = raw_prices_of("CA_1", Cells(date(2016, 5, 1), AS_OF), price)
            return rows.sample(fraction=1, shuffle=True)

        return raw

    versions = []
    for price in (1.0, 1.0, 2.0):
        rig.run(prices(price), partition_key=key)
        versions.append(rig.version("raw_prices", key))
    assert versions[0] == versions[1] != versions[2]
    assert versions[0].startswith("22-")


@given(
    st.integers(0, 10**12), st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), min_size=1)
)
def test_shares_sum_to_the_total_and_follow_the_weights(
    total: int, weights: dict[str, int]
) -> None:
    found = shares(total, weights)
    assert sum(found.values()) == total
    weight = sum(weights.values())
    for key, own in weights.items():
        exact = total * own / weight if weight else total / len(weights)
        assert abs(found[key] - exact) <= 1 + 1e-9 * total


def test_content_hash_sees_values_and_not_order() -> None:
    rows = raw_prices_of("CA_1", Cells(date(2016, 5, 1), AS_OF))
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1).select(reversed(rows.columns))
    assert content_hash(rows) == content_hash(shuffled)
    assert content_hash(rows) != content_hash(rows.with_columns(sell_price=pl.lit(1.25)))
    assert content_hash(rows.clear()) == 0
    halves = (content_hash(rows[:10]) + content_hash(rows[10:])) % 2**64
    assert halves == content_hash(rows)


@pytest.mark.parametrize("stores", [["a"] * 6, ["a", "a", "b", "b", "b", "a"]])
def test_series_are_items_in_a_store_whether_one_or_many(stores: list[str]) -> None:
    rows = pl.DataFrame({"store_id": stores, "item_id": ["x", "y", "x", "z", "x", "y"]})
    slowly = {
        store: len({item for at, item in rows.iter_rows() if at == store}) for store in set(stores)
    }
    table = TABLES["cleaned_sales"]
    assert series_by_store(rows, table) == slowly
    assert series_by_store(rows.clear(), table) == {}
