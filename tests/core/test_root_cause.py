"""The bridge is exact and order-free, and the cause is blamed, not the payer."""

from datetime import date, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.incidents import planted_causes
from forecast_core.incidents.root_cause import explain, uses


@given(seed=st.integers(0, 100_000))
@settings(max_examples=40, deadline=None)
def test_parts_sum_to_the_change_exactly(seed: int) -> None:
    case = planted_causes.draw(seed)
    bridge = explain(case.before, case.after, planted_causes.UPSTREAM)
    assert sum(bridge.parts.values(), Decimal(0)) == bridge.change
    assert sum((c.amount for c in bridge.causes), Decimal(0)) == bridge.change


@given(seed=st.integers(0, 100_000))
@settings(max_examples=20, deadline=None)
def test_the_way_back_undoes_the_way_there(seed: int) -> None:
    """Order-free: swapping the windows turns every part around (to the rounding of money)."""
    case = planted_causes.draw(seed)
    there = explain(case.before, case.after, planted_causes.UPSTREAM).parts
    back = explain(case.after, case.before, planted_causes.UPSTREAM).parts
    assert all(abs(there[k] + back[k]) <= Decimal("1e-7") for k in there)


def test_rows_made_upstream_are_blamed_upstream() -> None:
    case = next(c for c in map(planted_causes.draw, range(200)) if c.factor == "fanout")
    first = explain(case.before, case.after, planted_causes.UPSTREAM).causes[0]
    assert (first.asset, first.factor) == (case.asset, "fanout")


def test_windows_may_be_empty_or_one_sided() -> None:
    case = planted_causes.draw(1)
    nothing = case.before.clear()
    assert explain(nothing, nothing, {}).change == 0
    appeared = explain(nothing, case.after, planted_causes.UPSTREAM)
    assert sum(appeared.parts.values(), Decimal(0)) == appeared.change > 0


def test_a_cycle_in_the_graph_is_refused() -> None:
    case = planted_causes.draw(1)
    with pytest.raises(ValueError, match="cycle"):
        explain(
            case.before, case.after, {"raw_sales": ["eval_accuracy"], **planted_causes.UPSTREAM}
        )


def test_failed_attempts_are_waste() -> None:
    day = date(2024, 1, 1)
    rows = [
        (day + timedelta(days=i), f"r{i}", attempt, 10.0)
        for i in range(20)
        for attempt in ((1, 2) if i >= 10 else (1,))
    ]
    ledger = pl.DataFrame(
        rows, schema=["ChargePeriodStart", "x_run_id", "x_attempt", "BilledCost"], orient="row"
    ).with_columns(
        x_asset=pl.lit("forecasters"),
        x_series=pl.lit(100),
        x_environment=pl.lit("prod"),
        x_pipeline=pl.lit("training"),
    )
    before = uses(ledger, day, day + timedelta(days=9))
    after = uses(ledger, day + timedelta(days=10), day + timedelta(days=19))
    bridge = explain(before, after, {})
    assert bridge.change == 100
    assert (bridge.causes[0].asset, bridge.causes[0].factor) == ("forecasters", "waste")
    assert float(bridge.parts["waste"]) == pytest.approx(100)
