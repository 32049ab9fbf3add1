"""A safeguard is held against the ledger, and is broken exactly where its limit is passed."""

from datetime import date, timedelta

import polars as pl
import pytest

from forecast_core.incidents import Safeguard
from forecast_core.incidents.safeguards import held

TODAY = date(2024, 6, 10)


def charges() -> pl.DataFrame:
    """A run a day of two pipelines: an hour of CPU and 2 of money, for 1,000 series."""
    days = [TODAY - timedelta(days=k) for k in range(40)]
    return pl.DataFrame(
        [
            {
                "ChargePeriodStart": day, "SkuId": "vcpu_s", "PricingQuantity": 3600.0,
                "BilledCost": 2.0, "x_pipeline": pipeline, "x_forecaster": "gbm",
                "x_segment_group": "a", "x_environment": "prod", "x_run_id": f"{pipeline}{day}",
                "x_series": 1000,
            }
            for day in days
            for pipeline in ("training", "inference")
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("quota:training=2 CPU-h", 1.0),
        ("budget:training=15 a month", 20.0),  # ten days of June
        ("budget:training/gbm/a/prod=25", 20.0),
        ("asset_check:inference/gbm=0.003 a series", 0.002),
    ],
)
def test_each_kind_has_its_figure(text: str, figure: float) -> None:
    safeguard = Safeguard.parse(text)
    found = held(safeguard, charges(), TODAY)
    assert found.figure == pytest.approx(figure)
    assert found.holds == (figure <= safeguard.limit)
    assert safeguard.target in found.reason


def test_a_day_over_the_quota_is_seen_for_a_week() -> None:
    day = pl.col("ChargePeriodStart") == TODAY - timedelta(days=5)
    more = pl.col("PricingQuantity") * pl.when(day).then(3).otherwise(1)
    rows = charges().with_columns(PricingQuantity=more)
    quota = Safeguard.parse("quota:training=2 CPU-h")
    assert not held(quota, rows, TODAY).holds
    assert held(quota, rows, TODAY + timedelta(days=7)).holds


def test_an_unknown_target_is_said_to_be_unknown() -> None:
    found = held(Safeguard.parse("quota:tuning=2 CPU-h"), charges(), TODAY)
    assert found.holds and "no charge" in found.reason
    assert held(Safeguard.parse("budget:training=1"), charges().clear(), TODAY).figure is None
