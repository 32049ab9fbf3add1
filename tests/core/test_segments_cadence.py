"""Who changed segment, and which forecasters are due: both follow from dated rows."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from forecast_core.segments import SegmentPolicy, due, moves, reclassified

ROOT = Path(__file__).resolve().parents[2]
AS_OF = date(2025, 6, 1)


@pytest.fixture(scope="module")
def policy() -> SegmentPolicy:
    return SegmentPolicy.parse(yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text()))


def _rows(groups: dict[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": list(groups),
            "store_id": "S",
            "segment": [f"segment of {g}" for g in groups.values()],
            "segment_group": list(groups.values()),
        },
        schema=dict.fromkeys(("item_id", "store_id", "segment", "segment_group"), pl.String),
    )


def test_moves_count_who_changed_the_forecaster() -> None:
    before = _rows({"a": "gbm_core", "b": "gbm_core", "c": "dormant", "gone": "dormant"})
    now = _rows({"a": "dormant", "b": "dormant", "c": "dormant", "new": "gbm_core"})
    told = reclassified(now, before)
    assert told.height == now.height
    assert told.filter(item_id="new")["previous_group"].to_list() == [None]
    assert moves(told).rows() == [("gbm_core", "dormant", 2)]
    assert moves(reclassified(now, before.clear())).is_empty()


def test_a_group_is_due_when_its_fit_is_as_old_as_its_cadence(policy: SegmentPolicy) -> None:
    cadence = {g.name: g.retrain_days for g in policy.content.groups if g.enabled}
    fresh = {name: AS_OF - timedelta(days=days - 1) for name, days in cadence.items()}
    assert due(policy, fresh, AS_OF, others=["alignment"]) == []
    old = {**fresh, "gbm_core": AS_OF - timedelta(days=cadence["gbm_core"])}
    assert due(policy, old, AS_OF, others=["alignment"]) == ["gbm_core", "alignment"]
    assert set(due(policy, {}, AS_OF)) == set(cadence)


def test_a_fit_of_another_rung_than_the_policy_says_is_due(policy: SegmentPolicy) -> None:
    rungs = {g.name: g.rung for g in policy.content.groups if g.enabled}
    fresh = dict.fromkeys(rungs, AS_OF)
    assert due(policy, fresh, AS_OF, rungs=rungs) == []
    assert due(policy, fresh, AS_OF, rungs={**rungs, "gbm_core": "floor"}) == ["gbm_core"]


def test_a_group_that_is_off_takes_nobody_and_is_never_due(policy: SegmentPolicy) -> None:
    off = {g.name for g in policy.content.groups if not g.enabled}
    assert "neural_core" in off
    assert not off & set(due(policy, {}, AS_OF))
