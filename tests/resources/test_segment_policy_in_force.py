"""The segment policy that runs follow is its file with the levers in force, and no others."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forecast_core.events import Event
from forecast_core.levers.decisions import Decision
from resources import Settings
from resources.decision_store import DecisionStore
from resources.lever_proposals import put_in_force
from resources.versions import config_version
from resources.wiring import segment_policy_of

NOW = datetime(2024, 6, 1, tzinfo=UTC)
OPTION = {"group": "gbm_core", "lever": "simpler_forecaster", "level": 2, "saving": 1.0, "loss": 0}


def test_the_policy_follows_the_decision_log(tmp_path: Path) -> None:
    settings = replace(Settings.from_environment(), data_root=str(tmp_path), ledger_url=None)
    plain = segment_policy_of(settings)
    assert plain.group("gbm_core").rung == "gbm"
    store = DecisionStore(settings.ledger)

    def happened(action: str, after: int, **details: object) -> None:
        event = Event("d1", NOW + timedelta(hours=after), action, {"by": "owner", **details})
        assert isinstance(store.append(event), Decision)

    happened("proposed", 0, reason="over budget", options=[OPTION])
    happened("approved", 1)
    assert segment_policy_of(settings) == plain
    applied = put_in_force(store, plain.version, "d1", "owner", NOW + timedelta(hours=2))
    under = segment_policy_of(settings)
    assert under.group("gbm_core").rung == "floor"
    assert isinstance(applied, Decision) and applied.policy_version == under.version
    assert config_version(settings, under.version) != config_version(settings, plain.version)
    happened("reverted", 3, reason="stock-outs")
    assert segment_policy_of(settings) == plain
