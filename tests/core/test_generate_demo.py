"""Generated data: the same bytes for the same specification, of M5's shape, and learnable."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.generate import DemoSpec, StoreHistory, history, raw_calendar
from forecast_core.schema import TABLES

SPEC = DemoSpec(series=90, stores=3, days=500, seed=11)


@pytest.fixture(scope="module")
def demo() -> dict[str, StoreHistory]:
    """The default demo, all stores."""
    spec = DemoSpec()
    return {store: history(spec, store) for store in spec.store_ids}


@pytest.fixture(scope="module")
def small_store() -> StoreHistory:
    """One store of the small demo."""
    return history(SPEC, "CA_1")


def test_same_spec_same_rows_and_another_seed_others() -> None:
    one, two = (history(SPEC, "TX_1") for _ in range(2))
    window = (SPEC.first, SPEC.last)
    assert one.sales(*window).equals(two.sales(*window))
    assert one.prices(*window).equals(two.prices(*window))
    assert one.inventory(*window).equals(two.inventory(*window))
    other = history(DemoSpec(series=90, stores=3, days=500, seed=12), "TX_1")
    assert not one.sales(*window).equals(other.sales(*window))


@settings(max_examples=15, deadline=None)
@given(start=st.integers(-20, 490), length=st.integers(1, 60))
def test_a_window_is_a_cut_of_the_whole(small_store: StoreHistory, start: int, length: int) -> None:
    store = small_store
    first = SPEC.first + timedelta(start)
    last = first + timedelta(length - 1)
    inside = pl.col("date").is_between(first, last)
    whole = (SPEC.first, SPEC.end)
    assert store.sales(first, last).equals(store.sales(*whole).filter(inside))
    assert store.inventory(first, last).equals(store.inventory(*whole).filter(inside))
    daily = _daily(store.prices(first, last))
    assert daily.equals(_daily(store.prices(*whole)).filter(inside))


def _daily(prices: pl.DataFrame) -> pl.DataFrame:
    """Price spans unrolled to a row a day, the slow and obvious way."""
    rows = [
        (item, start + timedelta(n), value)
        for item, start, until, value in prices.select(
            "item_id", "date", "until", "sell_price"
        ).iter_rows()
        for n in range((until - start).days + 1)
    ]
    schema = {"item_id": pl.String, "date": pl.Date, "sell_price": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("item_id", "date")


def test_tables_follow_the_schema_and_their_keys_are_unique() -> None:
    store = history(SPEC, "WI_1")
    window = (SPEC.first, SPEC.end)
    for name, frame in (
        ("raw_sales", store.sales(*window)),
        ("raw_prices", store.prices(*window)),
        ("raw_inventory", store.inventory(*window)),
    ):
        table = TABLES[name]
        assert frame.schema == table.schema
        assert not frame.is_empty()
        assert frame.select(table.key).is_duplicated().sum() == 0
        assert frame.equals(frame.sort(*table.sort))
    assert store.sales(*window)["source_row"].n_unique() == store.sales(*window).height


def test_every_price_span_stands_within_a_month() -> None:
    prices = history(SPEC, "CA_1").prices(SPEC.first, SPEC.end)
    month = prices.select(a=pl.col("date").dt.month_start(), b=pl.col("until").dt.month_start())
    assert (month["a"] == month["b"]).all()
    assert (prices["date"] <= prices["until"]).all()
    assert prices["sell_price"].min() > 0
    overlap = pl.col("date").shift(-1).over("item_id") <= pl.col("until")
    assert not prices.select(overlap.any()).item()


def test_calendar_and_prices_reach_past_the_last_day() -> None:
    calendar = raw_calendar(SPEC)
    days = calendar["date"]
    assert (days[0], days[-1]) == (SPEC.first, SPEC.last + timedelta(56))
    assert days.diff().drop_nulls().unique().to_list() == [timedelta(days=1)]
    assert history(SPEC, "CA_1").prices(SPEC.first, SPEC.end)["until"].max() == days[-1]
    assert {"snap_CA", "snap_TX", "snap_WI"} < set(calendar.columns)
    events = dict(calendar.drop_nulls("event_name_1").select("date", "event_name_1").iter_rows())
    assert events[date(2024, 11, 28)] == "Thanksgiving"  # the fourth Thursday
    assert events[date(2025, 5, 26)] == "MemorialDay"  # the last Monday
    assert events[date(2024, 12, 25)] == "Christmas"


@pytest.mark.parametrize("series,stores", [(50, 3), (7, 7), (1, 1), (601, 4)])
def test_series_are_dealt_out_exactly(series: int, stores: int) -> None:
    spec = DemoSpec(series=series, stores=stores, days=60)
    items = [history(spec, store).items for store in spec.store_ids]
    assert sum(frame.height for frame in items) == series
    assert all(frame["item_id"].n_unique() == frame.height for frame in items)
    if series >= 20 * stores:
        assert all(frame["dept_id"].n_unique() == 7 for frame in items)


def test_items_are_the_same_in_a_store_with_one_more() -> None:
    spec = DemoSpec(series=41, stores=2, days=400)
    more, fewer = (history(spec, store) for store in spec.store_ids)
    assert (more.items.height, fewer.items.height) == (21, 20)
    shared = np.isin(more.items["item_id"].to_numpy(), fewer.items["item_id"].to_numpy())
    on_sale = np.isfinite(more.price[shared]) & np.isfinite(fewer.price)
    assert ((more.promoted[shared] == fewer.promoted) | ~on_sale).all()  # chain-wide
    ratio = (more.price[shared] / fewer.price)[on_sale]
    assert np.abs(ratio - 1 / 0.96).max() < 0.15  # TX beside CA, up to rounding


def test_two_thirds_zeros_with_fast_movers(demo: dict[str, StoreHistory]) -> None:
    sold = np.concatenate([store.stock.sold for store in demo.values()])
    assert sold.shape == (600, 730)
    assert 0.60 < (sold == 0).mean() < 0.72
    assert np.quantile(sold.mean(axis=1), 0.99) > 5
    assert (sold == np.round(sold)).all() and sold.min() >= 0


def test_weekends_and_promotions_sell_more(demo: dict[str, StoreHistory]) -> None:
    for store in demo.values():
        truth = store.truth(store.spec.first, store.spec.last)
        by_day = truth.group_by(pl.col("date").dt.weekday()).agg(pl.col("units").mean())
        mean = dict(by_day.iter_rows())
        assert min(mean[6], mean[7]) > 1.2 * max(mean[2], mean[3])
        # Within the item: what is promoted also differs in other ways.
        items = truth.group_by("item_id", "promoted").agg(pl.col("expected").mean())
        both = items.pivot("promoted", index="item_id", values="expected").drop_nulls()
        assert (both["true"] / both["false"]).median() > 1.3


def test_launches_and_discontinuations(demo: dict[str, StoreHistory]) -> None:
    for store in demo.values():
        on_sale = np.isfinite(store.price)
        launched, ended = ~on_sale[:, 0], ~on_sale[:, -1]
        assert 0.04 < launched.mean() < 0.30
        assert 0.01 < ended.mean() < 0.20
        assert (np.abs(np.diff(on_sale.astype(int), axis=1)).sum(axis=1) <= 2).all()
        sales = store.sales(store.spec.first, store.spec.last)
        daily = _daily(store.prices(store.spec.first, store.spec.last))
        off_sale = sales.join(daily, on=["item_id", "date"], how="anti")
        assert off_sale.height > 0 and off_sale["units"].sum() == 0


def test_the_truth_of_stock_outs(demo: dict[str, StoreHistory]) -> None:
    for store in demo.values():
        spec, stock = store.spec, store.stock
        truth = store.truth(spec.first, spec.last)
        assert (truth["units"] <= truth["demand"]).all()
        out = truth.filter("stocked_out")
        assert 0.001 < out.height / truth.height < 0.05
        assert (truth["demand"] > 0).sum() > 0
        empty = store.inventory(spec.first, spec.last).join(
            out, on=["date", "item_id", "store_id"], how="semi"
        )
        assert empty["on_hand"].max() == 0  # unmet demand left nothing on the shelf
        assert min(stock.on_hand.min(), stock.on_order.min()) >= 0
        # What leaves the shelf is what was sold; what comes was on order before, launch aside.
        arrived = np.diff(stock.on_hand, axis=1) + stock.sold[:, 1:]
        assert arrived.min() >= 0
        later = np.isfinite(store.price[:, :1]).ravel()
        assert (arrived[later] <= stock.on_order[later, :-1]).all()


def test_closed_on_christmas(demo: dict[str, StoreHistory]) -> None:
    for store in demo.values():
        assert store.sales(date(2024, 12, 25), date(2024, 12, 25))["units"].sum() == 0


def test_a_model_can_beat_the_seasonal_naive(demo: dict[str, StoreHistory]) -> None:
    for store in demo.values():
        sold, expected = store.stock.sold, store.expected
        past, actual = sold[:, :-28], sold[:, -28:]
        naive = np.tile(past[:, -7:], 4)
        weekday_mean = np.tile(past[:, -56:].reshape(len(past), 8, 7).mean(axis=1), 4)
        errors = [_rmse(actual, f) for f in (naive, weekday_mean, expected[:, -28:])]
        assert errors[1] < 0.9 * errors[0]
        assert errors[2] < 0.75 * errors[0]  # the most that a model can learn


def _rmse(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean over series of the scaled error, busy series first: what WRMSSE looks at."""
    error = np.sqrt(((actual - forecast) ** 2).mean(axis=1))
    return float(error.sum())


@pytest.mark.parametrize(
    "arguments",
    [{"series": 2, "stores": 3}, {"stores": 0}, {"days": 10}, {"seed": -1}, {"ahead": -1}],
)
def test_an_impossible_size_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"ask for|zero or more"):
        DemoSpec(**arguments)


def test_an_unknown_store_is_named() -> None:
    with pytest.raises(ValueError, match="no store 'NY_1'; there are CA_1, TX_1, WI_1"):
        history(SPEC, "NY_1")
