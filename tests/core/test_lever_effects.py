"""A lever in force changes its group, that group alone, and never makes it dearer."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.levers import LEVERS
from forecast_core.levers.effects import under
from forecast_core.segments import ATTRIBUTES, RUNGS, SegmentPolicy, classify, served

FILE = Path(__file__).parents[2] / "policies" / "segments.yaml"
POLICY = SegmentPolicy.parse(yaml.safe_load(FILE.read_text()))
GROUP = "gbm_core"


def pulled(lever: str, level: int, group: str = GROUP) -> SegmentPolicy:
    return under(POLICY, {group: {"lever": lever, "level": level}}, 28)


@pytest.mark.parametrize(
    ("lever", "level", "field", "value"),
    [
        ("retrain_less", 1, "retrain_days", 56),
        ("fewer_features", 1, "features", "reduced"),
        ("fewer_features", 2, "features", "minimal"),
        ("simpler_forecaster", 1, "rung", "statistical"),
        ("simpler_forecaster", 2, "rung", "floor"),
        ("shorter_horizon", 1, "horizon", 14),
        ("reclassify", 1, "demoted", 0.5),
    ],
)
def test_each_lever_does_what_its_backtest_measured(
    lever: str, level: int, field: str, value: Any
) -> None:
    assert getattr(pulled(lever, level).group(GROUP), field) == value


@given(lever=st.sampled_from(LEVERS), level=st.integers(1, 9), at=st.integers(0, 3))
def test_only_its_group_changes_and_it_gets_no_dearer(lever: str, level: int, at: int) -> None:
    name = POLICY.groups[at]
    found = pulled(lever, level, name)
    assert found.groups == POLICY.groups
    assert all(found.group(g) == POLICY.group(g) for g in POLICY.groups if g != name)
    before, after = POLICY.group(name), found.group(name)
    assert RUNGS.index(after.rung) <= RUNGS.index(before.rung)
    assert after.retrain_days >= before.retrain_days
    assert (after.horizon or 28) <= (before.horizon or 28)
    assert before.demoted <= after.demoted <= 1


def test_the_version_tells_that_levers_are_in_force() -> None:
    assert under(POLICY, {}, 28) is POLICY
    assert pulled("retrain_less", 1, "gone").content.groups == POLICY.content.groups
    one, two = pulled("retrain_less", 1), pulled("retrain_less", 2)
    assert len({POLICY.version, one.version, two.version}) == 3
    assert one.version == pulled("retrain_less", 1).version
    assert one.version.startswith(f"{POLICY.version}+")


def test_a_demoted_group_keeps_its_best_sellers_and_loses_no_row() -> None:
    stats = pl.DataFrame(
        {
            **{name: [f"{name}{i:02d}" for i in range(10)] for name in ATTRIBUTES},
            "revenue": [float(100 + i) for i in range(10)],
            "days": 100, "selling_days": 100, "mean_sold": 5.0, "var_sold": 1.0,
            "first_day": date(2024, 1, 1), "last_sale": date(2025, 6, 1),
        }
    )  # fmt: skip
    rows = classify(stats, date(2025, 6, 1), pulled("reclassify", 1))
    assert rows.height == 10 and set(rows["segment_group"]) == {GROUP}
    assert sorted(rows.filter(rung="floor")["revenue"]) == [100.0, 101, 102, 103, 104]
    assert sorted(served(rows, GROUP)["revenue"]) == [105.0, 106, 107, 108, 109]
    plain = classify(stats, date(2025, 6, 1), POLICY)
    assert served(plain, GROUP).height == 10
