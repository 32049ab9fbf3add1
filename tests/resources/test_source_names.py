"""Names are taken as they stand: a word for nothing is one where a number should be."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from forecast_core.closures import shut_days
from forecast_core.source.clean import Cleaned, clean
from forecast_core.source.error import SourceError
from forecast_core.source.mapping import MISSING
from resources.mapped_source import MappedSource
from resources.source_fixes import to_correct

FIRST = date(2024, 1, 1)
WORDS = tuple(word for word in MISSING if word)
SALES = {"files": "sales.csv", "date": "day", "store_id": "shop", "item_id": "sku", "units": "qty"}


def source(folder: Path, lines: list[str], **mapping: Any) -> MappedSource:
    (folder / "sales.csv").write_text("\n".join(["day,shop,sku,qty", *lines]) + "\n")
    content = {"sales": {**SALES, **mapping.pop("sales", {})}, **mapping}
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    return MappedSource(folder / "mapping.yaml", folder / "staged")


def cleaned(made: MappedSource) -> Cleaned:
    first, last = made.span()
    parts = [
        clean(made.sales(s, first, last), made.prices(s, first, last), last, made.policy)
        for s in made.stores()
    ]
    return Cleaned(
        pl.concat([p.kept for p in parts]),
        pl.concat([p.quarantined for p in parts], how="diagonal"),
        pl.concat([p.refused_prices for p in parts], how="diagonal"),
    )


def days(item: str, count: int = 5, units: str = "2", shop: str = "north") -> list[str]:
    return [f"{FIRST + timedelta(day)},{shop},{item},{units}" for day in range(count)]


@pytest.mark.parametrize("amid", ["2", "NA", "two"])  # numbers, some missing, all read as text
def test_an_item_may_be_called_none_and_a_shop_na(amid: str, tmp_path: Path) -> None:
    lines = [line for word in WORDS for line in days(word, shop="NA")]
    done = cleaned(source(tmp_path, [*lines, f"2024-01-02,north,apple,{amid}"]))
    kept = done.kept.filter(store_id="NA")
    assert kept.group_by("item_id").len().sort("item_id").rows() == [(w, 5) for w in sorted(WORDS)]
    rules = {"2": [], "NA": ["missing_units"], "two": ["unparseable_value"]}[amid]
    assert done.quarantined["rule"].to_list() == rules


def test_words_that_the_mapping_names_are_missing_in_names_too(tmp_path: Path) -> None:
    lines = [*days("apple"), *days("NA", 1), *days("unknown", 1)]
    made = source(tmp_path, lines, sales={"csv": {"nulls": ["", "unknown"]}})
    done = cleaned(made)
    assert done.kept["item_id"].unique().sort().to_list() == ["NA", "apple"]
    assert done.quarantined["rule"].to_list() == ["missing_key"]


@pytest.mark.parametrize("word", WORDS)
def test_where_a_number_or_a_date_should_be_they_are_missing(word: str, tmp_path: Path) -> None:
    odd = [f"{word},north,apple,2", f"2024-01-03,north,pear,{word}"]
    done = cleaned(source(tmp_path, [*days("apple", 4), *odd]))
    rules = dict(done.quarantined.select("source_row", "rule").rows())
    assert rules == {6: "missing_key", 7: "missing_units"}


def test_a_missing_flag_is_none_and_a_missing_event_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "days.csv").write_text(
        "day,feast\n"
        + "".join(f"{FIRST + timedelta(d)},{'NA' if d else 'New Year'}\n" for d in range(5))
    )
    lines = [f"{line},{'None' if at else 'no'}" for at, line in enumerate(days("apple"))]
    made = source(
        tmp_path,
        lines,
        sales={"open": "open"},
        calendar={"files": "days.csv", "date": "day", "event_name_1": "feast"},
    )
    (tmp_path / "sales.csv").write_text("\n".join(["day,shop,sku,qty,open", *lines]) + "\n")
    assert made.calendar()["event_name_1"].drop_nulls().to_list() == ["New Year"]
    assert cleaned(made).kept["on_sale"].to_list() == [False, True, True, True, True]


def test_a_line_of_units_or_a_sum_opens_no_shop_and_no_item(tmp_path: Path) -> None:
    odd = ["[day],[shop],[name],[pieces]", "total,all shops,all,20", ",sum of all,,20"]
    made = source(tmp_path, [odd[0], *days("apple"), *odd[1:]])
    assert made.stores() == ("north",)
    assert made.series()["item_id"].to_list() == ["apple"]
    done = cleaned(made)
    rules = dict(done.quarantined.select("source_row", "rule").rows())
    assert rules == {2: "heading", 8: "unparseable_date", 9: "missing_key"}
    assert done.kept.height == 5
    assert set(done.quarantined["raw_text"]) == set(odd)


def test_a_shop_whose_rows_are_mended_is_one(tmp_path: Path) -> None:
    made = source(tmp_path, [*days("apple"), "05/01/2024,south,pears,3"])
    assert made.stores() == ("north",)
    rows = cleaned(made).quarantined
    assert rows["raw_text"].to_list() == ["05/01/2024,south,pears,3"]
    fixes = to_correct(rows).with_columns(
        date=pl.lit("2024-01-05"), item_id=pl.lit("pears"), store_id=pl.lit("south"), units=3.0
    )
    fixes.write_csv(tmp_path / "fixes.csv")
    content = {"sales": SALES, "fixes": "fixes.csv"}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    mended = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    assert mended.stores() == ("north", "south")
    assert mended.series().select("item_id", "store_id").rows() == [
        ("apple", "north"), ("pears", "south"),
    ]  # fmt: skip
    assert cleaned(mended).kept.filter(store_id="south")["units"].to_list() == [3.0]


def test_what_only_a_price_of_the_store_names_is_an_item_of_it(tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(
        "from,shop,sku,price\n2024-01-01,north,apple,2\n2024-01-03,north,plum,3\n"
        "2024-01-03,north,fig,0\n2024-01-03,nowhere,plum,3\n"
    )
    prices = {
        "files": "prices.csv", "date": "from", "store_id": "shop", "item_id": "sku",
        "sell_price": "price",
    }  # fmt: skip
    made = source(tmp_path, days("apple"), prices=prices)
    assert made.series().select("item_id", "store_id").rows() == [
        ("apple", "north"), ("plum", "north"),
    ]  # fmt: skip
    assert made.plans


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("open", ("ja", "nein")),
        ("closed", ("0", "1")),
        ("open", ("OPEN", "Closed")),
        ("open", ("sí", "no")),
    ],
)
def test_a_weekday_that_is_always_shut_is_shut_ahead(
    kind: str, words: tuple[str, str], tmp_path: Path
) -> None:
    made = source(tmp_path, [], sales={kind: "flag"})
    rows = [
        f"{day},north,apple,{0 if day.weekday() == 6 else 3},{words[day.weekday() == 6]}"
        for day in (FIRST + timedelta(n) for n in range(70))
    ]
    (tmp_path / "sales.csv").write_text("\n".join(["day,shop,sku,qty,flag", *rows]) + "\n")
    last = made.span()[1]
    ahead = shut_days(made.prices("north", FIRST, last + timedelta(28))).sort()
    assert set(ahead.dt.weekday()) == {7}
    assert ahead.max() == date(2024, 4, 7) and len(ahead) == 14
    assert cleaned(made).quarantined.is_empty()


def test_a_flag_of_a_plan_that_says_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hours.csv").write_text("day,open\n2024-01-02,yes\n2024-01-03,maybe\n")
    known = [{"files": "hours.csv", "date": "day", "open": "open"}]
    with pytest.raises(SourceError, match="'maybe' says neither yes nor no") as refused:
        _ = source(tmp_path, days("apple"), known=known).stage
    assert refused.value.row == 3 and "values: {maybe: yes}" in refused.value.remedy


def test_a_correction_left_alone_changes_nothing(tmp_path: Path) -> None:
    """A row is filed somewhere until it can be read: that is no reading of it."""
    odd = [
        "2024-13-05,north,apple,3",
        ",north,apple,4",
        "2055-01-01,north,apple,5",
        "2024-01-03,,apple,6",
    ]
    made = source(tmp_path, [*days("apple", 200), *odd])
    before = cleaned(made)
    found = to_correct(before.quarantined)
    assert found["date"].null_count() == 3 and found["store_id"].null_count() == 1
    found.write_csv(tmp_path / "fixes.csv")
    content = {"sales": SALES, "fixes": "fixes.csv"}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    again = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    assert cleaned(again).kept.equals(before.kept)
    assert cleaned(again).quarantined.height == 4
    assert again.corrected is not None and again.corrected.open == 4
