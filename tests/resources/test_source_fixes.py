"""Quarantined rows, corrected in a file of their own, take their place; nothing else moves."""

from pathlib import Path

import polars as pl
import pytest
import yaml

from benchmarks._malformed_kinds import MAPPING, lines
from forecast_core.source.clean import Cleaned, clean
from forecast_core.source.error import SourceError
from resources.mapped_source import MappedSource
from resources.source_fixes import to_correct

BROKEN = {
    5: "2024-01-04,north,apple,three,2.5",  # no number
    7: ",north,apple,1,2.5",  # no date
    9: "2024-01-08,,apple,4,2.5",  # no store
    11: "2055-01-10,north,apple,2,2.5",  # too late a date
    13: "2024-01-12,north,apple",  # a cell short
}


def source(folder: Path, **more: object) -> MappedSource:
    (folder / "mapping.yaml").write_text(yaml.safe_dump({**MAPPING, **more}))
    return MappedSource(folder / "mapping.yaml", folder / "staged")


def cleaned(source: MappedSource) -> Cleaned:
    first, last = source.span()
    parts = [
        clean(
            source.sales(store, first, last),
            source.prices(store, first, last),
            last,
            source.policy,
            source.frequency,
            source.series(),
        )
        for store in source.stores()
    ]
    return Cleaned(
        pl.concat(p.kept for p in parts),
        pl.concat((p.quarantined for p in parts), how="diagonal_relaxed"),
        pl.concat((p.refused_prices for p in parts), how="diagonal_relaxed"),
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    text = lines()
    for row, line in BROKEN.items():
        text[row - 1] = line
    text.append(text[2])  # a key that stands twice
    (tmp_path / "sales.csv").write_text("\n".join(text) + "\n")
    return tmp_path


def test_corrected_rows_leave_the_quarantine_and_the_rest_stays(broken: Path) -> None:
    before = cleaned(source(broken))
    found = to_correct(before.quarantined)
    assert found.height == 6
    day = {5: "2024-01-04", 7: "2024-01-06", 9: "2024-01-08", 11: "2024-01-10"}
    corrected = found.with_columns(
        units=pl.when(source_row=5).then(3.0).otherwise("units"),
        date=pl.col("source_row").replace_strict(day, default=None).str.to_date(),
        store_id=pl.lit("north"),
        item_id=pl.lit("apple"),
    )
    corrected.write_csv(broken / "fixes.csv")
    again = source(broken, fixes="fixes.csv")
    after = cleaned(again)
    assert set(after.quarantined["source_row"]) == {13, 162}  # still open, and the double
    assert again.corrected is not None
    assert (again.corrected.gone.height, again.corrected.stale, again.corrected.open) == (4, 0, 2)
    key = ["store_id", "item_id", "date"]
    new = after.kept.join(before.kept, on=key, how="anti").sort("date")
    assert new["units"].to_list() == [3.0, 1.0, 4.0, 2.0]
    assert after.kept.join(new, on=key, how="anti").sort(key).equals(before.kept.sort(key))
    rows = sum(file.rows for file in again.manifest.files)
    assert rows == after.kept["source_rows"].sum() + after.quarantined.height


def test_a_correction_may_bring_a_new_store_and_item(broken: Path) -> None:
    found = to_correct(cleaned(source(broken)).quarantined).filter(source_row=9)
    found.with_columns(store_id=pl.lit("west"), item_id=pl.lit("cheese")).write_csv(
        broken / "fixes.csv"
    )
    again = source(broken, fixes=["fixes.csv"])
    assert again.stores() == ("north", "south", "west")
    assert cleaned(again).kept.filter(store_id="west").select("item_id", "units").rows() == [
        ("cheese", 4.0)
    ]


def test_a_row_that_changed_is_not_overwritten_by_an_old_correction(broken: Path) -> None:
    found = to_correct(cleaned(source(broken)).quarantined).filter(source_row=5)
    found.with_columns(units=pl.lit(3.0), date=pl.lit("2024-01-04")).write_csv(broken / "fixes.csv")
    text = (broken / "sales.csv").read_text().replace("north,apple,three", "north,apple,four")
    (broken / "sales.csv").write_text(text)
    again = source(broken, fixes="fixes.csv")
    after = cleaned(again)
    assert again.corrected is not None and again.corrected.stale == 1
    assert 5 in set(after.quarantined["source_row"])


def test_a_correction_that_cannot_be_read_is_named_by_its_line(broken: Path) -> None:
    found = to_correct(cleaned(source(broken)).quarantined).filter(source_row=5)
    found.with_columns(units=pl.lit("drei"), date=pl.lit("2024-01-04")).write_csv(
        broken / "fixes.csv"
    )
    with pytest.raises(SourceError, match=r"fixes\.csv, row 2: units 'drei' is not a number"):
        source(broken, fixes="fixes.csv").stores()


def test_a_cell_of_a_wide_table_is_corrected_too(tmp_path: Path) -> None:
    days = [f"2024-01-{day:02d}" for day in range(1, 11)]
    text = "item," + ",".join(days) + "\nx,1,2,oops,4,5,6,7,8,9,10\n"
    (tmp_path / "sales.csv").write_text(text)
    mapping = {
        "sales": {
            "files": "sales.csv",
            "item_id": "item",
            "date": "day",
            "wide": {"of": "days", "columns": r"(\d{4}-\d\d-\d\d)"},
        }
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    found = to_correct(cleaned(MappedSource(tmp_path / "mapping.yaml", tmp_path / "s")).quarantined)
    found.with_columns(units=pl.lit(3.0)).write_csv(tmp_path / "fixes.csv")
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump({**mapping, "fixes": "fixes.csv"}))
    after = cleaned(MappedSource(tmp_path / "mapping.yaml", tmp_path / "s"))
    assert after.kept["units"].to_list() == [float(n) for n in range(1, 11)]
    assert after.quarantined.is_empty()
