"""What the main job says about risk: quantiles of every forecast, stock-outs of every shelf."""

import itertools

import polars as pl
import pytest

from forecast_core.calibration import Spreads
from resources.lake import Lake

LEVELS = [f"q{k}0" for k in range(1, 10)]


@pytest.fixture(scope="module")
def lake(finished) -> Lake:
    return Lake(finished[0].root / "data" / "dev" / "demo" / "lake")


def _all(lake: Lake, name: str) -> pl.DataFrame:
    return lake.table(name).read().frame.collect()


def test_every_forecast_has_its_quantiles_in_order_and_groups_publish_their_own(lake) -> None:
    rows = _all(lake, "prediction_daily")
    assert set(LEVELS) <= set(rows.columns)
    assert rows.select("q10", "q50", "q90").null_count().sum_horizontal().item() == 0
    full = rows.drop_nulls(LEVELS)
    for low, high in itertools.pairwise(LEVELS):
        assert (full[low] <= full[high]).all()
    assert full.height > rows.height / 2
    # Few levels is what the policy gives to dormant items, which are on the floor.
    assert set(rows.filter(pl.col("q20").is_null())["rung"]) <= {"floor"}


def test_the_spread_rests_on_what_was_sold_after_a_trial(lake) -> None:
    fitted = _all(lake, "forecasters").filter(segment_group="spread")
    assert fitted.height == 1
    spreads = Spreads.from_bytes(fitted["artefact"][0])
    assert set(spreads.by_days) == {1, 3, 7, 14}
    assert spreads.daily.pairs["any"] > 1000


def test_every_shelf_is_told_its_risk(lake) -> None:
    risk = _all(lake, "prediction_stockout")
    daily = _all(lake, "prediction_daily")
    assert risk.height == daily.select("cutoff", "item_id", "store_id").n_unique()
    told = risk.filter(pl.col("reason").is_null())
    assert told.height
    assert told["stockout_probability"].is_between(0, 1).all()
    assert (told["stockout_if_late"] >= told["stockout_probability"] - 1e-12).all()
    position = told["on_hand"] + told["on_order"]
    assert ((position + told["order_units"]) >= told["reorder_point"] - 1e-9).all()
