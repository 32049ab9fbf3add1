"""Values in words, and names from the data that stay text."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import words


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0.00"), (12.3, "12.30"), (1234567.891, "1,234,567.89"), (0.0002392, "0.000239"),
     (Decimal("0.5"), "0.500"), (-0.0123, "-0.0123"), (None, words.DASH)],
)  # fmt: skip
def test_amounts(value: float | Decimal | None, said: str) -> None:
    assert words.amount(value) == said


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_an_amount_is_within_half_a_percent_of_its_value(value: float) -> None:
    assert float(words.amount(value).replace(",", "")) == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB"), (None, words.DASH)],
)
def test_sizes(count: int | None, said: str) -> None:
    assert words.size(count) == said


@given(st.text())
def test_plain_text_leaves_no_markup_unescaped(text: str) -> None:
    escaped = words.plain(text)
    assert re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>$~|:]", escaped) is None
    assert re.search(r"[\x00-\x08\u202a-\u202e]", escaped) is None


@given(st.text())
def test_code_cannot_be_left(text: str) -> None:
    shown = words.code(text)
    fence = re.match("`+", shown)
    assert fence is not None
    inner = shown[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in inner
    assert "\n" not in shown


def test_a_message_keeps_its_commands_as_code() -> None:
    assert words.said("run `make demo` in a_folder") == "run `make demo` in a\\_folder"
    assert "\\`" in words.said("an odd ` tick")


def test_levels_as_people_say_them() -> None:
    assert words.level("item_id/store_id") == "item x store"
    assert words.level("state_id/cat_id") == "state x category"
    assert words.level("Total") == "Total"
