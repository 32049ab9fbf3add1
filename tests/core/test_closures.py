"""A day on which a store is known to be shut is forecast as nothing, at every quantile."""

from datetime import date

import polars as pl

from forecast_core.closures import nothing_when_shut

ROWS = pl.DataFrame(
    {
        "item_id": ["a", "a", "b", "b"],
        "ds": [date(2024, 1, 6), date(2024, 1, 7)] * 2,
        "mean": [3.0, 4.0, 5.0, 6.0],
        "q10": [1.0, 1.0, None, None],
        "q90": [5.0, 5.0, None, None],
    }
)
SPANS = pl.DataFrame(
    {
        "item_id": ["a", "a", "b"],
        "date": [date(2024, 1, 1), date(2024, 1, 7), date(2024, 1, 1)],
        "until": [date(2024, 1, 6), date(2024, 1, 7), date(2024, 1, 6)],
        "x_closed": [0.0, 1.0, None],
    }
)


def test_shut_days_are_zero_and_no_other() -> None:
    found = nothing_when_shut(ROWS, SPANS)
    assert found["mean"].to_list() == [3.0, 0.0, 5.0, 0.0]
    assert found["q90"].to_list() == [5.0, 0.0, None, None]


def test_a_source_without_closures_changes_nothing() -> None:
    assert nothing_when_shut(ROWS, SPANS.drop("x_closed")).equals(ROWS)
