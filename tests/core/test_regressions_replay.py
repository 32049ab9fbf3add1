"""The watch is online: what it says of a day depends on nothing that came later."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.incidents import planted_ledger
from forecast_core.incidents.change_shape import shape_of
from forecast_core.incidents.regressions import detect
from forecast_core.incidents.series_nature import tail_df, volume_elasticity, weekday_effects
from forecast_core.incidents.unit_cost_watch import Observed, Watch, replay


def observed(y: np.ndarray, step: int = 1) -> Observed:
    n = len(y)
    return Observed(np.arange(0, n * step, step), y, np.full(n, 5.0), np.zeros(n, dtype=np.int64))


@given(seed=st.integers(0, 10_000), at=st.integers(30, 90), size=st.floats(0.2, 1.0))
@settings(max_examples=15, deadline=None)
def test_the_future_cannot_change_when_a_rise_was_opened(seed: int, at: int, size: float) -> None:
    y = 0.04 * np.random.default_rng(seed).normal(size=130)
    y[at:] += size
    whole = replay(observed(y), Watch(), 0.05)
    seen = {r.opened for r in whole.rises if r.opened < at + 20}
    part = replay(observed(y[: at + 25]), Watch(), 0.05)
    assert seen <= {r.opened for r in part.rises}


def test_a_step_is_known_within_two_cycles_and_named() -> None:
    y = 0.05 * np.random.default_rng(4).normal(size=100)
    y[60:] += 0.4
    (rise,) = replay(observed(y), Watch(), 0.05).rises
    assert (rise.kind, rise.start) == ("step", 60)
    assert rise.opened <= 61


def test_a_spike_is_known_at_its_own_run() -> None:
    y = 0.05 * np.random.default_rng(5).normal(size=40)
    y[25] += 0.6
    (rise,) = replay(observed(y, step=7), Watch(), 0.05).rises
    assert (rise.kind, rise.start, rise.opened) == ("spike", 25, 25)


def test_a_creep_is_known_before_it_costs_eight_percent_of_a_month() -> None:
    y = 0.03 * np.random.default_rng(6).normal(size=120)
    ramp = np.clip(np.arange(120) - 59, 0, 40) * 0.01
    (rise,) = replay(observed(y + ramp), Watch(), 0.05).rises
    assert rise.kind == "creep"
    assert np.sum(np.expm1(ramp[60 : rise.opened + 1])) < 0.08 * 30


def test_a_fall_is_never_an_incident() -> None:
    y = 0.05 * np.random.default_rng(7).normal(size=100)
    y[50:] -= 0.5
    seen = replay(observed(y), Watch(), 0.05)
    assert not seen.rises
    assert [f.start for f in seen.falls] == [50]


@pytest.mark.parametrize("length", [10, 20, 40])
def test_shapes_are_told_apart(length: int) -> None:
    rng = np.random.default_rng(length)
    index = np.arange(80)
    ramp = np.clip((index - 29) / length, 0, 1) * 0.6 + 0.03 * rng.normal(size=80)
    step = (index >= 30) * 0.6 + 0.03 * rng.normal(size=80)
    assert shape_of(ramp).kind == "creep"
    assert abs(shape_of(ramp).start - 30) <= 6
    assert (shape_of(step).kind, shape_of(step).start) == ("step", 30)


def test_weekdays_and_fixed_cost_are_taken_out() -> None:
    rng = np.random.default_rng(8)
    weekday = np.arange(140) % 7
    planted = np.array([0.3, 0.0, 0.0, 0.0, 0.0, 0.0, -0.3])
    found = weekday_effects(planted[weekday] + 0.02 * rng.normal(size=140), weekday)
    assert np.abs(found - planted).max() < 0.06
    volume = 0.3 * rng.normal(size=140)
    assert abs(volume_elasticity(-0.4 * volume + 0.02 * rng.normal(size=140), volume) + 0.4) < 0.05
    assert volume_elasticity(0.02 * rng.normal(size=140), volume) == 0.0


def test_a_dearer_version_is_judged_by_its_accuracy() -> None:
    """Over one drawn ledger: bought accuracy is no incident, the same rise without it is one."""
    drawn = planted_ledger.generate(9, planted_ledger.Recipe(noise=(0.01, 0.03)))
    found = detect(drawn.ledger, drawn.accuracy, drawn.events)
    bought = drawn.benign.filter(drawn.benign["kind"] == "paid for")["series"].to_list()
    wasted = drawn.truth.filter(drawn.truth["kind"] == "nogain")["series"].to_list()
    assert bought and wasted
    named = dict(found.incidents.select("series", "kind").iter_rows())
    assert not set(bought) & set(named)
    assert {named.get(s) for s in wasted} == {"nogain"}
    blind = detect(drawn.ledger, None, drawn.events).incidents["series"].to_list()
    assert set(bought) <= set(blind)


def test_detection_holds_its_figures_on_a_seed_of_the_hold_out() -> None:
    from benchmarks.regressions import score

    drawn = planted_ledger.generate(planted_ledger.HOLD_OUT + 77)
    found = detect(drawn.ledger, drawn.accuracy, drawn.events).incidents
    scored = score(drawn.truth, found)
    assert scored.right_any_kind >= 0.85 * len(scored.matched)
    assert scored.right_any_kind >= 0.8 * scored.incidents


def test_two_weekday_patterns_that_correlate_by_chance_are_no_elasticity() -> None:
    rng = np.random.default_rng(8)
    week = rng.normal(0, 0.15, 7)[np.arange(140) % 7]
    y = 0.03 * rng.normal(size=140) - 0.6 * week
    assert volume_elasticity(y, week + 0.05 * rng.normal(size=140), lag=7) == 0.0


def test_a_level_that_rises_within_an_event_does_not_rise_again_at_its_end() -> None:
    y = 0.02 * np.random.default_rng(9).normal(size=120)
    y[60:74] += 0.25
    y[66:] += 0.4
    series = observed(y)
    series.event[60:74] = 1
    seen = replay(series, Watch(), 0.03)
    assert [r.start for r in seen.rises] == [66]


def test_the_tails_of_noise_are_told_apart() -> None:
    rng = np.random.default_rng(10)
    normal = [rng.normal(size=150) for _ in range(40)]
    heavy = [rng.standard_t(4, 150) for _ in range(40)]
    assert tail_df(normal) > 20
    assert 3 <= tail_df(heavy) < 7
    assert tail_df(normal[:1]) == float("inf")  # too few to say


@given(seed=st.integers(0, 10_000), length=st.sampled_from([1, 20, 30]))
@settings(max_examples=25, deadline=None)
def test_days_left_out_change_no_shape(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    index = np.arange(80)
    x = np.clip((index - 29) / length, 0, 1) * 0.6 + 0.03 * rng.normal(size=80)
    kept = np.flatnonzero(rng.random(80) > 0.2)
    whole, part = shape_of(x), shape_of(x[kept], kept)
    assert part.kind == whole.kind == ("step" if length == 1 else "creep")
    if length == 1:  # it began with one of the days left out before the first raised one
        assert part.start <= 30 and not ((kept >= part.start) & (kept < 30)).any()
    else:
        assert abs(part.start - whole.start) <= 8


def test_weekly_ramps_through_a_promotion_are_creeps() -> None:
    index, named = np.arange(26), []
    for seed in range(20):
        y = 0.07 * np.random.default_rng(seed).normal(size=26) + np.clip(index - 13, 0, 8) * 0.08
        y[16:18] += 0.35
        series = observed(y, step=7)
        series.event[16:18] = 1
        named.append([r.kind for r in replay(series, Watch(), 0.07).rises])
    assert named.count(["creep"]) >= 18
