"""The commands of incidents and levers, as a person types them."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from forecast_assets.commands.incidents import app as incidents
from forecast_assets.commands.levers import app as levers
from forecast_core.incidents.planted_ledger import Recipe, generate
from forecast_core.incidents.regressions import detect
from resources.incident_store import IncidentStore

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    planted = generate(2, Recipe(series=14, days=140))
    planted.ledger.write_parquet(folder / "ledger.parquet")
    planted.accuracy.write_parquet(folder / "accuracy.parquet")
    planted.events.write_csv(folder / "events.csv")
    return folder


def test_detect_writes_what_the_core_finds(home: Path, drawn: Path) -> None:
    out = home / "incidents.parquet"
    files = [f"--{n}={drawn / n}.parquet" for n in ("ledger", "accuracy")]
    done = RUN.invoke(
        incidents, ["detect", *files, f"--events={drawn / 'events.csv'}", f"--out={out}"]
    )
    assert done.exit_code == 0, done.output
    found = pl.read_parquet(out)
    planted = generate(2, Recipe(series=14, days=140))
    expected = detect(planted.ledger, planted.accuracy, planted.events).incidents
    assert found.equals(expected) and len(found) > 0
    assert found.columns[:5] == ["kind", "series", "start", "detected", "evidence"]
    assert f"{len(found)} incidents in 14 series" in done.output


def test_accuracy_and_events_beside_the_ledger_are_found(home: Path, drawn: Path) -> None:
    out = home / "incidents.parquet"
    done = RUN.invoke(incidents, ["detect", f"--ledger={drawn / 'ledger.parquet'}", f"--out={out}"])
    assert done.exit_code == 0 and f"accuracy read from {drawn / 'accuracy.parquet'}" in (
        done.output.replace("\n", "")
    )
    planted = generate(2, Recipe(series=14, days=140))
    expected = detect(planted.ledger, planted.accuracy, planted.events).incidents
    assert pl.read_parquet(out).equals(expected)


def test_detect_says_what_is_wrong_with_a_file(home: Path) -> None:
    out = f"--out={home / 'o.parquet'}"
    absent = RUN.invoke(incidents, ["detect", f"--ledger={home / 'no.parquet'}", out])
    assert absent.exit_code == 1 and "no such file" in absent.output
    (home / "bad.parquet").write_text("hello")
    broken = RUN.invoke(incidents, ["detect", f"--ledger={home / 'bad.parquet'}", out])
    assert broken.exit_code == 1 and "bad.parquet" in broken.output
    pl.DataFrame({"a": [1]}).write_parquet(home / "other.parquet")
    other = RUN.invoke(incidents, ["detect", f"--ledger={home / 'other.parquet'}", out])
    assert other.exit_code == 1 and "ChargePeriodStart" in other.output
    assert not (home / "o.parquet").exists()


def test_an_incident_from_open_to_closed(home: Path, drawn: Path) -> None:
    url = f"sqlite:///{home / 'data' / 'dev' / 'ledger.db'}"
    assert "no incidents" in RUN.invoke(incidents, ["list"]).output
    planted = generate(2, Recipe(series=14, days=140))
    found = detect(planted.ledger, planted.accuracy, planted.events).incidents
    at = datetime(2024, 6, 1, tzinfo=UTC)
    new = IncidentStore(url).record(
        found, {"default": "platform"}, at, at.date().replace(year=2000)
    )
    key = new[0].incident_id
    listed = json.loads(RUN.invoke(incidents, ["list", "--json"]).output)
    assert [i["incident_id"] for i in listed] == sorted(i.incident_id for i in new)
    guard = "--safeguard=quota:training=2 CPU-h"
    early = RUN.invoke(incidents, ["close", key, "--by=sre", guard])
    assert early.exit_code == 1 and "only be" in early.output
    assert RUN.invoke(incidents, ["ack", key, "--by=sre"]).exit_code == 0
    assert (
        RUN.invoke(incidents, ["mitigate", key, "--by=sre", "--mitigation=undone"]).exit_code == 0
    )
    lacking = RUN.invoke(incidents, ["close", key, "--by=sre", guard])
    assert lacking.exit_code == 1 and "root cause" in lacking.output
    wish = RUN.invoke(incidents, ["close", key, "--by=sre", "--safeguard=hope"])
    assert wish.exit_code == 1 and "kind:target=setting" in wish.output
    assert RUN.invoke(incidents, ["explain", key, "--root-cause=rows doubled"]).exit_code == 0
    assert RUN.invoke(incidents, ["close", key, "--by=sre", guard]).exit_code == 0
    shown = json.loads(RUN.invoke(incidents, ["show", key, "--json"]).output)
    assert (shown["state"], shown["root_cause"]) == ("closed", "rows doubled")
    assert shown["history"][0]["action"] == "opened"
    assert RUN.invoke(incidents, ["show", "nope"]).exit_code == 1


def backtests(path: Path, *, levels: int = 2) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        (
            f"g{g}",
            "retrain_less",
            level,
            fold,
            10.0 - 2 * level,
            0.3 + 0.01 * level * g + noise,
            100.0,
        )
        for g in range(4)
        for fold in range(5)
        for noise in [float(0.01 * rng.normal())]
        for level in range(levels + 1)
    ]
    names = ["group", "lever", "level", "fold", "cost", "error", "value"]
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(path)
    return path


def test_a_lever_from_proposal_to_revert(home: Path) -> None:
    measured = f"--backtests={backtests(home / 'b.parquet')}"
    done = RUN.invoke(levers, ["propose", "--save=15%", measured, "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said["state"] == "proposed"
    assert sum(o["saving"] for o in said["options"]) >= 6.0
    assert "g3" not in {o["group"] for o in said["options"]}  # the group that would lose the most
    key = said["decision"]
    assert RUN.invoke(levers, ["apply", key, "--by=owner"]).exit_code == 1
    assert RUN.invoke(levers, ["approve", key, "--by=owner"]).exit_code == 0
    applied = RUN.invoke(levers, ["apply", key, "--by=owner"])
    assert "policy version" in applied.output
    reviewed = RUN.invoke(levers, ["review", key, "--by=owner", "--saved=3", "--lost=1"])
    assert "retrain_less: saves 0.9" in reviewed.output
    back = RUN.invoke(levers, ["revert", key, "--by=owner", "--reason=stock-outs"])
    assert back.exit_code == 0 and "reverted" in back.output
    assert applied.output.split()[-1] not in back.output
    assert key in RUN.invoke(levers, ["list"]).output


def test_what_the_policy_pre_approves_applies_itself(home: Path) -> None:
    measured = f"--backtests={backtests(home / 'b.parquet', levels=1)}"
    done = RUN.invoke(levers, ["propose", "--save=15%", measured, "--json"])
    assert json.loads(done.output)["state"] == "applied"


@pytest.mark.parametrize("save", ["0%", "-3", "101%", "lots"])
def test_a_saving_is_a_share_or_money(home: Path, save: str) -> None:
    measured = f"--backtests={backtests(home / 'b.parquet')}"
    done = RUN.invoke(levers, ["propose", f"--save={save}", measured])
    assert done.exit_code == 1 and "--save" in done.output


def test_more_than_the_levers_can_save_is_refused(home: Path) -> None:
    measured = f"--backtests={backtests(home / 'b.parquet')}"
    done = RUN.invoke(levers, ["propose", "--save=90%", measured])
    assert done.exit_code == 1 and "at most 16.00" in done.output
