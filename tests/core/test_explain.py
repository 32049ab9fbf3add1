"""Explanations: they add up to the forecast, and the budget is spent where revenue is."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core import explain
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import Past
from forecast_core.generate import DemoSpec
from forecast_core.rungs import gbm, origin_features
from forecast_core.source.clean import clean
from resources.sources import DemoSource

SPEC = DemoSpec(series=20, stores=1, days=300)
STORE = SPEC.store_ids[0]
HORIZON = 28
CUTOFF = backtest.origins(SPEC.last, HORIZON, 1)[0]


@pytest.fixture(scope="module")
def past() -> Past:
    source = DemoSource(SPEC)
    raw = source.sales(STORE, SPEC.first, SPEC.last), source.prices(STORE, SPEC.first, SPEC.last)
    sales = clean(*raw).kept
    days = origin_features.origin_days(SPEC.first + timedelta(days=60), SPEC.last)
    features = origin_features.build(sales, days)
    return Past.of_frames({STORE: sales}, {STORE: features}, source.calendar())


def test_contributions_add_up_to_the_log_of_the_models_mean(past: Past) -> None:
    series = past.sales(STORE, SPEC.first, SPEC.last).select(gbm.LEVELS).unique()
    spec = gbm.GbmSpec(threads=1, rounds=20, per_origin=4, min_data_in_leaf=20)
    model = gbm.Model(backtest.fit_gbm(past, series, CUTOFF, HORIZON, spec).artefact)
    ahead = past.sales(STORE, CUTOFF + timedelta(days=1), CUTOFF + timedelta(days=HORIZON))
    asked = (
        past.features(STORE, CUTOFF, CUTOFF),
        ahead.select("item_id", "date", "sell_price"),
        series,
        past.calendar,
        CUTOFF,
        HORIZON,
    )
    told = explain.explain(model, *asked)
    sums = told.group_by("item_id", "ds").agg(pl.col("contribution").sum())
    mean = model.predict(*asked)
    both = sums.join(mean, on=["item_id", "ds"])
    assert both.height == 3 * mean["item_id"].n_unique()
    gap = np.exp(both["contribution"].to_numpy()) / both["mean"].to_numpy()
    assert gap == pytest.approx(np.ones(len(gap)), rel=1e-4)
    per_forecast = told.group_by("item_id", "bucket").len()["len"]
    assert set(per_forecast) == {explain.TOP + 2}


def _forecasts(means: dict[str, float], rung: str = "gbm") -> pl.DataFrame:
    return pl.DataFrame(
        {"item_id": list(means), "store_id": "S", "mean": list(means.values()), "rung": rung}
    )


def test_only_what_matters_and_moved_is_explained_the_dearest_first() -> None:
    today = pl.concat(
        [
            _forecasts({"moved": 2.0, "same": 1.05, "cheap": 9.0, "new": 1.0}),
            _forecasts({"by_floor": 9.0}, rung="floor"),
        ]
    )
    before = _forecasts({"moved": 1.0, "same": 1.0, "cheap": 1.0, "by_floor": 1.0})
    segments = pl.DataFrame(
        {
            "item_id": ["moved", "same", "cheap", "new", "by_floor"],
            "store_id": "S",
            "abc": ["A", "A", "C", "A", "A"],
            "revenue": [10.0, 50.0, 1.0, 30.0, 99.0],
        }
    )
    candidates = explain.changed(today, before, segments)
    assert candidates["item_id"].to_list() == ["new", "moved"]
    taken, coverage = explain.within(candidates, rows=5)
    assert taken["item_id"].to_list() == ["new"]
    assert (coverage.changed, coverage.explained) == (2, 1)
    assert coverage.revenue_share == pytest.approx(0.75)
    assert explain.within(candidates.clear(), rows=5)[1].revenue_share == 1.0
