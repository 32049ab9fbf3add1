"""Coarse nodes forecast from their own sums, and errors that say how far each is to be trusted."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.hierarchy import Hierarchy
from forecast_core.node_forecasts import (
    DAYS,
    WEEKS,
    NodeSales,
    error_variance,
    forecast_nodes,
    node_sales,
)
from forecast_core.reconciliation_policy import Reconciliation, ReconciliationError

CUTOFF = date(2025, 6, 1)
SERIES = pl.DataFrame(
    [
        {"item_id": f"I{i}", "dept_id": f"D{i % 2}", "cat_id": "C", "store_id": f"S{s}",
         "state_id": "T"}
        for s in range(2) for i in range(4)
    ]
)  # fmt: skip


def sold(rng: np.random.Generator) -> pl.DataFrame:
    days = [CUTOFF - timedelta(days=k) for k in range(DAYS.history - 1, -1, -1)]
    weekday = np.array([1.0 + (day.weekday() >= 5) for day in days])
    frames = [
        SERIES[row].join(pl.DataFrame({"date": days}), how="cross").with_columns(
            units=pl.Series(rng.poisson(3 * weekday).astype(np.float64))
        )
        for row in range(SERIES.height)
    ]  # fmt: skip
    return pl.concat(frames)


def by_store(rows: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    parts = rows.partition_by("store_id", as_dict=True)
    return [(str(store), part) for (store,), part in parts.items()]


def test_nodes_sum_their_series_store_by_store() -> None:
    rows = sold(np.random.default_rng(1))
    hierarchy = Hierarchy.of(SERIES)
    strange = rows.filter(item_id="I0").with_columns(item_id=pl.lit("unknown"))
    held = node_sales(by_store(pl.concat([rows, strange])), hierarchy, CUTOFF)
    first = CUTOFF - timedelta(days=DAYS.history - 1)
    units = hierarchy.matrix(rows, "units", first, CUTOFF)
    np.testing.assert_allclose(held.above, hierarchy.aggregate_above(units))
    before = units[:, -DAYS.held_back - 28 : -DAYS.held_back].reshape(len(units), 4, 7).mean(axis=1)
    np.testing.assert_allclose(held.errors, units[:, -DAYS.held_back :] - np.tile(before, 4))


def test_a_weekday_pattern_is_forecast_and_trusted_more_than_its_noise() -> None:
    hierarchy = Hierarchy.of(SERIES)
    held = node_sales(by_store(sold(np.random.default_rng(2))), hierarchy, CUTOFF)
    nodes = forecast_nodes(held, hierarchy, 14)
    total = nodes.mean[0]
    weekend = np.array([(CUTOFF + timedelta(days=k)).weekday() >= 5 for k in range(1, 15)])
    assert total[weekend].mean() > 1.6 * total[~weekend].mean()
    variance = error_variance(held, nodes, hierarchy)
    assert variance.shape == (hierarchy.n_nodes,) and (variance > 0).all()
    assert variance[0] > variance[hierarchy.bottom].mean()


def in_weeks(level: np.ndarray) -> list[tuple[str, pl.DataFrame]]:
    """Sales around a level; neighbouring dates stand for weeks, as compacted weekly data has it."""
    rng = np.random.default_rng(3)
    days = [CUTOFF - timedelta(days=k) for k in range(WEEKS.history - 1, -1, -1)]
    every = SERIES.join(pl.DataFrame({"date": days}), how="cross")
    drawn = rng.poisson(np.tile(level, SERIES.height)).astype(np.float64)
    return by_store(every.with_columns(units=pl.Series(drawn)))


def test_a_year_of_weeks_is_forecast_from_three_of_them() -> None:
    hierarchy, ahead = Hierarchy.of(SERIES), 8
    year = 5 + 4 * np.sin(2 * np.pi * np.arange(WEEKS.history + ahead) / WEEKS.season)
    held = node_sales(in_weeks(year[:-ahead]), hierarchy, CUTOFF, WEEKS)
    assert held.errors.shape == (SERIES.height, WEEKS.held_back)
    nodes = forecast_nodes(held, hierarchy, ahead)
    assert "ets" not in nodes.methods.values()
    truth = SERIES.height * year[-ahead:]
    usual = held.above[0, -WEEKS.recent :].mean()
    assert np.abs(nodes.mean[0] - truth).mean() < 0.5 * np.abs(usual - truth).mean()
    variance = error_variance(held, nodes, hierarchy)
    assert variance.shape == (hierarchy.n_nodes,) and (variance > 0).all()


def test_a_young_node_is_forecast_by_its_own_weeks_not_by_those_before_it() -> None:
    """Its siblings repeat a year; it has none, and the weeks before it opened are no year of 0."""
    hierarchy = Hierarchy.of(SERIES, [("item_id",), ("item_id", "store_id")], {})
    year = 50 + 40 * np.sin(2 * np.pi * np.arange(WEEKS.history) / WEEKS.season)
    above = np.tile(year, (4, 1))
    above[3] = np.where(np.arange(WEEKS.history) >= WEEKS.history - 30, 6.0, 0.0)
    sales = NodeSales(above, np.zeros((SERIES.height, WEEKS.held_back)), WEEKS)
    nodes = forecast_nodes(sales, hierarchy, 8)
    assert nodes.methods["item_id"] == "seasonal", "nor do those weeks speak against a year"
    assert nodes.mean[3] == pytest.approx(np.full(8, 6.0), rel=0.1)


@settings(max_examples=15, deadline=None)
@given(alive=st.integers(0, DAYS.history), horizon=st.integers(1, 60), level=st.floats(0, 1e4))
def test_any_history_gives_finite_forecasts(alive: int, horizon: int, level: float) -> None:
    hierarchy = Hierarchy.of(SERIES, [("store_id",), ("item_id", "store_id")], {})
    above = np.zeros((2, DAYS.history))
    above[0, DAYS.history - alive :] = level
    sales = NodeSales(above, np.zeros((hierarchy.n_series, DAYS.held_back)))
    nodes = forecast_nodes(sales, hierarchy, horizon)
    assert nodes.mean.shape == (2, horizon)
    assert np.isfinite(nodes.mean).all() and (nodes.mean >= 0).all()
    assert (nodes.mean[1] == 0).all()


def test_coarse_levels_are_those_that_fit_and_the_series() -> None:
    hierarchy = Hierarchy.of(SERIES)
    for most in (1, 3, 9, 100):
        coarse = hierarchy.coarse(most)
        assert coarse.n_nodes - coarse.n_series <= most
        assert coarse.series.equals(hierarchy.series) and coarse.levels[-1] == hierarchy.levels[-1]
        values = np.arange(hierarchy.n_series, dtype=float)[:, None]
        np.testing.assert_allclose(coarse.aggregate(values)[0], values.sum())
    assert hierarchy.coarse(100).levels == hierarchy.levels


def test_a_policy_is_refused_by_its_place() -> None:
    assert Reconciliation.parse({"version": "1"}).levels[0] == ()
    wrong = [
        ({"method": "ols"}, "method"),
        ({"levels": [["store_id"], ["store_id"]]}, "store_id stands there twice"),
        ({"levels": [["store_id", "item_id"]]}, "leave item_id/store_id out"),
        ({"own_nodes": 0}, "own_nodes"),
        ({"nodes": 5}, "nodes"),
    ]
    for content, said in wrong:
        with pytest.raises(ReconciliationError, match=said):
            Reconciliation.parse({"version": "1", **content})


def test_a_variance_is_the_same_for_every_night_of_its_period() -> None:
    policy = Reconciliation(version="1", refresh_days=10)
    nights = [CUTOFF + timedelta(days=k) for k in range(30)]
    since = [policy.since(night) for night in nights]
    assert all(0 <= (night - day).days < 10 for night, day in zip(nights, since, strict=True))
    assert len(set(since)) <= 4
