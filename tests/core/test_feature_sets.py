"""Pruned sets look at less of everything, and a model keeps to the columns it was fitted on."""

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.rungs import gbm, origin_features
from forecast_core.rungs.gbm import Coding, GbmSpec

CUTOFF = date(2025, 6, 1)
SETS = ("minimal", "reduced", "full")


@pytest.fixture(scope="module")
def shop() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Sales, features, calendar and series of one small store."""
    rng = np.random.default_rng(1)
    days = [CUTOFF - timedelta(days=k) for k in range(500, -29, -1)]
    rows = [
        {"date": day, "item_id": f"I{item}", "dept_id": "D", "cat_id": "C", "store_id": "S",
         "state_id": "T", "units": float(rng.poisson(3 + 2 * (day.weekday() > 4))),
         "sell_price": 2.0 + (day.day < 5), "on_sale": True}
        for item in range(12) for day in days
    ]  # fmt: skip
    sales = pl.DataFrame(rows)
    past = sales.filter(pl.col("date") <= CUTOFF)
    origins = origin_features.origin_days(CUTOFF - timedelta(days=80), CUTOFF, [CUTOFF])
    calendar = pl.DataFrame(
        {"date": days, "event_name_1": ["Fair" if day.day == 9 else None for day in days]}
    ).with_columns(
        event_type_1=pl.lit(None, pl.String), event_name_2=pl.lit(None, pl.String),
        event_type_2=pl.lit(None, pl.String), snap_T=pl.lit(0),
    )  # fmt: skip
    features = origin_features.build(past, origins)
    return sales, features, calendar, past.select(gbm.LEVELS).unique()


def test_each_set_is_part_of_the_next() -> None:
    small, middle, full = (gbm.columns(GbmSpec(features=name)) for name in SETS)
    assert set(small) < set(middle) < set(full)
    assert len(small) <= len(full) / 2  # pruned in earnest
    assert [name for name in full if name in small] == small  # in one order


@pytest.mark.parametrize("features", SETS)
def test_examples_of_a_set_are_columns_of_the_full_ones(shop, features: str) -> None:
    sales, built, calendar, series = shop
    coding = Coding.of(calendar, series)
    past = sales.filter(pl.col("date") <= CUTOFF)

    def made(name: str) -> gbm.Examples:
        spec = GbmSpec(features=name)
        return gbm.examples(built, past, series, calendar, coding, CUTOFF, 14, spec)

    pruned, full = made(features), made("full")
    names = gbm.columns(GbmSpec(features="full"))
    at = [names.index(name) for name in gbm.columns(GbmSpec(features=features))]
    np.testing.assert_array_equal(pruned.x, full.x[:, at])
    np.testing.assert_array_equal(pruned.y, full.y)
    assert len(full.y) > 100


@pytest.mark.parametrize("features", SETS)
def test_a_model_is_asked_with_the_columns_of_its_fit(shop, features: str) -> None:
    sales, built, calendar, series = shop
    coding = Coding.of(calendar, series)
    past = sales.filter(pl.col("date") <= CUTOFF)
    spec = replace(GbmSpec.of_size(features, 12), rounds=20, threads=1)
    part = gbm.examples(built, past, series, calendar, coding, CUTOFF, 14, spec)
    fitted = gbm.fit([part], coding, spec)
    model = gbm.Model(fitted.artefact)
    assert model.columns == gbm.columns(spec)
    ahead = sales.filter(pl.col("date") > CUTOFF).select("item_id", "date", "sell_price")
    rows = model.predict(built.filter(date=CUTOFF), ahead, series, calendar, CUTOFF, 14)
    assert rows.height == 12 * 14 and rows["mean"].is_finite().all()


def test_few_examples_are_learnt_by_one_thread_and_more_threads_learn_the_same(
    shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sales, built, calendar, series = shop
    coding = Coding.of(calendar, series)
    past = sales.filter(pl.col("date") <= CUTOFF)
    spec = replace(GbmSpec.of_size("full", 12), rounds=20, threads=2)
    part = gbm.examples(built, past, series, calendar, coding, CUTOFF, 14, spec)

    def learnt() -> tuple[str, str]:
        model = json.loads(gbm.fit([part], coding, spec).artefact)["model"]
        trees, _, parameters = model.partition("[num_threads: ")
        return trees, parameters[0]

    alone = learnt()
    monkeypatch.setattr(gbm, "_ALONE", len(part.y))
    together = learnt()
    assert (alone[1], together[1]) == ("1", "2")
    assert alone[0] == together[0]
