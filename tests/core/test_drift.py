"""Distances are nought for the same data, grow with the shift, and a verdict follows them."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecast_core.evaluation import drift
from forecast_core.schema import TABLES
from resources.drift_report import Comparison

DAY = date(2024, 6, 30)
FEW = settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def met(seed: int, rows: int = 800) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "units": rng.poisson(3.0, rows).astype(float),
            "sell_price": rng.normal(4.0, 1.0, rows),
            "mean": rng.gamma(3.0, 1.0, rows),
            "mean_28": rng.gamma(3.0, 1.0, rows),
        }
    )


def rows_of(reference: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    scores = Comparison(reference, current).scores
    return drift.judged("g", DAY, DAY - timedelta(days=28), reference, current, scores)


@given(seed=st.integers(0, 10_000))
@FEW
def test_the_same_data_in_any_order_do_not_drift_at_all(seed: int) -> None:
    frame = met(seed)
    rows = rows_of(frame, frame.sample(fraction=1.0, shuffle=True, seed=seed))
    assert rows["score"].to_list() == [0.0] * 4
    assert not drift.verdict(rows).drifted


@given(seed=st.integers(0, 10_000))
@FEW
def test_scores_grow_with_the_shift(seed: int) -> None:
    frame = met(seed)
    scores = []
    for shift in (0.0, 0.5, 1.0, 2.0, 4.0):
        moved = frame.with_columns(pl.all() + pl.lit(shift))
        scores.append(Comparison(frame, moved).scores["sell_price"])
    assert scores[0] == 0.0 and all(a < b for a, b in pairwise(scores))
    times = [
        Comparison(frame, frame.with_columns(pl.col("mean") * by)).scores["mean"]
        for by in (1.0, 1.3, 2.0, 4.0)
    ]
    assert times[0] == 0.0 and all(a < b for a, b in pairwise(times))


@given(seed=st.integers(0, 10_000))
@FEW
def test_fresh_draws_of_one_demand_are_quiet_and_a_doubled_demand_is_not(seed: int) -> None:
    reference, current = met(seed, 4_000), met(seed + 1, 4_000)
    assert not drift.verdict(rows_of(reference, current)).drifted
    doubled = current.with_columns(pl.col("units") * 2)
    found = drift.verdict(rows_of(reference, doubled))
    assert found.drifted and "units" in found.reason and found.strength > 1


def test_a_price_that_moves_alone_is_no_drift_of_the_group() -> None:
    reference = met(1)
    dearer = reference.with_columns(pl.col("sell_price") * 1.5)
    rows = rows_of(reference, dearer)
    assert rows.filter(column="sell_price")["drifted"].item()
    found = drift.verdict(rows)
    assert not found.drifted and "sell_price" in found.reason


def test_what_cannot_be_compared_has_a_reason_and_no_score() -> None:
    reference = met(1).with_columns(mean=pl.lit(None, pl.Float64))
    rows = rows_of(reference, met(2))
    short = rows.filter(column="mean").row(0, named=True)
    assert short["score"] is None and not short["drifted"] and "100 are needed" in short["reason"]
    empty = TABLES["monitor_drift"].schema.to_frame()
    assert not drift.verdict(empty).drifted
    nothing = rows_of(met(1).clear(), met(2))
    assert nothing["score"].null_count() == 4 and not drift.verdict(nothing).drifted


@given(items=st.integers(1, 60), days=st.integers(1, 40), limit=st.integers(1, 500))
@settings(deadline=None, max_examples=40)
def test_a_sample_is_bounded_and_the_same_item_stores_of_any_window(
    items: int, days: int, limit: int
) -> None:
    frame = pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(items) for _ in range(days)],
            "store_id": "s",
            "day": list(range(days)) * items,
        }
    )
    kept = drift.sample(frame, limit)
    assert kept.height <= max(limit, days)
    assert kept.height % days == 0, "item-stores come whole"
    later = drift.sample(frame.with_columns(pl.col("day") + 28), limit)
    assert kept.select("item_id").equals(later.select("item_id"))


def test_both_windows_hold_whole_weeks() -> None:
    then, now = drift.windows(DAY - timedelta(days=30), DAY)
    assert (DAY - now).days + 1 == 28 and (DAY - timedelta(days=30) - then).days + 1 == 28
