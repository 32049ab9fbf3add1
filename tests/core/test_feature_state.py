"""Features by a window that moves a day at a time: what a rebuild over history would give."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from forecast_core.generate import DemoSpec
from forecast_core.rungs import origin_features
from forecast_core.rungs.feature_state import WINDOW_DAYS, FeatureState, FeatureStateError
from forecast_core.source.clean import clean
from resources.sources import DemoSource

SPEC = DemoSpec(series=25, stores=1, days=470)
STORE = SPEC.store_ids[0]
START = SPEC.last - timedelta(days=9)


@pytest.fixture(scope="module")
def sales() -> pl.DataFrame:
    source = DemoSource(SPEC)
    raw = source.sales(STORE, SPEC.first, SPEC.last), source.prices(STORE, SPEC.first, SPEC.last)
    return clean(*raw).kept


def _until(sales: pl.DataFrame, last: date) -> pl.DataFrame:
    since = last - timedelta(days=WINDOW_DAYS - 1)
    return sales.filter(pl.col("date").is_between(since, last))


def test_nine_nights_give_what_nine_rebuilds_give(sales: pl.DataFrame) -> None:
    items = sales["item_id"].unique()
    state = FeatureState.of(_until(sales, START), START)
    assert set(state.items) == set(items)
    for k in range(1, 10):
        day = START + timedelta(days=k)
        state = FeatureState.from_bytes(state.push(sales.filter(date=day)).to_bytes())
        rebuilt = origin_features.build(_until(sales, day), [day])
        ours = state.features()
        assert_frame_equal(ours, rebuilt, check_row_order=False, abs_tol=1e-5)


def test_its_size_does_not_grow_with_history(sales: pl.DataFrame) -> None:
    state = FeatureState.of(_until(sales, START), START)
    before = state.units.copy()
    state.push(sales.filter(date=START + timedelta(days=1)))
    assert state.units.shape == (WINDOW_DAYS, len(state.items))
    changed = ~np.isclose(state.units, before, equal_nan=True).all(axis=1)
    assert set(np.flatnonzero(changed)) <= {state.head}  # one day went, one came


def test_what_does_not_follow_is_refused_by_name(sales: pl.DataFrame) -> None:
    state = FeatureState.of(_until(sales, START), START)
    following = sales.filter(date=START + timedelta(days=1))
    with pytest.raises(FeatureStateError, match=str(START + timedelta(days=1))):
        state.push(sales.filter(date=START))
    with pytest.raises(FeatureStateError, match="NEW_ITEM is new"):
        state.push(following.with_columns(item_id=pl.lit("NEW_ITEM")))
    with pytest.raises(FeatureStateError, match="two rows"):
        state.push(pl.concat([following, following]))
    with pytest.raises(FeatureStateError, match="rebuild it"):
        FeatureState.from_bytes(b"PK not an archive")
