"""Stock-out risk equals what simulated shelves do, and every inventory row gets an answer."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.quantiles import ANY, Curve, Spread, calibrate, lead_time_pairs
from forecast_core.stockout import StockError, stockout_risk

CUTOFF = date(2020, 1, 1)
HORIZON = 28
RNG = np.random.default_rng


def shop(mean: np.ndarray) -> pl.DataFrame:
    """`prediction_daily`-like rows of daily means [items, days]."""
    items, days = mean.shape
    return pl.DataFrame(
        {
            "item_id": np.repeat([f"I{k:05}" for k in range(items)], days),
            "store_id": "s",
            "cutoff": CUTOFF,
            "ds": [CUTOFF + timedelta(days=k + 1) for k in range(days)] * items,
            "mean": mean.reshape(-1),
        }
    )


def stock(on_hand: np.ndarray, on_order: np.ndarray, lead: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item_id": [f"I{k:05}" for k in range(len(lead))],
            "store_id": "s",
            "on_hand": on_hand.astype(float),
            "on_order": on_order.astype(float),
            "lead_time_days": lead,
        }
    )


def one_segment(inventory: pl.DataFrame) -> pl.DataFrame:
    return inventory.select("item_id", "store_id", segment=pl.lit("x"))


def flat(inflation: float) -> Spread:
    return Spread({ANY: Curve(np.array([1.0]), np.array([inflation]))}, {ANY: 1})


def test_it_equals_monte_carlo_over_independent_days():
    rng = RNG(0)
    items, draws, inflation = 40, 20_000, 2.5
    mean = rng.lognormal(0, 1, (items, HORIZON))
    lead = rng.choice([2, 5, 10, 28], items)
    expected = np.array([mean[k, : lead[k]].sum() for k in range(items)])
    on_hand = rng.poisson(expected * 0.8)
    on_order = rng.poisson(expected * 0.5)
    inventory = stock(on_hand, on_order, lead)
    got = stockout_risk(inventory, shop(mean), one_segment(inventory), {7: flat(inflation)}, 0.9)
    for k, row in enumerate(got.iter_rows(named=True)):
        days = mean[k, : lead[k]]
        demand = rng.negative_binomial(
            days / (inflation - 1), 1 / inflation, (draws, len(days))
        ).sum(axis=1)
        assert row["lead_time_demand"] == pytest.approx(expected[k])
        for column, held in (
            ("stockout_probability", on_hand[k] + on_order[k]),
            ("stockout_if_late", on_hand[k]),
        ):
            assert row[column] == pytest.approx((demand > held).mean(), abs=0.02)
        # The least position that meets demand nine times in ten, to the noise of the draws.
        point = row["reorder_point"]
        assert (demand <= point).mean() >= 0.9 - 0.01
        assert point == 0 or (demand <= point - 1).mean() < 0.9 + 0.01
        assert row["order_units"] == max(point - on_hand[k] - on_order[k], 0)


def leaning_shop(seed: int, items: int = 6_000) -> tuple[pl.DataFrame, np.ndarray]:
    """Forecasts that lean: an item's whole month sells more or less than was thought."""
    rng = RNG(seed)
    mean = rng.lognormal(0, 0.7, (items, 1)) * rng.uniform(0.7, 1.3, (items, HORIZON))
    lean = rng.gamma(4, 1 / 4, (items, 1))
    units = rng.poisson(mean * lean)
    rows = shop(mean).with_columns(units=pl.Series(units.reshape(-1), dtype=pl.Float64))
    return rows.with_columns(segment=pl.lit("x")), units


def test_risk_learnt_from_sums_holds_where_forecasts_lean():
    past, _ = leaning_shop(1)
    ahead, units = leaning_shop(2)
    lead_days = 10
    spreads = {lead_days: calibrate(lead_time_pairs(past, lead_days))}
    lead = np.full(len(units), lead_days)
    demand = units[:, :lead_days].sum(axis=1)
    expected = (
        ahead.group_by("item_id", maintain_order=True)
        .agg(pl.col("mean").head(lead_days).sum())["mean"]
        .to_numpy()
    )
    held = np.round(expected * RNG(3).uniform(0.5, 2.5, len(expected)))
    inventory = stock(held, np.zeros(len(held)), lead)
    got = stockout_risk(inventory, ahead, one_segment(inventory), spreads, 0.95)
    told, happened = got["stockout_probability"].to_numpy(), demand > held
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        of = (told >= low) & (told <= high)
        assert happened[of].mean() == pytest.approx(told[of].mean(), abs=0.04)
    assert (demand <= got["reorder_point"].to_numpy()).mean() == pytest.approx(0.95, abs=0.015)
    # Days that knew nothing of each other would promise too much.
    daily = {1: calibrate(past)}
    naive = stockout_risk(inventory, ahead, one_segment(inventory), daily, 0.95)
    assert (demand <= naive["reorder_point"].to_numpy()).mean() < 0.935


def test_every_inventory_row_gets_an_answer_or_a_reason():
    inventory = stock(np.zeros(6), np.zeros(6), np.array([5, 29, 0, 5, 5, 5])).with_columns(
        item_id=pl.Series(["I00000", "I00001", "I00002", "I00003", "I00004", "absent"]),
        on_hand=pl.Series([3.0, 3.0, 3.0, None, float("nan"), 3.0]),
        lead_time_days=pl.Series([5, 29, 0, 5, 5, 5]),
    )
    got = stockout_risk(
        inventory, shop(np.ones((5, HORIZON))), one_segment(inventory), {5: flat(1.5)}
    )
    assert got["item_id"].to_list() == inventory["item_id"].to_list()
    assert got["reason"].to_list() == [
        None,
        "lead time of 29 days: the forecast reaches 28",
        "lead time of 0 days: a whole day at least is needed",
        "stock on hand or on order is unknown",
        "stock on hand or on order is unknown",
        "no forecast",
    ]
    answered = got["reason"].is_null()
    assert (got["stockout_probability"].is_not_null() == answered).all()
    assert (got["reorder_point"].is_not_null() == answered).all()


def test_an_unknown_lead_time_has_a_reason():
    inventory = stock(np.ones(1), np.ones(1), np.array([5])).with_columns(
        lead_time_days=pl.lit(None, dtype=pl.Int64)
    )
    got = stockout_risk(
        inventory, shop(np.ones((1, HORIZON))), one_segment(inventory), {5: flat(1.5)}
    )
    assert got["reason"][0] == "lead time of unknown days: a whole day at least is needed"


def test_what_never_sells_never_runs_out_and_is_not_ordered():
    inventory = stock(np.zeros(1), np.zeros(1), np.array([7]))
    got = stockout_risk(
        inventory, shop(np.zeros((1, HORIZON))), one_segment(inventory), {7: flat(2.0)}
    ).row(0, named=True)
    assert got["stockout_probability"] == 0 and got["reorder_point"] == got["order_units"] == 0


def test_owed_units_are_a_stockout_already():
    inventory = stock(np.array([-2.0]), np.zeros(1), np.array([7]))
    got = stockout_risk(
        inventory, shop(np.ones((1, HORIZON))), one_segment(inventory), {7: flat(2.0)}
    ).row(0, named=True)
    assert got["stockout_probability"] == 1.0


def test_a_lead_time_takes_the_nearest_spread():
    inventory = stock(np.full(2, 9.0), np.zeros(2), np.array([3, 12]))
    prediction, segments = shop(np.ones((2, HORIZON))), None
    segments = one_segment(inventory)
    both = stockout_risk(inventory, prediction, segments, {2: flat(1.2), 14: flat(6.0)})
    near = stockout_risk(inventory[:1], prediction, segments, {2: flat(1.2)})
    far = stockout_risk(inventory[1:], prediction, segments, {14: flat(6.0)})
    assert both.equals(pl.concat([near, far]))


def test_bad_input_is_refused_by_name():
    inventory = stock(np.ones(1), np.ones(1), np.array([5]))
    prediction, segments = shop(np.ones((1, HORIZON))), one_segment(inventory)
    spreads = {5: flat(1.5)}
    with pytest.raises(StockError, match=r"service level 95: give a chance"):
        stockout_risk(inventory, prediction, segments, spreads, 95)
    with pytest.raises(StockError, match="no spread"):
        stockout_risk(inventory, prediction, segments, {})
    with pytest.raises(StockError, match="I00000/s has 2 inventory rows"):
        stockout_risk(pl.concat([inventory, inventory]), prediction, segments, spreads)
    two = pl.concat([prediction, prediction.with_columns(cutoff=pl.lit(date(2020, 1, 2)))])
    with pytest.raises(StockError, match="2 cutoffs"):
        stockout_risk(inventory, two, segments, spreads)
