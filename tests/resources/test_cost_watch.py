"""A look at the ledger opens incidents once, each with its computed cause and a plot."""

from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from forecast_core.incidents.planted_ledger import Recipe, generate
from forecast_core.schema import TABLES
from resources.cost_policy import CostPolicy
from resources.cost_watch import Watched, watch
from resources.incident_store import IncidentStore

NOTHING = TABLES["monitor_accuracy"].schema.to_frame()


@pytest.fixture(scope="module")
def ledger() -> pl.DataFrame:
    return generate(2, Recipe(series=14, days=140)).ledger


@pytest.fixture
def store(tmp_path: Path) -> IncidentStore:
    return IncidentStore(f"sqlite:///{tmp_path / 'ledger.db'}")


def look(ledger: pl.DataFrame, store: IncidentStore) -> Watched:
    last = pl.col("ChargePeriodStart").cast(pl.Date).max()
    day = ledger.select(last).item()
    policy = CostPolicy(owners={"default": "platform"})
    return watch(ledger, store, policy, NOTHING, {}, datetime.combine(day, time(12), UTC))


def test_incidents_are_opened_once_with_cause_and_plot(
    ledger: pl.DataFrame, store: IncidentStore
) -> None:
    first = look(ledger, store)
    assert first.opened and len(first.opened) == first.detection.incidents.height
    for incident in first.active:
        evidence = incident.evidence
        assert evidence["causes"] and evidence["causes"][0]["factor"] in evidence["bridge"]
        parts = sum((Decimal(part) for part in evidence["bridge"].values()), Decimal(0))
        assert parts == Decimal(evidence["change"]), "the bridge has no remainder"
        assert incident.state == "open" and incident.owner == "platform"
        assert first.plots[incident.incident_id].startswith("<svg")
    again = look(ledger, store)
    assert again.opened == () and again.active == first.active


def test_an_empty_ledger_or_one_day_of_it_opens_nothing(
    ledger: pl.DataFrame, store: IncidentStore
) -> None:
    empty = watch(ledger.clear(), store, CostPolicy(), NOTHING, {}, datetime.now(UTC))
    assert empty.opened == () and empty.plots == {}
    day = pl.col("ChargePeriodStart").cast(pl.Date)
    one = look(ledger.filter(day == day.min()), store)
    assert one.opened == () and one.detection.series["reason"].null_count() == 0
