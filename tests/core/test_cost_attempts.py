"""The events of a run give back exactly the attempts that were made."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forecast_core.cost.attempts import Attempt, StepEvent, attempts

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def at(second: int) -> datetime:
    return NOON + timedelta(seconds=second)


def test_a_retry_is_another_attempt() -> None:
    events = [
        StepEvent("a", "started", at(0)),
        StepEvent("b", "started", at(1)),
        StepEvent("a", "to_retry", at(2)),
        StepEvent("a", "started", at(5)),
        StepEvent("b", "failed", at(6)),
        StepEvent("a", "succeeded", at(9)),
    ]
    assert attempts(events) == [
        Attempt("a", 1, at(0), at(2), "retry"),
        Attempt("b", 1, at(1), at(6), "failure"),
        Attempt("a", 2, at(5), at(9), "success"),
    ]


def test_what_has_no_end_ends_with_the_run_or_not_yet() -> None:
    events = [StepEvent("a", "started", at(0))]
    assert attempts(events) == [Attempt("a", 1, at(0))]
    assert attempts(events, at(7), "canceled") == [Attempt("a", 1, at(0), at(7), "canceled")]
    assert attempts(events, at(-1))[0].end == at(0)  # clocks of two machines


def test_an_end_without_a_start_is_no_attempt() -> None:
    assert attempts([StepEvent("a", "failed", at(0))], at(1)) == []


def test_a_process_that_died_before_its_step_began_counts_as_a_retry() -> None:
    events = [StepEvent("a", "to_retry", at(0)), StepEvent("a", "started", at(1))]
    assert [attempt.attempt for attempt in attempts(events, at(2))] == [2]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from(["started", "succeeded", "failed", "to_retry"])
        ),
        max_size=30,
    )
)
def test_as_many_attempts_as_starts_whatever_happens(listed) -> None:
    events = [StepEvent(step, kind, at(i)) for i, (step, kind) in enumerate(listed)]
    made = attempts(events, at(100))
    for step in "ab":
        own = [attempt for attempt in made if attempt.step_key == step]
        assert len(own) == sum(e.kind == "started" and e.step_key == step for e in events)
        for earlier, later in pairwise(own):
            assert earlier.end is not None and earlier.end <= later.start
            assert earlier.attempt < later.attempt
    assert all(attempt.end is not None and attempt.status for attempt in made)
