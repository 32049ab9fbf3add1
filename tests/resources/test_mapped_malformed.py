"""Malformed input: every kind is explained by file, row and remedy, and no row is lost."""

import gzip
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks._malformed_kinds import KINDS, MAPPING, Kind, lines
from benchmarks.malformed import judge
from forecast_core.source.clean import clean
from forecast_core.source.error import SourceError
from resources.mapped_source import MappedSource


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_it_is_explained_and_conserved(kind: Kind, tmp_path: Path) -> None:
    explained, conserved = judge(kind, tmp_path)
    assert explained
    assert conserved


def test_there_are_forty_kinds_at_least() -> None:
    assert len({kind.name for kind in KINDS}) >= 40


def conserved(folder: Path, data: bytes, name: str = "sales.csv") -> None:
    """Either the file is refused by name and remedy, or every row of it is accounted for."""
    (folder / name).write_bytes(data)
    mapping = {**MAPPING, "sales": {**MAPPING["sales"], "files": name}}
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    source = MappedSource(folder / "mapping.yaml", folder / "staged", fresh=True)
    try:
        first, last = source.span()
    except SourceError as error:
        assert error.file.endswith(name) and error.remedy
        return
    out = 0
    for store in source.stores():
        done = clean(
            source.sales(store, first, last),
            source.prices(store, first, last),
            last,
            source.policy,
            source.frequency,
            source.series(),
        )
        out += int(done.kept["source_rows"].sum()) + done.quarantined.height
    assert out == sum(file.rows for file in source.manifest.files)


CELLS = st.sampled_from(
    ["", "NA", "-1", "1e999", "inf", "nan", "x", "2024-01-01", "01/02/2024", '"a', 'a"', '"a,b"',
     ",", "\u00e9", "1,5", "0x1", "9" * 400, " ", "NULL", "2055-01-01", "'", ";"]
)  # fmt: skip
DAMAGE = st.lists(st.tuples(st.integers(0, 160), st.integers(0, 4), CELLS), max_size=6)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damage=DAMAGE, cut=st.integers(0, 60), ends=st.sampled_from(["\n", "\r\n", "\r"]))
def test_random_corruptions_lose_nothing(
    damage: list[tuple[int, int, str]], cut: int, ends: str, tmp_path: Path
) -> None:
    rows = [line.split(",") for line in lines()]
    for row, column, text in damage:
        rows[row][column] = text
    data = ends.join(",".join(cells) for cells in rows).encode()
    conserved(tmp_path, data[: len(data) - cut])


def test_odd_quotes_in_the_first_line_lose_nothing(tmp_path: Path) -> None:
    """The reader of columns sees more of them there than the header names."""
    rows = [line.split(",") for line in lines()]
    rows[1][3], rows[2][0], rows[2][4] = '"a', '"a,b"', '"a'
    conserved(tmp_path, "\n".join(",".join(cells) for cells in rows).encode())


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, 700), flip=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_flipped_byte_or_a_cut_of_a_gzip_is_refused_or_harmless(
    at: int, flip: int, cut: int, tmp_path: Path
) -> None:
    packed = bytearray(gzip.compress("\n".join(lines()).encode(), mtime=0))
    packed[at % len(packed)] ^= flip
    conserved(tmp_path, bytes(packed[: len(packed) - cut]), "sales.csv.gz")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 30), CELLS), max_size=5),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_random_corruptions_of_a_wide_table_lose_nothing(
    cells: list[tuple[int, int, str]], ends: str, tmp_path: Path
) -> None:
    rows = [["item", *(f"2024-01-{day:02d}" for day in range(1, 31))]]
    rows += [[f"i{at}", *(str(day % 5) for day in range(30))] for at in range(12)]
    for row, column, text in cells:
        rows[row][column] = text
    (tmp_path / "sales.csv").write_bytes(ends.join(",".join(row) for row in rows).encode())
    sales = {
        "files": "sales.csv",
        "item_id": "item",
        "date": "day",
        "wide": {"of": "days", "columns": r"(\d{4}-\d\d-\d\d)"},
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump({"sales": sales}))
    source = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged", fresh=True)
    try:
        first, last = source.span()
    except SourceError as error:
        assert error.file.endswith("sales.csv") and error.remedy
        return
    (store,) = source.stores()
    given_rows = source.sales(store, first, last)
    done = clean(given_rows, source.prices(store, first, last), last)
    assert given_rows.height == done.kept.height + done.quarantined.height
    assert given_rows.height == sum(file.staged for file in source.manifest.files)
