"""Deferrable work is cut by store into pieces of at most a chunk, and none is left out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_assets.commands.backfill import pieces_of

MONTHS = ("2025-01-01", "2025-06-01")


@settings(deadline=None)
@given(st.integers(1, 12), st.floats(1, 100), st.floats(1, 400))
def test_every_store_is_in_one_piece_and_none_takes_longer_than_a_chunk(
    count: int, seconds: float, chunk: float
) -> None:
    stores = [f"S{n:02d}" for n in range(count)]
    covered: list[str] = []
    for stage in pieces_of(["feature_sales"], MONTHS, stores, seconds, chunk):
        assert stage.start and stage.end and stage.optional
        first, last = (stores.index(key.split("|")[1]) for key in (stage.start, stage.end))
        covered += stores[first : last + 1]
        assert (last - first + 1) * seconds <= max(chunk, seconds) + 1e-6
    assert sorted(covered) == stores


@pytest.mark.parametrize(("chunk", "runs"), [(1e9, 1), (20.0, 2), (1.0, 4)])
def test_a_shorter_chunk_makes_more_runs(chunk: float, runs: int) -> None:
    stages = list(pieces_of(["a", "b"], MONTHS, ["W", "X", "Y", "Z"], 10.0, chunk))
    assert len(stages) == runs
    assert stages[0].assets == ("a", "b")
