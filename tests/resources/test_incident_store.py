"""Incidents and decisions at rest: append-only, and the same however often one looks."""

import threading
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from forecast_core.events import Event, Refusal
from forecast_core.incidents import Incident
from forecast_core.incidents.planted_ledger import Recipe, generate
from forecast_core.incidents.regressions import detect
from forecast_core.levers.decisions import Decision
from resources.cost_policy import CostPolicyError, read_cost_policy
from resources.decision_store import DecisionStore
from resources.incident_store import IncidentStore

AT = datetime(2024, 5, 1, tzinfo=UTC)
LONG_AGO = date(2000, 1, 1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture(scope="module")
def found() -> pl.DataFrame:
    drawn = generate(2, Recipe(series=14, days=140))
    return detect(drawn.ledger, drawn.accuracy, drawn.events).incidents


def test_recording_twice_opens_once(url: str, found: pl.DataFrame) -> None:
    store = IncidentStore(url)
    owners = {"default": "platform", "training": "data-science"}
    new = store.record(found, owners, AT, LONG_AGO)
    assert len(new) == len(found) > 0
    assert store.record(found, owners, AT, LONG_AGO) == []
    again = IncidentStore(url).all()
    assert {i.incident_id for i in again} == {i.incident_id for i in new}
    roles = {i.series.split("/")[0]: i.owner for i in again}
    assert all(role == owners.get(p, "platform") for p, role in roles.items())
    assert all(i.evidence["unit_cost_expected"] > 0 for i in again)


def test_a_new_kind_reclassifies_and_an_explained_one_is_withdrawn(
    url: str, found: pl.DataFrame
) -> None:
    store = IncidentStore(url)
    store.record(found, {}, AT, LONG_AGO)
    one = found.head(1)
    other = "creep" if one["kind"][0] != "creep" else "step"
    store.record(one.with_columns(kind=pl.lit(other)), {}, AT, LONG_AGO)
    (left,) = store.all(active_only=True)
    assert left.kind == other
    assert {i.state for i in store.all() if i.incident_id != left.incident_id} == {"withdrawn"}


def test_what_lies_before_the_window_or_was_acknowledged_stays(
    url: str, found: pl.DataFrame
) -> None:
    store = IncidentStore(url)
    store.record(found, {}, AT, LONG_AGO)
    store.record(found.clear(), {}, AT, date(2100, 1, 1))
    assert len(store.all(active_only=True)) == len(found)
    first = store.all()[0].incident_id
    store.append(Event(first, AT, "acknowledged", {"by": "on-call"}))
    store.record(found.clear(), {}, AT, LONG_AGO)
    assert [i.incident_id for i in store.all(active_only=True)] == [first]


def test_a_refusal_stores_nothing(url: str, found: pl.DataFrame) -> None:
    store = IncidentStore(url)
    (key, *_) = [i.incident_id for i in store.record(found, {}, AT, LONG_AGO)]
    refused = store.append(
        Event(key, AT, "closed", {"by": "on-call", "safeguard": "budget:training=10"})
    )
    assert isinstance(refused, Refusal)
    incident = store.get(key)
    assert incident is not None and len(incident.history) == 1


@pytest.mark.parametrize(
    "verb", ["UPDATE incident_events SET action = 'x'", "DELETE FROM incident_events"]
)
def test_the_database_refuses_to_change_history(url: str, found: pl.DataFrame, verb: str) -> None:
    IncidentStore(url).record(found, {}, AT, LONG_AGO)
    with (
        pytest.raises(sa.exc.DBAPIError, match="append-only"),
        sa.create_engine(url).begin() as connection,
    ):
        connection.exec_driver_sql(verb)


def test_of_two_writers_one_wins_and_the_other_is_told(url: str, found: pl.DataFrame) -> None:
    key = IncidentStore(url).record(found, {}, AT, LONG_AGO)[0].incident_id
    results: list[Incident | Refusal] = []
    start = threading.Barrier(6)

    def acknowledge(who: int) -> None:
        store = IncidentStore(url)
        start.wait()
        results.append(store.append(Event(key, AT, "acknowledged", {"by": f"role{who}"})))

    threads = [threading.Thread(target=acknowledge, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(r, Incident) for r in results) == 1
    assert sum(isinstance(r, Refusal) for r in results) == 5
    assert len(IncidentStore(url).get(key).history) == 2  # type: ignore[union-attr]


def test_decisions_are_kept_in_order(url: str) -> None:
    store = DecisionStore(url)
    options = [{"group": "a", "lever": "retrain_less", "level": 1, "saving": 2.0, "loss": 1.0}]
    said = {"reason": "over budget", "options": options}
    assert isinstance(store.append(Event("d1", AT, "proposed", said)), Decision)
    assert not isinstance(
        store.append(Event("d1", AT, "applied", {"by": "x", "policy_version": "v"})), Decision
    )
    store.append(Event("d1", AT, "approved", {"by": "owner"}))
    (decision,) = DecisionStore(url).all()
    assert (decision.state, decision.saving_expected) == ("approved", 2.0)


def test_the_policy_of_the_house_is_valid(project_root: Path) -> None:
    policy = read_cost_policy(project_root / "policies" / "levers.yaml")
    assert policy.owners["default"] and policy.gain_per_cost > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preapproved: {wishing: 1}", "wishing"),
        ("preapproved: {retrain_less: -1}", "level"),
        ("gain_per_cost: much", "number"),
        ("owner: {}", "unknown entry 'owner'"),
        ("- a", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_a_bad_policy_names_the_file_and_the_entry(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "levers.yaml"
    path.write_text(text)
    with pytest.raises(CostPolicyError, match=message) as error:
        read_cost_policy(path)
    assert str(path) in str(error.value)
