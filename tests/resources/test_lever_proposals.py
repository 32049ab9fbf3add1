"""A proposal opens, applies itself only where the policy says so, and never twice for one cause."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from forecast_core.events import Event, Refusal
from forecast_core.levers.decisions import Decision
from resources.cost_policy import CostPolicy
from resources.decision_store import DecisionStore
from resources.lever_proposals import (
    answered,
    effective_version,
    period_end,
    propose,
    put_in_force,
    waiting,
)

NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> DecisionStore:
    return DecisionStore(f"sqlite:///{tmp_path / 'ledger.db'}")


def backtests() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "group": group,
            "lever": "retrain_less",
            "level": level,
            "fold": fold,
            "cost": 10.0 - 3.0 * level + rng.normal(0, 0.01),
            "error": 0.5 + 0.01 * level + rng.normal(0, 0.001),
            "value": 100.0,
        }
        for group in ("a", "b")
        for level in (0, 1, 2)
        for fold in range(4)
    ]
    return pl.DataFrame(rows)


def opened(store: DecisionStore, policy: CostPolicy, saving: float) -> Decision | Refusal:
    return propose(store, policy, "1", backtests(), saving, "open cost incident abc123", NOW)


def test_what_the_policy_approves_beforehand_applies_itself(store: DecisionStore) -> None:
    policy = CostPolicy(preapproved={"retrain_less": 1})
    before = effective_version(store, "1")
    done = opened(store, policy, 2.0)
    assert isinstance(done, Decision) and done.state == "applied"
    assert [e.action for e in done.history] == ["proposed", "approved", "applied"]
    assert done.policy_version == effective_version(store, "1") != before
    assert waiting(store.all()) == [] and answered(store.all(), "abc123")


def test_what_it_does_not_waits_for_a_person(store: DecisionStore) -> None:
    policy = CostPolicy(preapproved={"retrain_less": 1})
    done = opened(store, policy, 9.0)  # needs level 2 somewhere
    assert isinstance(done, Decision) and done.state == "proposed"
    assert waiting(store.all()) == [done.decision_id]
    early = put_in_force(store, "1", done.decision_id, "sre", NOW)
    assert isinstance(early, Refusal) and "approved" in early.reason


def test_what_cannot_be_saved_is_refused_with_the_most_that_can(store: DecisionStore) -> None:
    refused = opened(store, CostPolicy(), 1e6)
    assert isinstance(refused, Refusal) and "at most" in refused.reason
    assert store.all() == []
    unknown = put_in_force(store, "1", "nope", "sre", NOW)
    assert isinstance(unknown, Refusal) and "no decision nope" in unknown.reason


def test_a_group_takes_one_lever_at_a_time(store: DecisionStore) -> None:
    policy = CostPolicy(preapproved={"retrain_less": 1})
    first = opened(store, policy, 2.0)
    assert isinstance(first, Decision)
    (taken,) = [o["group"] for o in first.options]
    second = opened(store, policy, 2.0)
    assert isinstance(second, Decision)
    assert taken not in {o["group"] for o in second.options}
    third = opened(store, policy, 2.0)
    assert isinstance(third, Refusal) and "in force already for a, b" in third.reason


def test_a_lever_that_broke_its_word_asks_a_person_again(store: DecisionStore) -> None:
    policy = CostPolicy(preapproved={"retrain_less": 1})
    for _ in range(2):
        done = opened(store, policy, 2.0)
        assert isinstance(done, Decision) and done.state == "applied"
        for action, details in (
            ("reviewed", {"by": "platform", "saving_realised": 0.0, "loss_realised": 9.0}),
            ("reverted", {"by": "platform", "reason": "saved nothing"}),
        ):
            store.append(Event(done.decision_id, NOW, action, details))  # type: ignore[arg-type]
    again = opened(store, policy, 1.0)
    assert isinstance(again, Decision) and again.state == "proposed"


def test_the_month_end_follows_what_each_pipeline_spends() -> None:
    days = [date(2024, 5, 1) + timedelta(days=k) for k in range(46)]
    totals = {(name, day): Decimal("2.0") for name in ("training", None) for day in days}
    spend = period_end(totals, days[-1], date(2024, 6, 30))
    assert spend.spent == pytest.approx(2 * 2.0 * days[-1].day)
    assert spend.expected == pytest.approx(120.0, rel=0.05)
    assert "unattributed" in spend.by_pipeline
