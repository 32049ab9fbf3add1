"""The search stops where a trial costs more than it brings; promotion asks for a sure gain."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.evaluation.tuning import (
    Choice,
    Range,
    Trial,
    compare,
    expected_gain,
    promoted,
    search,
)
from forecast_core.events import Event
from forecast_core.levers.decisions import Decision, apply

SPACE = {"rate": Range(0.01, 1.0, log=True), "leaves": Range(4, 64, whole=True)}
TODAY = {"rate": 0.5, "leaves": 8, "kept": "as it is"}


def _bowl(asked) -> tuple[float, float]:
    """Best at a rate of .1 and 32 leaves; a trial takes ten seconds."""
    miss = np.log10(asked["rate"] / 0.1) ** 2 + ((asked["leaves"] - 32) / 32) ** 2
    return 0.6 + 0.1 * float(miss), 10.0


def _search(**changed):
    asked = {
        "budget_cpu_s": 1000.0,
        "worth_per_error": 1e6,
        "usd_per_cpu_s": 1e-5,
        "max_trials": 40,
        **changed,
    }
    return search(_bowl, TODAY, SPACE, **asked)


def test_it_starts_from_today_and_ends_no_worse() -> None:
    found = _search()
    assert dict(found.trials[0].settings) == TODAY
    assert found.best.error < found.trials[0].error
    assert found.best.settings["kept"] == "as it is"
    assert isinstance(found.best.settings["leaves"], int)


def test_the_same_seed_makes_the_same_search() -> None:
    assert _search() == _search()


@settings(max_examples=15, deadline=None)
@given(budget=st.floats(10.0, 400.0))
def test_the_budget_is_never_passed(budget: float) -> None:
    found = _search(budget_cpu_s=budget)
    assert found.cpu_s <= max(budget, 10.0)
    if found.stopped == "budget":
        assert found.cpu_s + 10.0 > budget


def test_where_accuracy_is_worth_little_it_stops_early() -> None:
    cheap = _search(worth_per_error=1e-7)
    dear = _search(worth_per_error=1e6)
    assert cheap.stopped == "gain below cost"
    assert len(cheap.trials) < len(dear.trials)


def test_the_expected_gain_falls_as_nothing_better_is_found() -> None:
    flat = [Trial({}, error, 1.0) for error in (0.5, *([0.6, 0.7] * 10))]
    gains = [expected_gain(flat[:n]) for n in range(8, 21)]
    assert all(a >= b for a, b in itertools.pairwise(gains))


def test_a_loss_is_searched_among_its_names() -> None:
    """Tweedie is the better one here; whatever wins is written down by its name."""

    def evaluate(settings: Mapping[str, Any]) -> tuple[float, float]:
        return (0.5 if settings["loss"] == "tweedie" else 0.6), 1.0

    found = search(
        evaluate,
        {"loss": "poisson"},
        {"loss": Choice(("poisson", "tweedie"))},
        budget_cpu_s=20,
        worth_per_error=100,
        usd_per_cpu_s=0.01,
    )
    assert found.trials[0].settings == {"loss": "poisson"}
    assert found.best.settings == {"loss": "tweedie"}


def test_bad_searches_are_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        _search(budget_cpu_s=0)
    with pytest.raises(ValueError, match="'depth'"):
        search(_bowl, TODAY, {"depth": Range(1, 2)}, budget_cpu_s=1, worth_per_error=1,
               usd_per_cpu_s=1)  # fmt: skip


CHAMPION = [(0.60, 1.0), (0.62, 1.0), (0.61, 1.0)]


@pytest.mark.parametrize(
    ("challenger", "verdict"),
    [
        ([(0.57, 1.5), (0.59, 1.5), (0.58, 1.5)], "promote"),
        ([(0.57, 9e9), (0.59, 9e9), (0.58, 9e9)], "keep: not worth its cost"),
        ([(0.50, 1.0), (0.70, 1.0), (0.60, 1.0)], "keep: no gain"),
        ([(0.65, 0.1), (0.66, 0.1), (0.64, 0.1)], "keep: no gain"),
        ([(0.60, 0.5), (0.62, 0.5), (0.61, 0.5)], "promote"),  # as good, and cheaper
    ],
)
def test_promotion_weighs_accuracy_and_cost(challenger, verdict: str) -> None:
    assert compare(CHAMPION, challenger, worth_per_error=100.0).verdict == verdict


def test_too_few_windows_promote_nobody_and_unpaired_ones_are_refused() -> None:
    assert compare(CHAMPION[:2], [(0.1, 0.1)] * 2, 100.0).verdict == "keep: too few windows"
    with pytest.raises(ValueError, match="3 windows"):
        compare(CHAMPION, CHAMPION[:1], 100.0)


def test_a_promotion_is_a_decision_that_can_be_reverted() -> None:
    from datetime import UTC, datetime

    better = [(0.57, 1.5), (0.59, 1.5), (0.58, 1.5)]
    option = compare(CHAMPION, better, 100.0).option("gbm_core", {"num_leaves": 31})
    assert option["loss"] == pytest.approx(-3.0)
    low, high = option["loss_interval"]
    assert low <= option["loss"] <= high
    now = datetime.now(UTC)
    decision = None
    for action, details in (
        ("proposed", {"reason": "challenger", "options": [option]}),
        ("approved", {"by": "policy"}),
        ("applied", {"by": "policy", "policy_version": "1"}),
        ("reverted", {"by": "me", "reason": "it drifted"}),
    ):
        decision = apply(decision, Event("x", now, action, details))
        assert isinstance(decision, Decision), decision
        in_force = {"num_leaves": 31} if action == "applied" else {}
        assert promoted([decision], "gbm_core") == in_force
        assert promoted([decision], "another") == {}
    assert decision.state == "reverted"
