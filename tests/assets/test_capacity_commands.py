"""`forecast capacity`: a plan becomes a record, a gate refuses, a review waits to be signed."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from forecast_assets.commands.capacity import app

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    return tmp_path


def forecast(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_a_plan_is_drawn_recorded_and_plotted(home: Path) -> None:
    done = forecast("plan", "--draws", "2", "--days", "4", "--workers", "2")
    assert done.exit_code == 0, done.output
    assert "version 1" in done.stdout and "stated default" in done.stdout
    folder = home / "data" / "dev" / "capacity" / "base" / "v1"
    assert {p.name for p in folder.iterdir()} == {"plan.md", "outcome.json", "outcome.png"}
    assert (folder / "outcome.png").read_bytes()[:4] == b"\x89PNG"
    again = forecast("plan", "--draws", "2", "--days", "4", "--json")
    said = json.loads(again.stdout)
    assert said["version"] == 1
    assert said["total"] == json.loads((folder / "outcome.json").read_text())["total"]


def test_the_gate_fails_a_policy_that_starves_the_night(home: Path) -> None:
    shipped = (POLICIES / "admission.yaml").read_text()
    tight = home / "tight.yaml"
    tight.write_text(
        shipped.replace(
            "limit: 20,\n     floors: {serving: 5, monitoring: 1}",
            "limit: 0.05,\n     floors: {serving: 0.02, monitoring: 0.005}",
        ).replace("{money: 0.05,", "{money: 0.005,")
    )
    assert tight.read_text() != shipped
    few = ("--draws", "1", "--days", "3", "--workers", "1")
    refused = forecast("gate", "--policy", str(tight), *few)
    assert refused.exit_code == 1
    assert "a budget runs short" in refused.stdout and "prod/day" in refused.stdout
    passed = forecast("gate", "--policy", str(POLICIES / "admission.yaml"), *few)
    assert passed.exit_code == 0, passed.output


def test_a_review_is_written_and_signed(home: Path) -> None:
    assert forecast("review", "--sign", "owner").exit_code == 1
    done = forecast("review", "--day", "2027-03-10")
    assert done.exit_code == 0, done.output
    path = Path(done.stdout.strip().removeprefix("review written to "))
    assert "every 92 days" in path.read_text()
    signed = forecast("review", "--sign", "finance-partner", "--decision", "the plan stands")
    assert "review of 2027-03-10 signed by finance-partner" in signed.stdout


def test_a_plan_that_contradicts_itself_is_refused_with_its_file(home: Path) -> None:
    bad = home / "bad.yaml"
    bad.write_text((POLICIES / "capacity.yaml").read_text().replace("months: 12", "months: 0"))
    done = forecast("plan", "--plan", str(bad))
    assert done.exit_code == 1
    assert str(bad) in str(done.exception) and "months" in str(done.exception)
