"""Scores equal a slow obvious loop, in whatever parts the history comes; M5's own figures hold."""

import importlib.util
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.evaluation import accuracy
from forecast_core.hierarchy import M5_LEVELS, Hierarchy, HierarchyError, level_name
from forecast_core.schema import TABLES

FIRST = date(2020, 1, 1)


def panel(items: int, stores: int) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "item_id": f"I{i}",
                "dept_id": f"D{i % 3}",
                "cat_id": f"C{i % 3 % 2}",
                "store_id": f"S{s}",
                "state_id": f"T{s % 2}",
            }
            for i in range(items)
            for s in range(stores)
        ]
    )


def long(series: pl.DataFrame, values: np.ndarray, name: str, first: date = FIRST, day="date"):
    days = [first + timedelta(days=k) for k in range(values.shape[1])]
    rows = series.join(pl.DataFrame({day: days}), how="cross", maintain_order="left_right")
    return rows.with_columns(pl.Series(name, values.reshape(-1), dtype=pl.Float64))


def parts(frame: pl.DataFrame, column: str):
    for (name,), rows in frame.group_by(column, maintain_order=True):
        yield str(name), rows


def obvious_wrmsse(series, history, price, forecast, actual) -> dict[str, float]:
    """The competition's definition, one node at a time; a node that never changed is left out."""
    out = {}
    for level in M5_LEVELS:
        members: dict[tuple, list[int]] = {}
        for row, attributes in enumerate(series.iter_rows(named=True)):
            members.setdefault(tuple(attributes[c] for c in level), []).append(row)
        total, score = 0.0, 0.0
        for rows in members.values():
            sums = history[rows].sum(0)
            first = next((k for k, units in enumerate(sums) if units != 0), None)
            if first is None or first == len(sums) - 1:
                continue
            changes = [(sums[k] - sums[k - 1]) ** 2 for k in range(first + 1, len(sums))]
            if sum(changes) == 0:
                continue
            weight = float((history[rows, -28:] * price[rows, -28:]).sum())
            error = forecast[rows].sum(0) - actual[rows].sum(0)
            score += weight * np.sqrt(np.mean(error**2) / np.mean(changes))
            total += weight
        out[level_name(level)] = score / total if total else 0.0
    return out


@settings(max_examples=30, deadline=None)
@given(
    items=st.integers(1, 5),
    stores=st.integers(1, 4),
    days=st.integers(30, 50),
    rate=st.floats(0.05, 3),
    by=st.sampled_from(["store_id", "state_id", "item_id"]),
    seed=st.integers(0, 2**16),
)
def test_wrmsse_equals_the_obvious_loop(items, stores, days, rate, by, seed):
    rng = np.random.default_rng(seed)
    series = panel(items, stores)
    n = series.height
    history = rng.poisson(rate, (n, days)).astype(float)
    history[np.arange(days) < rng.integers(0, days, (n, 1))] = 0.0  # launches
    price = rng.uniform(1, 9, (n, days))
    forecast, actual = rng.uniform(0, 4, (n, 5)), rng.poisson(rate, (n, 5)).astype(float)
    frame = long(series, history, "units").with_columns(sell_price=pl.Series(price.reshape(-1)))
    cutoff = FIRST + timedelta(days=days - 1)
    scales = accuracy.scales(parts(frame, by), Hierarchy.of(series), FIRST, cutoff)
    got = dict(accuracy.score(forecast, actual, scales).select("level", "wrmsse").iter_rows())
    expected = obvious_wrmsse(series, history, price, forecast, actual)
    for level, value in expected.items():
        assert (got[level] or 0.0) == pytest.approx(value, rel=1e-9, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5))
def test_mean_changes_equal_the_obvious_loop(rows):
    squared, absolute = accuracy.mean_changes(np.array(rows, dtype=float))
    for k, row in enumerate(rows):
        sold = [day for day, units in enumerate(row) if units]
        change = [row[d] - row[d - 1] for d in range(sold[0] + 1, 6)] if sold else []
        assert squared[k] == pytest.approx(np.mean(np.square(change)) if change else 0.0)
        assert absolute[k] == pytest.approx(np.mean(np.abs(change)) if change else 0.0)


@pytest.fixture
def small():
    """Four series, forty days, and the scales of them."""
    series = panel(2, 2)
    rng = np.random.default_rng(3)
    history = rng.poisson(3, (4, 40)).astype(float)
    frame = long(series, history, "units").with_columns(sell_price=pl.lit(2.0))
    cutoff = FIRST + timedelta(days=39)
    scales = accuracy.scales(parts(frame, "store_id"), Hierarchy.of(series), FIRST, cutoff)
    return series, scales, cutoff


def published(series, cutoff, values, **quantiles):
    first = cutoff + timedelta(days=1)
    rows = long(series.select("item_id", "store_id"), values, "mean", first, "ds")
    laid = {name: pl.Series(at.reshape(-1)) for name, at in quantiles.items()}
    return rows.with_columns(cutoff=pl.lit(cutoff), **laid)


def test_evaluate_files_rows_by_level_and_forecaster(small):
    series, scales, cutoff = small
    forecast, actual = np.full((4, 7), 2.0), np.full((4, 7), 3.0)
    sold = long(series, actual, "units", cutoff + timedelta(days=1))
    rows = accuracy.evaluate(published(series, cutoff, forecast), sold, scales, "naive")
    assert rows.height == len(M5_LEVELS) + 1
    assert set(TABLES["eval_accuracy"].columns) <= set(rows.columns)
    average = rows.filter(level="Average").row(0, named=True)
    assert average["wape"] == pytest.approx(1 / 3)
    assert average["bias"] == pytest.approx(-1 / 3)
    assert average["wrmsse"] == pytest.approx(accuracy.wrmsse(forecast, actual, scales))
    assert average["days"] == 7 and average["unknown"] == 0


def test_only_days_with_actuals_are_scored_and_unknown_cells_are_counted(small):
    series, scales, cutoff = small
    sold = long(series, np.full((4, 2), 3.0), "units", cutoff + timedelta(days=1))[1:]
    prediction = published(series, cutoff, np.full((4, 7), 3.0))
    rows = accuracy.evaluate(prediction, sold, scales, "naive")
    assert rows["days"].unique().to_list() == [2]
    assert rows["unknown"].unique().to_list() == [1]
    assert rows["wape"].to_list() == [0.0] * rows.height


def test_no_actuals_yet_gives_no_rows(small):
    series, scales, cutoff = small
    prediction = published(series, cutoff, np.full((4, 7), 3.0))
    past = long(series, np.ones((4, 3)), "units", FIRST)
    assert accuracy.evaluate(prediction, past, scales, "naive").is_empty()


def test_a_sold_day_without_forecast_is_refused(small):
    series, scales, cutoff = small
    sold = long(series, np.full((4, 3), 3.0), "units", cutoff + timedelta(days=1))
    prediction = published(series, cutoff, np.full((4, 3), 3.0))
    with pytest.raises(HierarchyError, match=r"I0/S0 sold on .* no finite forecast"):
        accuracy.evaluate(prediction[1:], sold, scales, "naive")


def test_quantiles_are_scored_at_the_bottom(small):
    series, scales, cutoff = small
    actual = np.tile([1.0, 5.0], (4, 2))
    sold = long(series, actual, "units", cutoff + timedelta(days=1))
    bounds = {"q10": np.full((4, 4), 0.0), "q90": np.full((4, 4), 2.0)}
    prediction = published(series, cutoff, np.full((4, 4), 1.0), **bounds)
    rows = accuracy.evaluate(prediction, sold, scales, "naive")
    bottom = rows.filter(level="item_id/store_id").row(0, named=True)
    assert bottom["coverage80"] == 0.5
    # q10=0: .1 x (1, 5); q90=2: .1 x 1 over, .9 x 3 under; each series over its own change.
    loss = np.mean([[0.1, 0.5], [0.1, 2.7]])
    span, order = scales.hierarchy.spans[-1], scales.hierarchy.codes[-1]
    scale, weight = scales.absolute[span][order], scales.weight[span][order]
    assert bottom["scaled_pinball"] == pytest.approx(float((loss / scale) @ weight))
    assert rows.filter(level="Total")["coverage80"].to_list() == [None]


def test_quantile_columns_by_name():
    assert accuracy.quantile_levels(["mean", "q10", "q975", "quality"]) == {
        "q10": 0.1,
        "q975": 0.975,
    }


def test_value_added_against_a_floor(small):
    series, scales, cutoff = small
    sold = long(series, np.full((4, 2), 4.0), "units", cutoff + timedelta(days=1))
    scored = [
        accuracy.evaluate(published(series, cutoff, np.full((4, 2), at)), sold, scales, name)
        for name, at in (("floor", 2.0), ("better", 3.0))
    ]
    rows = accuracy.fva(pl.concat(scored), "floor")
    added = rows.filter(level="Average").sort("forecaster")
    assert added["fva_wrmsse"].to_list() == pytest.approx([0.5, 0.0])
    with pytest.raises(ValueError, match="no rows of the floor 'absent'"):
        accuracy.fva(pl.concat(scored), "absent")


def test_scores_by_group_add_up_to_the_last_level(small):
    _, scales, _ = small
    rng = np.random.default_rng(0)
    forecast, actual = rng.random((4, 6)) * 5, rng.poisson(3, (4, 6)).astype(float)
    grouped = accuracy.by_group(forecast, actual, scales, pl.Series(["A", "B", "A", "B"]))
    bottom = accuracy.score(forecast, actual, scales).filter(level="item_id/store_id")
    assert float((grouped["weight"] * grouped["wrmsse"]).sum()) == pytest.approx(
        bottom["wrmsse"].item()
    )
    assert grouped["units"].sum() == actual.sum()


@pytest.mark.m5
def test_m5_scores_equal_the_reference_scorer(m5_dir):
    path = m5_dir.parent.parent / "tools" / "wrmsse_d1914_1941.py"
    if not path.exists():
        pytest.skip(f"no reference scorer at {path}")
    spec = importlib.util.spec_from_file_location("reference_scorer", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    series, units = reference.s, reference.Y
    calendar = pl.read_csv(m5_dir / "calendar.csv", try_parse_dates=True)
    prices = pl.read_parquet(m5_dir / "sell_prices.parquet").cast({"wm_yr_wk": pl.Int64})
    week = calendar.head(1913).select("date", "wm_yr_wk")
    hierarchy = Hierarchy.of(series)

    def stores():
        for store in series["store_id"].unique(maintain_order=True):
            rows = np.nonzero((series["store_id"] == store).to_numpy())[0]
            attributes = series[rows].select("item_id", "store_id")
            frame = long(attributes, units[rows, :1913], "units", date(2011, 1, 29))
            frame = frame.join(week, on="date", how="left", maintain_order="left")
            on = ["store_id", "item_id", "wm_yr_wk"]
            yield store, frame.join(prices, on=on, how="left")

    scales = accuracy.scales(stores(), hierarchy, date(2011, 1, 29), date(2016, 4, 24))
    past, truth = units[:, :1913], units[:, 1913:]
    for name, forecast, known in (
        ("naive", np.repeat(past[:, -1:], 28, 1), 1.464),
        ("snaive", np.tile(past[:, -7:], 4), 0.870),
    ):
        got = accuracy.score(forecast, truth, scales)
        expected = reference.wrmsse(forecast)
        np.testing.assert_allclose(got["wrmsse"].to_numpy()[:12], expected, atol=1e-4)
        assert got["wrmsse"][12] == pytest.approx(np.mean(expected), abs=1e-4), name
        assert got["wrmsse"][12] == pytest.approx(known, abs=5e-4), name
