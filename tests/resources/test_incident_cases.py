"""A closed incident is a case: its charges are kept, and the detector still finds it."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from forecast_core.incidents import Incident
from forecast_core.incidents.planted_ledger import Planted, Recipe, generate
from forecast_core.incidents.regressions import detect
from resources.incident_cases import keep, replayed
from resources.incident_store import IncidentStore

AT = datetime(2024, 7, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def drawn() -> Planted:
    return generate(2, Recipe(series=14, days=140))


def incident(drawn: Planted, tmp_path: Path) -> Incident:
    found = detect(drawn.ledger).incidents.filter(pl.col("kind") == "step")
    store = IncidentStore(f"sqlite:///{tmp_path / 'ledger.db'}")
    return store.record(found.head(1), {}, AT, AT.date().replace(year=2000))[0]


def test_what_was_closed_is_found_again(drawn: Planted, tmp_path: Path) -> None:
    closed = incident(drawn, tmp_path)
    path = keep(tmp_path, closed, drawn.ledger)
    assert path is not None
    (case,) = replayed(tmp_path, [closed])
    assert case.found and case.incident_id == closed.incident_id


def test_a_case_that_shows_no_rise_any_more_is_missed(drawn: Planted, tmp_path: Path) -> None:
    closed = incident(drawn, tmp_path)
    before = pl.col("ChargePeriodStart").cast(pl.String).str.slice(0, 10) < closed.start
    assert keep(tmp_path, closed, drawn.ledger.filter(before)) is not None
    assert [case.found for case in replayed(tmp_path, [closed])] == [False]


def test_without_charges_there_is_no_case(drawn: Planted, tmp_path: Path) -> None:
    closed = incident(drawn, tmp_path)
    assert keep(tmp_path, closed, drawn.ledger.clear()) is None
    assert replayed(tmp_path, [closed]) == []
