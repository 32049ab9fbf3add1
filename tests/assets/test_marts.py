"""The dbt marts: built by the demo, equal to the ledger, and an identity that can fail."""

import json
import subprocess
import sys
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


def test_small_amounts_are_summed_to_the_last_decimal(tmp_path: Path) -> None:
    tiny = Decimal("0.000000000000000001")
    Lake(tmp_path / "lake").table(COST_LEDGER).replace(_charges([tiny] * 6), Cells(DAY, DAY))
    built = _dbt(tmp_path, tmp_path / "lake", "build")
    assert built.returncode == 0, built.stdout[-2000:]
    assert _marts(tmp_path / "marts.duckdb") == [("inference", 3 * tiny), ("training", 3 * tiny)]


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
    tested = _dbt(tmp_path, tmp_path / "lake", "test", "--select", "cost_by_day_sums_to_the_ledger")
    assert tested.returncode == 1
    assert "cost_by_day_sums_to_the_ledger" in tested.stdout


@pytest.mark.parametrize("table", ["cost_ledger"])
def test_dbt_sources_are_the_assets_of_the_graph(table: str) -> None:
    manifest = json.loads((PROJECT / "target" / "manifest.json").read_text())
    names = {source["identifier"] for source in manifest["sources"].values()}
    assert table in names
