"""Changes on top of what was landed: given keys replace, everything else stays, twice is once."""

from datetime import date

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.source.upsert import prices_over, sales_over

SCHEMA = {
    "date": pl.Date,
    "item_id": pl.String,
    "store_id": pl.String,
    "units": pl.Float64,
    "source_row": pl.Int64,
    "source_file": pl.String,
    "refused": pl.String,
    "raw_text": pl.String,
}
KEYS = st.tuples(st.integers(1, 9), st.sampled_from("ab"))


def sales(held: dict[tuple[int, str], float]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (date(2024, 1, day), item, "s", units, at, "f", None, None)
            for at, ((day, item), units) in enumerate(sorted(held.items()))
        ],
        schema=SCHEMA,
        orient="row",
    )


@given(st.dictionaries(KEYS, st.just(1.0)), st.dictionaries(KEYS, st.just(2.0)))
def test_it_is_a_dictionary_update(
    landed: dict[tuple[int, str], float], new: dict[tuple[int, str], float]
) -> None:
    found = sales_over(sales(landed), sales(new))
    held = {(row["date"].day, row["item_id"]): row["units"] for row in found.to_dicts()}
    assert held == {**landed, **new}
    assert found.height == len(held)
    again = sales_over(found, sales(new))
    assert (
        again.select("date", "item_id", "units")
        .sort("date", "item_id")
        .equals(found.select("date", "item_id", "units").sort("date", "item_id"))
    )


def test_a_refused_row_stays_once() -> None:
    bad = pl.DataFrame(
        [(date(2024, 1, 1), None, "s", None, 5, "f", "unreadable_line", "a;b")],
        schema=SCHEMA,
        orient="row",
    )
    found = sales_over(sales_over(sales({}), bad), sales({(1, "a"): 1.0}))
    assert found.height == 2
    assert sales_over(found, bad).height == 2


def test_a_price_holds_until_the_first_given_day_of_its_item() -> None:
    spans = pl.DataFrame(
        {
            "item_id": ["a", "b"],
            "date": [date(2024, 1, 1)] * 2,
            "until": [date(2024, 1, 31)] * 2,
            "sell_price": [1.0, 5.0],
        }
    )
    new = pl.DataFrame(
        {
            "item_id": ["a"],
            "date": [date(2024, 1, 20)],
            "until": [date(2024, 1, 31)],
            "sell_price": [2.0],
        }
    )
    found = prices_over(spans, new)
    assert found.select("item_id", "date", "until", "sell_price").rows() == [
        ("a", date(2024, 1, 1), date(2024, 1, 19), 1.0),
        ("a", date(2024, 1, 20), date(2024, 1, 31), 2.0),
        ("b", date(2024, 1, 1), date(2024, 1, 31), 5.0),
    ]
