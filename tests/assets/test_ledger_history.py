"""The history follows the ledger, storage is charged once a day, an export is valid or not made."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from forecast_assets.assets.ledger import cost_history
from forecast_assets.sensors_ledger import reconcile_ledger
from forecast_core.cells import Cells
from forecast_core.cost.focus import LEDGER_COLUMNS, STEP_COLUMNS
from resources.lake import Lake
from resources.ledger_history import (
    COST_LEDGER,
    COST_STEPS,
    InvalidExport,
    account_of,
    export_focus,
    stored_files,
    sync_history,
)
from resources.meter import Meter, metered
from resources.storage_usage import Stored, charge, stored


@dg.asset(metadata={"cost/pipeline": "ingest"})
@metered
def worked() -> None:
    """Something to charge."""


@pytest.fixture
def meter(tmp_path: Path, project_root: Path) -> Meter:
    card = project_root / "policies" / "price_card.yaml"
    return Meter(f"sqlite:///{tmp_path / 'ledger.db'}", card, "dev")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(instance: dg.DagsterInstance, meter: Meter, lake: Lake, *assets) -> None:
    result = dg.materialize(
        list(assets), instance=instance, resources={"meter": meter, "lake": lake}
    )
    meter.flush()
    assert result.success


def history(lake: Lake, table) -> pl.DataFrame:
    return lake.table(table).read(None).frame.collect()


def test_the_history_is_the_ledger_and_a_second_look_writes_nothing(instance, meter, lake) -> None:
    run(instance, meter, lake, worked)
    first = sync_history(meter.ledger, lake, account_of(meter.card))
    assert [s.days for s in first.values()] == [1, 1]
    ledger = history(lake, COST_LEDGER)
    assert ledger.schema == pl.Schema(LEDGER_COLUMNS)
    assert history(lake, COST_STEPS).schema == pl.Schema(STEP_COLUMNS)
    assert ledger["BilledCost"].sum() == meter.ledger.totals()[()]
    version = lake.table(COST_LEDGER).version()
    again = sync_history(meter.ledger, lake, account_of(meter.card))
    assert [s.days for s in again.values()] == [0, 0]
    assert lake.table(COST_LEDGER).version() == version


def test_a_day_that_grew_is_replaced(instance, meter, lake) -> None:
    for _ in range(2):
        run(instance, meter, lake, worked)
        sync_history(meter.ledger, lake, account_of(meter.card))
    ledger = history(lake, COST_LEDGER)
    assert ledger.height == meter.ledger.charges().height
    assert ledger["x_charge_id"].is_unique().all()


def test_the_assets_keep_the_books(instance, meter, lake) -> None:
    run(instance, meter, lake, worked)
    run(instance, meter, lake, cost_history)
    today = datetime.now(UTC).date()
    charge(meter.ledger, stored(lake, {}), today, meter.card.on(today), "dev", "demo")
    run(instance, meter, lake, cost_history)
    steps = history(lake, COST_STEPS)
    assert {"worked", "cost_history"} <= set(steps["x_step_key"])
    storage = history(lake, COST_LEDGER).filter(pl.col("x_pipeline") == "storage")
    assert set(storage["x_asset"]) == {"cost_ledger", "cost_steps"}
    assert set(storage["PricingUnit"]) == {"GiB-Months"}


def test_the_error_of_quotes_is_tracked_beside_the_books(instance, meter, lake) -> None:
    for _ in range(12):
        run(instance, meter, lake, worked)
    run(instance, meter, lake, cost_history)
    event = instance.get_latest_materialization_event(dg.AssetKey(COST_STEPS.name))
    assert event is not None and event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert metadata["estimator/runs"].value == 12 - 10  # the first ten are learned from
    assert metadata["estimator/mape_recurring_pct"].value > 0


def test_two_data_sets_of_an_environment_pay_for_a_lake_each_and_share_the_rest(meter) -> None:
    held = [
        Stored(kind, table, "hot", None, 1, (2**30,))
        for kind, table in (("live", "raw_sales"), ("tombstones", "raw_sales"), ("other", "logs"))
    ]
    day, rates = date(2026, 4, 7), meter.card.on(date(2026, 4, 7))
    assert charge(meter.ledger, held, day, rates, "dev", "demo") == 3
    assert charge(meter.ledger, held, day, rates, "dev", "m5") == 2


def test_stored_bytes_are_charged_once_a_day_by_table_and_tier(meter) -> None:
    held = [
        Stored("live", table, tier, "S", 1, (size,))
        for table, tier, size in (("a", "hot", 2**30), ("a", "cold", 10), ("b", "hot", 2**31))
    ]
    day, rates = date(2026, 4, 7), meter.card.on(date(2026, 4, 7))
    assert charge(meter.ledger, held, day, rates, "dev", "demo") == 3
    assert charge(meter.ledger, held, day, rates, "dev", "demo") == 0
    assert charge(meter.ledger, held, date(2026, 4, 8), rates, "dev", "demo") == 3
    lines = meter.ledger.totals(["x_asset", "SkuId"], last=day)
    assert lines["b", "gib_month/hot"] == Decimal("0.066666667") * Decimal("0.023")
    cold = meter.ledger.charges(last=day).filter(pl.col("SkuId") == "gib_month/cold")
    assert cold["PricingQuantity"].item() == round(Decimal(128 * 1024) / 2**30 / 30, 9)


def test_live_files_are_counted_by_tier(lake) -> None:
    assert stored_files(lake).is_empty()
    day = date(2026, 4, 7)
    rows = pl.DataFrame(schema=dict(STEP_COLUMNS))
    row = {"x_charge_set": "s", "date": day}
    rows = pl.concat(
        [rows, pl.DataFrame([row], schema_overrides={"date": pl.Date})], how="diagonal"
    )
    for _ in range(2):  # the replaced file is no longer counted
        lake.table(COST_STEPS).replace(rows, Cells(day, day))
    (found,) = stored_files(lake).to_dicts()
    assert (found["table"], found["tier"]) == ("cost_steps", "hot")
    on_disk = list(Path(lake.root).glob("cost_steps/**/*.parquet"))
    assert len(on_disk) == 2 and found["bytes"] in {path.stat().st_size for path in on_disk}


def test_the_sensor_settles_and_says_so(instance, meter) -> None:
    context = dg.build_sensor_context(instance=instance, resources={"meter": meter})
    reason = reconcile_ledger(context)
    assert isinstance(reason, dg.SkipReason)
    assert "0 settled by estimate" in (reason.skip_message or "")


@pytest.mark.parametrize("name", ["focus.parquet", "focus.csv"])
def test_an_export_holds_every_charge(instance, meter, lake, tmp_path, name) -> None:
    run(instance, meter, lake, worked)
    out = tmp_path / "out" / name
    rows = export_focus(meter.ledger, meter.card, out)
    assert rows == meter.ledger.charges().height > 0
    read = (
        pl.read_parquet(out) if out.suffix == ".parquet" else pl.read_csv(out, infer_schema=False)
    )
    total = sum((Decimal(str(cost)) for cost in read["BilledCost"]), Decimal(0))
    assert total == meter.ledger.totals()[()]
    assert [path.name for path in out.parent.iterdir()] == [name]


def test_an_invalid_ledger_is_not_exported(instance, meter, lake, tmp_path) -> None:
    run(instance, meter, lake, worked)
    bad = meter.ledger.charges().row(0, named=True)
    ghost = {**bad, "x_charge_id": "bad", "BilledCost": Decimal(9)}
    meter.ledger.append([ghost])
    with pytest.raises(InvalidExport, match=r"cost = unit price x quantity: 1 rows, such as bad"):
        export_focus(meter.ledger, meter.card, tmp_path / "focus.csv")
    assert not (tmp_path / "focus.csv").exists()
    with pytest.raises(ValueError, match=r"focus\.xls: write to a \.parquet or a \.csv"):
        export_focus(meter.ledger, meter.card, tmp_path / "focus.xls")
