"""Deferrable work is cut by store and month into pieces of at most a chunk; none is left out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_assets.commands.backfill import pieces_of

MONTHS = ("2025-01-01", "2025-06-01")


@settings(deadline=None)
@given(st.integers(1, 12), st.floats(1, 100), st.floats(1, 400))
def test_every_month_of_a_store_is_in_one_piece_and_none_takes_longer_than_a_chunk(
    count: int, seconds: float, chunk: float
) -> None:
    stores = [f"S{n:02d}" for n in range(count)]
    months = [f"2025-{month:02d}-01" for month in range(1, 7)]
    covered: list[tuple[str, str]] = []
    for stage in pieces_of(["feature_sales"], MONTHS, stores, seconds, chunk):
        assert stage.start and stage.end and stage.optional
        ends = [key.split("|") for key in (stage.start, stage.end)]
        low, high = (months.index(month) for month, _ in ends)
        first, last = (stores.index(store) for _, store in ends)
        cells = [(m, s) for m in months[low : high + 1] for s in stores[first : last + 1]]
        covered += cells
        assert len(cells) * seconds / 6 <= chunk + 1e-6 or len(cells) == 1
    assert sorted(covered) == sorted((m, s) for m in months for s in stores)


@pytest.mark.parametrize(("chunk", "runs"), [(1e9, 1), (20.0, 2), (10.0, 4), (5.0, 8), (1.0, 24)])
def test_a_shorter_chunk_makes_more_runs(chunk: float, runs: int) -> None:
    stages = list(pieces_of(["a", "b"], MONTHS, ["W", "X", "Y", "Z"], 10.0, chunk))
    assert len(stages) == runs
    assert stages[0].assets == ("a", "b")
