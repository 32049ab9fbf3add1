"""A lever in force is held against its promise once a whole period has passed, not before."""

from datetime import UTC, date, datetime, time, timedelta

import polars as pl
import pytest

from forecast_core.events import Event
from forecast_core.levers.decisions import Decision, replay
from forecast_core.levers.tracking import review_of, tracked

APPLIED = date(2024, 6, 1)
OPTION = {"group": "a", "lever": "retrain_less", "level": 1, "saving": 30.0, "loss": 5.0}


def decision() -> Decision:
    at = datetime.combine(APPLIED, time(9), UTC)
    return replay(
        [
            Event("d", at, "proposed", {"reason": "asked", "options": [OPTION]}),
            Event("d", at, "approved", {"by": "policy"}),
            Event("d", at, "applied", {"by": "policy", "policy_version": "v"}),
        ]
    )


def daily(column: str, before: float, after: float) -> pl.DataFrame:
    days = [APPLIED + timedelta(days=k) for k in range(-60, 60)]
    return pl.DataFrame(
        {
            "group": [g for g in ("a", "b") for _ in days],
            "day": days * 2,
            column: [before if d < APPLIED else after for d in days] + [100.0] * len(days),
        }
    )


def test_savings_and_losses_are_those_of_its_groups() -> None:
    costs, errors = daily("cost", 2.0, 1.0), daily("error", 0.5, 0.6)
    (one,) = tracked([decision()], costs, errors, {"a": 40.0}, APPLIED + timedelta(days=28))
    assert one.saving == pytest.approx(28.0) and one.loss == pytest.approx(4.0)
    details = review_of(one)
    assert details is not None and details["saving_realised"] == one.saving


@pytest.mark.parametrize(
    ("days", "costs", "says"),
    [
        (27, daily("cost", 2.0, 1.0), "a period has passed on 2024-06-29"),
        (28, daily("cost", 2.0, 1.0).filter(pl.col("day") >= APPLIED), "no cost from before"),
    ],
)
def test_what_is_not_known_yet_is_pending(days: int, costs: pl.DataFrame, says: str) -> None:
    errors = daily("error", 0.5, 0.6)
    (one,) = tracked([decision()], costs, errors, {}, APPLIED + timedelta(days=days))
    assert one.pending is not None and says in one.pending and review_of(one) is None


def test_without_accuracy_nothing_is_reviewed() -> None:
    costs, errors = daily("cost", 2.0, 1.0), daily("error", 0.5, 0.6).clear()
    (one,) = tracked([decision()], costs, errors, {}, APPLIED + timedelta(days=40))
    assert one.saving is not None and one.loss is None and review_of(one) is None
