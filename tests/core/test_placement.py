"""The planner: exact beside enumeration, near the optimum on traces, honest on small files."""

import itertools
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.cost.price_card import Rates
from forecast_core.storage.lifecycle import Part
from forecast_core.storage.placement import (
    GIB,
    SHRINK,
    TIERS,
    Costs,
    Reader,
    cheapest,
    cost_of,
    expected_reads,
    markdown,
    place,
)
from forecast_core.storage.tiers import Tier
from resources.price_card import load_price_card

AS_OF = date(2016, 5, 22)


@pytest.fixture(scope="module")
def rates(project_root: Path) -> Rates:
    return load_price_card(project_root / "policies" / "price_card.yaml").on(AS_OF)


def part(size: int, last: date = date(2016, 1, 31), tier: Tier = Tier.HOT) -> Part:
    return Part("t", tier, "2016-01", "S", last.replace(day=1), last, 90_000, (size,))


def slow_optimum(costs: Costs, reads: list[float], start: int, step_days: int) -> float:
    """Plain enumeration of every sequence of tiers."""
    best = float("inf")
    for tiers in itertools.product(range(3), repeat=len(reads)):
        total, at, held = 0.0, start, 0.0
        for tier, count in zip(tiers, reads, strict=True):
            if tier != at:
                owed = max(costs.least_days[at] - held, 0) * costs.keep_day[at]
                total += costs.leave[at] + costs.enter[tier] + owed
                at, held = tier, 0.0
            total += costs.keep_day[tier] * step_days + count * costs.read[tier]
            held += step_days
        best = min(best, total)
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 5.0]), min_size=1, max_size=7),
    st.sampled_from([45_000, 64 * 2**20, GIB]),
    st.sampled_from([7, 20, 30]),
    st.integers(0, 2),
)
def test_the_programme_is_the_best_of_all_sequences(
    reads: list[float], size: int, step_days: int, start: int
) -> None:
    card = load_price_card(Path(__file__).parents[2] / "policies" / "price_card.yaml")
    costs = Costs.of({tier: size * SHRINK[tier] for tier in TIERS}, 1, card.on(AS_OF))
    course = cheapest(costs, np.array(reads), TIERS[start], 0.0, step_days)
    assert course.total == pytest.approx(slow_optimum(costs, reads, start, step_days), rel=1e-9)
    again = cost_of(costs, np.array(reads), course.tiers, TIERS[start], 0.0, step_days)
    assert again.sum() == pytest.approx(course.total, rel=1e-9)


def test_the_planner_stays_within_a_tenth_of_the_offline_optimum() -> None:
    from benchmarks.tier_placement import run

    figures = run(quick=True, seed=3)
    assert figures["max_ratio_to_optimum"] <= 1.10
    assert figures["all_hot_ratio"] > 1.5
    assert figures["age_rule_ratio"] > 2


def test_what_nobody_reads_goes_cold_and_says_when_it_pays(rates: Rates) -> None:
    placed = place(part(GIB), [], rates, AS_OF)
    assert (placed.tier, placed.moves) == (Tier.COLD, True)
    assert placed.saving > placed.move_cost > 0
    assert placed.pays_from is not None and placed.pays_from > AS_OF
    assert "read by nobody" in placed.reason


def test_weekly_training_keeps_two_years_hot(rates: Rates) -> None:
    weekly = Reader("t", "training", 730, 7)
    placed = place(part(GIB), [weekly], rates, AS_OF)
    assert not placed.moves
    assert "later: cold pays from" in placed.reason or "do nothing" in placed.reason


def test_small_files_with_a_minimum_size_stay_where_they_are(rates: Rates) -> None:
    placed = place(part(20_000), [], rates, AS_OF)
    assert not placed.moves
    assert "do nothing" in placed.reason and "billed as 128 KiB" in placed.reason


def test_a_reader_of_another_table_counts_for_nothing(rates: Rates) -> None:
    other = Reader("elsewhere", "training", 3000, 1)
    assert place(part(GIB), [other], rates, AS_OF).tier is Tier.COLD


def test_reads_are_counted_while_the_part_is_in_the_window() -> None:
    reads = expected_reads([Reader("t", "weekly", 70, 7, from_age=35)], 0, 12)
    assert reads.tolist() == [0] * 5 + [1] * 5 + [0] * 2
    assert expected_reads([], 0, 3, unplanned_a_day=1.0).tolist() == [7, 7, 7]


def test_a_window_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="training reads t from 9 to 3 days"):
        Reader("t", "training", 3, 7, from_age=9)
    with pytest.raises(ValueError, match="every 0 days"):
        Reader("t", "training", 3, 0)


def test_the_plan_reads_as_a_table(rates: Rates) -> None:
    plan = [place(p, [], rates, AS_OF) for p in (part(GIB), part(20_000), part(21_000))]
    text = markdown(plan, rates.currency)
    assert text.splitlines()[0].startswith("| part | rows | to | saving (USD)")
    assert "| t 2016-01 of S (hot) | 90,000 | cold |" in text
    assert "stay" in text
