"""Every item-store gets exactly one segment and one group, the ones that its sales deserve."""

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.schema import TABLES
from forecast_core.segments import SegmentPolicy, classify, measure

AS_OF = date(2016, 5, 22)
POLICY = SegmentPolicy.parse(
    {
        "version": "t",
        "window_days": 100,
        "abc": {"A": 0.8, "B": 0.95},
        "demand": {"adi": 1.32, "cv2": 0.49},
        "life": {"new_days": 28, "inactive_days": 56},
        "groups": [
            {"name": "dormant", "rung": "floor", "when": {"life_stage": ["inactive"]}},
            {"name": "tail", "rung": "statistical", "when": {"abc": ["C"], "cat_id": ["FOODS"]}},
            {"name": "rest", "rung": "gbm"},
        ],
    }
)


def rows(
    item: str,
    units: list[float | None],
    price: float | None = 2.0,
    store: str = "CA_1",
    launched: int = 0,
) -> pl.DataFrame:
    """Daily rows that end on `AS_OF`; before day number `launched` there is no price."""
    n = len(units)
    prices = [price if k >= launched else None for k in range(n)]
    return pl.DataFrame(
        {
            "date": [AS_OF - timedelta(days=n - 1 - k) for k in range(n)],
            "item_id": [item] * n,
            "dept_id": ["FOODS_1"] * n,
            "cat_id": ["FOODS"] * n,
            "store_id": [store] * n,
            "state_id": [store[:2]] * n,
            "units": units,
            "sell_price": prices,
            "on_sale": [p is not None for p in prices],
            "source_rows": [1] * n,
        },
        schema=TABLES["cleaned_sales"].schema,
    )


def segment(*frames: pl.DataFrame, policy: SegmentPolicy = POLICY) -> dict[str, dict[str, Any]]:
    stats = pl.concat(
        [measure(of, AS_OF, policy) for of in pl.concat(frames).partition_by("store_id")]
    )
    return {row["item_id"]: row for row in classify(stats, AS_OF, policy).iter_rows(named=True)}


@pytest.mark.parametrize(
    ("units", "demand_class", "life_stage"),
    [
        ([1.0] * 100, "smooth", "active"),
        ([1.0, 9.0] * 50, "erratic", "active"),
        ([1.0, 0.0, 0.0] * 33 + [1.0], "intermittent", "active"),
        ([1.0, 0.0, 30.0, 0.0, 1.0, 0.0] * 16 + [1.0], "lumpy", "active"),
        ([0.0] * 100, "none", "inactive"),
        ([None] * 100, "none", "inactive"),
        ([5.0] * 40 + [0.0] * 60, "intermittent", "inactive"),
        ([5.0] * 44 + [0.0] * 56, "intermittent", "inactive"),
        ([5.0] * 45 + [0.0] * 55, "intermittent", "active"),
        ([3.0], "smooth", "new"),
        ([0.0], "none", "new"),
        ([2.0] * 28, "smooth", "new"),
        ([2.0] * 29, "smooth", "active"),
    ],
)
def test_demand_class_and_life_stage(
    units: list[float | None], demand_class: str, life_stage: str
) -> None:
    row = segment(rows("A", units))["A"]
    assert (row["demand_class"], row["life_stage"]) == (demand_class, life_stage)
    assert row["segment"] == f"{row['abc']}-{demand_class}-{life_stage}"


def test_days_before_launch_and_missing_days_are_not_zeros() -> None:
    launched = segment(rows("A", [0.0] * 50 + [1.0] * 50, launched=50))["A"]
    assert launched["adi"] == 1.0
    gaps = segment(rows("A", [1.0, None] * 50))["A"]
    assert gaps["adi"] == 1.0


def test_value_classes_rank_over_all_stores() -> None:
    found = segment(
        rows("big", [10.0] * 100, price=80.0),
        rows("mid", [10.0] * 100, price=15.0, store="TX_1"),
        rows("small", [10.0] * 100, price=5.0),
        rows("nothing", [0.0] * 100, price=5.0, store="TX_1"),
    )
    assert {item: row["abc"] for item, row in found.items()} == {
        "big": "A", "mid": "B", "small": "C", "nothing": "C",
    }  # fmt: skip
    assert found["mid"]["revenue"] == pytest.approx(15000)
    assert found["small"]["segment_group"] == "tail"
    assert found["big"]["segment_group"] == "rest" and found["big"]["rung"] == "gbm"
    assert found["nothing"]["segment_group"] == "dormant"


def test_days_after_as_of_change_nothing() -> None:
    past = rows("A", [1.0, 0.0, 4.0] * 20)
    later = past.tail(3).with_columns(pl.col("date").dt.offset_by("3d"), units=pl.lit(99.0))
    assert segment(past) == segment(pl.concat([past, later]))


def test_items_known_from_before_are_not_left_out() -> None:
    stats = measure(rows("A", [1.0] * 9), AS_OF, POLICY, known=rows("gone", [1.0]))
    found = classify(stats, AS_OF, POLICY)
    assert found["item_id"].to_list() == ["A", "gone"]
    assert found.filter(item_id="gone")["segment_group"].item() == "dormant"


def test_a_store_without_rows_gives_no_segments() -> None:
    empty = rows("A", [1.0]).clear()
    assert classify(measure(empty, AS_OF, POLICY), AS_OF, POLICY).height == 0


UNITS = st.lists(
    st.one_of(st.none(), st.just(0.0), st.floats(0, 1e6), st.just(float("nan"))),
    min_size=1,
    max_size=120,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(UNITS, st.one_of(st.none(), st.floats(0, 1e4))), min_size=1, max_size=6))
def test_every_item_has_one_segment_and_the_sums_hold(
    series: list[tuple[list[float | None], float | None]],
) -> None:
    frames = [rows(f"I{k}", units, price) for k, (units, price) in enumerate(series)]
    table = classify(pl.concat([measure(frame, AS_OF, POLICY) for frame in frames]), AS_OF, POLICY)
    assert table["item_id"].to_list() == [f"I{k}" for k in range(len(series))]
    assert (
        table.select(TABLES["demand_segments"].columns.keys())
        .drop("adi", "cv2")
        .null_count()
        .sum_horizontal()
        .item()
        == 0
    )
    assert set(table["segment_group"]) <= set(POLICY.groups)
    for row, (units, price) in zip(table.iter_rows(named=True), series, strict=True):
        recent = [u for u in units[-POLICY.window_days :] if u is not None and not np.isnan(u)]
        assert row["revenue"] == pytest.approx(sum(recent) * (price or 0.0), rel=1e-9)
