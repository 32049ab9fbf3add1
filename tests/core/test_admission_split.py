"""Work is cut whole: every key in one piece, no piece longer than a chunk unless a key is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission.split import bucket_of, pieces

WORK = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.floats(0.1, 90), max_size=30)


@given(WORK, st.floats(1, 100))
def test_every_key_is_in_one_piece_and_pieces_are_chunks(
    seconds: dict[str, float], chunk: float
) -> None:
    cut = pieces(seconds, chunk)
    assert Counter(key for piece in cut for key in piece) == Counter(seconds.keys())
    for piece in cut:
        total = sum(seconds[key] for key in piece)
        assert total <= chunk + 1e-6 or len(piece) == 1
    assert pieces(dict(reversed(seconds.items())), chunk) == cut


@given(WORK, st.integers(1, 5))
def test_no_more_pieces_than_asked_for(seconds: dict[str, float], most: int) -> None:
    cut = pieces(seconds, 1.0, most)
    assert len(cut) <= most
    assert sorted(key for piece in cut for key in piece) == sorted(seconds)


def test_stores_are_packed_by_their_seconds() -> None:
    assert pieces({"CA_1": 50, "CA_2": 30, "TX_1": 20, "WI_1": 60}, 80) == (
        ("TX_1", "WI_1"),
        ("CA_1", "CA_2"),
    )


def test_buckets_never_move() -> None:
    assert [bucket_of(f"HOBBIES_1_{n:03d}", 8) for n in range(4)] == [
        bucket_of(f"HOBBIES_1_{n:03d}", 8) for n in range(4)
    ]
    assert len({bucket_of(f"item-{n}", 8) for n in range(200)}) == 8
