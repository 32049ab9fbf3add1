"""What is different about a source is told, and what could lose or double history holds a load."""

from datetime import date

import polars as pl
import pytest

from forecast_core.source.changes import State, changes, kind_of

JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)
KINDS = {"sales": {"day": "date (%Y-%m-%d)", "shop": "text", "qty": "number"}}
MAPPED = {"sales": frozenset({"day", "shop", "qty"})}


def state(
    stores: tuple[str, ...] = ("north", "south"),
    departments: dict[str, str] | None = None,
    kinds: dict[str, str] | None = None,
    months: dict[str, dict[date, int]] | None = None,
    rows: dict[str, dict[date, int]] | None = None,
) -> State:
    places = departments or {"apple": "food", "soap": "home", "brush": "home"}
    series = pl.DataFrame(
        [
            {"item_id": item, "dept_id": dept, "store_id": store}
            for store in stores
            for item, dept in places.items()
        ]
    )
    default = {store: {JANUARY: 1, FEBRUARY: 2} for store in stores}
    counted = {store: {JANUARY: 100, FEBRUARY: 100} for store in stores}
    found = {"sales": {**KINDS["sales"], **(kinds or {})}}
    return State(found, MAPPED, series, months or default, rows or counted)


def told(now: State, whole: bool = True) -> list[tuple[bool, str]]:
    return [(change.holds, change.text) for change in changes(state(), now, whole)]


def test_nothing_is_told_where_nothing_changed() -> None:
    assert told(state()) == []


def test_a_new_column_is_left_out_and_told() -> None:
    ((holds, text),) = told(state(kinds={"weather": "number"}))
    assert not holds and "new column 'weather', not mapped: left out" in text


def test_a_mapped_column_of_another_kind_holds() -> None:
    ((holds, text),) = told(state(kinds={"day": "date (%d.%m.%Y)"}))
    assert holds
    assert "'day' was date (%Y-%m-%d) and is date (%d.%m.%Y) now" in text and "`format`" in text


def test_a_column_that_is_only_empty_is_no_change() -> None:
    assert told(state(kinds={"qty": "empty"})) == []


def test_a_renamed_store_is_known_by_its_sales_and_holds_with_the_line_to_write() -> None:
    now = state(("north", "Zone 2"), months={"north": {JANUARY: 1}, "Zone 2": {JANUARY: 1}})
    ((holds, text),) = told(now)
    assert holds and "'south' is gone and 'Zone 2' is new, 100% alike" in text
    assert "values: {Zone 2: south}" in text


def test_a_store_that_is_gone_holds_and_a_new_one_does_not() -> None:
    fresh = {"Zone 2": {JANUARY: 8, FEBRUARY: 9}, "north": {JANUARY: 1, FEBRUARY: 2}}
    found = told(state(("north", "Zone 2"), months=fresh))
    assert [holds for holds, _ in found] == [True, False]
    assert "'south' is gone" in found[0][1] and "'Zone 2' is new" in found[1][1]


def test_changes_alone_need_not_name_every_store() -> None:
    assert told(state(("north",), rows={"north": {FEBRUARY: 3}}), whole=False) == []


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (
            {"apple": "food", "soap": "care", "brush": "care"},
            "'home' is called 'care' now (2 items",
        ),
        ({"apple": "food", "soap": "food", "brush": "home"}, "1 items moved from 'home' to 'food'"),
        (
            {"apple": "food", "soap": "home", "brush": "home", "rose": "garden"},
            "'garden' is new, with 1 items",
        ),
    ],
)
def test_departments_are_told(places: dict[str, str], said: str) -> None:
    ((holds, text),) = told(state(departments=places))
    assert not holds and said in text


def test_rows_that_are_gone_hold() -> None:
    rows = {"north": {JANUARY: 100, FEBRUARY: 30}, "south": {JANUARY: 100, FEBRUARY: 100}}
    ((holds, text),) = told(state(rows=rows))
    assert holds and "store 'north' had 100 rows from 2024-02 to 2024-02 and has 30" in text
    assert "delivery: changes" in text


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", "-3"], "number"),
        (["2024-01-31", "2024-02-01"], "date (%Y-%m-%d)"),
        (["31.01.2024"], "date (%d.%m.%Y)"),
        (["north", "1"], "text"),
        ([None, ""], "empty"),
    ],
)
def test_kinds_are_read_off_a_sample(values: list[str | None], kind: str) -> None:
    assert kind_of(pl.Series(values, dtype=pl.String)) == kind
