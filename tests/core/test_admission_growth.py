"""A run that has used up its hold may hold more where every budget has room, and not otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission import Decision, Holding, Quote, Request, Shape, Snapshot
from forecast_core.admission.growth import asked_again, may_hold, scaled
from forecast_core.admission.policy import NANO, Policy

MAPPING = yaml.safe_load((Path(__file__).parents[2] / "policies" / "admission.yaml").read_text())
NOON = 1_772_625_600.0  # 2026-03-04 12:00 UTC


def policy(**changes: Any) -> Policy:
    return Policy.parse({**MAPPING, "peaks": [], "throttles": [], **changes})


def holding(name: str, money: float, work_class: str = "backfill") -> Holding:
    quote = Quote("asked", (("ingest", int(money * NANO)),), 60.0)
    request = Request(name, Shape(work_class, "ingest", (quote,)), NOON - 60)
    return Holding(request, quote, NOON - 30)


def verdicts(
    own: Holding, spent: float, *others: Holding, gone: float = 0.0, **changes: Any
) -> list[tuple[int, Decision]]:
    rules = policy(**changes)
    used = {"prod/backfill": {"backfill": int(gone * NANO)}}
    snapshot = Snapshot(NOON, "prod", (), (own, *others), used)
    tries = asked_again(snapshot, own.request.id, int(spent * NANO))
    return [(quote.money, may_hold(again, rules, quote)) for quote, again in tries]


def test_it_doubles_while_the_budget_has_room() -> None:
    money, decision = verdicts(holding("r", 1.0), 1.01)[0]
    assert decision.starts and money == int(2.02 * NANO)


def test_the_smaller_step_is_tried_where_the_larger_does_not_fit() -> None:
    double, tenth = verdicts(holding("r", 1.0), 2.0, gone=57.0)
    assert not double[1].starts and double[1].code == "money"
    assert tenth[1].starts and tenth[0] == int(2.2 * NANO)


def test_a_spent_budget_stops_it() -> None:
    assert not any(d.starts for _, d in verdicts(holding("r", 1.0), 1.5, gone=59.0))


def test_its_own_room_and_hour_are_not_asked_about_again() -> None:
    block = {"name": "stop", "first": "2026-03-01", "last": "2026-03-30", "pause": ["backfill"]}
    decided = verdicts(holding("r", 1.0), 1.01, holding("s", 1.0), peaks=[block])
    assert decided[0][1].starts


def test_a_cap_on_money_by_class_holds_for_growth() -> None:
    assert not any(d.starts for _, d in verdicts(holding("r", 0.2, "exploratory"), 0.26))


def test_who_holds_nothing_cannot_grow() -> None:
    with pytest.raises(LookupError):
        asked_again(Snapshot(NOON, "prod", ()), "nobody", 1)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=4), st.integers(1, 10**12))
def test_scaling_is_exact_in_total(amounts: list[int], money: int) -> None:
    quote = Quote("asked", tuple((f"p{i}", a) for i, a in enumerate(amounts)), 1.0)
    assert scaled(quote, money).money == money
    assert all(amount >= 0 for _, amount in scaled(quote, money).charges)
