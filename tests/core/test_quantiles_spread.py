"""Quantiles are those of the distribution, ordered and calibrated; bad input is refused."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nbinom

from forecast_core.evaluation.accuracy import pinball
from forecast_core.quantiles import (
    ANY,
    LEVELS,
    Spread,
    SpreadError,
    calibrate,
    column_of,
    cumulative,
    lead_time_pairs,
    pit_coverage,
    quantiles,
    with_quantiles,
)

RNG = np.random.default_rng


def draw(rng: np.random.Generator, mean: np.ndarray, inflation: np.ndarray) -> np.ndarray:
    return rng.negative_binomial(mean / (inflation - 1), 1 / inflation).astype(float)


def history(seed: int, n: int = 30_000) -> pl.DataFrame:
    """Two segments whose counts scatter differently around known means."""
    rng = RNG(seed)
    mean = rng.lognormal(0, 1.2, n)
    wide = rng.random(n) < 0.5
    inflation = np.where(wide, 2.0 + mean, 1.2)
    return pl.DataFrame(
        {
            "segment": np.where(wide, "lumpy", "smooth"),
            "mean": mean,
            "units": draw(rng, mean, inflation),
            "true_inflation": inflation,
        }
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.001, 250), st.floats(1.01, 30)),
        min_size=1,
        max_size=20,
    ),
    st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True),
)
def test_quantiles_equal_the_slow_exact_ones(cases, percents):
    mean, inflation = (np.array(column) for column in zip(*cases, strict=True))
    levels = [percent / 100 for percent in sorted(percents)]
    got = quantiles(mean, inflation, levels)
    size, success = mean / (inflation - 1), 1 / inflation
    for k, level in enumerate(levels):
        # The least count whose cumulative probability reaches the level, to rounding.
        assert (nbinom.cdf(got[:, k], size, success) >= level - 1e-9).all()
        lower = got[:, k] - 1
        assert (nbinom.cdf(lower, size, success)[lower >= 0] < level + 1e-9).all()


def test_large_means_follow_the_same_distribution():
    mean = np.array([301.0, 5_000.0, 80_000.0])
    inflation = np.array([1.5, 40.0, 3.0])
    exact = nbinom.ppf(np.array(LEVELS), (mean / (inflation - 1))[:, None], 1 / inflation[:, None])
    np.testing.assert_allclose(quantiles(mean, inflation), exact, rtol=0.001, atol=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16))
def test_quantiles_never_cross_and_never_fall_below_zero(seed):
    rng = RNG(seed)
    mean = np.concatenate([[0.0, 1e-9], rng.lognormal(0, 3, 60)])
    got = quantiles(mean, rng.uniform(1, 20, 62))
    assert (np.diff(got, axis=1) >= 0).all() and got.min() >= 0
    assert (got[0] == 0).all()


def test_the_spread_of_each_segment_is_found_again():
    learnt, fresh = calibrate(history(1)), history(2)
    inflation = learnt.inflation(fresh["mean"].to_numpy(), fresh["segment"])
    ratio = inflation / fresh["true_inflation"].to_numpy()
    assert np.median(ratio) == pytest.approx(1, abs=0.05)
    assert np.quantile(ratio, [0.05, 0.95]) == pytest.approx([1, 1], abs=0.35)


def test_coverage_is_what_it_says_on_fresh_sales():
    learnt, fresh = calibrate(history(1)), history(2)
    mean, units = fresh["mean"].to_numpy(), fresh["units"].to_numpy()
    inflation = learnt.inflation(mean, fresh["segment"])
    for lower, upper in ((0.1, 0.9), (0.25, 0.75), (0.0, 0.5)):
        assert pit_coverage(units, mean, inflation, lower, upper) == pytest.approx(
            upper - lower, abs=0.015
        )
    narrow = pit_coverage(units, mean, np.full(len(mean), 1.01), 0.1, 0.9)
    assert narrow < 0.75


def test_the_lower_tail_of_a_slow_seller_is_as_wide_as_it_says():
    """Its q10 is 0, and every day without a sale is at or below 0: that share is no fault of the
    spread. Cut by probability (`pit_coverage`), a tenth of the outcomes lie in the lowest tenth."""
    learnt, fresh = calibrate(history(1)), history(2).filter(pl.col("mean") < 0.7)
    mean, units = fresh["mean"].to_numpy(), fresh["units"].to_numpy()
    inflation = learnt.inflation(mean, fresh["segment"])
    q10 = quantiles(mean, inflation, (0.1,))[:, 0]
    assert not q10.any() and (units <= q10).mean() > 0.4
    assert pit_coverage(units, mean, inflation, 0.0, 0.1) == pytest.approx(0.1, abs=0.015)


def test_segments_lose_less_than_the_pool():
    learnt, fresh = calibrate(history(1)), history(2)
    mean, units = fresh["mean"].to_numpy(), fresh["units"].to_numpy()
    pooled = Spread({ANY: learnt.curves[ANY]}, {ANY: learnt.pairs[ANY]})

    def loss(spread: Spread) -> float:
        found = quantiles(mean, spread.inflation(mean, fresh["segment"]))
        each = [pinball(found[:, k], units, level).mean() for k, level in enumerate(LEVELS)]
        return float(np.mean(each))

    assert loss(learnt) < 0.98 * loss(pooled)


def test_a_segment_of_few_pairs_or_no_name_is_served_by_the_pool():
    few = pl.DataFrame({"segment": ["new"] * 5, "mean": [1.0] * 5, "units": [40.0] * 5})
    learnt = calibrate(pl.concat([history(1).drop("true_inflation"), few]))
    assert "new" not in learnt.curves
    mean = np.array([0.5, 3.0, 9.0])
    for segment in (["new"] * 3, [None, "unheard of", None]):
        got = learnt.inflation(mean, pl.Series(segment, dtype=pl.String))
        np.testing.assert_array_equal(got, learnt.curves[ANY].at(mean))


@pytest.mark.parametrize(
    ("mean", "units"), [([0.0] * 400, [0.0] * 400), ([2.0] * 400, [2.0] * 400), ([1.0], [3.0])]
)
def test_all_zero_constant_and_single_pairs_give_a_spread(mean, units):
    pairs = pl.DataFrame({"segment": "x", "mean": mean, "units": units})
    learnt = calibrate(pairs)
    got = quantiles([0.0, 1.5], learnt.inflation(np.array([0.0, 1.5]), pl.Series(["x", "x"])))
    assert np.isfinite(got).all() and (got[0] == 0).all()


def test_it_is_kept_as_text():
    learnt, fresh = calibrate(history(1)), history(2)
    again = Spread.from_json(learnt.to_json())
    mean = fresh["mean"].to_numpy()
    np.testing.assert_array_equal(
        again.inflation(mean, fresh["segment"]), learnt.inflation(mean, fresh["segment"])
    )
    assert again.pairs == learnt.pairs


def test_columns_are_added_and_nothing_else_changes():
    rows = history(1, 2000)
    got = with_quantiles(rows, rows["segment"], calibrate(rows))
    names = [f"q{percent}" for percent in range(10, 100, 10)]
    assert got.columns == [*rows.columns, *names]
    assert got.select(rows.columns).equals(rows)
    for low, high in pairwise(names):
        assert (got[low] <= got[high]).all()


def test_column_names():
    assert [column_of(level) for level in (0.1, 0.05, 0.5, 0.975, 0.99)] == [
        "q10", "q05", "q50", "q975", "q99",
    ]  # fmt: skip


def test_lead_time_pairs_sum_whole_runs_alone():
    cutoff = date(2020, 1, 1)
    rows = pl.DataFrame(
        {
            "item_id": ["a"] * 7 + ["b"] * 2,
            "store_id": "s",
            "cutoff": cutoff,
            "ds": [cutoff + timedelta(days=k + 1) for k in [*range(7), 0, 1]],
            "segment": "x",
            "mean": [1.0] * 9,
            "units": [*map(float, range(7)), None, 5.0],
        }
    )
    got = lead_time_pairs(rows, 3).sort("units")
    assert got.rows() == [("x", 3.0, 0.0 + 1 + 2), ("x", 3.0, 3.0 + 4 + 5)]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 200), st.floats(1.01, 20), st.integers(-2, 400))
def test_cumulative_equals_the_reference(mean, inflation, units):
    got = cumulative(np.array([float(units)]), np.array([mean]), np.array([inflation]))
    expected = nbinom.cdf(units, mean / (inflation - 1), 1 / inflation)
    assert got[0] == pytest.approx(expected, abs=1e-9)


def test_bad_input_is_refused_by_name():
    pairs = history(1, 100)
    with pytest.raises(SpreadError, match=r"none of 100 pairs has both"):
        calibrate(pairs.with_columns(units=pl.lit(None, dtype=pl.Float64)))
    with pytest.raises(SpreadError, match=r"mean of -1\.0 is below zero"):
        calibrate(pairs.with_columns(mean=pl.lit(-1.0)))
    with pytest.raises(SpreadError, match=r"mean of row 1 is nan \(1 such rows\)"):
        quantiles([1.0, float("nan")], np.ones(2))
    for levels in ([], [0.5, 0.1], [0.0], [1.0], [0.2, 0.2]):
        with pytest.raises(SpreadError, match="rising numbers between 0 and 1"):
            quantiles([1.0], np.ones(1), levels)
