"""Rates found again in ledgers made from known ones; storage against a slow count by row."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission.policy import Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.fit import Rates, fit, grown
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.storage import Bytes, by_day, growing, measured

POLICIES = Path(__file__).parents[3] / "policies"


def ledger(days: int, seed: int = 0, noise: float = 0.05, *, flat: bool = False) -> pl.DataFrame:
    """Settlements of two stages: 2 + 3 a thousand rows, and 5 a run; some days are busy."""
    rng = np.random.default_rng(seed)
    rows = []
    for day in range(days):
        at = datetime(2026, 1, 1, 3, tzinfo=UTC) + timedelta(days=day)
        luck = float(np.exp(rng.normal(0, noise)))
        volume = 1000 if flat else 500 + 40 * day
        for stage, money, written in (
            ("features", 2 + 3 * volume / 1000, volume),
            ("scores", 5.0, 0),
        ):
            cost = money * luck * float(np.exp(rng.normal(0, noise)))
            rows.append(
                {
                    "x_run_id": f"{stage}-{day}", "x_asset": stage, "x_step_key": stage,
                    "x_attempt": 1, "x_forecaster": None, "x_cost_class": "workload",
                    "x_status": "success", "x_estimated": False, "date": at.date(),
                    "ChargePeriodStart": at, "rows": written, "peak_rss_gib": 0.5, "money": cost,
                    "wall_s": 10 * cost, "cpu_s": 9 * cost, "gpu_s": 0.0, "rss_gib_s": cost,
                    "bytes_written": written * 8,
                }
            )  # fmt: skip
    return pl.DataFrame(rows)


def test_a_line_is_found_again() -> None:
    rates = fit(ledger(120), 100)
    rate = rates.by_stage["features", ""]
    assert rate.lines["money"].at(1000.0) == pytest.approx(5.0, rel=0.05)
    assert rate.lines["money"].at(8000.0) == pytest.approx(26.0, rel=0.1)
    assert rates.by_stage["scores", ""].by_series
    assert rates.by_stage["scores", ""].of("money", 100) == pytest.approx(5.0, rel=0.05)
    assert rate.note == ""


def test_the_luck_of_days_is_told_from_that_of_runs() -> None:
    rates = fit(ledger(200, noise=0.1), 100)
    assert np.std(np.log(rates.days)) == pytest.approx(0.12, rel=0.35)
    ratios = [money for _, money in rates.by_stage["features", ""].ratios]
    assert np.mean(ratios) == pytest.approx(1.0, abs=1e-9)


def _days(steps: pl.DataFrame) -> pl.Expr:
    return (pl.col("date") - steps["date"].min()).dt.total_days()


def _scores_times(steps: pl.DataFrame, factor: pl.Expr) -> Rates:
    """What is fitted where the stage without rows costs so many times as much."""
    factor = pl.when(pl.col("x_asset") == "scores").then(factor).otherwise(1.0)
    return fit(steps.with_columns(money=pl.col("money") * factor), 100)


def test_a_stage_that_costs_more_from_day_to_day_goes_on_ever_slower() -> None:
    steps = ledger(42, noise=0.02)
    rates = _scores_times(steps, 1 + 0.01 * _days(steps))
    rate, last = rates.by_stage["scores", ""], 5 * 1.41
    assert rate.drift["money"] * last == pytest.approx(0.05, rel=0.25)
    assert set(rate.drift) == {"money"} and not rates.by_stage["features", ""].drift
    assert rate.of("money", 100) == pytest.approx(last, rel=0.04)
    assert rate.of("money", 100, ahead=7) == pytest.approx(last + 0.05 * 6, rel=0.04)
    year, two = (rate.of("money", 100, ahead=days) for days in (365, 730))
    assert year < 1.4 * last and two == pytest.approx(year, rel=1e-3)
    said = [money for _, money in rate.ratios]
    assert np.mean(said[-28:-18]) == pytest.approx(np.mean(said[-10:]), rel=0.04)


def test_a_stage_that_costs_less_from_day_to_day_never_costs_nothing() -> None:
    steps = ledger(42, noise=0.02)
    rate = _scores_times(steps, 1 - 0.02 * _days(steps)).by_stage["scores", ""]
    now, year = (rate.of("money", 100, ahead=days) for days in (0, 365))
    assert rate.drift["money"] < 0 and 0 < year < now


def test_a_step_is_no_drift() -> None:
    """A machine became busy: it stays so, and does not get busier each day."""
    drifts = []
    for seed in range(20):
        steps = ledger(28, seed, noise=0.02)
        step = pl.when(_days(steps) < 10).then(1.0).otherwise(1.3)
        rate = _scores_times(steps, step).by_stage["scores", ""]
        drifts.append(rate.of("money", 100, ahead=28) / rate.of("money", 100) - 1)
        assert rate.of("money", 100) == pytest.approx(6.5, rel=0.08)
    assert np.median(np.abs(drifts)) < 0.01 and max(drifts) < 0.1


def test_rows_that_only_gather_do_not_hide_what_a_stage_comes_to_cost() -> None:
    """Scores of all forecasts still open: rows and cost rise together, as days pass, not series.

    No plan tells how many rows a coming night will write; the cost of that night is told anyway.
    """
    steps = ledger(28, noise=0.01).filter(pl.col("x_asset") == "features")
    day = _days(steps)
    gathered = steps.with_columns(money=10 + 1.0 * day, rows=20 + 16 * (day // 7))
    rate = fit(gathered, 100).by_stage["features", ""]
    assert rate.of("money", 100) == pytest.approx(37, rel=0.05)
    assert rate.of("money", 100, ahead=7) == pytest.approx(37 + 6, rel=0.05)
    assert rate.of("money", 200) > rate.of("money", 100)


@given(
    pace=st.floats(-0.2, 0.2),
    near=st.floats(0, 400),
    further=st.floats(0, 400),
)
def test_what_drifts_stays_positive_and_comes_to_an_end(
    pace: float, near: float, further: float
) -> None:
    soon, later = grown(pace, near), grown(pace, near + further)
    assert soon > 0 and (later - soon) * pace >= 0
    assert grown(pace, 2000) == pytest.approx(grown(pace, 1000))


def test_steady_stages_do_not_drift() -> None:
    found = [
        rate.drift for seed in range(20) for rate in fit(ledger(60, seed), 100).by_stage.values()
    ]
    assert sum(bool(drift.get("money")) for drift in found) <= 4


def test_cost_that_only_happens_to_rise_with_volume_is_not_drawn_out() -> None:
    steps = ledger(14).filter(pl.col("x_asset") == "features")
    noise = np.exp(np.random.default_rng(1).normal(0, 0.2, 7))
    cost = pl.Series(5 * np.repeat(noise, 2) * np.tile([1.0, 1.02], 7))

    def growth(low: int, high: int) -> float:
        """What ten times the volume would cost, over what it costs."""
        rows = pl.Series([low, high] * 7)
        line = fit(steps.with_columns(money=cost, rows=rows), 1).by_stage["features", ""]
        return line.lines["money"].at(10 * high) / line.lines["money"].at(high)

    assert growth(100, 4000) == 1.0  # it did not grow with forty times the volume
    assert growth(1000, 1200) == pytest.approx(5.5, rel=0.05)  # it may or may not: half of it does


def test_what_cannot_be_told_is_flagged() -> None:
    rates = fit(ledger(30, flat=True), 100)
    assert "hardly varied" in rates.by_stage["features", ""].note
    assert "only 3 runs" in fit(ledger(3), 100).by_stage["features", ""].note
    plan = Plan.parse(yaml.safe_load((POLICIES / "capacity.yaml").read_text()))
    assert "stated default" in Rates().of("nowhere", "asked", plan.defaults).note
    with pytest.raises(LookupError, match="no stated default"):
        Rates().of("nowhere", "asked", {})


def test_failures_are_counted_and_an_empty_ledger_gives_nothing() -> None:
    steps = ledger(40)
    failed = steps.head(4).with_columns(
        x_status=pl.lit("failure"), x_run_id=pl.col("x_run_id") + "-failed"
    )
    rates = fit(pl.concat([steps, failed]), 100)
    assert rates.by_stage["features", ""].failures == pytest.approx(2 / 42)
    assert fit(steps.clear(), 100).by_stage == {}


def test_what_a_process_does_between_steps_goes_to_its_run_s_stages() -> None:
    steps = ledger(60, noise=0.0)
    between = steps.filter(pl.col("x_asset") == "features").with_columns(
        x_asset=pl.lit(None, pl.String), x_step_key=pl.lit(None, pl.String),
        x_cost_class=pl.lit("overhead"), money=pl.lit(7.0), rows=pl.lit(0, pl.Int64),
    )  # fmt: skip
    bare, whole = fit(steps, 100), fit(pl.concat([steps, between]), 100)
    more = whole.by_stage["features", ""].of("money", 100) - bare.by_stage["features", ""].of(
        "money", 100
    )
    assert more == pytest.approx(7.0, rel=0.02)
    assert whole.by_stage["scores", ""].of("money", 100) == pytest.approx(5.0, rel=0.02)


def _arrivals(history: int) -> Arrivals:
    mapping = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    mapping["base"] |= {"series": 100, "history_days": history}
    plan = Plan.parse(mapping)
    policy = Policy.parse(yaml.safe_load((POLICIES / "admission.yaml").read_text()))
    values = plan.mids() | {"hot_days": 5.0, "warm_days": 12.0, "series_growth": 3.0}
    return Arrivals(plan, values, Rates(), policy, 0)


def test_storage_moves_by_age_and_expires_as_a_slow_count_says() -> None:
    arrivals, days, keep = _arrivals(10), 40, 30
    each = Bytes({"hot": 7.0, "warm": 3.0, "cold": 1.0}, "made up")
    fast = by_day(arrivals, each, days, keep)
    rows = [100.0] * 10 + [arrivals.series(day) for day in range(days)]
    for day in range(days):
        slow = dict.fromkeys(fast, 0.0)
        for made, amount in enumerate(rows[: 10 + day + 1]):
            age = 10 + day - made
            if age < keep:
                tier = "hot" if age < 5 else "warm" if age < 12 else "cold"
                slow[tier] += amount * each.each[tier]
        for tier, sizes in fast.items():
            assert sizes[day] == pytest.approx(slow[tier])


def test_measured_bytes_reproduce_what_is_stored() -> None:
    stored = {"hot": 500.0, "warm": 700.0, "cold": 50.0}
    each = measured(stored, 100, 20, 5, 12).each
    assert each["hot"] * 100 * 5 == pytest.approx(500)
    assert each["cold"] * 100 * 8 == pytest.approx(50)
    assert measured({"hot": 10.0}, 1, 2, 5, 9).each["cold"] == 5.0


def test_growth_is_counted_from_what_is_there() -> None:
    arrivals = _arrivals(30)
    arrivals.values = dict(arrivals.values) | {"series_growth": 0.0, "store_openings": 0.0}
    grown = by_day(arrivals, growing({"hot": 100.0}, {"hot": 800.0}, 700.0), 10, 4000)
    assert sum(float(sizes[6]) for sizes in grown.values()) == pytest.approx(
        800 + 7 * 100, rel=0.01
    )
