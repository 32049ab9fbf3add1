"""Whoever is owed a forecast is named once, with all attributes."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.source.item_stores import item_stores
from forecast_core.source.mapping import IDS

NAMES = st.sampled_from(["a", "b", "c"])
ROWS = st.lists(st.tuples(*(st.one_of(st.none(), NAMES) for _ in IDS)), max_size=12).map(
    lambda rows: pl.DataFrame(rows, schema=dict.fromkeys(IDS, pl.String), orient="row")
)


@given(ROWS, ROWS)
def test_every_item_store_is_there_once_and_whole(one: pl.DataFrame, other: pl.DataFrame) -> None:
    found = item_stores(one, other)
    asked = pl.concat([one, other]).drop_nulls(["item_id", "store_id"])
    pairs = found.select("item_id", "store_id").rows()
    assert sorted(pairs) == sorted(set(asked.select("item_id", "store_id").rows()))
    assert sum(found.null_count().row(0)) == 0


def test_what_is_not_named_follows_the_other_stores_and_items() -> None:
    rows = pl.DataFrame(
        [
            ("tea", "hot", "drinks", "north", "N"),
            ("tea", None, None, "south", None),
            ("ale", "cold", "drinks", "south", "S"),
            ("ale", "beer", None, "south", None),
            ("rye", None, None, "south", None),
        ],
        schema=dict.fromkeys(IDS, pl.String),
        orient="row",
    )
    assert item_stores(rows).rows() == [
        ("tea", "hot", "drinks", "north", "N"),
        ("ale", "beer", "drinks", "south", "S"),
        ("rye", "all", "all", "south", "S"),
        ("tea", "hot", "drinks", "south", "S"),
    ]
