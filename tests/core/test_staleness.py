"""Stale by the promise, refreshed where it is worth it, in as few runs as possible."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.storage.staleness import (
    Known,
    Refresh,
    choose,
    runs_of,
    why_behind,
    why_stale,
    worth_of,
)

NOW = datetime(2026, 5, 22, 12, tzinfo=UTC)
PROMISE = timedelta(hours=36)


def at(hours_ago: float) -> datetime:
    return NOW - timedelta(hours=hours_ago)


def refresh(month: int, store: str = "A", worth: float = 2.0, money: float = 1.0) -> Refresh:
    day = date(2025, month, 1)
    return Refresh(f"{day}|{store}", day, store, "stale", worth, money)


@pytest.mark.parametrize(
    ("made", "sources", "why"),
    [
        (None, None, None),
        (None, at(1), "never made"),
        (at(100), at(40), "changed 40 hours ago"),
        (at(100), at(30), None),  # the promise still holds
        (at(30), at(40), None),  # made since
        (at(400), None, None),
    ],
)
def test_a_partition_is_stale_when_its_sources_outran_it_beyond_the_promise(
    made: datetime | None, sources: datetime | None, why: str | None
) -> None:
    found = why_stale(Known("k", made, sources), PROMISE, NOW)
    assert (found is None) if why is None else (found is not None and why in found)


def test_what_costs_more_than_it_is_worth_waits_and_says_so() -> None:
    done = choose([refresh(1, worth=0.5), refresh(2)], money_cap=10, partition_cap=10)
    assert [r.key for r in done.now] == ["2025-02-01|A"]
    assert "worth 0.500000, less than the 1.000000" in done.waiting["2025-01-01|A"]


def test_caps_hold_and_the_best_value_goes_first() -> None:
    stale = [refresh(m, "A") for m in (1, 2, 3)] + [refresh(m, "B", worth=9) for m in (1, 2)]
    done = choose(stale, money_cap=3, partition_cap=10)
    assert {r.key for r in done.now} == {"2025-01-01|B", "2025-02-01|B", "2025-03-01|A"}
    assert len(done.waiting) == 2 and all("of the cap is left" in w for w in done.waiting.values())
    done = choose(stale, money_cap=99, partition_cap=1)
    assert "cap of 1 partitions" in next(iter(done.waiting.values()))


def test_neighbours_and_stores_with_the_same_gap_share_a_run() -> None:
    stale = [refresh(m, s) for s in "ABC" for m in (1, 2, 3)] + [refresh(7, "A")]
    assert sorted(len(run) for run in runs_of(stale)) == [1, 9]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from("ABC"), st.floats(0, 5), st.floats(0.1, 3)),
        unique_by=lambda t: t[:2],
    ),
    st.floats(0, 10),
    st.integers(0, 8),
)
def test_everything_is_either_chosen_or_waits_for_a_reason(
    drawn: list[tuple[int, str, float, float]], money: float, count: int
) -> None:
    stale = [refresh(*one) for one in drawn]
    done = choose(stale, money_cap=money, partition_cap=count)
    chosen = {r.key for r in done.now}
    assert chosen | set(done.waiting) == {r.key for r in stale}
    assert not chosen & set(done.waiting)
    assert done.money <= money + 1e-9 and len(chosen) <= count
    assert sorted(r.key for run in done.runs for r in run) == sorted(chosen)


def test_worth_grows_with_revenue_and_error_and_fades_with_age() -> None:
    assert worth_of(1000, 0.5, 0, 0.02, 180) == pytest.approx(10)
    assert worth_of(1000, 0.5, 180, 0.02, 180) == pytest.approx(5)
    assert worth_of(1000, 0.0, 0, 0.02, 180) == 0


@pytest.mark.parametrize(
    ("made", "sources", "why"),
    [
        (at(5), at(2), "changed 2 hours ago, within the 36"),
        (at(50), at(40), None),  # stale by now
        (at(2), at(5), None),
        (None, at(5), None),
        (at(2), None, None),
    ],
)
def test_what_was_overtaken_of_late_is_behind_and_not_yet_stale(
    made: datetime | None, sources: datetime | None, why: str | None
) -> None:
    known = Known("k", made, sources)
    found = why_behind(known, PROMISE, NOW)
    assert (found is None) if why is None else (found is not None and why in found)
    assert found is None or why_stale(known, PROMISE, NOW) is None
