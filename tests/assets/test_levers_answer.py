"""Costs above expectation are answered by themselves, in a way that the asset's metadata tells."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from forecast_assets.assets import levers
from forecast_core.cost.spend_forecast import Spend
from forecast_core.events import Event
from forecast_core.incidents import Incident
from forecast_core.levers import LEVERS
from resources import Settings
from resources.cost_policy import CostPolicy
from resources.decision_store import DecisionStore
from resources.incident_store import IncidentStore

NOW = datetime(2024, 6, 10, tzinfo=UTC)
CALM = Spend(spent=10.0, expected=30.0, low=28.0, high=32.0, by_pipeline={}, notes={})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = replace(Settings.from_environment(), data_root=str(tmp_path), ledger_url=None)
    made.state_dir.mkdir(parents=True)
    rows = [
        {"group": g, "lever": "retrain_less", "level": level, "fold": fold,
         "cost": 10.0 - 4.0 * level + 0.01 * fold, "error": 0.5 + 0.01 * level, "value": 100.0}
        for g in ("a", "b") for level in (0, 1) for fold in range(3)
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(made.state_dir / "lever_backtests.parquet")
    return made


def incident(settings: Settings, rise: float = 0.5) -> str:
    details = {
        "kind": "step", "series": "training/gbm/a/dev", "start": "2024-06-01",
        "detected": "2024-06-02", "owner": "data-science", "severity": "high",
        "evidence": {"rise": rise},
    }  # fmt: skip
    opened = IncidentStore(settings.ledger).append(Event("abc123", NOW, "opened", details))
    assert isinstance(opened, Incident)
    return opened.incident_id


def answer(settings: Settings, spend: Spend, budget: float | None) -> tuple[str, str | None]:
    return levers._answer(settings, DecisionStore(settings.ledger), spend, budget, NOW)


def test_calm_costs_need_no_answer(settings: Settings) -> None:
    said, decision = answer(settings, CALM, 50.0)
    assert decision is None and "within its budget" in said


def test_an_open_incident_is_answered_once_and_a_preapproved_lever_applies_itself(
    settings: Settings,
) -> None:
    key = incident(settings)
    said, decision = answer(settings, CALM, 50.0)
    assert decision is not None and key in said and "is applied" in said
    held = DecisionStore(settings.ledger).get(decision)
    assert held is not None and held.state == "applied" and held.policy_version
    assert held.history[1].details["by"] == "policy"
    again, none = answer(settings, CALM, 50.0)
    assert none is None and "no new cost incident" in again
    assert len(DecisionStore(settings.ledger).all()) == 1


def test_a_lever_that_is_not_preapproved_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levers, "cost_policy", CostPolicy)
    over = replace(CALM, expected=40.0, low=38.0)
    said, decision = answer(settings, over, 30.0)
    assert decision is not None and "surely end over budget" in said and "is proposed" in said
    again, none = answer(settings, over, 30.0)
    assert none is None and f"{decision} waits for an answer" in again


def test_without_measured_levers_it_says_so(settings: Settings) -> None:
    (settings.state_dir / "lever_backtests.parquet").unlink()
    incident(settings)
    said, decision = answer(settings, CALM, None)
    assert decision is None and "forecast backtest" in said


def test_the_shipped_policy_preapproves_known_levers_only() -> None:
    text = (Path(__file__).parents[2] / "policies" / "levers.yaml").read_text()
    assert set(yaml.safe_load(text)["preapproved"]) <= set(LEVERS)
