"""Bad ledgers: no crash, no false incident, a stated reason."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.incidents import unit_costs
from forecast_core.incidents.planted_ledger import Recipe, generate
from forecast_core.incidents.regressions import detect

FIRST = date(2024, 1, 1)


def ledger(
    unit: np.ndarray, *, volume: float | np.ndarray = 1000.0, **columns: object
) -> pl.DataFrame:
    """One daily series with the given unit costs."""
    n = len(unit)
    volumes = np.broadcast_to(np.asarray(volume, dtype=float), n)
    frame = pl.DataFrame(
        {
            "ChargePeriodStart": [FIRST + timedelta(days=i) for i in range(n)],
            "BilledCost": unit * volumes,
            "PricingQuantity": unit * volumes / 2,
            "ListUnitPrice": np.full(n, 2.0),
            "SkuId": ["vcpu_s"] * n,
            "x_pipeline": ["inference"] * n,
            "x_forecaster": ["gbm"] * n,
            "x_segment_group": ["a"] * n,
            "x_environment": ["prod"] * n,
            "x_run_id": [f"run{i}" for i in range(n)],
            "x_series": volumes,
        }
    )
    return frame.with_columns(**columns)


def noisy(n: int, seed: int = 0) -> np.ndarray:
    return np.exp(0.03 * np.random.default_rng(seed).normal(size=n))


def test_a_planted_step_is_found_in_the_hand_made_ledger() -> None:
    """The other tests mean something only if this ledger can raise an incident at all."""
    unit = noisy(90)
    unit[60:] *= 1.5
    found = detect(ledger(unit)).incidents
    assert found["kind"].to_list() == ["step"]
    assert found["start"][0] == FIRST + timedelta(days=60)
    assert found["detected"][0] <= FIRST + timedelta(days=61)


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_too_few_points_are_a_reason_not_an_incident(n: int) -> None:
    found = detect(ledger(np.full(n, 1.0) * np.arange(1, n + 1)))
    assert found.incidents.is_empty()
    if n == 0:
        assert found.series.is_empty() and found.basis == "no charges"
    else:
        assert found.series["reason"][0] == f"{n} points, {11 if n > 2 else 7} needed"


def test_an_empty_ledger_has_the_columns_of_a_full_one() -> None:
    empty = detect(ledger(noisy(0))).incidents
    assert empty.schema == detect(ledger(noisy(40))).incidents.schema


def test_a_negative_correction_is_netted_into_its_day() -> None:
    unit = noisy(80)
    unit[50] *= 4.0
    charged = ledger(unit, ChargeClass=pl.lit(None, pl.String))
    assert detect(charged).incidents["kind"].to_list() == ["spike"]
    wrong = charged.filter(pl.col("ChargePeriodStart") == FIRST + timedelta(days=50))
    correction = wrong.with_columns(
        BilledCost=-0.75 * pl.col("BilledCost"),
        PricingQuantity=-0.75 * pl.col("PricingQuantity"),
        ChargeClass=pl.lit("Correction"),
    )
    assert detect(pl.concat([charged, correction])).incidents.is_empty()


def test_a_low_day_is_no_new_level_to_rise_from() -> None:
    unit = noisy(100)
    unit[80] *= 0.4
    assert detect(ledger(unit)).incidents.is_empty()


def test_without_a_price_what_all_series_do_together_is_a_price() -> None:
    """Twelve series, one price for all: without its column it is told by moving them all."""
    parts = []
    for i in range(12):
        unit = noisy(100, seed=i) * np.where(np.arange(100) >= 50, 1.5, 1.0)
        if i == 3:
            unit[75:] *= 1.5
        parts.append(ledger(unit, x_segment_group=pl.lit(f"g{i}")))
    priceless = pl.concat(parts).drop("PricingQuantity", "ListUnitPrice")
    found = detect(priceless)
    assert found.basis == "money per x_series"
    assert found.incidents["series"].to_list() == ["inference/gbm/g3/prod"]


@pytest.mark.parametrize(
    "convention",
    [
        lambda f: f.with_columns(pl.col("ChargePeriodStart").cast(pl.String)),
        lambda f: f.with_columns(pl.col("BilledCost").cast(pl.Decimal(38, 9))),
        lambda f: f.with_columns(pl.col("BilledCost", "x_series").cast(pl.String)),
        lambda f: f.with_columns(pl.col("x_pipeline", "x_forecaster").cast(pl.Categorical)),
        lambda f: f.rename({"BilledCost": "EffectiveCost", "x_segment_group": "x_segment"}),
        lambda f: f.drop("ListUnitPrice", "x_run_id", "SkuId"),
        lambda f: f.rename({"x_series": "ConsumedQuantity"}).with_columns(
            ConsumedUnit=pl.lit("Item-store forecasts")
        ),
        lambda f: f.rename({"x_series": "x_volume"}),
    ],
)
def test_other_conventions_of_a_focus_ledger_say_the_same(
    convention: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    unit = noisy(90)
    unit[60:] *= 1.5
    volume = 1000.0 * np.exp(0.3 * np.sin(np.arange(90)))
    known = ["kind", "series", "start", "detected"]
    same = detect(ledger(unit, volume=volume)).incidents.select(known)
    assert len(same) == 1
    assert detect(convention(ledger(unit, volume=volume))).incidents.select(known).equals(same)


def test_a_day_that_ends_negative_is_skipped_with_a_reason() -> None:
    unit = noisy(60)
    unit[30] = -1.0
    costs = unit_costs.daily(ledger(unit))
    assert costs.skipped == {"cost not positive (correction?)": 1}
    assert detect(ledger(unit)).incidents.is_empty()


def test_missing_days_raise_nothing() -> None:
    keep = np.random.default_rng(1).random(120) > 0.3
    assert detect(ledger(noisy(120)).filter(pl.Series(keep))).incidents.is_empty()


def test_a_price_change_is_no_regression() -> None:
    later = pl.col("ChargePeriodStart") >= FIRST + timedelta(days=50)
    factor = pl.when(later).then(1.6).otherwise(1.0)
    dearer = ledger(noisy(100)).with_columns(
        BilledCost=pl.col("BilledCost") * factor, ListUnitPrice=pl.col("ListUnitPrice") * factor
    )
    assert detect(dearer).incidents.is_empty()
    assert len(detect(dearer, raw=True).incidents) == 1


def test_growth_is_no_regression() -> None:
    growing = ledger(noisy(120), volume=1000 * np.exp(0.01 * np.arange(120)))
    assert detect(growing).incidents.is_empty()


def test_a_renamed_asset_and_a_vanished_version_raise_nothing() -> None:
    later = pl.col("ChargePeriodStart") >= FIRST + timedelta(days=60)
    renamed = ledger(noisy(120)).with_columns(
        x_asset=pl.when(later).then(pl.lit("new")).otherwise(pl.lit("old")),
        x_forecaster_version=pl.when(later).then(None).otherwise(pl.lit("v1")),
    )
    assert detect(renamed).incidents.is_empty()


def test_a_run_over_midnight_is_one_run() -> None:
    whole = ledger(noisy(90))
    half = whole.with_columns(pl.col("BilledCost", "PricingQuantity") / 2)
    after = half.with_columns(pl.col("ChargePeriodStart") + pl.duration(days=1))
    split = pl.concat([half[:60], after[40:60], half[60:], half[:40]])
    assert detect(split).incidents.is_empty()


def test_a_known_event_moves_the_expectation() -> None:
    unit = noisy(100)
    unit[60:70] *= 1.4
    events = pl.DataFrame(
        {"start": [FIRST + timedelta(days=60)], "end": [FIRST + timedelta(days=69)]}
    )
    assert len(detect(ledger(unit)).incidents) == 1
    assert detect(ledger(unit), events=events).incidents.is_empty()
    # The threshold stays: a spike within the event is still one.
    unit[66] *= 2.0
    found = detect(ledger(unit), events=events).incidents
    assert found["kind"].to_list() == ["spike"]


def test_a_ledger_without_cost_or_period_says_so() -> None:
    with pytest.raises(unit_costs.LedgerError, match="no cost column"):
        detect(ledger(noisy(5)).drop("BilledCost"))
    with pytest.raises(unit_costs.LedgerError, match="ChargePeriodStart"):
        detect(ledger(noisy(5)).drop("ChargePeriodStart"))


def test_money_and_volume_may_be_of_any_scale() -> None:
    drawn = generate(3, Recipe(series=12, days=120))
    tiny = drawn.ledger.with_columns(
        pl.col("PricingQuantity", "EffectiveCost", "BilledCost", "ListCost") * 1e-9
    )
    one, other = (
        detect(frame, drawn.accuracy, drawn.events).incidents for frame in (drawn.ledger, tiny)
    )
    assert one.select("kind", "series", "start", "detected").equals(
        other.select("kind", "series", "start", "detected")
    )
