"""A training out of turn: only for what was lost, only where it pays, never twice."""

from dataclasses import replace
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.evaluation.drift import Verdict
from forecast_core.evaluation.live_accuracy import ALL
from forecast_core.evaluation.retrain import (
    Group,
    Loss,
    RetrainPolicy,
    accuracy_loss,
    decide,
    decisions,
)
from forecast_core.schema import TABLES

CUTOFF = date(2024, 6, 30)
POLICY = RetrainPolicy()
DRIFTED = Verdict(True, 3.0, "the target moved: units .6 of .2")
QUIET = Verdict(False, 0.1, "0 of 3 columns moved, not the target")
KEPT = Loss(False, 0.0, "WAPE 0.500 holds")
LOST = Loss(True, 0.2, "WAPE 0.700 is 0.200 above its own past")
GROUP = Group("dept_a", "gbm", CUTOFF - timedelta(days=28), revenue=1e5, cost=0.01)


@pytest.mark.parametrize(
    ("group", "drift", "loss", "train", "says"),
    [
        (GROUP, DRIFTED, KEPT, True, "the target moved"),
        (GROUP, QUIET, LOST, True, "above its own past"),
        (GROUP, QUIET, KEPT, False, "no drift"),
        (replace(GROUP, rung="floor"), DRIFTED, LOST, False, "nothing to train"),
        (replace(GROUP, in_flight="r1"), DRIFTED, LOST, False, "r1 trains it already"),
        (replace(GROUP, trained_to=CUTOFF), DRIFTED, LOST, False, "nothing newer"),
        (
            replace(GROUP, trained_to=CUTOFF - timedelta(days=3)),
            DRIFTED,
            LOST,
            False,
            "cooling down until 2024-07-04",
        ),
        (replace(GROUP, cost=1e6), DRIFTED, LOST, False, "a training costs 1000000"),
        (replace(GROUP, cost=None), DRIFTED, KEPT, True, "admission quotes it"),
        (replace(GROUP, revenue=0.0), DRIFTED, LOST, False, "worth 0.000000"),
    ],
)
def test_every_decision_says_why(
    group: Group, drift: Verdict, loss: Loss, train: bool, says: str
) -> None:
    found = decide(group, CUTOFF, drift, loss, POLICY)
    assert found.train is train and says in found.reason


@given(
    revenue=st.floats(0, 1e9),
    cost=st.floats(0, 1e6),
    strength=st.floats(1, 100),
    days=st.integers(0, 400),
)
def test_what_trains_pays_and_has_cooled_down(
    revenue: float, cost: float, strength: float, days: int
) -> None:
    group = replace(GROUP, revenue=revenue, cost=cost, trained_to=CUTOFF - timedelta(days=days))
    found = decide(group, CUTOFF, Verdict(True, strength, "moved"), KEPT, POLICY)
    if found.train:
        assert days >= POLICY.cooldown_days
        assert POLICY.gain_cap * revenue * POLICY.value_of_error > cost
        dearer = replace(group, cost=cost * 2 + revenue)
        assert not decide(dearer, CUTOFF, Verdict(True, strength, "moved"), KEPT, POLICY).train


def scores(*rows: tuple[int, float, float | None]) -> pl.DataFrame:
    """(days before the cutoff, wape, wape of the floor)."""
    frame = pl.DataFrame(
        [
            {"cutoff": CUTOFF - timedelta(days=back), "wape": wape, "floor_wape": floor}
            for back, wape, floor in rows
        ]
    ).with_columns(
        segment_group=pl.lit("dept_a"),
        **{n: pl.lit(ALL) for n in ("store_id", "forecaster", "horizon")},
    )
    missing = [c for c in TABLES["monitor_accuracy"].columns if c not in frame.columns]
    return TABLES["monitor_accuracy"].conform(
        frame.with_columns(pl.lit(None).alias(c) for c in missing)
    )


def test_a_loss_is_told_against_the_past_or_the_floor() -> None:
    def loss(*rows: tuple[int, float, float | None]) -> Loss:
        return accuracy_loss(scores(*rows), "dept_a", CUTOFF, POLICY.loss)

    assert not loss((0, 0.5, 0.6), (28, 0.48, 0.6)).lost
    risen = loss((0, 0.8, 0.9), (28, 0.5, 0.6), (35, 0.5, 0.6))
    assert risen.lost and risen.gain == pytest.approx(0.3) and "its own past" in risen.reason
    worse = loss((0, 0.8, 0.6))
    assert worse.lost and worse.gain == pytest.approx(0.2) and "the floor" in worse.reason
    assert not loss((0, 0.8, 0.9), (7, 0.5, 0.6)).lost, "windows that overlap are not compared"
    assert "no accuracy" in loss((1, 0.8, 0.6)).reason
    assert not accuracy_loss(scores((0, 0.9, 0.1)), "other", CUTOFF, POLICY.loss).lost


def test_one_group_falls_behind_and_the_others_wait() -> None:
    groups = {name: replace(GROUP, name=name) for name in ("dept_a", "dept_b", "dept_c")}
    nothing = TABLES["monitor_accuracy"].schema.to_frame()
    drift = {"dept_a": DRIFTED, "dept_b": QUIET}
    made = decisions(groups, CUTOFF, drift, nothing, POLICY)
    assert [one.group for one in made if one.train] == ["dept_a"]
    assert all(one.reason for one in made) and "not compared" in made[2].reason
