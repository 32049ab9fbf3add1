"""The split of plan against actual sums exactly; reviews fall due and are not forgotten."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.capacity.plan import Plan
from forecast_core.capacity.review import due, markdown, missing
from forecast_core.capacity.variance import Flow, variance

FILE = Path(__file__).parents[3] / "policies" / "capacity.yaml"
flows = st.dictionaries(
    st.tuples(st.sampled_from(["land", "upgrade", "train"]), st.sampled_from(["", "gbm", "floor"])),
    st.builds(
        Flow,
        units=st.one_of(st.just(0.0), st.floats(0.1, 1e5)),
        money=st.floats(0, 1e4),
        price=st.floats(0.5, 2),
    ),
    max_size=6,
)


@given(flows, flows)
def test_the_parts_sum_to_the_difference(planned: Any, actual: Any) -> None:
    found = variance(planned, actual)
    scale = max(1.0, found.planned, found.actual)
    assert sum(found.parts.values()) == pytest.approx(
        found.actual - found.planned, abs=1e-6 * scale
    )


@pytest.mark.parametrize(
    ("part", "actual"),
    [
        ("volume", {("a", "x"): Flow(200, 200), ("b", "x"): Flow(200, 600)}),
        ("mix", {("a", "x"): Flow(50, 50), ("b", "x"): Flow(150, 450)}),
        ("rate", {("a", "x"): Flow(100, 150), ("b", "x"): Flow(100, 300)}),
        ("price", {("a", "x"): Flow(100, 110, 1.1), ("b", "x"): Flow(100, 330, 1.1)}),
    ],
)
def test_a_change_of_one_kind_is_found_as_that(part: str, actual: Any) -> None:
    planned = {("a", "x"): Flow(100, 100), ("b", "x"): Flow(100, 300)}
    found = variance(planned, actual)
    assert found.parts[part] == pytest.approx(found.actual - found.planned)


def test_a_cheaper_rung_is_the_policy_s_doing() -> None:
    planned = {("upgrade", "gbm"): Flow(100, 300), ("upgrade", "floor"): Flow(100, 10)}
    actual = {("upgrade", "gbm"): Flow(40, 120), ("upgrade", "floor"): Flow(160, 16)}
    found = variance(planned, actual)
    assert found.parts["policy"] == pytest.approx(found.actual - found.planned)


def _plan(**changes: Any) -> Plan:
    return Plan.parse(yaml.safe_load(FILE.read_text()) | changes)


def test_reviews_fall_due_each_quarter_and_after_changes() -> None:
    plan = _plan(
        business_changes=[{"on": "2027-01-15", "what": "a new region", "owner": "sales-lead"}]
    )
    assert due(plan, plan.first) == []
    first = plan.first + timedelta(days=plan.review_days)
    found = due(plan, first)
    assert [d.on for d in found] == [date(2027, 1, 15), first]
    assert "a new region" in found[0].why
    assert missing(plan, [], date(2027, 1, 20)) == []  # within its grace
    assert len(missing(plan, [], date(2027, 2, 20))) == 1
    assert missing(plan, [date(2027, 1, 30)], date(2027, 2, 20)) == []
    assert len(missing(plan, [date(2027, 1, 1)], date(2027, 2, 20))) == 1


def test_a_review_says_what_was_assumed_what_happened_and_what_changes() -> None:
    plan = _plan()
    planned = {("upgrade", "gbm"): Flow(100, 100)}
    found = variance(planned, {("upgrade", "gbm"): Flow(100, 130)})
    text = markdown(plan, 2, date(2027, 3, 5), {"2026-12": found}, due(plan, date(2027, 3, 5)))
    assert "| series_growth | 0 | 0.05 | 0.15 | merchandising-planner |" in text
    assert "planned 100.0000, actual 130.0000 USD (+30.0 %)" in text
    assert "rate moved the cost by +30.0 %" in text
    assert "store_openings" in text and "**overdue**" in text
    assert "- signed by (role):" in text
