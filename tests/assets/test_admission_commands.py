"""The commands of admission, as an operator runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forecast_assets.commands.admission import admission_app, budget_app, policy_app
from forecast_core.admission.request import AssetFacts, RunFacts, request_of
from resources import Settings
from resources.coordinator import build_escrow
from resources.escrow import Escrow

ROOT = Path(__file__).parents[2]
RUN = CliRunner()


@pytest.fixture
def escrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Escrow:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    monkeypatch.setenv("FORECAST_ENV", "dev")
    return build_escrow(Settings.from_environment())


def submit(escrow: Escrow, name: str, pipeline: str | None) -> None:
    facts = RunFacts(name, "manual", (AssetFacts("a", pipeline),), escrow.clock())
    escrow.submit(request_of(facts, escrow.policy))


def test_budget_status_shows_what_is_held(escrow: Escrow) -> None:
    submit(escrow, "r1", "training")
    shown = RUN.invoke(budget_app, ["status", "--json"])
    body = json.loads(shown.output)
    assert body["budgets"]["dev"]["held"] == "0.05" and body["holding"] == 1
    assert "1 runs hold money" in RUN.invoke(budget_app, ["status"]).output


def test_explain_gives_the_reason_and_the_pass(escrow: Escrow) -> None:
    submit(escrow, "r1", None)
    shown = RUN.invoke(admission_app, ["explain", "r1"])
    assert "names no pipeline" in shown.output and "snapshot" in shown.output
    assert "asked for up to 0.05 USD" in shown.output and "None" not in shown.output
    with_name = ["override", "release", "r1", "--owner", "o", "--reason", "mine", "--hours", "1"]
    assert RUN.invoke(admission_app, with_name).exit_code == 0
    escrow.decide()
    told = json.loads(RUN.invoke(admission_app, ["explain", "r1", "--json"]).output)
    assert [entry["action"] for entry in told["passes"]] == ["hold", "admit"], "all it was told"
    submit(escrow, "r2", None)
    assert "names no pipeline" in RUN.invoke(admission_app, ["waiting"]).output
    assert RUN.invoke(admission_app, ["explain", "nobody"]).exit_code == 1


def test_replay_agrees_and_notices_tampering(escrow: Escrow) -> None:
    submit(escrow, "r1", "training")
    assert "1 of 1 passes" in RUN.invoke(admission_app, ["replay"]).output
    with escrow.store.alone() as connection:
        connection.exec_driver_sql("UPDATE admission_passes SET snapshot_hash = 'x'")
    assert RUN.invoke(admission_app, ["replay", "--json"]).exit_code == 1


def test_an_override_is_made_with_an_owner(escrow: Escrow) -> None:
    submit(escrow, "r1", None)
    asked = ["override", "release", "r1", "--owner", "ops", "--reason", "mine", "--hours", "1"]
    assert RUN.invoke(admission_app, asked).exit_code == 0
    assert escrow.decide()["r1"].starts
    assert "release r1" in RUN.invoke(admission_app, ["overrides"]).output
    assert (
        json.loads(RUN.invoke(admission_app, ["overrides", "--json"]).output)[0]["owner"] == "ops"
    )
    asked[asked.index("ops")] = " "
    assert RUN.invoke(admission_app, asked).exit_code == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["release", "nobody", "--hours", "1"], "neither a class"),
        (["raise", "nothing", "--hours", "1", "--amount", "1"], "is no budget"),
        (["raise", "dev", "--hours", "-1", "--amount", "1"], "end in the future"),
        (["raise", "dev", "--hours", "1", "--amount", "-1"], "above zero"),
        (["block", "monitoring", "--hours", "1"], "never be switched off"),
        (["stop", "training", "--hours", "1"], "is no override"),
    ],
)
def test_an_override_that_could_not_act_is_refused(
    escrow: Escrow, asked: list[str], said: str
) -> None:
    done = RUN.invoke(admission_app, ["override", *asked, "--owner", "me", "--reason", "why"])
    assert done.exit_code == 1 and said in done.output
    assert not json.loads(RUN.invoke(admission_app, ["overrides", "--json"]).output)


def test_policy_check_accepts_ours_and_names_faults(tmp_path: Path) -> None:
    ours = ROOT / "policies" / "admission.yaml"
    assert "may govern" in RUN.invoke(policy_app, ["check", str(ours)]).output
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        ours.read_text().replace("pause: [exploratory], runs", "pause: [monitoring], runs")
    )
    refused = RUN.invoke(policy_app, ["check", str(bad)])
    assert refused.exit_code == 1 and "may never pause" in refused.output
    for path, said in ((tmp_path / "none.yaml", "no such"), (tmp_path, "cannot be read")):
        refused = RUN.invoke(policy_app, ["check", str(path)])
        assert refused.exit_code == 1 and said in refused.output
    bad.write_bytes(b"\xff\xfe")
    assert "save it as UTF-8" in RUN.invoke(policy_app, ["check", str(bad)]).output
