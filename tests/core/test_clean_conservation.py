"""Cleaning: every row is kept or quarantined under its rule, and no key is kept twice."""

from collections import Counter
from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.schema import TABLES
from forecast_core.source.clean import PRICE_RULES, RULES, clean

DAY = date(2024, 3, 1)
LAST = DAY + timedelta(9)
SALES = TABLES["raw_sales"].schema
PRICES = TABLES["raw_prices"].schema


def sale(line: int, **changes: object) -> dict[str, object]:
    """A sound row, with changes."""
    row = {
        "date": DAY,
        "item_id": "FOODS_1_001",
        "dept_id": "FOODS_1",
        "cat_id": "FOODS",
        "store_id": "CA_1",
        "state_id": "CA",
        "units": 2.0,
        "source_row": line,
        "defect": None,
    }
    return row | changes


def price(line: int, start: int, stop: int, value: float | None, **changes: object) -> dict:
    """A price from day `start` to day `stop`."""
    row = {
        "date": DAY + timedelta(start),
        "until": DAY + timedelta(stop),
        "item_id": "FOODS_1_001",
        "store_id": "CA_1",
        "sell_price": value,
        "source_row": line,
        "defect": None,
    }
    return row | changes


def frame(rows: list[dict], schema: pl.Schema) -> pl.DataFrame:
    """Rows as a frame of that schema."""
    return pl.DataFrame(rows, schema=schema, orient="row")


@pytest.mark.parametrize(
    "rule,changes",
    [
        ("unparseable_value", {"units": None, "defect": "three"}),
        ("missing_key", {"date": None}),
        ("missing_key", {"item_id": None}),
        ("missing_key", {"store_id": None}),
        ("missing_hierarchy", {"dept_id": None}),
        ("missing_units", {"units": None}),
        ("non_finite_units", {"units": float("nan")}),
        ("non_finite_units", {"units": float("-inf")}),
        ("negative_units", {"units": -1.0}),
        ("future_date", {"date": LAST + timedelta(1)}),
        ("duplicate_key", {"units": 9.0}),
    ],
)
def test_each_rule_quarantines_its_row(rule: str, changes: dict[str, object]) -> None:
    sales = frame([sale(2), sale(3, **changes), sale(4, date=LAST)], SALES)
    cleaned = clean(sales, frame([], PRICES), LAST)
    assert cleaned.quarantined["rule"].to_list() == [rule]
    assert cleaned.quarantined["source_row"].to_list() == [3]
    assert cleaned.quarantined.drop("rule").equals(sales[1:2])
    assert cleaned.kept["date"].to_list() == [DAY, LAST]


def test_the_parametrized_rules_are_all_there_are() -> None:
    tested = {m.args[1][i][0] for m in _marks() for i in range(len(m.args[1]))}
    assert tested == {rule.name for rule in RULES}


def _marks() -> list[pytest.Mark]:
    return [m for m in test_each_rule_quarantines_its_row.pytestmark if m.name == "parametrize"]


def test_the_first_rule_in_order_names_the_row() -> None:
    rows = frame([sale(2, units=-1.0, defect="x", date=None)], SALES)
    assert clean(rows, frame([], PRICES)).quarantined["rule"].to_list() == [RULES[0].name]


def test_of_duplicates_the_first_sound_line_is_kept() -> None:
    rows = frame([sale(9, units=3.0), sale(5, units=-1.0), sale(7, units=4.0)], SALES)
    cleaned = clean(rows, frame([], PRICES))
    assert cleaned.kept["units"].to_list() == [4.0]
    assert dict(cleaned.quarantined.select("source_row", "rule").iter_rows()) == {
        5: "negative_units",
        9: "duplicate_key",
    }


def test_prices_hold_for_their_days_and_no_longer() -> None:
    sales = frame([sale(2 + n, date=DAY + timedelta(n)) for n in range(10)], SALES)
    prices = frame([price(2, 2, 3, 1.5), price(3, 4, 6, 2.5)], PRICES)
    kept = clean(sales, prices).kept
    assert kept["sell_price"].to_list() == [None, None, 1.5, 1.5, 2.5, 2.5, 2.5, None, None, None]
    assert kept["on_sale"].to_list() == [False] * 2 + [True] * 5 + [False] * 3


@pytest.mark.parametrize(
    "rule,value,changes",
    [
        ("unparseable_price", None, {"defect": "free"}),
        ("missing_price", None, {}),
        ("non_finite_price", float("inf"), {}),
        ("price_not_positive", 0.0, {}),
        ("price_not_positive", -1.0, {}),
    ],
)
def test_a_bad_price_loses_no_sale(rule: str, value: float | None, changes: dict) -> None:
    sales = frame([sale(2 + n, date=DAY + timedelta(n)) for n in range(3)], SALES)
    prices = frame([price(2, 0, 0, 1.0), price(3, 1, 1, value, **changes)], PRICES)
    cleaned = clean(sales, prices)
    assert cleaned.kept["sell_price"].to_list() == [1.0, None, None]
    assert cleaned.kept["on_sale"].to_list() == [True, True, False]
    assert cleaned.refused_prices["rule"].to_list() == [rule]
    assert rule in {r.name for r in PRICE_RULES}


def test_of_duplicate_prices_the_first_sound_line_holds() -> None:
    sales = frame([sale(2)], SALES)
    prices = frame([price(4, 0, 0, 3.0), price(2, 0, 0, -1.0), price(3, 0, 0, 2.0)], PRICES)
    cleaned = clean(sales, prices)
    assert cleaned.kept["sell_price"].to_list() == [2.0]
    assert sorted(cleaned.refused_prices["rule"]) == ["duplicate_price", "price_not_positive"]


def test_nothing_in_nothing_out() -> None:
    cleaned = clean(frame([], SALES), frame([], PRICES))
    assert cleaned.kept.schema == TABLES["cleaned_sales"].schema
    assert cleaned.quarantined.schema == TABLES["quarantined_sales"].schema
    assert cleaned.kept.is_empty() and cleaned.quarantined.is_empty()


def maybe(sound: st.SearchStrategy, *broken: object) -> st.SearchStrategy:
    """Mostly sound values, now and then a broken one."""
    return st.one_of(sound, sound, sound, st.sampled_from(broken))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "date": maybe(
                st.integers(0, 9).map(lambda n: DAY + timedelta(n)), None, date(2030, 1, 1)
            ),
            "item_id": maybe(st.sampled_from(["A", "B_longer_than_twelve"]), None),
            "dept_id": maybe(st.just("FOODS_1"), None),
            "cat_id": st.just("FOODS"),
            "store_id": maybe(st.sampled_from(["CA_1", "TX_1"]), None),
            "state_id": st.just("CA"),
            "units": maybe(st.integers(0, 5).map(float), None, -1.0, float("nan"), float("inf")),
            "defect": maybe(st.none(), "x"),
        }
    ),
    max_size=40,
)
SPANS = st.lists(
    st.tuples(
        st.sampled_from(["A", "B_longer_than_twelve"]),
        st.sampled_from(["CA_1", "TX_1"]),
        st.integers(0, 9),
        maybe(st.just(1.5), 0.0, None, float("nan")),
    ),
    max_size=15,
)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, spans=SPANS)
def test_rows_in_are_rows_kept_and_quarantined(rows: list[dict], spans: list[tuple]) -> None:
    sales = frame([row | {"source_row": n + 2} for n, row in enumerate(rows)], SALES)
    prices = frame(
        [
            price(n + 2, start, start, value, item_id=item, store_id=store)
            for n, (item, store, start, value) in enumerate(spans)
        ],
        PRICES,
    )
    cleaned = clean(sales, prices, LAST)
    assert cleaned.kept.height + cleaned.quarantined.height == sales.height
    assert Counter(cleaned.kept.select("date", "item_id", "store_id").iter_rows()) == Counter(
        _first_sound_keys(rows)
    )
    assert cleaned.quarantined["source_row"].n_unique() == cleaned.quarantined.height
    assert set(cleaned.quarantined["rule"]) <= {rule.name for rule in RULES}
    assert cleaned.kept.select(pl.col("units").is_finite().all()).item() in (True, None)
    for row in cleaned.kept.iter_rows(named=True):
        assert (row["sell_price"], row["on_sale"]) == _price_of(row, spans)


def _first_sound_keys(rows: list[dict]) -> set[tuple]:
    """The keys that must be kept, one row at a time."""
    return {
        (row["date"], row["item_id"], row["store_id"])
        for row in rows
        if row["defect"] is None
        and None not in (row["date"], row["item_id"], row["store_id"], row["dept_id"], row["units"])
        and 0 <= row["units"] < float("inf")
        and row["date"] <= LAST
    }


def _price_of(row: dict, spans: list[tuple]) -> tuple[float | None, bool]:
    """The first good price of the day, and whether any price row covers it."""
    here = [
        value
        for item, store, start, value in spans
        if (item, store, DAY + timedelta(start)) == (row["item_id"], row["store_id"], row["date"])
    ]
    good = [value for value in here if value is not None and value > 0]
    return (good[0] if good else None), bool(here)
