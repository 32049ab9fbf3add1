"""The period's end: schedule and growth carried on, and an interval that holds."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.cost.spend_forecast import forecast

FIRST = date(2024, 1, 1)


def spending(seed: int, *, days: int, growth: float = 0.0, noise: float = 0.1) -> pl.DataFrame:
    """A daily and a weekly pipeline."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(days):
        day = FIRST + timedelta(days=i)
        level = np.exp(growth * i)
        rows.append(("inference", day, float(10 * level * np.exp(noise * rng.normal()))))
        if i % 7 == 2:
            rows.append(("training", day, float(60 * level * np.exp(noise * rng.normal()))))
    return pl.DataFrame(rows, schema=["pipeline", "day", "cost"], orient="row")


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    first, last, inside = date(2024, 4, 1), date(2024, 4, 30), []
    for seed in range(60):
        whole = spending(seed, days=130, growth=0.003)
        truth = whole.filter(pl.col("day").is_between(first, last))["cost"].sum()
        f = forecast(whole, date(2024, 4, 10), first, last, seed=seed)
        inside.append(f.low <= truth <= f.high)
        assert abs(f.expected / truth - 1) < 0.2
    assert sum(inside) >= 48  # 90 % nominal; 48 of 60 is its lower 1 % binomial quantile


def test_at_the_end_of_the_period_nothing_is_uncertain() -> None:
    whole = spending(1, days=91)
    last = FIRST + timedelta(days=90)
    f = forecast(whole, last, date(2024, 3, 1), last)
    assert f.spent == f.low == f.expected == f.high
    assert f.chance_over(f.spent - 1) == 1.0 and f.chance_over(f.spent + 1) == 0.0


def test_parts_sum_to_the_whole() -> None:
    f = forecast(
        spending(2, days=80), FIRST + timedelta(days=79), date(2024, 3, 1), date(2024, 3, 31)
    )
    assert sum(f.by_pipeline.values()) == pytest.approx(f.expected)


def test_the_schedule_is_believed_over_the_past() -> None:
    whole = spending(3, days=80, noise=0.01)
    today = FIRST + timedelta(days=79)
    due = {"training": [today + timedelta(days=1), today + timedelta(days=2)], "inference": []}
    f = forecast(whole, today, today + timedelta(days=1), today + timedelta(days=10), schedule=due)
    assert f.expected == pytest.approx(120, rel=0.05)


def test_one_bad_day_does_not_become_the_level() -> None:
    whole = spending(4, days=80)
    bad = whole.with_columns(
        cost=pl.when(pl.col("day") == FIRST + timedelta(days=70)).then(500.0).otherwise("cost")
    )
    window = (FIRST + timedelta(days=79), date(2024, 3, 21), date(2024, 4, 20))
    assert forecast(bad, *window).expected < 1.5 * forecast(whole, *window).expected


def test_a_pipeline_that_ended_is_said_to_have() -> None:
    ended = spending(5, days=80).filter(
        (pl.col("pipeline") == "inference") | (pl.col("day") < FIRST + timedelta(days=40))
    )
    f = forecast(ended, FIRST + timedelta(days=79), date(2024, 3, 21), date(2024, 4, 20))
    assert "ended" in f.notes["training"] and f.by_pipeline["training"] == 0.0


def test_nothing_and_nonsense() -> None:
    empty = spending(0, days=0, noise=0).cast(
        {"day": pl.Date, "cost": pl.Float64, "pipeline": pl.String}
    )
    assert forecast(empty, FIRST, FIRST, FIRST + timedelta(days=9)).expected == 0.0
    with pytest.raises(ValueError, match="empty period"):
        forecast(empty, FIRST, FIRST, FIRST - timedelta(days=1))
    with pytest.raises(ValueError, match="outside"):
        forecast(empty, FIRST, FIRST + timedelta(days=5), FIRST + timedelta(days=9))
