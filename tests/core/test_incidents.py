"""An incident's life: nothing closes without cause, mitigation and a safeguard that runs."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.events import Event, Refusal
from forecast_core.incidents import (
    REQUIRED,
    Incident,
    Safeguard,
    apply,
    incident_id,
    replay,
)

AT = datetime(2024, 5, 1, tzinfo=UTC)
OPENED = {
    "kind": "step",
    "series": "training/gbm/a/prod",
    "start": "2024-04-29",
    "detected": "2024-04-30",
    "owner": "data-science",
    "severity": "high",
}
SAID = {
    "opened": OPENED,
    "reclassified": {"kind": "creep"},
    "acknowledged": {"by": "on-call"},
    "explained": {"root_cause": "features doubled"},
    "mitigated": {"by": "on-call", "mitigation": "reverted"},
    "closed": {"by": "on-call", "safeguard": "quota:training=2 CPU-h"},
    "withdrawn": {"reason": "corrected"},
    "noted": {"note": "seen"},
}


def event(action: str, **changes: object) -> Event:
    return Event("i1", AT, action, {**SAID[action], **changes})


def test_the_whole_way() -> None:
    way = ("opened", "acknowledged", "explained", "mitigated", "closed")
    incident = replay(map(event, way))
    assert incident.state == "closed"
    assert (incident.root_cause, incident.mitigation) == ("features doubled", "reverted")
    assert incident.safeguard == "quota:training=2 CPU-h"
    assert [e.action for e in incident.history] == list(way)


def test_it_does_not_close_without_a_root_cause() -> None:
    incident = replay(map(event, ("opened", "acknowledged", "mitigated")))
    refused = apply(incident, event("closed"))
    assert refused == Refusal("an incident does not close without its root cause")
    assert isinstance(apply(incident, event("closed", root_cause="a loop")), Incident)


@given(st.lists(st.sampled_from(sorted(REQUIRED)), max_size=12))
def test_no_order_of_events_closes_it_unfinished(actions: list[str]) -> None:
    incident: Incident | None = None
    for action in actions:
        result = apply(incident, event(action))
        if isinstance(result, Incident):
            incident = result
    if incident is not None and incident.state == "closed":
        assert incident.root_cause and incident.mitigation and incident.safeguard
        assert replay(incident.history) == incident


@pytest.mark.parametrize("action", sorted(REQUIRED))
def test_what_must_be_said_may_not_be_blank(action: str) -> None:
    blank = event(action, **{REQUIRED[action][0]: "  "})  # type: ignore[index]
    refused = apply(None, blank)
    assert isinstance(refused, Refusal) and REQUIRED[action][0] in refused.reason  # type: ignore[index]


@pytest.mark.parametrize(
    "text", ["", "quota", "quota:a", "quota:=2", "wish:a=b", "budget:a=", "quota:a=less"]
)
def test_a_safeguard_is_something_that_runs(text: str) -> None:
    with pytest.raises(ValueError):
        Safeguard.parse(text)


def test_the_same_regression_has_the_same_id() -> None:
    one = incident_id("a/b/c/d", date(2024, 1, 1))
    assert one == incident_id("a/b/c/d", date(2024, 1, 1))
    assert (
        len(
            {
                one,
                incident_id("a/b/c/d", date(2024, 1, 2)),
                incident_id("a/b/c/e", date(2024, 1, 1)),
            }
        )
        == 3
    )
