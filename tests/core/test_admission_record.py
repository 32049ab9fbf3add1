"""A pass on record comes back exactly, and deciding again from the record agrees."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given, settings

from forecast_core.admission import Snapshot, decide
from forecast_core.admission.record import (
    RecordError,
    agrees,
    decisions_from_json,
    decisions_to_json,
    snapshot_from_json,
    snapshot_to_json,
)

_spec = importlib.util.spec_from_file_location(
    "admission_cases", Path(__file__).with_name("test_admission_decide.py")
)
assert _spec and _spec.loader
cases = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cases)


@given(cases.snapshots())
@settings(max_examples=60, deadline=None)
def test_a_recorded_pass_is_decided_again_to_the_letter(snapshot: Snapshot) -> None:
    text = snapshot_to_json(snapshot)
    back = snapshot_from_json(text)
    assert back == snapshot
    assert snapshot_to_json(back) == text
    decisions = decide(snapshot, cases.POLICY)
    assert decisions_from_json(decisions_to_json(decisions)) == decisions
    assert agrees(text, cases.POLICY.text, decisions_to_json(decisions))


def test_a_changed_record_is_noticed() -> None:
    snapshot = Snapshot(cases.NOW, "prod", tuple(cases.waiting("backfill", 0.2)))
    decisions = decisions_to_json(decide(snapshot, cases.POLICY))
    other = json.loads(cases.POLICY.text) | {"budgets": {"all": {"period": "day", "limit": 4.1,
        "floors": {"serving": 3, "monitoring": 1}}}}  # fmt: skip
    assert not agrees(snapshot_to_json(snapshot), json.dumps(other), decisions)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"shapes": [1]}'])
def test_what_is_no_record_says_so(text: str) -> None:
    with pytest.raises(RecordError):
        snapshot_from_json(text)
