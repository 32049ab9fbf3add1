"""The estimator learns what runs cost, bounds what it has not seen, and knows its own error."""

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from forecast_core.cost.estimate import (
    OVERHEAD,
    Ask,
    Estimator,
    NoHistory,
    error_of,
    observations,
    recent_error,
    replay,
)
from forecast_core.cost.estimate import _ridge as ridge
from forecast_core.cost.focus import STEP_COLUMNS

START = datetime(2026, 1, 1, tzinfo=UTC)
ASSETS = {"raw": (1e-4, 0.9, None), "features": (4e-4, 1.0, None), "fit": (2e-3, 0.7, "gbm")}


def history(runs: int, *, noise: float = 0.05, seed: int = 0) -> pl.DataFrame:
    """Runs of three assets whose true cost is base x partitions ** slope, with noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(runs):
        partitions = int(rng.choice([1, 2, 4, 8, 32]))
        for asset, (base, slope, forecaster) in ASSETS.items():
            cost = base * partitions**slope * math.exp(rng.normal(0, noise))
            rows.append(
                {
                    "run_id": f"r{index}",
                    "at": START + timedelta(hours=index),
                    "asset": asset,
                    "forecaster": forecaster,
                    "segment_group": None,
                    "partitions": float(partitions),
                    "rows": 100.0 * partitions,
                    "target": cost,
                }
            )
    return pl.DataFrame(rows, schema_overrides={"segment_group": pl.String})


def test_it_finds_the_cost_of_what_recurs() -> None:
    estimator = Estimator(history(60))
    for asset, (base, slope, forecaster) in ASSETS.items():
        found = estimator.estimate(Ask(asset, forecaster, partitions=8))
        assert found.expected == pytest.approx(base * 8**slope, rel=0.08)
        assert found.expected < found.upper < found.expected * 1.5
        assert found.novelty == "recurring"


def test_what_is_newer_is_bounded_more_loosely() -> None:
    estimator = Estimator(history(60))
    known = estimator.estimate(Ask("fit", "gbm", partitions=8))
    size = estimator.estimate(Ask("fit", "gbm", partitions=128))
    unknown = estimator.estimate(Ask("other", "gbm", partitions=8))
    assert (size.novelty, unknown.novelty) == ("new configuration", "new asset")
    ratios = [found.upper / found.expected for found in (known, size, unknown)]
    assert ratios[0] < ratios[1] < ratios[2]
    assert size.expected == pytest.approx(2e-3 * 128**0.7, rel=0.35)


def test_few_runs_widen_the_bound() -> None:
    few = Estimator(history(2)).estimate(Ask("fit", "gbm", partitions=8))
    assert few.upper >= 2 * few.expected
    assert few.errors == 6


def test_one_strange_run_does_not_set_every_bound() -> None:
    """One run took 200 times as long as it should have: neither the quotes of its own asset nor
    those of the others follow it."""
    young = history(6)
    strange = (pl.col("run_id") == "r4") & (pl.col("asset") == "raw")
    spoiled = young.with_columns(
        pl.when(strange).then(pl.col("target") * 200).otherwise("target").alias("target")
    )
    for asset, (base, slope, forecaster) in ASSETS.items():
        ask = Ask(asset, forecaster, partitions=8)
        clean, found = Estimator(young).estimate(ask), Estimator(spoiled).estimate(ask)
        assert found.upper < 3 * clean.upper, asset
        assert found.upper > base * 8**slope, "still a bound"


def test_assets_of_one_size_only_say_nothing_of_another_size() -> None:
    """Left out whole, each would be a new asset: an error of that kind is no margin for a size."""
    single = history(4).filter(pl.col("asset") == "raw").head(1)
    alone = pl.concat(
        single.with_columns(pl.lit(f"a{n}").alias("asset"), pl.lit(10.0 ** (n % 4)).alias("target"))
        for n in range(12)
    )
    found = Estimator(alone).estimate(Ask("a0", partitions=64))
    assert (found.novelty, found.errors) == ("new configuration", 0)
    assert found.upper == pytest.approx(2 * found.expected)


def slow(run: str, asset: str, cpu_s: float, wall_s: float) -> dict[str, object]:
    return step(run, x_asset=asset, cpu_s=cpu_s, wall_s=wall_s)


def test_seconds_that_no_work_explains_are_believed_when_they_are_a_habit() -> None:
    usual = [slow(f"u{n}", f"a{n % 4}", 10.0 + n, 12.0 + n) for n in range(12)]
    slept = slow("s", "backtest", 600.0, 27_769.0)
    waits = [slow(f"w{n}", "waits", 1.0, 900.0 + n) for n in range(6)]
    frame = pl.DataFrame([*usual, slept, *waits], schema=dict(STEP_COLUMNS))
    walls = {
        (row["run_id"], row["asset"]): row["target"]
        for row in observations(frame, "wall_s").iter_rows(named=True)
    }
    assert walls["u3", "a3"] == 15.0
    assert 600 < walls["s", "backtest"] < 5000, "not the 7.7 hours for which the machine slept"
    assert walls["w5", "waits"] == 905.0
    upper = Estimator(observations(frame, "wall_s")).estimate(Ask("backtest", partitions=2)).upper
    assert 600 < upper < 10_000
    money = observations(frame).filter(pl.col("asset") == "backtest")["target"]
    assert money.to_list() == [0.5], "what was charged is what it cost"


def test_without_history_nothing_is_said() -> None:
    with pytest.raises(NoHistory, match="run something once"):
        Estimator(history(1).clear())


def test_it_follows_a_change_of_cost() -> None:
    doubled = history(80, seed=1).with_columns(
        pl.col("target") * 2,
        pl.col("at") + timedelta(days=30),
        (("n" + pl.col("run_id")).alias("run_id")).alias("run_id"),
    )
    estimator = Estimator(pl.concat([history(40), doubled]))
    found = estimator.estimate(Ask("fit", "gbm", partitions=8)).expected
    assert found == pytest.approx(2 * 2e-3 * 8**0.7, rel=0.25)


def test_leave_out_errors_are_those_of_fitting_again() -> None:
    """The closed form against the slow, obvious way."""
    rng = np.random.default_rng(3)
    design, target = rng.normal(size=(30, 4)), rng.normal(size=30)
    weights, penalty = rng.uniform(0.2, 1, 30), np.full(4, 0.3)
    keys = [index // 3 for index in range(30)]
    _, left_out = ridge(design, target, weights, penalty)
    fast = left_out(keys)
    for key in set(keys):
        out = np.array([k == key for k in keys])
        again, _ = ridge(design[~out], target[~out], weights[~out], penalty)
        np.testing.assert_allclose(fast[out], target[out] - design[out] @ again, rtol=1e-8)


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Over many replays the coverage of the 95 % bound is not below 95 % by more than chance."""
    found = pl.concat([replay(history(40, noise=0.2, seed=seed), warm_up=25) for seed in range(8)])
    error = error_of(found)
    assert error.runs == 8 * 15
    assert error.coverage_p > 0.01, error
    assert error.mape_recurring_pct < 25


def test_a_replay_never_looks_ahead() -> None:
    whole = history(30)
    spoiled = whole.with_columns(
        pl.when(pl.col("run_id") == "r29").then(1e9).otherwise("target").alias("target")
    )
    early, late = (replay(h, warm_up=20).head(9) for h in (whole, spoiled))
    assert early.equals(late)


def test_the_error_that_is_tracked_is_of_the_last_runs() -> None:
    whole = history(40)
    error = recent_error(whole, runs=12)
    assert error == error_of(replay(whole, warm_up=28))
    assert error.runs == 12
    few = recent_error(history(3))
    assert (few.runs, few.coverage_p) == (0, 1.0) and math.isnan(few.mape_recurring_pct)
    assert recent_error(whole.clear()).runs == 0


def test_its_error_counts_what_missed() -> None:
    found = pl.DataFrame(
        {
            "run_id": list("abcd"),
            "actual": [1.0, 1.0, 2.0, 1.0],
            "expected": [1.1, 0.9, 1.0, 1.5],
            "upper": [1.2, 1.0, 1.5, 3.0],
            "novelty": ["recurring", "recurring", "recurring", "new asset"],
        }
    )
    error = error_of(found)
    assert error.mape_recurring_pct == pytest.approx(100 * (0.1 + 0.1 + 0.5) / 3)
    assert error.mape_new_pct == pytest.approx(50)
    assert error.coverage_pct == 75
    assert error.coverage_p == pytest.approx(1 - 0.95**4)


def step(run: str, **changes: object) -> dict[str, object]:
    blank = dict.fromkeys(STEP_COLUMNS)
    return blank | {
        "x_run_id": run, "x_step_key": "s", "x_attempt": 1, "x_part": 0, "x_asset": "a",
        "x_cost_class": "workload", "x_status": "success", "x_estimated": False,
        "ChargePeriodStart": START, "partitions": 2, "rows": 10, "money": Decimal("0.5"),
    } | changes  # fmt: skip


def test_observations_are_the_successes_by_asset_and_the_overhead_of_each_run() -> None:
    steps = pl.DataFrame(
        [
            step("r1"),
            step("r1", x_part=1),
            step("r1", x_part=2, x_asset="b"),
            step("r1", x_attempt=2, x_status="failure"),
            step("r1", x_step_key="t", x_estimated=True),
            step("r1", x_step_key=None, x_asset=None, x_cost_class="overhead"),
            step("r1", x_step_key=None, x_asset=None, x_cost_class="overhead"),
        ],
        schema=dict(STEP_COLUMNS),
    )
    found = {row["asset"]: row for row in observations(steps).iter_rows(named=True)}
    assert {asset: row["target"] for asset, row in found.items()} == {
        "a": 1.0, "b": 0.5, OVERHEAD: 1.0,
    }  # fmt: skip
    assert found["a"]["partitions"] == 2
    assert found[OVERHEAD]["partitions"] == 2
