"""Sources: every file format gives the same tables, and bad files name file, row and remedy."""

import gzip
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecast_core.generate import DemoSpec
from forecast_core.schema import TABLES
from forecast_core.source.clean import clean
from forecast_core.source.error import SourceError
from resources.sources import DemoSource, M5Source, Source, build_source

FIRST, DAYS = date(2024, 1, 27), 40
LAST = FIRST + timedelta(DAYS - 1)
WINDOW = (FIRST, LAST + timedelta(30))


def tables(fill: int = 1) -> dict[str, pl.DataFrame]:
    """The three files, small: three stores, four items, 40 days, a calendar of 56."""
    rows = [
        (f"{item}_{store}_evaluation", item, item[:7], "FOODS", store, store[:2])
        for store in ("CA_1", "TX_1", "WI_1")
        for item in ("FOODS_1_001", "FOODS_1_002", "FOODS_2_001", "FOODS_2_002")
    ]
    ids = ["id", "item_id", "dept_id", "cat_id", "store_id", "state_id"]
    sales = pl.DataFrame(rows, schema=ids, orient="row").with_columns(
        ((pl.int_range(pl.len()) * (day + 3)) % 11 * fill).alias(f"d_{day + 1}")
        for day in range(DAYS)
    )
    weeks = [11101 + n for n in range(8)]
    prices = (
        sales.select("store_id", "item_id")
        .join(pl.DataFrame({"wm_yr_wk": weeks}), how="cross")
        .with_columns(sell_price=(pl.int_range(pl.len()) % 17 + 100) / 100)
    )
    days = [FIRST + timedelta(n) for n in range(56)]
    calendar = pl.DataFrame(
        {
            "date": days,
            "wm_yr_wk": [weeks[n // 7] for n in range(56)],
            "d": [f"d_{n + 1}" for n in range(56)],
            "event_name_1": [None, "SuperBowl", *[None] * 54],
            "event_type_1": [None, "Sporting", *[None] * 54],
            "event_name_2": pl.Series([None] * 56, dtype=pl.String),
            "event_type_2": pl.Series([None] * 56, dtype=pl.String),
            **{f"snap_{state}": [n % 2 for n in range(56)] for state in ("CA", "TX", "WI")},
        }
    )
    return {"sales_train_evaluation": sales, "sell_prices": prices, "calendar": calendar}


def write(folder: Path, files: dict[str, pl.DataFrame], suffix: str = ".csv") -> M5Source:
    """Write the files in one format."""
    for name, frame in files.items():
        path = folder / f"{name}{suffix}"
        if suffix == ".parquet":
            frame.write_parquet(path)
        elif suffix == ".csv":
            frame.write_csv(path)
        else:
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
    return M5Source(folder)


def edit(path: Path, line: int, old: str, new: str) -> None:
    """Change one line of a CSV; the header is line 1."""
    lines = path.read_text().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_text("\n".join(lines) + "\n")


def test_the_formats_give_the_same_tables(tmp_path: Path) -> None:
    seen = []
    for suffix in (".csv", ".csv.gz", ".parquet"):
        folder = tmp_path / suffix.strip(".")
        folder.mkdir()
        source = write(folder, tables(), suffix)
        assert source.stores() == ("CA_1", "TX_1", "WI_1")
        assert source.span() == (FIRST, LAST)
        assert source.calendar().schema == {
            **TABLES["raw_calendar"].schema,
            **{f"snap_{state}": pl.Int8() for state in ("CA", "TX", "WI")},
        }
        header = 0 if suffix == ".parquet" else 1  # a Parquet file has rows, not lines
        seen.append(
            [
                source.calendar(),
                *(
                    frame.with_columns(pl.col("source_row") - header)
                    for store in source.stores()
                    for frame in (source.sales(store, *WINDOW), source.prices(store, *WINDOW))
                ),
            ]
        )
    for other in seen[1:]:
        assert all(a.equals(b) for a, b in zip(seen[0], other, strict=True))
    whole = pl.concat(seen[0][1::2])
    official = tables()["sales_train_evaluation"]
    assert whole.height == official.height * DAYS
    assert whole["units"].sum() == sum(official.select("^d_.*$").sum().row(0))


def test_validation_serves_where_evaluation_is_absent(tmp_path: Path) -> None:
    files = tables()
    files["sales_train_validation"] = files.pop("sales_train_evaluation").drop("d_40")
    assert write(tmp_path, files).span() == (FIRST, LAST - timedelta(1))


def test_prices_are_known_past_the_last_sale(tmp_path: Path) -> None:
    source = write(tmp_path, tables())
    prices = source.prices("CA_1", *WINDOW)
    assert prices["until"].max() == FIRST + timedelta(55) > LAST
    assert source.sales("CA_1", LAST + timedelta(1), WINDOW[1]).is_empty()


def test_numbers_wider_than_the_narrow_type_are_read(tmp_path: Path) -> None:
    source = write(tmp_path, tables(fill=10_000))
    assert source.sales("CA_1", *WINDOW)["units"].max() == 100_000


def test_a_text_cell_is_quarantined_and_nothing_beside_it(tmp_path: Path) -> None:
    files = tables()
    source = write(tmp_path, files)
    sound = {store: source.sales(store, *WINDOW) for store in source.stores()}
    lines = (tmp_path / "sales_train_evaluation.csv").read_text().splitlines()
    cells = lines[6].split(",")  # line 7: the second item of TX_1
    cells[6], cells[7] = "n/a", "-4"
    lines[6] = ",".join(cells)
    (tmp_path / "sales_train_evaluation.csv").write_text("\n".join(lines) + "\n")

    source = M5Source(tmp_path)
    for store in source.stores():
        cleaned = clean(source.sales(store, *WINDOW), source.prices(store, *WINDOW))
        assert cleaned.kept.height + cleaned.quarantined.height == sound[store].height
        broken = cleaned.quarantined.select("date", "source_row", "defect", "rule").rows()
        second = FIRST + timedelta(1)
        if store == "TX_1":
            assert broken == [
                (FIRST, 7, "n/a", "unparseable_value"),
                (second, 7, None, "negative_units"),
            ]
            kept = cleaned.kept.join(sound[store], on=["date", "item_id"], how="left")
            assert (kept["units"] == kept["units_right"]).all()
        else:
            assert broken == []


def test_a_duplicate_row_is_quarantined_with_its_line(tmp_path: Path) -> None:
    files = tables()
    sales = files["sales_train_evaluation"]
    files["sales_train_evaluation"] = pl.concat([sales, sales[1:2]])
    source = write(tmp_path, files)
    cleaned = clean(source.sales("CA_1", *WINDOW), source.prices("CA_1", *WINDOW))
    assert cleaned.kept.height == 4 * DAYS
    assert cleaned.quarantined.height == DAYS
    assert set(cleaned.quarantined["source_row"]) == {14}
    assert set(cleaned.quarantined["rule"]) == {"duplicate_key"}


def test_a_bad_price_keeps_its_text_and_its_sale(tmp_path: Path) -> None:
    write(tmp_path, tables())
    edit(tmp_path / "sell_prices.csv", 2, "1.0", "gratis")
    source = M5Source(tmp_path)
    cleaned = clean(source.sales("CA_1", *WINDOW), source.prices("CA_1", *WINDOW))
    assert cleaned.quarantined.is_empty()
    assert set(cleaned.refused_prices["source_row"]) == {2}
    assert set(cleaned.refused_prices["defect"]) == {"gratis"}
    first_week = cleaned.kept.filter(item_id="FOODS_1_001").head(7)
    assert first_week["sell_price"].null_count() == 7 and first_week["on_sale"].all()


@pytest.mark.parametrize("name", ["sales_train_evaluation", "sell_prices", "calendar"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, suffix: str) -> None:
    write(tmp_path, tables(), suffix)
    path = tmp_path / f"{name}{suffix}"
    whole = path.read_bytes()
    cut = len(whole) * 2 // 3
    if suffix == ".csv":  # into the second cell of a line
        cut = whole.index(b",", whole.index(b"\n", cut)) + 3
    path.write_bytes(whole[:cut])
    with pytest.raises(SourceError, match=rf"{name}.*(cut off|cannot be read)") as caught:
        _read_all(M5Source(tmp_path))
    assert "again, whole" in str(caught.value)
    if suffix == ".csv":
        assert caught.value.row == whole[:cut].count(b"\n") + 1


@pytest.mark.parametrize(
    "name,says",
    [
        ("sell_prices", r"sell_prices\.csv: it has no price of store WI_1"),
        ("calendar", r"sales_train_evaluation\.csv: day 'd_2\d' is not in the calendar"),
    ],
)
def test_a_cut_between_two_lines_shows_by_what_is_missing(
    tmp_path: Path, name: str, says: str
) -> None:
    write(tmp_path, tables())
    path = tmp_path / f"{name}.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))
    with pytest.raises(SourceError, match=says):
        _read_all(M5Source(tmp_path))


@pytest.mark.parametrize("name", ["sales_train_evaluation", "sell_prices", "calendar"])
def test_a_missing_an_empty_and_a_headless_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, tables())
    path = tmp_path / f"{name}.csv"
    header, *_ = path.read_text().splitlines()
    path.write_text(header + "\n")
    with pytest.raises(SourceError, match=rf"{name}\.csv: it holds no rows\. "):
        _read_all(M5Source(tmp_path))
    path.write_text("")
    with pytest.raises(SourceError, match=rf"{name}\.csv: it cannot be read"):
        _read_all(M5Source(tmp_path))
    path.write_text(header.replace("d,", "day,", 1).replace("_id", "_key") + "\n1\n")
    with pytest.raises(SourceError, match=rf"{name}\.csv"):
        _read_all(M5Source(tmp_path))
    path.unlink()
    with pytest.raises(SourceError, match=rf"{name}: no file of this name.*M5_DIR"):
        _read_all(M5Source(tmp_path))


def test_what_is_not_a_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path, tables())
    (tmp_path / "calendar.csv").write_bytes(bytes(range(128, 256)) * 20)
    with pytest.raises(SourceError, match=r"calendar\.csv"):
        _read_all(M5Source(tmp_path))
    (tmp_path / "calendar.csv.gz").write_bytes(b"this is no gzip file")
    with pytest.raises(SourceError, match=r"calendar\.csv\.gz"):
        _read_all(M5Source(tmp_path))


def test_a_wrong_column_and_a_bad_date_name_their_file(tmp_path: Path) -> None:
    write(tmp_path, tables())
    edit(tmp_path / "calendar.csv", 5, "2024-01-30", "30/01/2024")
    with pytest.raises(SourceError, match=r"calendar\.csv, row 5: date '30/01/2024' is not a date"):
        _read_all(M5Source(tmp_path))
    edit(tmp_path / "calendar.csv", 5, "30/01/2024", "2024-01-30")
    edit(tmp_path / "sell_prices.csv", 1, "sell_price", "price")
    with pytest.raises(SourceError, match=r"sell_prices\.csv: column 'sell_price' is missing"):
        _read_all(M5Source(tmp_path))


@pytest.mark.parametrize("kind", ["demo", "m5"])
def test_an_unknown_store_is_refused(tmp_path: Path, kind: str) -> None:
    source: Source = (
        write(tmp_path, tables()) if kind == "m5" else DemoSource(DemoSpec(series=30, days=60))
    )
    for read in (source.sales, source.prices):
        with pytest.raises(SourceError, match=r"no store 'NY_9'\. Ask for one of CA_1, TX_1, WI_1"):
            read("NY_9", *WINDOW)


def test_the_error_survives_another_process() -> None:
    error = SourceError("a.csv", 3, "it is wrong", "Mend it")
    remade = error.__reduce__()[0](*error.__reduce__()[1])
    assert str(remade) == str(error) == "a.csv, row 3: it is wrong. Mend it."
    assert remade.row == 3


def test_the_demo_source_follows_the_schema_and_cleans_to_itself() -> None:
    source = DemoSource(DemoSpec(series=60, days=200))
    first, last = source.span()
    assert (last - first).days == 199
    for store in source.stores():
        sales = source.sales(store, first, last)
        cleaned = clean(sales, source.prices(store, first, last), last)
        assert cleaned.quarantined.is_empty() and cleaned.refused_prices.is_empty()
        assert cleaned.kept["units"].sum() == sales["units"].sum()
        assert (cleaned.kept["sell_price"].is_not_null() == cleaned.kept["on_sale"]).all()
        truth = source.truth(store, first, last)
        assert truth["units"].sum() == sales["units"].sum()
        assert source.inventory(store, first, last).schema == TABLES["raw_inventory"].schema


def test_the_source_is_chosen_by_name(tmp_path: Path) -> None:
    demo = build_source("demo", m5_dir=tmp_path, series=50, stores=2, days=90, seed=1)
    assert (demo.name, demo.stores()) == ("demo", ("CA_1", "TX_1"))
    assert build_source("m5", m5_dir=tmp_path).name == "m5"
    with pytest.raises(ValueError, match="source 'oracle' is unknown; use one of demo, m5"):
        build_source("oracle", m5_dir=tmp_path)


def _read_all(source: Source) -> None:
    source.calendar()
    for store in source.stores():
        source.sales(store, *WINDOW)
        source.prices(store, *WINDOW)
