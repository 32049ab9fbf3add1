"""A record is the sum of its events: what was refused never counts, what lacks a detail is told."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.events import Event, Refusal, fold, unsaid

AT = datetime(2025, 1, 1, tzinfo=UTC)


def total(current: int | None, event: Event) -> int | Refusal:
    """A purse that cannot be overdrawn."""
    after = (current or 0) + event.details["amount"]
    return after if after >= 0 else Refusal("overdrawn")


def paid(amount: int) -> Event:
    return Event("purse", AT, "paid", {"amount": amount})


@given(st.lists(st.integers(-5, 5), min_size=1))
def test_a_history_is_possible_or_it_is_refused_by_name(amounts: list[int]) -> None:
    sums = [sum(amounts[: n + 1]) for n in range(len(amounts))]
    if min(sums) >= 0:
        assert fold(map(paid, amounts), total) == sums[-1]
    else:
        with pytest.raises(ValueError, match="purse: overdrawn"):
            fold(map(paid, amounts), total)


def test_no_events_are_no_history() -> None:
    with pytest.raises(ValueError, match="at least the event"):
        fold([], total)


@pytest.mark.parametrize("empty", [None, "", "  ", [], ()])
def test_what_an_action_must_say_may_not_be_empty(empty: object) -> None:
    required = {"paid": ("amount", "by")}
    said = {"amount": 0, "by": "owner"}
    assert unsaid("a purse", Event("p", AT, "paid", said), required) is None
    refused = unsaid("a purse", Event("p", AT, "paid", {**said, "by": empty}), required)
    assert refused == Refusal("a purse is not paid without: by")
    lost = unsaid("a purse", Event("p", AT, "lost", said), required)
    assert lost == Refusal("a purse is never lost; it is one of: paid")
