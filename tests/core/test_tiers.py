"""Every day belongs to exactly one tier, months are never split, and a bad policy says why."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.storage.tiers import (
    DEFAULT_POLICY,
    Tier,
    TierPolicy,
    TierRule,
    month_end,
    month_start,
    next_month,
)

DAYS = st.dates(date(2011, 1, 1), date(2030, 12, 31))
HOT = {"from_age": 0, "until_age": 60, "zstd_level": 1, "row_group_rows": 8192}
COLD = {"from_age": 60, "zstd_level": 19, "row_group_rows": 16384, "period": "year"}


@st.composite
def policies(draw: st.DrawFn) -> TierPolicy:
    tiers = sorted(draw(st.sets(st.sampled_from(Tier), min_size=1)), key=lambda tier: tier.depth)
    steps = [draw(st.integers(1, 900)) for _ in tiers[1:]]
    edges: list[int | None] = [0, *(sum(steps[: n + 1]) for n in range(len(steps))), None]
    return TierPolicy(
        {
            tier: TierRule(edges[n] or 0, edges[n + 1], 3, 8192)  # type: ignore[arg-type]
            for n, tier in enumerate(tiers)
        }
    )


@given(policies(), st.integers(-50, 5000))
def test_every_age_has_one_owner(policy: TierPolicy, age: int) -> None:
    owners = [tier for tier, rule in policy.rules.items() if rule.owns(max(age, 0))]
    assert owners == [policy.at_age(age)]


@given(DAYS, st.integers(0, 1200), DAYS)
def test_windows_are_the_days_grouped_by_owner(first: date, length: int, as_of: date) -> None:
    last = first + timedelta(days=length)
    expected: dict[date, Tier] = {}
    for n in range(length + 1):  # the slow, obvious way: day by day
        day = first + timedelta(days=n)
        expected[day] = DEFAULT_POLICY.owner(day, as_of)
    windows = DEFAULT_POLICY.windows(first, last, as_of)
    found = {
        start + timedelta(days=n): tier
        for tier, start, end in windows
        for n in range((end - start).days + 1)
    }
    assert found == expected
    assert sum((end - start).days + 1 for _, start, end in windows) == length + 1
    assert len(windows) <= len(Tier)


@given(DAYS, DAYS, st.sampled_from(Tier))
def test_a_month_is_never_split_between_tiers(day: date, as_of: date, landing: Tier) -> None:
    edges = {
        DEFAULT_POLICY.owner(edge, as_of, landing) for edge in (month_start(day), month_end(day))
    }
    assert edges == {DEFAULT_POLICY.owner(day, as_of, landing)}


@given(DAYS, DAYS, st.sampled_from(Tier))
def test_rows_never_land_above_the_landing_tier_and_only_age_sends_them_deeper(
    day: date, as_of: date, landing: Tier
) -> None:
    owner = DEFAULT_POLICY.owner(day, as_of, landing)
    aged = DEFAULT_POLICY.owner(day, as_of, Tier.HOT)
    assert owner.depth == max(landing.depth, aged.depth)


@given(DAYS)
def test_next_month_follows_the_last_day(day: date) -> None:
    assert next_month(day) == month_end(day) + timedelta(days=1)
    assert month_end(day).month == day.month


def test_without_an_as_of_rows_stay_where_they_land() -> None:
    assert DEFAULT_POLICY.owner(date(1990, 1, 1), None, Tier.WARM) is Tier.WARM


def test_a_month_ages_with_its_last_day() -> None:
    # 2016-03-31 is 52 days before 2016-05-22: the month is hot, its first day (82 days) with it.
    assert DEFAULT_POLICY.owner(date(2016, 3, 1), date(2016, 5, 22)) is Tier.HOT
    assert DEFAULT_POLICY.owner(date(2016, 2, 29), date(2016, 5, 22)) is Tier.WARM


def test_periods_are_months_until_cold() -> None:
    assert DEFAULT_POLICY.period(date(2016, 3, 7), Tier.WARM) == "2016-03"
    assert DEFAULT_POLICY.period(date(2016, 3, 7), Tier.COLD) == "2016"


def test_parse_reads_a_policy_and_may_leave_tiers_out() -> None:
    policy = TierPolicy.parse({"cold": COLD, "hot": HOT})
    assert policy.at_age(59) is Tier.HOT
    assert policy.at_age(60) is Tier.COLD
    with pytest.raises(ValueError, match="no warm tier; it has"):
        policy.owner(date(2016, 1, 1), None, Tier.WARM)


@pytest.mark.parametrize(
    ("mapping", "complaint"),
    [
        ({"hot": HOT, "cold": COLD | {"from_age": 40}}, "ages overlap: hot owns until 60 days"),
        ({"hot": HOT | {"until_age": None}, "cold": COLD}, "overlap: hot owns until no limit"),
        ({"hot": HOT, "cold": COLD | {"from_age": 90}}, "no tier owns ages 60 to 89"),
        ({"hot": HOT}, "no tier owns ages from 60 days on"),
        ({"cold": COLD}, "no tier owns age 0"),
        ({}, "at least one tier"),
        ({"tepid": HOT}, "unknown tier 'tepid'; the tiers are hot, warm, cold"),
        ({"hot": HOT | {"codec": "lz4"}}, "tier hot: unknown setting 'codec'"),
        ({"hot": {"from_age": 0, "zstd_level": 1}}, "tier hot: row_group_rows is missing"),
        ({"hot": HOT | {"until_age": "60"}}, "until_age is '60'; it must be a whole number"),
        ({"hot": HOT | {"zstd_level": 23}}, "tier hot: zstd_level is 23"),
        ({"hot": HOT | {"until_age": 0}}, "tier hot: until_age 0 is not after from_age 0"),
        ({"hot": HOT | {"from_age": -1}}, "tier hot: from_age is -1"),
        ({"hot": HOT | {"period": "week"}}, "tier hot: period is 'week'"),
        ({"hot": HOT | {"row_group_rows": 0}}, "at least 1"),
    ],
)
def test_a_bad_policy_says_what_is_wrong(mapping: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        TierPolicy.parse(mapping)  # type: ignore[arg-type]
