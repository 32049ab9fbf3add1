"""What held-back weeks earn a rung: never more than the floor lost, in words, and bounded."""

from dataclasses import asdict, replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.combination import GRID, UNKNOWN, Weights, combined, learn

START = date(2025, 1, 6)


def _pairs(
    seed: int, rung_off: float, floor_off: float, windows: int = 3, items: int = 12
) -> pl.DataFrame:
    """Sales, and two forecasts of them that err by independent draws of the spreads given."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"i{item}", "s", f"d{item % 3}", "g", START + timedelta(days=28 * w),
         START + timedelta(days=28 * w + day))
        for w in range(windows)
        for item in range(items)
        for day in range(1, 15)
    ]  # fmt: skip
    names = ["item_id", "store_id", "dept_id", "segment_group", "cutoff", "ds"]
    frame = pl.DataFrame(rows, schema=names, orient="row")
    units = rng.poisson(8, frame.height).astype(float)
    return frame.with_columns(
        rung=pl.lit("gbm"),
        units=pl.Series(units),
        mean=pl.Series(np.maximum(units + rung_off * rng.standard_normal(frame.height), 0)),
        floor=pl.Series(np.maximum(units + floor_off * rng.standard_normal(frame.height), 0)),
    )


def _relative(pairs: pl.DataFrame) -> float:
    """Mean over windows and levels of the root squared error of `mean` over that of `floor`."""
    found = []
    for (_,), window in pairs.partition_by("cutoff", as_dict=True).items():
        for level in (["item_id"], ["dept_id"], []):
            sums = window.group_by("ds", *level).agg(pl.col("mean", "floor", "units").sum())
            mean, floor = ((sums[c] - sums["units"]).to_numpy() for c in ("mean", "floor"))
            found.append(np.sqrt((mean**2).sum() / (floor**2).sum()))
    return float(np.mean(found))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 8), st.floats(0.1, 8), st.integers(1, 3))
def test_what_is_served_beat_the_floor_on_the_held_back_weeks_or_is_the_floor(
    seed: int, rung_off: float, floor_off: float, windows: int
) -> None:
    pairs = _pairs(seed, rung_off, floor_off, windows)
    weights = learn(pairs)
    one = weights.of("g", "gbm")
    served = combined(pairs, weights)
    assert one.weight in GRID and one.windows == windows
    assert one.alone == pytest.approx(_relative(pairs), abs=1e-5)
    if one.weight == 0:
        assert served["mean"].equals(pairs["floor"])
    else:
        assert one.served == pytest.approx(_relative(served), abs=1e-5)
        assert one.served < 1
    lower, upper = (f(pairs["mean"], pairs["floor"]) for f in (np.minimum, np.maximum))
    assert (served["mean"] >= lower - 1e-9).all() and (served["mean"] <= upper + 1e-9).all()


def test_the_better_forecast_gets_the_weight_and_equals_share_it() -> None:
    assert learn(_pairs(1, 0.5, 8)).of("g", "gbm").weight == 1
    assert 0 < learn(_pairs(1, 3, 3)).of("g", "gbm").weight < 1
    worse = _pairs(1, 0, 2).with_columns(mean=pl.col("units") * 4)
    refused = learn(worse).of("g", "gbm")
    assert refused.weight == 0
    assert refused.said("gbm") == (
        f"rung gbm had {refused.alone:.3f} of the floor's error on 3 held-back windows: "
        "floor used instead"
    )


def test_what_cannot_be_known_is_the_floor_and_says_so() -> None:
    nothing = learn(_pairs(1, 1, 1).with_columns(units=pl.lit(None, pl.Float64)))
    assert nothing.of("g", "gbm").weight == 0
    assert "no held-back weeks yet" in (nothing.of("g", "gbm").said("gbm") or "")
    right = _pairs(1, 1, 0).with_columns(floor=pl.col("units"))
    beaten = learn(right).of("g", "gbm").weight
    assert beaten == 0, "a floor that is right throughout cannot be beaten"


def test_a_group_without_a_member_then_is_like_the_others() -> None:
    weights = learn(_pairs(1, 3, 3))
    assert weights.of("new_group", "gbm") == replace(weights.of("g", "gbm"), lent=True)


def test_weights_survive_their_json_and_fits_of_old_serve_alone() -> None:
    weights = learn(_pairs(2, 3, 3))
    assert Weights.from_json(weights.to_json()) == weights
    old = Weights.from_json(None)
    pairs = _pairs(2, 3, 3)
    assert old.of("g", "gbm").said("gbm") is None
    assert combined(pairs, old).equals(pairs)


def test_whoever_has_no_group_stays_as_it_is() -> None:
    pairs = _pairs(2, 3, 3)
    lost = pairs.with_columns(segment_group=pl.lit(None, pl.String))
    assert combined(lost, learn(pairs))["mean"].equals(lost["mean"])


def test_a_rung_that_serves_instead_goes_by_its_own_weight_never_by_the_one_it_replaced() -> None:
    of_gbm = _pairs(1, 0.5, 8)
    others = _pairs(2, 3, 3).with_columns(segment_group=pl.lit("h"), rung=pl.lit("statistical"))
    weights = learn(pl.concat([of_gbm, others]))
    own, lowered = weights.of("g", "gbm"), weights.of("g", "statistical")
    assert own.weight == 1 and own.said("gbm") is None
    assert lowered == replace(weights.of("h", "statistical"), lent=True)
    assert 0 < lowered.weight < 1
    assert "of the groups it served then, rung statistical alone" in (
        lowered.said("statistical") or ""
    )
    # Rows that it forecasts are mixed by that weight, those of the group's own rung are not.
    both = pl.concat([of_gbm, of_gbm.with_columns(rung=pl.lit("statistical"))])
    served = combined(both, weights)
    half = lowered.weight * of_gbm["mean"] + (1 - lowered.weight) * of_gbm["floor"]
    assert served["mean"].head(of_gbm.height).equals(of_gbm["mean"])
    assert served["mean"].tail(of_gbm.height).to_numpy() == pytest.approx(half.to_numpy())

    assert learn(of_gbm).of("g", "statistical") == UNKNOWN, "none was learnt: the floor alone"
    great = learn(_pairs(1, 0.5, 8)).of("other", "gbm")
    assert great.weight == 1 and "of the groups it served then" in (great.said("gbm") or "")


def test_a_network_goes_by_what_the_trials_shared_model_earned() -> None:
    weights = learn(_pairs(2, 3, 3))
    assert weights.of("g", "neural") == weights.of("g", "gbm")


def test_weights_of_a_group_alone_are_read_as_of_any_rung() -> None:
    one = learn(_pairs(2, 3, 3)).of("g", "gbm")
    flat = {key: value for key, value in asdict(one).items() if key != "lent"}
    old = Weights.from_json({"g": flat})
    assert old.of("g", "gbm") == old.of("g", "statistical") == one
