"""`forecast cost`: every sub-command, its tables, its JSON and its refusals."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import yaml
from typer.testing import CliRunner, Result

from forecast_assets.commands.cost import app
from forecast_core.cost.focus import CORRECTION
from resources import Settings
from resources.meter import Meter, metered


@dg.asset(metadata={"cost/pipeline": "ingest"})
@metered
def raw_sales() -> None:
    """Named as an asset of the project, so that it can be quoted."""


@dg.asset(metadata={"cost/pipeline": "training", "cost/forecaster": "gbm"})
@metered
def other() -> None: ...


@pytest.fixture
def meter(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    settings = Settings.from_environment()
    made = Meter(settings.ledger, settings.price_card, settings.environment)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            dg.materialize([raw_sales, other], instance=instance, resources={"meter": made})
    made.flush()
    yield made


def forecast_cost(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_report_sums_to_the_ledger(meter: Meter) -> None:
    found = json.loads(forecast_cost("report", "--by", "class,pipeline", "--json").stdout)
    total = meter.ledger.totals()[()]
    assert Decimal(found["total"]) == total
    assert sum(Decimal(found[name]) for name in ("workload", "idle", "overhead")) == total
    assert sum(Decimal(row["cost"]) for row in found["by"]) == total
    assert found["unattributed_pct"] == found["estimated_pct"] == 0
    assert {row["x_pipeline"] for row in found["by"]} == {"ingest", "training", None}


def test_the_report_is_readable(meter: Meter) -> None:
    shown = forecast_cost("report", "--by", "forecaster,day")
    assert shown.exit_code == 0
    assert "gbm" in shown.stdout and "total" in shown.stdout


def test_a_report_of_other_days_or_runs_is_smaller(meter: Meter) -> None:
    run_id = meter.ledger.charges()["x_run_id"][0]
    one = json.loads(forecast_cost("report", "--run", run_id, "--json").stdout)
    assert 0 < Decimal(one["total"]) < meter.ledger.totals()[()]
    none = json.loads(forecast_cost("report", "--until", "2011-01-01", "--json").stdout)
    assert (Decimal(none["total"]), none["charges"]) == (0, 0)


def test_a_quote_says_what_and_how_sure(meter: Meter) -> None:
    found = json.loads(forecast_cost("quote", "raw_sales", "--partitions", "4", "--json").stdout)
    lines = {line["asset"]: line for line in found["lines"]}
    assert lines.keys() == {"raw_sales", "(overhead)"}
    assert 0 < found["expected"] < found["upper"]
    assert found["upper"] == pytest.approx(sum(line["upper"] for line in lines.values()))
    assert "raw_sales" in forecast_cost("quote", "raw_sales").stdout


def test_a_quote_of_nothing_is_refused(meter: Meter) -> None:
    for selection in ("nothing_like_it", "((", "key:nothing*"):
        refused = forecast_cost("quote", selection)
        assert refused.exit_code == 1, refused.output
        assert "dagster asset list" in refused.output


def test_without_history_a_quote_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    refused = forecast_cost("quote", "raw_sales")
    assert refused.exit_code == 1 and "run something once" in refused.output


def test_the_export_is_written(meter: Meter, tmp_path: Path) -> None:
    out = tmp_path / "focus.parquet"
    done = forecast_cost("export", "--focus", "--out", str(out))
    assert done.exit_code == 0 and "charges written" in done.stdout
    assert pl.read_parquet(out)["BilledCost"].sum() == meter.ledger.totals()[()]
    assert forecast_cost("export", "--out", str(tmp_path / "x.xls")).exit_code == 1


def test_rerate_corrects_once_and_says_by_how_much(meter, tmp_path, project_root) -> None:
    content = yaml.safe_load((project_root / "policies" / "price_card.yaml").read_text())
    content["environments"]["default"][0]["rates"]["vcpu_s"] = 0.001
    dearer = tmp_path / "card.yaml"
    dearer.write_text(yaml.safe_dump(content))
    before = meter.ledger.charges()
    tried = json.loads(forecast_cost("rerate", "--card", str(dearer), "--dry-run", "--json").stdout)
    assert tried["written"] == 0 and tried["corrected"] > 0
    done = json.loads(forecast_cost("rerate", "--card", str(dearer), "--json").stdout)
    assert done["written"] == tried["corrected"]
    after = meter.ledger.charges()
    assert after["BilledCost"].sum() - before["BilledCost"].sum() == Decimal(done["difference"]) > 0
    assert after.filter(pl.col("ChargeClass").is_null()).equals(before)
    assert after.filter(pl.col("ChargeClass") == CORRECTION).height == 2 * done["written"]
    again = json.loads(forecast_cost("rerate", "--card", str(dearer), "--json").stdout)
    assert (again["corrected"], again["written"]) == (0, 0)
    back = json.loads(forecast_cost("rerate", "--json").stdout)
    assert Decimal(back["difference"]) == -Decimal(done["difference"])
    assert meter.ledger.totals()[()] == before["BilledCost"].sum()


def test_a_bad_card_is_refused_by_name(meter: Meter, tmp_path: Path) -> None:
    card = tmp_path / "bad.yaml"
    card.write_text("currency: DOGE")
    refused = forecast_cost("rerate", "--card", str(card))
    assert refused.exit_code == 1
    assert "bad.yaml: currency: 'DOGE'" in refused.output


def test_reconcile_reports_what_it_found(meter: Meter, tmp_path: Path, monkeypatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    found = json.loads(forecast_cost("reconcile", "--json").stdout)
    assert found == {"runs": 0, "attempts": 0, "estimated": 0, "idle": 0}
    assert "0 settled by estimate" in forecast_cost("reconcile", "--all").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "--by", "colour"], "no cut by 'colour'"),
        (["report", "--since", "yesterday"], "is no day"),
    ],
)
def test_a_bad_argument_is_refused(meter: Meter, arguments: list[str], message: str) -> None:
    refused = forecast_cost(*arguments)
    assert refused.exit_code == 2 and message in refused.output
