"""The trial behind the spreads: held back, bounded, and honest about what it cannot know."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from forecast_core import calibration
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import Past
from forecast_core.generate import DemoSpec
from forecast_core.quantiles import SpreadError
from forecast_core.rungs import origin_features
from forecast_core.segments import SegmentPolicy
from forecast_core.source.clean import clean
from resources.sources import DemoSource

ROOT = Path(__file__).resolve().parents[2]
SPEC = DemoSpec(series=40, stores=2, days=300)
HORIZON = 14


def _past(last: date) -> tuple[Past, pl.DataFrame]:
    source = DemoSource(SPEC)
    sales, features = {}, {}
    for store in source.stores():
        raw = source.sales(store, SPEC.first, last), source.prices(store, SPEC.first, last)
        sales[store] = clean(*raw).kept
        days = origin_features.origin_days(SPEC.first + timedelta(days=60), last)
        features[store] = origin_features.build(sales[store], days)
    hierarchy = pl.concat(sales.values()).select(
        "item_id", "dept_id", "cat_id", "store_id", "state_id"
    )
    return Past.of_frames(sales, features, source.calendar()), hierarchy.unique()


@pytest.fixture(scope="module")
def policy() -> SegmentPolicy:
    return SegmentPolicy.parse(yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text()))


def test_origins_are_stored_days_whose_horizons_are_sold_and_do_not_overlap() -> None:
    for as_of in (date(2025, 6, 29), date(2024, 2, 29), date(2023, 1, 1)):
        found = backtest.origins(as_of, HORIZON, 3)
        assert found == sorted(found) and len(found) == 3
        assert all(day.toordinal() % origin_features.STRIDE_DAYS == 0 for day in found)
        ends = [day + timedelta(days=HORIZON) for day in found]
        assert ends[-1] <= as_of
        assert all(end <= after for end, after in zip(ends, found[1:], strict=False))


def test_a_trial_forecasts_everyone_and_sees_nothing_of_its_horizon(policy) -> None:
    past, series = _past(SPEC.last)
    trial = calibration.trial(past, series, SPEC.last, HORIZON, policy, threads=1)
    per_cutoff = trial.pairs.group_by("cutoff").agg(pl.len())
    assert set(per_cutoff["len"]) == {SPEC.series * HORIZON}
    assert (trial.pairs["ds"] > trial.pairs["cutoff"]).all()
    assert (trial.pairs["ds"] <= SPEC.last).all()

    # With whatever is sold in the last horizon changed, its means stay as they were.
    latest = backtest.origins(SPEC.last, HORIZON, 1)[0]
    changed = Past(
        lambda *window: past.sales(*window).with_columns(
            units=pl.when(pl.col("date") > latest).then(999.0).otherwise("units")
        ),
        past.features,
        past.calendar,
    )
    again = calibration.trial(changed, series, SPEC.last, HORIZON, policy, threads=1)
    key = ["cutoff", "store_id", "item_id", "ds"]
    before, after = (t.pairs.filter(cutoff=latest).sort(key) for t in (trial, again))
    assert before.select(key).equals(after.select(key))
    assert (before["mean"] - after["mean"]).abs().max() < 1e-9  # sums differ in their order
    assert not before["units"].equals(after["units"])


def test_a_shop_younger_than_the_horizon_has_a_spread_all_the_same(policy) -> None:
    """No window has both a past and a sold horizon; counts are taken as Poisson or wider."""
    past, series = _past(SPEC.first + timedelta(days=HORIZON - 4))
    last = SPEC.first + timedelta(days=HORIZON - 4)
    trial = calibration.trial(past, series, last, HORIZON, policy, threads=1)
    spread = calibration.spreads(trial.pairs).daily
    assert (spread.inflation(pl.Series([0.5, 3.0]).to_numpy(), pl.Series(["x", "y"])) >= 1).all()


def test_spreads_survive_their_bytes_and_nothing_known_is_poisson() -> None:
    nothing = calibration.spreads(pl.DataFrame(schema={"segment": pl.String}))
    again = calibration.Spreads.from_bytes(nothing.to_bytes())
    assert again.to_bytes() == nothing.to_bytes()
    inflation = again.daily.inflation(pl.Series([0.5, 3.0]).to_numpy(), pl.Series(["x", None]))
    assert inflation == pytest.approx([1.0, 1.0], abs=1e-5)
    with pytest.raises(SpreadError, match="train the forecasters again"):
        calibration.Spreads.from_bytes(b"{}")
