"""The tables that a mapping names, as batches of rows: text, Parquet, Delta or a query.

Belongs here: finding files, choosing the reader, reading a whole small table, and naming the file
in what goes wrong. Does not: cutting text into lines (`resources.source_text`), or the meaning of
a column (`forecast_core.source.rows`).
"""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from forecast_core.source.changes import kind_of
from forecast_core.source.error import SourceError
from forecast_core.source.mapping import Attributes, Format, Join, Table
from resources import with_environment
from resources.source_text import LINE, UNFIT, Batch, text_batches, text_header

ROWS = 1 << 18  # of a batch, where the format has rows
_WHOLE = "Fetch or copy it again, whole"
_SMALL = 5_000_000  # rows of a table that is joined
_LOOK = 1 << 18  # bytes that tell what columns hold


@dataclass(frozen=True)
class Origin:
    """One file (or query) of a table, resolved."""

    name: str
    format: Format
    table: Table

    @property
    def path(self) -> Path:
        """Where it is, unless it is a query."""
        return Path(self.name)


def origins(table: Table, base: Path) -> list[Origin]:
    """The files of a table, sorted; `base` is the folder that its paths are relative to.

    Raises:
        SourceError: a path or glob that finds nothing.
    """
    if table.url is not None:
        return [Origin(_without_password(table.url), "sql", table)]
    found = []
    for pattern in table.files:
        matches = sorted(glob.glob(str(base / pattern), recursive=True))
        if not matches:
            folder = (base / pattern).parent
            beside = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
            close = difflib.get_close_matches(Path(pattern).name, beside, 1)
            raise SourceError(
                str(base / pattern),
                None,
                "there is no such file",
                f"Correct `files`; there is {close[0]}" if close else "Correct `files`",
            )
        found += [Origin(match, table.format or _format(Path(match)), table) for match in matches]
    return list({origin.name: origin for origin in found}.values())


def header(origin: Origin) -> list[str]:
    """The columns of a file or query.

    Raises:
        SourceError: it cannot be read.
    """
    if origin.format == "csv":
        return text_header(origin.path, origin.table.csv)
    if origin.format == "sql":
        return next(_query(origin, 1)).rows.drop(LINE).columns
    return _scan(origin).collect_schema().names()


def column_kinds(origin: Origin) -> dict[str, str]:
    """Column -> what it holds, by its type or by its first rows (`source_changes.kind_of`).

    Raises:
        SourceError: it cannot be read.
    """
    if origin.format == "csv":
        csv = origin.table.csv
        for batch in text_batches(origin.path, csv, chunk=_LOOK):
            rows = batch.rows.drop(LINE)
            few = rows.head(2_000 if rows.width < 100 else 100)
            return {name: kind_of(few[name], csv.decimal, csv.missing) for name in few.columns}
        return {}
    if origin.format == "sql":
        rows = next(_query(origin, 2_000)).rows.drop(LINE)
    else:
        rows = _scan(origin).head(2_000).collect()
    return {name: kind_of(rows[name]) for name in rows.columns}


def batches(origin: Origin, columns: Sequence[str], numeric: Sequence[str] = ()) -> Iterator[Batch]:
    """Every row of one file, with at least `columns`; `numeric` as numbers where they allow it.

    Raises:
        SourceError: it cannot be read, holds no row, or lacks one of `columns`.
    """
    require(origin, header(origin), columns)
    rows = 0
    reader = {"csv": _text, "sql": _query_batches}.get(origin.format, _columnar)
    for batch in reader(origin, columns, numeric):
        rows += batch.lines
        yield batch
    if not rows:
        remedy = "Correct `query`" if origin.format == "sql" else "Put the whole file there"
        raise SourceError(origin.name, None, "it holds no rows", remedy)


def require(origin: Origin, found: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse a table without one of `columns`.

    Raises:
        SourceError: naming the first that is missing, and the nearest there is.
    """
    missing = [name for name in columns if name not in found]
    if missing:
        close = difflib.get_close_matches(missing[0], found, 1)
        shown = ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
        raise SourceError(
            origin.name,
            None,
            f"column {missing[0]!r} is missing (it has {shown})",
            f"Map {close[0]!r} if it was renamed" if close else "Correct the mapping or the file",
        )


def whole(table: Table, base: Path, columns: Sequence[str]) -> pl.DataFrame:
    """A small table as text, all its files in one, `LINE` and `file` among its columns.

    Raises:
        SourceError: as `batches`; a line unfit for columns; too many rows to hold.
    """
    parts: list[pl.DataFrame] = []
    height = 0
    for origin in origins(table, base):
        own = header(origin)
        require(origin, own, columns)
        for batch in batches(origin, own):
            if batch.unfit.height:
                line, _, defect = batch.unfit.row(0)
                raise SourceError(origin.name, line, defect, "Correct the line")
            text = batch.rows.select(pl.col(LINE), pl.exclude(LINE).cast(pl.String))
            parts.append(text.with_columns(file=pl.lit(batch.file)))
            height += text.height
            if height > _SMALL:
                raise SourceError(
                    origin.name,
                    None,
                    f"a table that is joined may have {_SMALL:,} rows, and this has more",
                    "Map it as `prices` or `sales`, which are read in pieces",
                )
    return pl.concat(parts, how="diagonal")


def joined(join: Join, base: Path) -> pl.DataFrame:
    """A table to join: its key columns under the names they join to, each key once.

    Raises:
        SourceError: as `whole`; a key that stands twice, with its line.
    """
    rows = whole(join, base, tuple(join.on.values()))
    key = list(join.on.values())
    rows = rows.with_columns(pl.col(key).str.strip_chars())
    again = rows.filter(~pl.struct(key).is_first_distinct())
    if again.height:
        what = ", ".join(f"{name} {again[name][0]!r}" for name in key)
        raise SourceError(
            again["file"][0], again[LINE][0], f"{what} stands twice", "Give every key one line"
        )
    return rows.drop(LINE, "file").rename({theirs: ours for ours, theirs in join.on.items()})


def attributes(table: Attributes, base: Path) -> pl.DataFrame:
    """What a table says of items or stores: its keys and its attributes, under our names.

    Raises:
        SourceError: as `joined`; a column that it lacks.
    """
    for origin in origins(table, base):
        require(origin, header(origin), tuple(table.columns.values()))
    rows = joined(table, base)
    return rows.select(*table.on, *(pl.col(its).alias(ours) for ours, its in table.columns.items()))


def _text(origin: Origin, columns: Sequence[str], numeric: Sequence[str]) -> Iterator[Batch]:
    yield from text_batches(origin.path, origin.table.csv, numeric)


def _columnar(origin: Origin, columns: Sequence[str], numeric: Sequence[str]) -> Iterator[Batch]:
    frame = _scan(origin)
    kept = list(dict.fromkeys(columns)) or frame.collect_schema().names()
    line = 1
    try:
        for rows in frame.select(kept).collect_batches(chunk_size=ROWS, maintain_order=True):
            numbered = rows.with_columns(
                pl.int_range(line, line + rows.height, dtype=pl.Int64).alias(LINE)
            )
            line += rows.height
            yield Batch(origin.name, _plain(numbered), _NONE_UNFIT, _numeric(rows, numeric))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(origin, error) from error


def _query_batches(
    origin: Origin, columns: Sequence[str], numeric: Sequence[str]
) -> Iterator[Batch]:
    for batch in _query(origin, ROWS):
        yield Batch(batch.file, batch.rows, batch.unfit, _numeric(batch.rows.drop(LINE), numeric))


def _query(origin: Origin, size: int) -> Iterator[Batch]:
    import sqlalchemy as sa

    assert origin.table.url is not None and origin.table.query is not None
    line = 1
    engine = None
    try:
        engine = sa.create_engine(with_environment(origin.table.url))
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sa.text(origin.table.query))
            names = list(result.keys())
            empty = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
            for part in result.partitions(size):
                rows = pl.DataFrame(
                    [tuple(row) for row in part],
                    schema=names,
                    orient="row",
                    infer_schema_length=None,
                )
                numbers = pl.int_range(line, line + rows.height, dtype=pl.Int64).alias(LINE)
                line += rows.height
                yield Batch(origin.name, _plain(rows.with_columns(numbers)), _NONE_UNFIT)
            if line == 1:
                yield Batch(
                    origin.name, empty.with_columns(pl.lit(0, pl.Int64).alias(LINE)), _NONE_UNFIT
                )
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise SourceError(
            origin.name, None, f"the query failed ({reason})", "Correct `url` or `query`"
        ) from error
    finally:
        if engine is not None:
            engine.dispose()


_NONE_UNFIT = pl.DataFrame(schema=UNFIT)


def _plain(rows: pl.DataFrame) -> pl.DataFrame:
    """Categories and decimals in the types that text parsing knows."""
    casts = [
        pl.col(name).cast(pl.Float64 if dtype == pl.Decimal else pl.String)
        for name, dtype in rows.schema.items()
        if dtype in (pl.Decimal, pl.Categorical, pl.Enum, pl.Null)
    ]
    return rows.with_columns(casts) if casts else rows


def _numeric(rows: pl.DataFrame, numeric: Sequence[str]) -> bool:
    return bool(numeric) and all(
        rows.schema[name].is_numeric() for name in numeric if name in rows.columns
    )


def _scan(origin: Origin) -> pl.LazyFrame:
    try:
        if origin.format == "parquet":
            frame = pl.scan_parquet(origin.path, glob=False)
        else:
            from deltalake import DeltaTable

            frame = pl.scan_delta(DeltaTable(origin.name))
        frame.collect_schema()
    except Exception as error:  # each reader has errors of its own
        raise _unreadable(origin, error) from error
    return frame


def _unreadable(origin: Origin, error: Exception) -> SourceError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return SourceError(
        origin.name, None, f"it cannot be read as {origin.format} ({reason})", _WHOLE
    )


def _format(path: Path) -> Format:
    if path.is_dir() and (path / "_delta_log").is_dir():
        return "delta"
    return "parquet" if path.suffix in (".parquet", ".pq") else "csv"


def _without_password(url: str) -> str:
    scheme, at, rest = url.partition("://")
    account, found, place = rest.rpartition("@")
    return f"{scheme}{at}{account.split(':')[0]}@{place}" if found else url
