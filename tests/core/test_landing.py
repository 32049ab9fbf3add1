"""What changed is found by month, and covered by rectangles that hold nothing else."""

from datetime import date

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.source.landing import Block, blocks, changed, fingerprints

MONTHS = [date(2024, month, 1) for month in range(1, 8)]
STORES = ("a", "b", "c", "d")


def rows(units: float = 1.0, line: int = 2, refused: str | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": [date(2024, 1, 5), date(2024, 2, 5)],
            "item_id": ["x", "x"],
            "units": [1.0, units],
            "source_row": [line, line + 1],
            "source_file": ["f", "f"],
            "refused": [None, refused],
        },
        schema_overrides={"refused": pl.String},
    )


def test_a_changed_sale_changes_its_own_month() -> None:
    before, now = fingerprints(rows()), fingerprints(rows(units=2.0))
    assert changed(now, before, MONTHS) == {date(2024, 2, 1)}


def test_lines_that_only_moved_change_nothing_and_order_does_not_count() -> None:
    assert fingerprints(rows(line=9)) == fingerprints(rows()) == fingerprints(rows().reverse())


def test_a_refused_row_is_looked_up_by_its_line() -> None:
    refused = fingerprints(rows(refused="missing_key"))
    assert changed(fingerprints(rows(line=9, refused="missing_key")), refused, MONTHS) == {
        date(2024, 2, 1)
    }


def test_what_the_meaning_rests_on_counts() -> None:
    assert set(changed(fingerprints(rows(), salt=1), fingerprints(rows()), MONTHS)) == set(
        MONTHS[:2]
    )


def covered(found: list[Block]) -> list[tuple[str, date]]:
    return [
        (store, month)
        for block in found
        for store in STORES[STORES.index(block.first_store) : STORES.index(block.last_store) + 1]
        for month in MONTHS
        if block.first <= month <= block.last
    ]


CHANGED = st.dictionaries(st.sampled_from(STORES), st.sets(st.sampled_from(MONTHS)))


@given(CHANGED)
def test_blocks_cover_what_changed_once_and_nothing_else(found: dict[str, set[date]]) -> None:
    wanted = sorted((store, month) for store, months in found.items() for month in months)
    assert sorted(covered(blocks(found, STORES))) == wanted


def test_everything_is_one_block() -> None:
    whole = dict.fromkeys(STORES, MONTHS)
    assert blocks(whole, STORES) == [Block(MONTHS[0], MONTHS[-1], "a", "d")]
