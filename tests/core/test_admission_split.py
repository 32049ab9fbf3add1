"""Work is cut whole: every key in one piece, no piece longer than a chunk unless a key is."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission.split import pieces, spans

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


@given(st.lists(st.integers(), max_size=40), st.floats(0, 1e5), st.floats(1, 1e4))
def test_months_are_cut_in_order_into_spans_that_fit(
    months: list[int], seconds: float, chunk: float
) -> None:
    cut = spans(months, seconds, chunk)
    assert [month for span in cut for month in span] == months
    for span in cut:
        assert len(span) == 1 or seconds * len(span) / len(months) <= chunk * (1 + 1e-9)
    if seconds <= chunk:
        assert len(cut) <= 1


def test_stores_are_packed_by_their_seconds() -> None:
    assert pieces({"CA_1": 50, "CA_2": 30, "TX_1": 20, "WI_1": 60}, 80) == (
        ("TX_1", "WI_1"),
        ("CA_1", "CA_2"),
    )
