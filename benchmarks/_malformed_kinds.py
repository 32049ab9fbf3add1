"""Kinds of malformed input, each with what must be said of it.

Belongs here: how to break a sound file, and the file, row and remedy that the message must name.
Does not: reading it (`benchmarks.malformed`, and the test beside it).
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

FIRST = date(2024, 1, 1)
DAYS = 40
HEADER = "date,store,item,units,price"
MAPPING: dict[str, Any] = {
    "version": 1,
    "sales": {
        "files": "sales.csv",
        "date": "date",
        "store_id": "store",
        "item_id": "item",
        "units": "units",
        "sell_price": "price",
    },
}


@dataclass(frozen=True)
class Kind:
    """A way to be malformed.

    `rule` and `row`: the quarantined row that must be named; without a rule the file is refused,
    and `says` must stand in the message (problem and remedy). `lost`: rows that disappear for
    good reason (none: a truncated file is refused, not read in part). `kept` the rows that stay
    where nothing is wrong with any.
    """

    name: str
    write: Callable[[Path], None]
    rule: str | None = None
    row: int | None = None
    says: tuple[str, ...] = ()
    fine: bool = False
    file: str = ""  # that is named, where it is another than the sales
    mapping: dict[str, Any] = field(default_factory=dict)


def lines() -> list[str]:
    """A sound file: 2 stores x 2 items x 40 days."""
    rows = [
        f"{FIRST + timedelta(day)},{store},{item},{(day * 7 + at) % 5 + 1},{2 + at}.50"
        for store in ("north", "south")
        for at, item in enumerate(("apple", "bread"))
        for day in range(DAYS)
    ]
    return [HEADER, *rows]


def _text(
    change: Callable[[list[str]], list[str]], encoding: str = "utf-8"
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        text = "\n".join(change(lines())) + "\n"
        (folder / "sales.csv").write_bytes(text.encode(encoding))

    return write


def _line(row: int, text: str) -> Callable[[Path], None]:
    """Line `row` (the header is 1) replaced by `text`."""
    return _text(lambda given: [*given[: row - 1], text, *given[row:]])


def _cell(row: int, *columns_and_values: int | str) -> Callable[[Path], None]:
    """Cells of a line replaced, as column, value, column, value."""

    def change(given: list[str]) -> list[str]:
        cells = given[row - 1].split(",")
        for column, value in zip(columns_and_values[::2], columns_and_values[1::2], strict=True):
            cells[int(column)] = str(value)
        return [*given[: row - 1], ",".join(cells), *given[row:]]

    return _text(change)


def _bytes(change: Callable[[bytes], bytes], name: str = "sales.csv") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(change(("\n".join(lines()) + "\n").encode()))

    return write


def _zip(data: bytes, name: str = "sales.csv") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr(name, data)
    return held.getvalue()


def _damaged(data: bytes) -> bytes:
    packed = bytearray(gzip.compress(data, mtime=0))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


def _sales(**changes: Any) -> dict[str, Any]:
    return {"sales": {**MAPPING["sales"], **changes}}


def _folder(folder: Path) -> None:
    (folder / "sales.csv").mkdir()


def _delta(folder: Path) -> None:
    (folder / "sales.csv" / "_delta_log").mkdir(parents=True)


_STORES = {"files": "stores.csv", "on": "store"}


def _stores(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _text(lambda given: given)(folder)
        (folder / "stores.csv").write_text(text)

    return write


def _prices(price: str, day: str = "2024-01-01", more: str = "") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _text(lambda given: given)(folder)
        (folder / "prices.csv").write_text(f"day,item,price\n{day},apple,{price}\n{more}")

    return write


def _beside(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _text(lambda given: given)(folder)
        (folder / name).write_text(text)

    return write


PRICED: dict[str, Any] = {
    "sales": {name: spec for name, spec in MAPPING["sales"].items() if name != "sell_price"},
    "prices": {"files": "prices.csv", "date": "day", "item_id": "item", "sell_price": "price"},
}


def _depts(given: list[str]) -> list[str]:
    """Departments in a column; one line puts its item into another."""
    held = [f"{line},{line.split(',')[2][0]}-food" for line in given[1:]]
    held[3] = held[3].replace("a-food", "b-food")
    return [f"{given[0]},dept", *held]


GZ = _sales(files="sales.csv.gz")
JOINED = _sales(join=[_STORES], state_id="region")

KINDS: tuple[Kind, ...] = (
    # Files that cannot be used as they stand.
    Kind("missing file", lambda folder: None, says=("no such file", "`files`")),
    Kind(
        "glob without a match",
        _text(lambda g: g),
        says=("no such file",),
        mapping=_sales(files="*.tsv"),
    ),
    Kind("empty file", _bytes(lambda b: b""), says=("empty", "again")),
    Kind("header only", _bytes(lambda b: HEADER.encode() + b"\n"), says=("no rows", "whole")),
    Kind("a folder", _folder, says=("folder", "*.csv")),
    Kind("broken delta table", _delta, says=("cannot be read as delta",)),
    Kind(
        "truncated gzip",
        _bytes(lambda b: gzip.compress(b)[:-20], "sales.csv.gz"),
        says=("cut off", "again"),
        mapping=GZ,
    ),
    Kind("damaged gzip", _bytes(_damaged, "sales.csv.gz"), says=("damaged", "again"), mapping=GZ),
    Kind(
        "gzip in name only",
        _bytes(lambda b: b, "sales.csv.gz"),
        says=("no gzip", "again"),
        mapping=GZ,
    ),
    Kind("truncated zip", _bytes(lambda b: _zip(b)[:-30]), says=("damaged", "again")),
    Kind(
        "Excel workbook", _bytes(lambda b: _zip(b"", "[Content_Types].xml")), says=("Excel", "CSV")
    ),
    Kind("Parquet named csv", _bytes(lambda b: b"PAR1" + b), says=("Parquet", "format")),
    Kind(
        "broken Parquet",
        _bytes(lambda b: b, "sales.parquet"),
        says=("parquet", "again"),
        mapping=_sales(files="sales.parquet"),
    ),
    Kind(
        "wrong encoding",
        _text(lambda g: [*g[:4], g[4].replace("apple", "äpfel"), *g[5:]], "cp1252"),
        row=5,
        says=("utf-8", "csv.encoding"),
    ),
    Kind(
        "unknown encoding",
        _text(lambda g: g),
        says=("klingon", "utf-8"),
        mapping=_sales(csv={"encoding": "klingon"}),
    ),
    Kind("zero byte", _cell(7, 2, "ap\0ple"), row=7, says=("zero byte", "csv.encoding")),
    Kind(
        "duplicated header",
        _line(1, "date,store,item,units,units"),
        row=1,
        says=("twice", "own name"),
    ),
    Kind(
        "column missing",
        _line(1, "date,store,item,unitz,price"),
        says=("'units' is missing", "'unitz'"),
    ),
    Kind(
        "another separator",
        _text(lambda g: [one.replace(",", ";") for one in g]),
        says=("is missing", "mapping"),
    ),
    Kind("unclosed quote", _cell(9, 2, '"apple'), row=9, says=("quote", "Close it")),
    Kind(
        "joined key twice",
        _stores("store,region\nnorth,N\nnorth,M\n"),
        row=3,
        says=("stands twice", "one line"),
        mapping=JOINED,
    ),
    Kind(
        "joined line ragged",
        _stores("store,region\nnorth\n"),
        row=2,
        says=("1 cells", "Correct"),
        mapping=JOINED,
    ),
    Kind(
        "no date readable",
        _text(lambda g: g),
        says=("date that can be read", "sales.date"),
        mapping=_sales(date={"column": "date", "format": "%d.%m.%Y"}),
    ),
    # Rows that cannot be used: quarantined, each under its rule.
    Kind("line too short", _line(6, "2024-01-05,north,apple"), "unreadable_line", 6),
    Kind("line too long", _line(6, "2024-01-05,north,apple,1,2.5,9"), "unreadable_line", 6),
    Kind("last line cut off", _text(lambda g: [*g[:-1], "2024-02-0"]), "unreadable_line", 161),
    Kind("header repeated", _line(8, HEADER), "repeated_header", 8),
    Kind(
        "a line of units under the header",
        _text(lambda g: [g[0], "[day],[shop],[name],[pieces],[EUR]", *g[1:]]),
        "heading",
        2,
    ),
    Kind("a heading without a day", _cell(5, 0, "", 3, "NORTH"), "heading", 5),
    Kind(
        "a sum at the end",
        _text(lambda g: [*g, "total,all stores,,480,"]),
        "unparseable_date",
        162,
    ),
    Kind("mixed dates", _cell(5, 0, "04/01/2024"), "unparseable_date", 5),
    Kind("impossible date", _cell(5, 0, "2024-02-30"), "unparseable_date", 5),
    Kind("text for a date", _cell(5, 0, "total"), "unparseable_date", 5),
    Kind("no date", _cell(5, 0, ""), "missing_key", 5),
    Kind("future date", _cell(5, 0, "2055-01-04"), "future_date", 5),
    Kind("ancient date", _cell(5, 0, "1970-01-01"), "early_date", 5),
    Kind("no store", _cell(5, 1, ""), "missing_key", 5),
    Kind("no item", _cell(5, 2, " "), "missing_key", 5),
    Kind("text for units", _cell(5, 3, "three"), "unparseable_value", 5),
    Kind("decimal comma", _cell(5, 3, '"2,5"'), "unparseable_value", 5),
    Kind("two numbers in one", _cell(5, 3, "1 2"), "unparseable_value", 5),
    Kind("spreadsheet error", _cell(5, 3, "#DIV/0!"), "unparseable_value", 5),
    Kind("no units", _cell(5, 3, "NA"), "missing_units", 5),
    Kind("overflow", _cell(5, 3, "1e999"), "non_finite_units", 5),
    Kind("infinite units", _cell(5, 3, "inf"), "non_finite_units", 5),
    Kind("negative units", _cell(5, 3, "-4"), "negative_units", 5),
    Kind(
        "return, set apart",
        _cell(5, 3, "-4"),
        "return",
        5,
        mapping={"policy": {"negatives": "separate"}},
    ),
    Kind("duplicate key", _text(lambda g: [*g, g[4]]), "duplicate_key", 162),
    Kind(
        "unknown store in a join",
        _stores("store,region\nnorth,N\n"),
        "missing_hierarchy",
        82,
        mapping=JOINED,
    ),
    Kind(
        "a flag that says neither yes nor no",
        _text(
            lambda g: [
                f"{one},{'open' if at == 0 else 'ja'}" if at != 4 else f"{one},viel"
                for at, one in enumerate(g)
            ]
        ),
        "unparseable_value",
        5,
        mapping=_sales(open="open"),
    ),
    Kind("fractional week number", _cell(5, 0, "1.5"), "unparseable_date", 5),
    # Prices that cannot be used: told, and their sales are kept without one.
    Kind("negative price", _cell(5, 4, "-1"), "price_not_positive", 5),
    Kind("text for a price", _cell(5, 4, "free"), "unparseable_price", 5),
    Kind("infinite price", _cell(5, 4, "inf"), "non_finite_price", 5),
    Kind(
        "text in a price table",
        _prices("free"),
        "unparseable_price",
        2,
        file="prices.csv",
        mapping=PRICED,
    ),
    Kind(
        "price of zero in its table",
        _prices("0"),
        "price_not_positive",
        2,
        file="prices.csv",
        mapping=PRICED,
    ),
    Kind(
        "no date in a price table",
        _prices("2.5", ""),
        "unparseable_price",
        2,
        file="prices.csv",
        mapping=PRICED,
    ),
    Kind(
        "price twice",
        _prices("2.5", more="2024-01-01,apple,3\n"),
        "duplicate_price",
        3,
        file="prices.csv",
        mapping=PRICED,
    ),
    Kind(
        "price of an unknown store",
        _beside("prices.csv", "day,store,item,price\n2024-01-01,nowhere,apple,2\n"),
        "unknown_store",
        2,
        file="prices.csv",
        mapping={**PRICED, "prices": {**PRICED["prices"], "store_id": "store"}},
    ),
    Kind(
        "plan without a readable date",
        _beside("plan.csv", "day,promo\n2024-01-01,1\nsoon,1\n"),
        "unparseable_date",
        3,
        file="plan.csv",
        mapping={"known": [{"files": "plan.csv", "date": "day", "covariates": {"promo": "promo"}}]},
    ),
    Kind(
        "calendar with a day twice",
        _beside("calendar.csv", "day,holiday\n2024-01-01,New Year\n2024-01-01,Again\n"),
        row=3,
        says=("stands twice", "Give every day once"),
        file="calendar.csv",
        mapping={"calendar": {"files": "calendar.csv", "date": "day", "event_name_1": "holiday"}},
    ),
    # Rows that are unusual, and fine.
    Kind("item in two departments", _text(_depts), fine=True, mapping=_sales(dept_id="dept")),
    Kind("byte-order mark", _bytes(lambda b: b"\xef\xbb\xbf" + b), fine=True),
    Kind("CR LF", _bytes(lambda b: b.replace(b"\n", b"\r\n")), fine=True),
    Kind("CR alone", _bytes(lambda b: b.replace(b"\n", b"\r")), fine=True),
    Kind("UTF-16", _text(lambda g: g, "utf-16"), fine=True),
    Kind("blank lines", _text(lambda g: [*g[:5], "", "", *g[5:], ""]), fine=True),
    Kind("no newline at the end", _bytes(lambda b: b[:-1]), fine=True),
    Kind("quotes and a newline within", _cell(5, 2, '"apple"'), fine=True),
)
