"""No name of a store or a group can say more in a predicate than its own name."""

from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.cells import Cells
from forecast_core.schema import Table
from resources.lake import Lake
from resources.predicates import among, identifier, literal, predicate

DAY = Cells(date(2016, 4, 1), date(2016, 4, 30))
HOSTILE = [
    "o'brien", "''", "'; DROP TABLE sales; --", "x' OR '1'='1", 'say "so"', "50%", "a%20b",
    "a/b", "..", "x=y", "back\\slash", "back\\'", "new\nline", "tab\there", "null", "true",
    "😀 Ωmega", "a:b*?", "~", "$1", "{0}", " ", "CA_1 ",
]  # fmt: skip
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30
)
STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)


def stock(stores: list[str], units: float) -> pl.DataFrame:
    return pl.DataFrame({"store_id": stores}).with_columns(
        date=pl.lit(DAY.first), item_id=pl.lit("i"), units=pl.lit(units)
    )


@given(NAMES)
@settings(deadline=None)
def test_a_literal_is_read_back_as_its_text(name: str) -> None:
    assert duckdb.sql(f"select {literal(name)}").fetchall() == [(name,)]


@given(NAMES, NAMES)
@settings(max_examples=50, deadline=None)
def test_a_predicate_selects_by_equality_and_nothing_else(column: str, value: str) -> None:
    rows = pl.DataFrame({column: [*HOSTILE, value], "n": range(len(HOSTILE) + 1)}, strict=False)
    if len(rows.columns) < 2 or column.lower() == "n":
        return
    con = duckdb.connect()
    con.register("rows", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
    found = con.sql(f"select n from rows where {among(column, value)}").fetchall()
    assert [n for (n,) in found] == rows.filter(rows[column] == value)["n"].to_list()


def test_each_hostile_store_is_replaced_alone(tmp_path: Path) -> None:
    table = Lake(tmp_path).table(STOCK)
    table.replace(stock(HOSTILE, 0.0), DAY)
    expected = dict.fromkeys(HOSTILE, 0.0)
    for n, name in enumerate(HOSTILE, start=1):
        table.replace(stock([name], float(n)), Cells(DAY.first, DAY.last, (name,)))
        expected[name] = float(n)
    found = table.read().frame.collect()
    assert dict(zip(found["store_id"], found["units"], strict=True)) == expected
    assert found.height == len(HOSTILE)
    for name in HOSTILE:
        one = table.read(DAY.only(name))
        assert one.frame.collect()["units"].to_list() == [expected[name]]
        assert one.files == 1


@given(st.lists(NAMES, min_size=2, max_size=4, unique=True))
@settings(max_examples=15, deadline=None)
def test_any_store_is_replaced_alone(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    table = Lake(tmp_path_factory.mktemp("lake")).table(STOCK)
    table.replace(stock(names, 0.0), DAY)
    table.replace(stock(names[:1], 1.0), DAY.only(names[0]))
    found = table.read().frame.collect()
    assert dict(zip(found["store_id"], found["units"], strict=True)) == {
        name: float(name == names[0]) for name in names
    }


@pytest.mark.parametrize("name", ["a b", "50%", "José", "a#b", "a?b", "a*b", "a[b]", 'a"b'])
def test_a_folder_that_could_not_be_read_back_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="set FORECAST_DATA to a folder"):
        Lake(tmp_path / name)


def test_predicates_name_logical_columns_only() -> None:
    where = predicate(
        Cells(DAY.first, DAY.last, ("a", "o'b")), {"segment_group": "g"}, "date", "store_id"
    )
    assert where == (
        "\"date\" >= '2016-04-01' AND \"date\" <= '2016-04-30' AND "
        "\"store_id\" IN ('a', 'o''b') AND \"segment_group\" = 'g'"
    )
    assert predicate(None, {}, "date", "store_id") == "true"
    assert identifier('a"b') == '"a""b"'
