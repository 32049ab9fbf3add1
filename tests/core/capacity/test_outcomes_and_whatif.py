"""Bands, what breaks first, levers and the gate."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.outcomes import STORED, Job, Outcome, draw, summarise
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.report import markdown, plain
from forecast_core.capacity.storage import Bytes
from forecast_core.capacity.whatif import Bounds, delta, pulled, verdict
from forecast_core.cost.price_card import PriceCard

POLICIES = Path(__file__).parents[3] / "policies"
PLAN = Plan.parse(yaml.safe_load((POLICIES / "capacity.yaml").read_text()))
PRICES = PriceCard.parse(yaml.safe_load((POLICIES / "price_card.yaml").read_text())).on(
    date(2026, 12, 1)
)
BYTES = Bytes({"hot": 75.0, "warm": 55.0, "cold": 0.5}, "stated")


def policy(day: float | None = None) -> Policy:
    mapping = yaml.safe_load((POLICIES / "admission.yaml").read_text())
    if day is not None:
        budget = mapping["budgets"]["prod/day"]
        budget |= {"limit": day, "floors": {"serving": day / 2, "monitoring": day / 8}}
        mapping["serving_reserve"]["money_per_item"] = 1e-8
        mapping["default_bound"]["money"] = day / 8
    return Policy.parse(mapping)


def outcome(plan: Plan = PLAN, day: float | None = None, draws: int = 3) -> Outcome:
    jobs = [
        Job(plan, policy(day), Rates(), PRICES, BYTES, seed, 10, capped=False)
        for seed in range(draws)
    ]
    return summarise([draw(job) for job in jobs])


BASE = outcome()


def test_parts_sum_and_bands_are_in_order() -> None:
    assert BASE.total.low <= BASE.total.mid <= BASE.total.high
    for seed in range(2):
        one = draw(Job(PLAN, policy(), Rates(), PRICES, BYTES, seed, 10))
        assert sum(one.money.values()) == pytest.approx(sum(one.pipelines.values()))
        worked = sum(money for _, money in one.tally.values())
        stored = sum(v for (_, p), v in one.pipelines.items() if p == "storage")
        assert worked == pytest.approx(sum(one.money.values()))
        assert one.of_work(STORED) == pytest.approx(stored) and stored > 0
    assert BASE.p_every_item_always == 1.0 and BASE.p_over_budget == 0.0 and not BASE.breaks


def test_the_first_thing_to_break_is_named_with_its_month() -> None:
    tight = outcome(day=0.012)
    assert tight.p_over_budget == 1.0
    assert any(month == "2026-12" and what == "budget prod/day" for month, what, _ in tight.breaks)
    assert "budget prod/day" in markdown(PLAN, 1, tight, date(2026, 12, 1))


def test_growth_that_overflows_at_once_is_named() -> None:
    mapping = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    mapping["base"]["series"] = 40_000_000
    found = outcome(Plan.parse(mapping), draws=1)
    assert found.breaks or found.rejected
    assert found.breaks[0][0] == "2026-12"


def test_a_record_says_what_was_not_measured() -> None:
    text = markdown(PLAN, 3, BASE, date(2026, 12, 1))
    assert "version 3" in text and "stated default" in text and "| store_openings |" in text
    assert plain(BASE)["total"][1] == BASE.total.mid
    assert "train: nothing of it ran in 3 of 3 draws" in text, "a zero is said to be one"


@pytest.mark.parametrize("lever", sorted(PLAN.levers))
def test_every_lever_saves(lever: str) -> None:
    change = delta(BASE, outcome(pulled(PLAN, lever)), PLAN.levers[lever].error)
    assert change.money <= 0
    if lever != "retrain_less":  # no training falls into ten days either way
        assert change.money_pct < -0.5
    assert change.error_pct == pytest.approx(100 * PLAN.levers[lever].error)


def test_an_unknown_lever_is_named() -> None:
    with pytest.raises(LookupError, match="there are retrain_less"):
        pulled(PLAN, "prayer")


def test_the_gate_lets_the_same_policy_in_and_keeps_a_starved_one_out() -> None:
    assert verdict(BASE, BASE, Bounds()) == []
    faults = verdict(BASE, outcome(day=0.012), Bounds())
    assert any("budget prod/day in 2026-12" in fault for fault in faults)
    dearer = pulled(PLAN, "retrain_less")
    assert verdict(outcome(dearer), BASE, Bounds(money_pct=-50.0))


def test_no_draws_is_an_error() -> None:
    with pytest.raises(ValueError, match="no draws"):
        summarise([])
