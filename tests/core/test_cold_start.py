"""Items without a history: forecast by who resembles them, by nothing of their own."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.rungs import cold_start

CUTOFF = date(2025, 6, 1)
DAYS = [CUTOFF - timedelta(days=k) for k in range(cold_start.DAYS)]


def _sales(store: str, item: str, daily: float, price: float, dept: str = "D1") -> pl.DataFrame:
    """Twice as much on Saturdays and Sundays, `daily` a day on average."""
    weight = [2.0 if day.weekday() >= 5 else 1.0 for day in DAYS]
    return pl.DataFrame(
        {
            "item_id": item,
            "store_id": store,
            "dept_id": dept,
            "date": DAYS,
            "units": [daily * w * 7 / 9 for w in weight],
            "sell_price": price,
            "on_sale": True,
        }
    )


def _new(item: str, price: float | None, dept: str = "D1") -> pl.DataFrame:
    return pl.DataFrame(
        {"item_id": [item], "store_id": ["S1"], "dept_id": [dept], "price": [price]},
        schema_overrides={"price": pl.Float64},
    )


@pytest.fixture(scope="module")
def sales() -> pl.DataFrame:
    """S2 sells twice what S1 does; cheap items sell ten times what dear ones do."""
    rows = []
    for k in range(40):
        cheap = k % 2 == 0
        daily, price = (10.0, 1.0) if cheap else (1.0, 20.0)
        rows += [_sales("S1", f"i{k}", daily, price), _sales("S2", f"i{k}", 2 * daily, price)]
    return pl.concat([*rows, _sales("S2", "known_there", 6.0, 5.0)])


def _forecast(sales: pl.DataFrame, new: pl.DataFrame, horizon: int = 28) -> pl.DataFrame:
    known = cold_start.levels(sales, CUTOFF)
    shape = cold_start.weekdays(sales.filter(store_id="S1"), CUTOFF)
    return cold_start.forecast(new, known, shape, CUTOFF, horizon)


def test_an_item_known_elsewhere_sells_here_by_the_stores_ratio(sales) -> None:
    found = _forecast(sales, _new("known_there", 5.0))
    assert found["mean"].mean() == pytest.approx(3.0, rel=0.02)
    weekend = found.filter(pl.col("ds").dt.weekday() >= 6)["mean"].mean()
    assert weekend == pytest.approx(2 * found.filter(pl.col("ds").dt.weekday() < 6)["mean"].mean())


def test_an_item_new_everywhere_follows_its_price(sales) -> None:
    cheap = _forecast(sales, _new("x", 1.1))["mean"].mean()
    dear = _forecast(sales, _new("x", 18.0))["mean"].mean()
    assert cheap == pytest.approx(8.0, rel=0.1) and dear == pytest.approx(0.8, rel=0.1)
    unknown = _forecast(sales, _new("x", None))["mean"].mean()
    assert dear < unknown < cheap


def test_its_own_rows_here_teach_nothing_and_nobody_to_ask_means_nothing(sales) -> None:
    hidden = pl.concat([sales, _sales("S1", "x", 500.0, 1.1)])
    assert _forecast(hidden, _new("x", 1.1))["mean"].mean() == pytest.approx(
        _forecast(sales, _new("x", 1.1))["mean"].mean()
    )
    alone = _forecast(sales.clear(), _new("x", 1.0), horizon=5)
    assert alone["mean"].to_list() == [0.0] * 5
    assert _forecast(sales, _new("x", 1.0).clear()).is_empty()


def test_a_store_that_opens_sells_as_the_others_do(sales) -> None:
    """Neither it nor its departments have sold anything: nothing to take a ratio of."""
    new = pl.concat([_new("i0", 1.0), _new("x", 1.1)]).with_columns(store_id=pl.lit("S3"))
    known = cold_start.levels(sales, CUTOFF)
    found = cold_start.forecast(new, known, cold_start.weekdays(sales, CUTOFF), CUTOFF, 28)
    daily = dict(found.group_by("item_id").agg(pl.col("mean").mean()).iter_rows())
    assert daily["i0"] == pytest.approx(15.0)  # 10 in one store, 20 in the other
    assert daily["x"] == pytest.approx(0.8 * 15.0, rel=0.1)
    weekend = found.filter(pl.col("ds").dt.weekday() >= 6)["mean"].mean()
    assert weekend == pytest.approx(2 * found.filter(pl.col("ds").dt.weekday() < 6)["mean"].mean())


def test_newcomers_have_a_price_to_come_and_no_sale_behind() -> None:
    members = pl.DataFrame({"item_id": ["a", "b", "c"], "store_id": "S1", "dept_id": "D1"})
    prices = pl.DataFrame({"item_id": ["a", "a", "b"], "sell_price": [1.0, 3.0, 2.0]})
    new = cold_start.newcomers_of(members, prices, sold=["b"])
    assert new.rows() == [("a", "S1", "D1", 2.0)]
    assert np.isfinite(new["price"].to_numpy()).all()


def test_of_a_department_nobody_knows_every_item_of_the_store_is_a_neighbour(sales) -> None:
    cheap, dear = (_forecast(sales, _new("new", price, "D9")) for price in (1.0, 20.0))
    assert cheap["mean"].mean() > 3 * dear["mean"].mean() > 0
    weekend = cheap.filter(pl.col("ds").dt.weekday() >= 6)["mean"].mean()
    assert weekend == pytest.approx(2 * cheap.filter(pl.col("ds").dt.weekday() < 6)["mean"].mean())
