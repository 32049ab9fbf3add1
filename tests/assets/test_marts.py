"""The dbt marts: built by the demo, equal to the ledger, and an identity that can fail."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from forecast_core.cells import Cells
from resources.lake import Lake
from resources.ledger_history import COST_LEDGER

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
DAY = date(2026, 1, 5)


def _dbt(tmp_path: Path, lake: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = {"marts": str(tmp_path / "marts.duckdb"), "lake": str(lake)}
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("dbt")), *arguments, "--vars", json.dumps(paths),
            "--profiles-dir", str(PROJECT), "--target-path", str(tmp_path / "target"),
            "--log-path", str(tmp_path / "logs"),
        ],
        capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip


def _charges(amounts: list[Decimal]) -> pl.DataFrame:
    rows = pl.DataFrame(schema=COST_LEDGER.schema)
    made = pl.DataFrame(
        {
            "x_charge_id": [f"charge-{n}" for n in range(len(amounts))],
            "date": [DAY] * len(amounts),
            "BilledCost": pl.Series(amounts, dtype=pl.Decimal(38, 18)),
            "x_pipeline": ["training", "inference"] * (len(amounts) // 2),
            "x_environment": ["dev"] * len(amounts),
            "x_cost_class": ["workload"] * len(amounts),
            "x_status": ["success"] * len(amounts),
            "x_run_id": ["run"] * len(amounts),
            "BillingCurrency": ["USD"] * len(amounts),
        }
    )
    return pl.concat([rows, made], how="diagonal_relaxed").select(rows.columns)


def _marts(path: Path) -> list[tuple[str, Decimal]]:
    with duckdb.connect(str(path), read_only=True) as marts:
        query = "select pipeline, sum(billed_cost) from cost_by_day group by 1 order by 1"
        return marts.execute(query).fetchall()


def test_the_demo_built_the_marts_and_they_sum_to_the_ledger(finished) -> None:
    home = finished[0].root / "data" / "dev"
    ledger = Lake(home / "demo" / "lake").table(COST_LEDGER).read().frame.collect()
    assert sum(cost for _, cost in _marts(home / "demo" / "marts.duckdb")) == (
        ledger["BilledCost"].sum()
    )


def test_a_lake_without_a_ledger_gives_empty_marts(tmp_path: Path) -> None:
    built = _dbt(tmp_path, tmp_path / "lake", "build")
    assert built.returncode == 0, built.stdout[-2000:]
    assert _marts(tmp_path / "marts.duckdb") == []


def test_a_mart_that_lost_a_charge_fails_its_identity(tmp_path: Path) -> None:
    Lake(tmp_path / "lake").table(COST_LEDGER).replace(
        _charges([Decimal("1.5"), Decimal("2.5")]), Cells(DAY, DAY)
    )
    assert _dbt(tmp_path, tmp_path / "lake", "build").returncode == 0
    with duckdb.connect(str(tmp_path / "marts.duckdb")) as marts:
        marts.execute("delete from cost_by_day where pipeline = 'training'")
        marts.execute(
            "update cost_per_item_store set billed_cost ="
            " billed_cost + '0.000000000000000001'::decimal(38, 18)"
        )
    tested = _dbt(tmp_path, tmp_path / "lake", "test", "--select", "test_name:sums_to_the_ledger")
    assert tested.returncode == 1
    assert set(re.findall(r"FAIL\S* \d+ (\w+)", tested.stdout)) == {
        "sums_to_the_ledger_cost_by_day_billed_cost",
        "sums_to_the_ledger_cost_per_item_store_billed_cost",
    }


def test_an_item_store_bears_its_cell_and_its_part_of_the_rest(tmp_path: Path) -> None:
    """Three items of two stores; what names no store falls on all, and no last decimal is lost."""
    tiny = Decimal("0.000000000000000001")
    lake = Lake(tmp_path / "lake")
    rows = _charges([7 * tiny, -5 * tiny]).with_columns(
        x_store_id=pl.Series([None, "A"], dtype=pl.String), x_pipeline=pl.lit("inference")
    )
    lake.table(COST_LEDGER).replace(rows, Cells(DAY, DAY))
    segments = lake.table("demand_segments")
    items = pl.DataFrame(
        {"as_of": [DAY] * 3, "item_id": ["x", "y", "x"], "store_id": ["A", "A", "B"]}
    )
    empty = segments.empty()
    segments.replace(pl.concat([empty, items], how="diagonal_relaxed"), Cells(DAY, DAY))
    built = _dbt(tmp_path, tmp_path / "lake", "build")
    assert built.returncode == 0, built.stdout[-2000:]
    with duckdb.connect(str(tmp_path / "marts.duckdb"), read_only=True) as marts:
        query = "select item_id, store_id, billed_cost from cost_per_item_store order by 1, 2"
        found = {row[:2]: row[2] / tiny for row in marts.execute(query).fetchall()}
    assert found == {("x", "A"): 3 - 3, ("x", "B"): 2, ("y", "A"): 2 - 2}
    assert _marts(tmp_path / "marts.duckdb") == [("inference", 2 * tiny)]


def test_storage_and_a_cycle_are_what_they_are_made_of(tmp_path: Path) -> None:
    """Stored bytes by tier and the work on them apart; a cycle that also looked after storage."""
    rows = _charges([Decimal(n) for n in (1, 2, 4, 8)]).with_columns(
        x_pipeline=pl.Series(["storage", "storage", "storage", "training"]),
        x_asset=pl.Series(["raw_sales", "storage_scrub", "storage_scrub", "forecasters"]),
        x_cycle=pl.Series([None, "c", "c", "c"]),
        SkuId=pl.Series(["gib_month/cold", "vcpu_s", "retrieval_gib/cold", "vcpu_s"]),
        PricingQuantity=pl.Series([Decimal(2)] * 4).cast(pl.Decimal(38, 9)),
    )
    Lake(tmp_path / "lake").table(COST_LEDGER).replace(rows, Cells(DAY, DAY))
    built = _dbt(tmp_path, tmp_path / "lake", "build")
    assert built.returncode == 0, built.stdout[-2000:]
    with duckdb.connect(str(tmp_path / "marts.duckdb"), read_only=True) as marts:
        stored = "select table_name, tier, gib, billed_cost from storage_by_tier order by 1"
        assert marts.execute(stored).fetchall() == [
            ("raw_sales", "cold", 2.0 * 31, 1),
            ("storage_scrub", "upkeep", 0.0, 6),
        ]
        cycle = "select training_cost, storage_cost, billed_cost from cost_per_retraining_cycle"
        assert marts.execute(cycle).fetchall() == [(8, 6, 14)]


def test_a_ledger_of_an_older_version_still_builds(tmp_path: Path) -> None:
    """Its files lack the newest columns; they have no value there."""
    new = ("x_series", "x_rows", "x_code_version", "x_config_version")
    columns = {name: kind for name, kind in COST_LEDGER.columns.items() if name not in new}
    older = replace(COST_LEDGER, columns=columns)
    rows = _charges([Decimal(1), Decimal(2)]).select(*columns)
    Lake(tmp_path / "lake").table(older).replace(rows, Cells(DAY, DAY))
    built = _dbt(tmp_path, tmp_path / "lake", "build")
    assert built.returncode == 0, built.stdout[-2000:]
    assert _marts(tmp_path / "marts.duckdb") == [("inference", 2), ("training", 1)]


def test_the_demo_filled_every_mart(finished) -> None:
    path = finished[0].root / "data" / "dev" / "demo" / "marts.duckdb"
    with duckdb.connect(str(path), read_only=True) as marts:

        def one(query: str):
            return marts.execute(query).fetchone()

        assert one("select count(*) from cost_per_item_store where item_id is not null") == (100,)
        assert one("select count(distinct cutoff) from cost_per_forecast_batch") == (2,)
        assert one("select min(item_stores), max(item_stores) from cost_per_forecast_batch") == (
            100,
            100,
        )
        (cycle,) = marts.execute(
            "select ingest_cost > 0, training_cost > 0, inference_cost > 0, overhead_cost > 0"
            " from cost_per_retraining_cycle"
        ).fetchall()
        assert cycle == (True,) * 4
        assert one("select count(*) from cost_per_training_run where forecaster = 'gbm'") == (1,)
        served = one(
            "select training_cost > 0, inference_cost > 0, batches"
            " from cost_per_forecaster_version where forecaster = 'gbm'"
        )
        assert served == (True, True, 2)
        assert one("select bool_and(fva_wape_per_unit_cost * fva_wape >= 0) from value_per_cost")[0]
        assert one("select count(*) > 5 from value_per_cost") == (True,)
        tiers = marts.execute("select distinct tier from storage_by_tier order by 1").fetchall()
        assert tiers == [("hot",), ("upkeep",), ("warm",)]
        dearest = "select asset from high_cost_operations where kind = 'retrain' order by place"
        assert one(dearest) == ("forecasters",)


@pytest.mark.parametrize("table", ["cost_ledger", "cost_steps", "eval_accuracy", "demand_segments"])
def test_dbt_sources_are_the_assets_of_the_graph(table: str) -> None:
    manifest = json.loads((PROJECT / "target" / "manifest.json").read_text())
    names = {source["identifier"] for source in manifest["sources"].values()}
    assert table in names


def test_a_manifest_of_other_models_says_what_to_do(tmp_path: Path) -> None:
    """As after a pull that brought a model."""
    from forecast_assets.assets.marts import StaleManifest, parsed

    manifest = tmp_path / "target" / "manifest.json"
    model = tmp_path / "models" / "marts" / "costs.sql"
    model.parent.mkdir(parents=True)
    model.write_text("select 1")
    with pytest.raises(StaleManifest, match=r"manifest.json is missing: run `make install`"):
        parsed(tmp_path, manifest)
    manifest.parent.mkdir()
    node = {"resource_type": "model", "original_file_path": "models/marts/costs.sql"}
    manifest.write_text(json.dumps({"nodes": {"model.costs": node}}))
    assert parsed(tmp_path, manifest)["nodes"]
    (model.parent / "new.sql").write_text("select 2")
    with pytest.raises(StaleManifest, match=r"\(models/marts/new.sql came or went\): run `make"):
        parsed(tmp_path, manifest)
