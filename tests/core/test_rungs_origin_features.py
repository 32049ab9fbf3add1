"""Features know the past alone, and equal what a slow loop over days would say."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.rungs.origin_features import (
    FEATURE_SETS,
    HISTORY_DAYS,
    STORED,
    STRIDE_DAYS,
    build,
    origin_days,
)

ORIGIN = date(2016, 3, 11)
FIRST = ORIGIN - timedelta(days=HISTORY_DAYS)
ITEMS = {"A_1": ("A", 0), "A_2": ("A", HISTORY_DAYS - 40), "B_1": ("B", 0), "B_2": ("B", 10**6)}


def sales(seed: int = 0, days: int = HISTORY_DAYS + 30) -> pl.DataFrame:
    """Two departments; one item launched 40 days before the origin, one never."""
    rng = np.random.default_rng(seed)
    frames = [
        pl.DataFrame(
            {
                "date": [FIRST + timedelta(days=k) for k in range(days)],
                "item_id": item,
                "dept_id": dept,
                "store_id": "S_1",
                "units": np.where(np.arange(days) < launch, 0.0, rng.poisson(1.5, days)),
                "sell_price": [
                    None if k < launch else round(2 + 0.5 * (k // 60 % 3), 2) for k in range(days)
                ],
            },
            schema_overrides={"sell_price": pl.Float64},
        )
        for item, (dept, launch) in ITEMS.items()
    ]
    return pl.concat(frames)


def slow(rows: pl.DataFrame, item: str) -> dict[str, float]:
    """Some of the features of `item` at `ORIGIN`, by looking days up one at a time."""
    of = {r["date"]: r for r in rows.filter(item_id=item).iter_rows(named=True)}

    def back(k: int) -> float:
        return float(of[ORIGIN - timedelta(days=k)]["units"])

    launch = min(day for day, row in of.items() if row["sell_price"] is not None)
    age = (ORIGIN - launch).days + 1
    prices = [
        row["sell_price"]
        for day, row in of.items()
        if 0 <= (ORIGIN - day).days < 365 and row["sell_price"] is not None
    ]
    found = {f"mean_{w}": sum(back(k) for k in range(w)) / w for w in (7, 14, 28, 56, 112)}
    idle = next((k for k in range(56) if back(k) > 0), 56)
    found |= {
        "units_1": back(0),
        "age_days": age,
        "idle_days": idle,
        "mean_365": sum(back(k) for k in range(min(age, 365))) / min(age, 365),
        "zeros_28": sum(back(k) == 0 for k in range(28)) / 28,
        "max_28": max(back(k) for k in range(28)),
        "price": of[ORIGIN]["sell_price"],
        "price_mean_365": sum(prices) / len(prices),
        "year_ago_28": sum(back(364 + k) for k in range(28)) / 28,
    }
    for k in range(7):
        day = (ORIGIN - timedelta(days=k)).weekday()
        found[f"weekday_4_{day}"] = sum(back(k + 7 * w) for w in range(4)) / 4
        found[f"weekday_8_{day}"] = sum(back(k + 7 * w) for w in range(8)) / 8
    for week in range(1, 9):
        found[f"year_ago_{week}"] = sum(back(364 - 7 * week + k) for k in range(7)) / 7
    return found


@pytest.mark.parametrize("item", ["A_1", "A_2", "B_1"])
def test_features_equal_a_slow_loop(item: str) -> None:
    rows = sales()
    row = build(rows, [ORIGIN]).filter(item_id=item).row(0, named=True)
    expected = slow(rows, item)
    assert {k: row[k] for k in expected} == pytest.approx(expected, rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99), day=st.integers(1, 29), units=st.floats(0, 1e4))
def test_no_later_day_changes_a_feature(seed: int, day: int, units: float) -> None:
    rows = sales(seed)
    later = pl.col("date") >= ORIGIN + timedelta(days=day)
    changed = rows.with_columns(
        units=pl.when(later).then(units).otherwise("units"),
        sell_price=pl.when(later).then(99.0).otherwise("sell_price"),
    )
    before, after = (build(r, [ORIGIN]) for r in (rows, changed))
    assert before.equals(after)
    assert before.equals(build(rows.filter(pl.col("date") <= ORIGIN), [ORIGIN]))


def test_an_origin_says_the_same_alone_and_among_others() -> None:
    rows = sales()
    others = [ORIGIN, ORIGIN + timedelta(days=5), ORIGIN + timedelta(days=29)]
    together = build(rows, others).filter(date=ORIGIN)
    alone = build(rows, [ORIGIN])
    assert together.select("item_id", "date").equals(alone.select("item_id", "date"))
    np.testing.assert_allclose(
        together.select(STORED).to_numpy(), alone.select(STORED).to_numpy(), rtol=1e-6
    )


def test_rows_are_of_launched_items_in_order() -> None:
    table = build(sales(), [ORIGIN + timedelta(days=1), ORIGIN])
    assert table["item_id"].unique().sort().to_list() == ["A_1", "A_2", "B_1"]
    assert table.height == 6
    assert table.equals(table.sort("item_id", "date"))
    assert set(table.select(STORED).dtypes) == {pl.Float32}


def test_nothing_gives_an_empty_table_of_the_same_shape() -> None:
    empty = build(sales().clear(), [ORIGIN])
    assert empty.height == 0 and empty.schema == build(sales(), [ORIGIN]).schema
    assert build(sales(), []).height == 0


def test_a_smaller_set_is_part_of_the_larger() -> None:
    assert set(FEATURE_SETS["minimal"]) < set(FEATURE_SETS["reduced"]) < set(FEATURE_SETS["full"])
    assert set(FEATURE_SETS["full"]) <= set(STORED)


@given(st.dates(date(2011, 1, 1), date(2016, 1, 1)), st.integers(0, 60), st.integers(0, 60))
def test_origins_keep_their_stride_whatever_window_asks(first: date, days: int, split: int) -> None:
    last = first + timedelta(days=days)
    whole = origin_days(first, last)
    assert all((b - a).days == STRIDE_DAYS for a, b in pairwise(whole))
    middle = min(first + timedelta(days=split), last)
    assert whole == origin_days(first, middle) + origin_days(middle + timedelta(days=1), last)
    assert set(origin_days(first, last, (last,))) == {*whole, last}
