"""The official M5 layout to long tables, against a slow and obvious unpivot."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.schema import TABLES
from forecast_core.source.error import SourceError
from forecast_core.source.m5 import (
    EVENTS,
    Calendar,
    Origin,
    long_sales,
    parse_calendar,
    parse_prices,
    parse_sales,
    price_spans,
    week_pieces,
)

FIRST = date(2024, 1, 27)  # a Saturday; the week runs over the month's end
SALES, PRICES = Origin("sales.csv", 2), Origin("prices.csv", 2)


def calendar_rows(days: int = 14) -> pl.DataFrame:
    """A calendar as text, as it comes from a CSV."""
    return pl.DataFrame(
        {
            "date": [str(FIRST + timedelta(n)) for n in range(days)],
            "wm_yr_wk": [str(11101 + n // 7) for n in range(days)],
            "d": [f"d_{n + 1}" for n in range(days)],
            **{name: pl.Series([None] * days, dtype=pl.String) for name in EVENTS},
            "snap_CA": ["0", "1"] * (days // 2),
        }
    )


@pytest.fixture(scope="module")
def calendar() -> Calendar:
    """Two weeks."""
    return parse_calendar(calendar_rows(), Origin("calendar.csv", 2))


def wide(cells: dict[tuple[str, str], list], days: int = 3) -> pl.DataFrame:
    """Wide rows by (item, store)."""
    rows = [
        (item, f"{item}_dept", f"{item}_cat", store, store[:2], *values)
        for (item, store), values in cells.items()
    ]
    names = ["item_id", "dept_id", "cat_id", "store_id", "state_id"]
    names += [f"d_{n + 1}" for n in range(days)]
    return pl.DataFrame(rows, schema=names, orient="row")


NUMBERS = st.one_of(st.integers(0, 40_000), st.none())


@settings(max_examples=60, deadline=None)
@given(
    cells=st.dictionaries(
        st.tuples(st.sampled_from("BAC"), st.sampled_from(["CA_1", "TX_1"])),
        st.lists(NUMBERS, min_size=3, max_size=3),
        min_size=1,
    ),
    text=st.booleans(),
    first=st.integers(0, 4),
    length=st.integers(0, 4),
)
def test_the_unpivot_equals_the_obvious_one(
    calendar: Calendar, cells: dict, text: bool, first: int, length: int
) -> None:
    raw = wide(cells).with_columns(pl.col("^d_.*$").cast(pl.Int64))
    raw = raw.cast(pl.String) if text else raw
    start, stop = FIRST + timedelta(first), FIRST + timedelta(first + length)
    long = long_sales(parse_sales(raw, calendar, SALES), "CA_1", start, stop)
    assert long.schema == TABLES["raw_sales"].schema
    expected = [
        (day, item, value, 2 + line)
        for line, ((item, store), values) in enumerate(cells.items())
        for day, value in zip((FIRST + timedelta(n) for n in range(3)), values, strict=True)
        if store == "CA_1" and start <= day <= stop
    ]
    seen = list(long.select("date", "item_id", "units", "source_row").iter_rows())
    assert seen == sorted(expected, key=lambda row: (row[1], row[0]))
    assert long["defect"].null_count() == long.height


def test_a_cell_that_is_no_number_loses_nothing_beside_it(calendar: Calendar) -> None:
    raw = wide({("A", "CA_1"): ["1", "two", "3"], ("B", "CA_1"): [" 4 ", None, "nan"]})
    long = long_sales(parse_sales(raw, calendar, SALES), "CA_1", FIRST, FIRST + timedelta(9))
    assert long["units"].to_list() == [1.0, None, 3.0, 4.0, None, None]
    assert long["defect"].to_list() == [None, "two", None, None, None, "nan"]
    assert long["source_row"].to_list() == [2, 2, 2, 3, 3, 3]


def test_negative_and_fractional_units_pass_as_they_are(calendar: Calendar) -> None:
    raw = wide({("A", "CA_1"): ["-3", "0.5", "7"]})
    long = long_sales(parse_sales(raw, calendar, SALES), "CA_1", FIRST, FIRST + timedelta(9))
    assert long["units"].to_list() == [-3.0, 0.5, 7.0]


def test_an_item_that_stands_twice_keeps_both_lines(calendar: Calendar) -> None:
    once = wide({("A", "CA_1"): [1, 2, 3]})
    twice = pl.concat([once, wide({("B", "CA_1"): [0, 0, 0]}), once])
    long = long_sales(parse_sales(twice, calendar, SALES), "CA_1", FIRST, FIRST)
    assert list(long.select("item_id", "source_row").iter_rows()) == [("A", 2), ("A", 4), ("B", 3)]


def test_blank_lines_are_passed_over_and_counted(calendar: Calendar) -> None:
    row = wide({("A", "CA_1"): ["1", "2", "3"]})
    blank = row.select(pl.lit(None, pl.String).alias(name) for name in row.columns)
    parsed = parse_sales(pl.concat([row, blank, row]), calendar, SALES)
    assert parsed.ids["source_row"].to_list() == [2, 4]


@settings(max_examples=60, deadline=None)
@given(first=st.integers(-3, 80), length=st.integers(0, 70))
def test_weeks_are_cut_at_the_window_and_at_month_ends(first: int, length: int) -> None:
    weeks = pl.DataFrame(
        {
            "wm_yr_wk": list(range(12)),
            "first": [FIRST + timedelta(7 * n) for n in range(12)],
            "last": [FIRST + timedelta(7 * n + 6) for n in range(12)],
        }
    )
    start, stop = FIRST + timedelta(first), FIRST + timedelta(first + length)
    pieces = week_pieces(weeks, start, stop)
    days = {
        day: row["wm_yr_wk"]
        for row in pieces.iter_rows(named=True)
        for day in (
            row["date"] + timedelta(n) for n in range((row["until"] - row["date"]).days + 1)
        )
    }
    expected = {FIRST + timedelta(n): n // 7 for n in range(84) if first <= n <= first + length}
    assert days == expected
    assert sum(
        (row["until"] - row["date"]).days + 1 for row in pieces.iter_rows(named=True)
    ) == len(expected)
    assert (pieces["date"].dt.month() == pieces["until"].dt.month()).all()


def test_prices_become_spans_and_a_bad_one_keeps_its_text(calendar: Calendar) -> None:
    raw = pl.DataFrame(
        {
            "store_id": ["CA_1"] * 3,
            "item_id": ["B", "A", "A"],
            "wm_yr_wk": ["11101", "11101", "11102"],
            "sell_price": ["1.25", "free", "2.5"],
        }
    )
    weekly = parse_prices(raw, calendar, PRICES)
    spans = price_spans(weekly, calendar.weeks, FIRST, FIRST + timedelta(13))
    assert spans.schema == TABLES["raw_prices"].schema
    columns = ("item_id", "date", "until", "sell_price", "source_row", "defect")
    assert list(spans.select(columns).iter_rows()) == [
        ("A", date(2024, 1, 27), date(2024, 1, 31), None, 3, "free"),
        ("A", date(2024, 2, 1), date(2024, 2, 2), None, 3, "free"),
        ("A", date(2024, 2, 3), date(2024, 2, 9), 2.5, 4, None),
        ("B", date(2024, 1, 27), date(2024, 1, 31), 1.25, 2, None),
        ("B", date(2024, 2, 1), date(2024, 2, 2), 1.25, 2, None),
    ]


@pytest.mark.parametrize(
    "column,value,row,says",
    [
        ("date", "27.01.2024", 5, "is not a date"),
        ("date", "2024-01-28", 5, "does not follow"),
        ("wm_yr_wk", "week 1", 5, "is not a whole number"),
        ("d", "d_1", 5, "given twice"),
        ("snap_CA", "yes", 5, "is not 0 or 1"),
    ],
)
def test_a_bad_calendar_names_file_row_and_remedy(
    column: str, value: str, row: int, says: str
) -> None:
    raw = calendar_rows()
    raw = raw.with_columns(raw[column].scatter(row - 2, value))
    with pytest.raises(SourceError, match=rf"calendar\.csv, row {row}: .*{says}") as caught:
        parse_calendar(raw, Origin("calendar.csv", 2))
    assert caught.value.row == row and caught.value.remedy


def test_wrong_columns_are_named(calendar: Calendar) -> None:
    raw = wide({("A", "CA_1"): [1, 2, 3]})
    with pytest.raises(SourceError, match=r"sales\.csv: column 'item_id' is missing"):
        parse_sales(raw.rename({"item_id": "sku"}), calendar, SALES)
    with pytest.raises(SourceError, match="no day columns"):
        parse_sales(raw.drop("d_1", "d_2", "d_3"), calendar, SALES)
    with pytest.raises(SourceError, match="day 'd_99' is not in the calendar"):
        parse_sales(raw.rename({"d_2": "d_99"}), calendar, SALES)
    with pytest.raises(SourceError, match="it holds no rows"):
        parse_sales(raw.clear(), calendar, SALES)


def test_a_row_without_a_store_belongs_nowhere(calendar: Calendar) -> None:
    raw = wide({("A", "CA_1"): [1, 2, 3], ("B", "CA_1"): [1, 2, 3]})
    raw = raw.with_columns(store_id=pl.Series(["CA_1", None]))
    with pytest.raises(SourceError, match=r"sales\.csv, row 3: store_id is empty\. Name the store"):
        parse_sales(raw, calendar, SALES)


@pytest.mark.parametrize(
    "change,row,says",
    [
        ({"wm_yr_wk": ["11101", "11999"]}, 3, "'11999' is not a week of the calendar"),
        ({"wm_yr_wk": ["11101", None]}, 3, "is not a week of the calendar"),
        ({"store_id": [None, "CA_1"]}, 2, "is empty"),
    ],
)
def test_a_price_without_week_or_store(
    calendar: Calendar, change: dict, row: int, says: str
) -> None:
    sound = {
        "store_id": ["CA_1"] * 2,
        "item_id": ["A", "B"],
        "wm_yr_wk": ["11101"] * 2,
        "sell_price": ["1.0"] * 2,
    }
    with pytest.raises(SourceError, match=rf"prices\.csv, row {row}: .*{says}"):
        parse_prices(pl.DataFrame(sound | change), calendar, PRICES)
