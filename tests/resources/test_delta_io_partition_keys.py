"""Partition keys and cells say the same, both ways."""

from datetime import date, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.cells import Cells
from forecast_core.schema import TABLES, Cut
from forecast_core.storage.tiers import month_end, month_start
from resources.partition_keys import Scope, cells_of, decode, rows_by_key

STORES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True)


@given(st.dates(date(2011, 1, 1), date(2020, 1, 1)), st.integers(0, 400), STORES, st.randoms())
def test_the_keys_of_rows_decode_to_cells_that_hold_the_rows(
    first: date, days: int, stores: list[str], random: object
) -> None:
    table = TABLES["cleaned_sales"]
    last = first + timedelta(days=days)
    rows = (
        pl.date_range(first, last, eager=True)
        .alias("date")
        .to_frame()
        .join(pl.DataFrame({"store_id": stores}), how="cross")
    )
    counted = rows_by_key(rows, table)
    keys = list(counted)
    random.shuffle(keys)  # type: ignore[attr-defined]
    expected = Cells(month_start(first), month_end(last), tuple(sorted(stores)))
    assert decode(keys, table.cut) == Scope(expected)
    assert sum(counted.values()) == rows.height
    for key, count in counted.items():
        cells = cells_of([key])
        assert cells.stores is not None
        held = rows.filter(
            pl.col("date").is_between(cells.first, cells.last)
            & pl.col("store_id").is_in(cells.stores)
        )
        assert held.height == count


@pytest.mark.parametrize(
    ("keys", "cut", "scope"),
    [
        (
            ["2016-04-01|CA_1"],
            "month_store",
            Scope(Cells(date(2016, 4, 1), date(2016, 4, 30), ("CA_1",))),
        ),
        (
            ["2016-02-01|a|b"],
            "month_store",
            Scope(Cells(date(2016, 2, 1), date(2016, 2, 29), ("a|b",))),
        ),
        (
            ["2016-04-24|CA_1"],
            "cutoff_store",
            Scope(Cells(date(2016, 4, 24), date(2016, 4, 24), ("CA_1",))),
        ),
        (["2016-04-01"], "month", Scope(Cells(date(2016, 4, 1), date(2016, 4, 30)))),
        (
            ["2016-04-25", "2016-04-24"],
            "cutoff",
            Scope(Cells(date(2016, 4, 24), date(2016, 4, 25))),
        ),
        (["2016-04-24"], "day", Scope(Cells(date(2016, 4, 24), date(2016, 4, 24)))),
        (["B", "A"], "group", Scope(groups=("A", "B"))),
        ([], "none", Scope()),
    ],
)
def test_each_cut_has_its_spelling(keys: list[str], cut: Cut, scope: Scope) -> None:
    assert decode(keys, cut) == scope


@pytest.mark.parametrize(
    ("keys", "cut", "complaint"),
    [
        ([], "month_store", "no partition key, where the table is cut by month_store"),
        (["2016-04-24|CA_1"], "month_store", "not spelt as month_store: '2016-04-01|CA_1'"),
        (["2016-04-01"], "month_store", "not spelt as"),
        (["2016-04-01|"], "month_store", "not spelt as"),
        (["CA_1|2016-04-01"], "cutoff_store", "not spelt as"),
        (["april"], "month", "'april' is not spelt as month: '2016-04-01'"),
        (["2016-01-01", "2016-03-01"], "month", "leave a gap"),
        (["2016-04-24|A", "2016-04-26|A"], "cutoff_store", "leave a gap"),
        (
            ["2016-04-01|A", "2016-04-01|B", "2016-05-01|A"],
            "month_store",
            "2016-05-01|B is missing",
        ),
    ],
)
def test_keys_that_are_no_window_are_refused(keys: list[str], cut: Cut, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("|", r"\|")):
        decode(keys, cut)


def test_cells_of_a_cut_without_days_are_refused() -> None:
    with pytest.raises(ValueError, match="cut by group has no days"):
        cells_of(["A"], "group")


def test_rows_by_key_of_the_other_cuts() -> None:
    day = date(2016, 4, 24)
    node = pl.DataFrame({"cutoff": [day, day], "node": ["a", "b"]})
    assert rows_by_key(node, TABLES["prediction_reconciled"]) == {"2016-04-24": 2}
    model = pl.DataFrame({"segment_group": ["A", "B", "A"]})
    assert rows_by_key(model, TABLES["forecasters"]) == {"A": 2, "B": 1}
    assert rows_by_key(pl.DataFrame({"date": [day]}), TABLES["raw_calendar"]) == {"": 1}
