"""The planner's assets and checks in Dagster: figures and plot on show, what is overdue flagged."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from forecast_assets.assets import capacity
from forecast_assets.checks_capacity import ALL
from forecast_assets.jobs import SCHEDULES
from resources import Settings
from resources.capacity_inputs import read_inputs
from resources.capacity_records import sign_review, write_review
from resources.meter import Meter

POLICIES = Path(__file__).parents[2] / "policies"


def settings_of(folder: Path, monkeypatch: pytest.MonkeyPatch, **plan: Any) -> Settings:
    """Settings whose plan is the shipped one with some fields changed."""
    mapping = yaml.safe_load((POLICIES / "capacity.yaml").read_text()) | plan
    (folder / "plan.yaml").write_text(yaml.safe_dump(mapping))
    monkeypatch.setenv("FORECAST_DATA", str(folder / "data"))
    monkeypatch.setenv("FORECAST_CAPACITY_PLAN", str(folder / "plan.yaml"))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    return Settings.from_environment()


def materialize(settings: Settings, *names: str) -> dg.ExecuteInProcessResult:
    assets = [getattr(capacity, name) for name in names]
    checks = [c for c in ALL if {k.asset_key.to_user_string() for k in c.check_keys} & set(names)]
    meter = Meter(settings.ledger, settings.price_card, settings.environment)
    return dg.materialize(
        [*assets, *checks, *map(dg.AssetSpec, ("cost_steps", "cost_ledger"))],
        selection=dg.AssetSelection.assets(*names),
        resources={"settings": settings, "meter": meter},
    )


def checked(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def asked_again(name: str, settings: Settings) -> dg.AssetCheckResult:
    """A check by itself, without the asset that it is about."""
    check = next(c for c in ALL if any(key.name == name for key in c.check_keys))
    result = check(settings)
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_the_plan_is_on_show_and_what_is_overdue_is_flagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "DRAWS", 1)
    today = datetime.now(UTC).date()
    begun = date(today.year - 1, today.month, 1)  # four quarters ago, and nobody held a review
    settings = settings_of(tmp_path, monkeypatch, first=begun.isoformat(), months=1)
    mapping = yaml.safe_load((tmp_path / "plan.yaml").read_text())
    mapping["assumptions"]["failures"] |= {"made": "2020-01-01", "revisit": "2020-06-01"}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(mapping))
    result = materialize(settings, "capacity_plan")
    shown = result.asset_materializations_for_node("capacity_plan")[0].metadata
    assert "data:image/png;base64," in str(shown["plot"].value)
    assert Path(str(shown["record"].value)).is_file() and shown["money"].value
    flagged = checked(result)
    assert not flagged["assumptions_are_current"].passed
    assert "failures: platform-engineer" in str(flagged["assumptions_are_current"].metadata)
    assert not flagged["reviews_are_held"].passed
    assert "every 92 days" in str(flagged["reviews_are_held"].metadata["missing"].value)

    store = capacity.store_of(settings)
    write_review(settings, store, read_inputs(settings), today)
    unsigned = asked_again("reviews_are_held", settings)
    assert not unsigned.passed and today.isoformat() in str(unsigned.metadata["unsigned"].value)
    sign_review(store, "base", "finance-partner", "stands")
    assert asked_again("reviews_are_held", settings).passed


def test_every_night_the_plan_is_stressed_in_the_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {s.name: s.cron_schedule for s in SCHEDULES}["nightly_stress"].endswith("* * *")
    monkeypatch.setattr(capacity, "NIGHTS", 2)
    spring = (datetime.now(UTC).date() + timedelta(days=1)).replace(month=3, day=10)
    settings = settings_of(tmp_path, monkeypatch, first=spring.isoformat())
    result = materialize(settings, "capacity_stress")
    shown = result.asset_materializations_for_node("capacity_stress")[0].metadata
    assert shown["items_forecast_pct_min"].value == 100.0
    assert "| all at once |" in str(shown["by_stress"].value)
    assert checked(result)["stressed_nights_end_well"].passed
    store = capacity.store_of(settings)
    broken = {"stress": "calm", "items_forecast_pct_min": 99.0, "monitoring_done_pct_min": 100.0,
              "overshoot_pct_max": 0.0}  # fmt: skip
    store.note("base", "stress", {"rows": [broken]})
    assert not asked_again("stressed_nights_end_well", settings).passed
