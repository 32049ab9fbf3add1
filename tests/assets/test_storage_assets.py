"""Looking after storage through Dagster: plan, apply, check, charge, on a finished installation."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from forecast_assets.assets import storage
from forecast_assets.jobs_storage import CHECKS
from forecast_assets.storage_reads import READS, GraphFacts, declared, readers
from forecast_core.cells import Cells
from forecast_core.cost.charges import early_deletion_charge
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import Due, Hold, LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources import DataSpan, Settings
from resources.lake import Lake
from resources.late_books import LateBooks
from resources.lifecycle import Mover, parts_of
from resources.meter import Meter
from resources.storage_ledger import StorageLedger
from resources.storage_usage import stored

AS_OF = date(2017, 12, 31)
ASSETS = [
    storage.cost_storage, storage.storage_plan, storage.storage_rollover,
    storage.storage_compaction, storage.storage_scrub, storage.storage_vacuum,
]  # fmt: skip


@pytest.fixture
def resources(tmp_path: Path, project_root: Path) -> dict[str, Any]:
    url = f"sqlite:///{tmp_path / 'dev' / 'ledger.db'}"
    policy = LifecyclePolicy(compact_files=3)
    lake = Lake(tmp_path / "dev" / "demo" / "lake", books=LateBooks(url, policy))
    return {
        "mover": Mover(lake, StorageLedger(url), policy),
        "meter": Meter(url, project_root / "policies" / "price_card.yaml", "dev"),
        "span": DataSpan(date(2016, 1, 1), AS_OF, AS_OF),
        "graph": GraphFacts(pipelines={"raw_prices": "ingest"}),
        "settings": Settings(data_root=str(tmp_path)),
    }


@pytest.fixture
def lake(resources: dict[str, Any]) -> Lake:
    """Three months of prices, hot; the last in as many files as it has writes."""
    lake: Lake = resources["mover"].lake
    for month in (1, 2, 3):
        first = date(2016, month, 1)
        rows = pl.DataFrame(
            {
                "date": [first + timedelta(days=n % 28) for n in range(2000)],
                "item_id": [f"i{n}" for n in range(2000)],
            }
        ).with_columns(
            until=pl.col("date"), store_id=pl.lit("S"), sell_price=pl.int_range(2000) * 0.01,
            source_row=pl.lit(0, pl.Int64), defect=pl.lit(None, pl.String),
        )  # fmt: skip
        step = 7 if month == 3 else 28
        for day in range(0, 28, step):
            a, b = first + timedelta(days=day), first + timedelta(days=day + step - 1)
            part = rows.filter(pl.col("date").is_between(a, b))
            lake.table("raw_prices").replace(part, Cells(a, b, ("S",)))
    return lake


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(
    instance: dg.DagsterInstance,
    resources: dict[str, Any],
    asset: str,
    config: dict[str, Any] | None = None,
    partition: str | None = None,
) -> tuple[dict[str, Any], dict[str, bool]]:
    done = dg.materialize(
        [*ASSETS, *CHECKS],
        instance=instance,
        resources=resources,
        selection=dg.AssetSelection.assets(asset) | dg.AssetSelection.checks_for_assets(asset),
        run_config={"ops": {asset: {"config": config}}} if config else None,
        partition_key=partition,
    )
    (made,) = done.asset_materializations_for_node(asset)
    checks = {c.check_name: c.passed for c in done.get_asset_check_evaluations()}
    return {name: value.value for name, value in made.metadata.items()}, checks


def test_the_plan_is_a_table_and_moves_nothing(lake: Lake, instance, resources) -> None:
    version = lake.table("raw_prices").version()
    found, _ = run(instance, resources, "storage_plan")
    assert found["parts"] == 3
    assert "| part | rows | to |" in found["plan"]
    assert "billed as 128 KiB" in found["plan"], "M5-sized files stay where they are"
    assert found["moves"] == 0
    assert lake.table("raw_prices").version() == version


def test_a_rollover_is_a_dry_run_until_told_to_apply(lake: Lake, instance, resources) -> None:
    table = lake.table("raw_prices")
    before = content_hash(table.read().frame.collect())
    found, checks = run(instance, resources, "storage_rollover", {"by": "age"})
    assert (found["due"], found["moved"], found["applied"]) == (3, 0, False)
    assert {part.tier for part in parts_of(table)} == {Tier.HOT}
    found, checks = run(instance, resources, "storage_rollover", {"by": "age", "apply": True})
    assert (found["moved"], found["rows"]) == (3, 6000)
    assert checks == {"rows_conserved": True}
    assert {part.tier for part in parts_of(table)} == {Tier.COLD}
    assert content_hash(table.read().frame.collect()) == before
    assert "| raw_prices 2016-01 of S (hot) | cold | 703 days old" in found["moves"]


def test_an_apply_books_the_cost_of_the_move(lake: Lake, instance, resources) -> None:
    run(instance, resources, "storage_rollover", {"by": "age", "apply": True})
    resources["meter"].flush()
    charges = resources["meter"].ledger.charges()
    mine = charges.filter(pl.col("x_asset") == "storage_rollover")
    assert {"write_request/cold", "read_request/hot", "vcpu_s"} <= set(mine["SkuId"])
    assert set(mine["x_pipeline"]) == {"storage"}


def test_a_held_part_stays_and_says_why(lake: Lake, instance, resources) -> None:
    table = lake.table("raw_prices")
    hold = Hold("case", "raw_prices", "legal", table.version(), "audit", date(2016, 1, 1),
                date(2016, 1, 31), "S")  # fmt: skip
    resources["mover"].books.place(table.uri, hold)
    found, _ = run(instance, resources, "storage_plan")
    assert "legal hold case: audit" in found["plan"]
    found, _ = run(instance, resources, "storage_rollover", {"by": "age", "apply": True})
    assert (found["due"], found["moved"]) == (2, 2)


def test_compaction_scrub_and_vacuum(lake: Lake, instance, resources) -> None:
    table = lake.table("raw_prices")
    before = content_hash(table.read().frame.collect())
    found, checks = run(instance, resources, "storage_compaction", {"apply": True})
    assert (found["moved"], checks) == (1, {"rows_conserved": True})
    assert [part.files for part in parts_of(table)] == [1, 1, 1]
    assert content_hash(table.read().frame.collect()) == before
    found, checks = run(instance, resources, "storage_scrub")
    assert (found["damaged"], found["files"], checks) == (0, 3, {"nothing_damaged": True})
    file = Path(table.uri) / parts_of(table)[0].paths[0]
    content = bytearray(file.read_bytes())
    content[100] ^= 4
    file.write_bytes(content)
    found, checks = run(instance, resources, "storage_scrub")
    assert (found["damaged"], checks) == (1, {"nothing_damaged": False})
    assert "raw_prices 2016-01 of S (hot)" in found["damages"]
    found, _ = run(instance, resources, "storage_vacuum", {"apply": True})
    assert (found["files"], found["applied"]) == (0, True), "nothing is old enough"


def test_a_day_of_storage_is_rows_charges_and_metadata(lake: Lake, instance, resources) -> None:
    run(instance, resources, "storage_compaction", {"apply": True})
    found, _ = run(instance, resources, "cost_storage", partition=storage.today())
    assert found["charges"] > 0 and found["money"] > 0
    rows = lake.table(storage.COST_STORAGE).read().frame.collect()
    assert {"live", "tombstones", "log", "other"} <= set(rows["kind"])
    live = rows.filter(kind="live", table="raw_prices")
    assert (live["rows"].sum(), live["store_id"].to_list()) == (6000, ["S"])
    on_disk = sum(
        os.path.getsize(os.path.join(where, file))
        for where, _, files in os.walk(lake.table("raw_prices").uri)
        for file in files
    )
    assert rows.filter(table="raw_prices")["bytes"].sum() == on_disk, "every byte is accounted for"
    assert "ledger.db" in set(rows.filter(kind="other")["table"])
    again, _ = run(instance, resources, "cost_storage", partition=storage.today())
    fresh = {"cost_storage", "ledger.db", "ledger.db-wal", "ledger.db-shm"}
    charged = resources["meter"].ledger.charges().filter(pl.col("x_pipeline") == "storage")
    storage_lines = charged.filter(pl.col("SkuId").str.starts_with("gib_month"))
    repeated = storage_lines.filter(~pl.col("x_asset").is_in(fresh))
    assert repeated["x_charge_set"].is_unique().all(), "a day is charged once"
    assert again["charges"] <= len(fresh) * 3


def test_a_scrub_of_cold_files_is_charged_as_retrieval(lake: Lake, instance, resources) -> None:
    run(instance, resources, "storage_rollover", {"by": "age", "apply": True})
    cold = sum(part.bytes for part in parts_of(lake.table("raw_prices")))
    run(instance, resources, "storage_scrub")
    charges = resources["meter"].ledger.charges()
    mine = charges.filter(x_asset="storage_scrub", SkuId="retrieval_gib/cold")
    assert float(mine["PricingQuantity"].item()) == pytest.approx(cold / 2**30, abs=1e-9)


def test_what_deleted_files_still_owe_is_charged_once(lake: Lake, instance, resources) -> None:
    """Files that leave the cold tier early: in the rows of the day and in the ledger alike."""
    table, mover = lake.table("raw_prices"), resources["mover"]
    run(instance, resources, "storage_rollover", {"by": "age", "apply": True})
    for part in parts_of(table):
        mover.make(table, Due(part, Tier.HOT, "move", "test"))
    cold = [p for p in mover.books.files(table.uri).values() if p.tier == "cold"]
    mover.books.deleted(table.uri, [cold[0].path])
    for _ in range(2):  # a second look charges nothing again
        run(instance, resources, "cost_storage", partition=storage.today())
    mover.books.deleted(table.uri, [file.path for file in cold[1:]])
    run(instance, resources, "cost_storage", partition=storage.today())
    day = datetime.now(UTC).date()
    rates = resources["meter"].card.on(day, "dev")
    owed = sum(early_deletion_charge(f.bytes, "cold", 0, day, rates).cost for f in cold)
    charges = resources["meter"].ledger.charges()
    early = charges.filter(pl.col("x_charge_set").str.contains(":early:raw_prices:"))
    assert early["BilledCost"].sum() == owed > 0
    rows = lake.table(storage.COST_STORAGE).read().frame.filter(kind="early").collect()
    assert rows["money"].sum() == pytest.approx(float(owed))


def test_folders_inside_each_other_are_counted_once(lake: Lake, tmp_path: Path) -> None:
    """Dagster's home may lie in the data root, or the data root in it."""
    outer, inner = tmp_path / "outer", tmp_path / "outer" / "deep" / "inner"
    inner.mkdir(parents=True)
    (outer / "a").write_bytes(b"1")
    (inner / "b").write_bytes(b"22")
    held = {s.table: s.sizes for s in stored(lake, {"o": outer, "i": inner}) if s.kind == "other"}
    assert held == {"o": (1,), "i": (2,)}


def test_assets_declare_their_reads() -> None:
    found = readers([("feature_sales", declared("feature_sales"))])
    assert [(reader.table, reader.every_days) for reader in found] == [("cleaned_sales", 1)]
    assert declared("raw_sales") == {}
    with pytest.raises(ValueError, match="mine reads t from 9 to 1"):
        readers([("mine", {READS: [{"table": "t", "from_age": 9, "to_age": 1, "every_days": 1}]})])
