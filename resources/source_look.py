"""A first look at a file: its separator, encoding and first rows, for a proposed mapping.

Belongs here: sniffing how text is written. Does not: what the columns are
(`forecast_core.source.guess`).
"""

from __future__ import annotations

import glob
import os.path
import re
from collections import Counter
from pathlib import Path

import polars as pl
from polars import selectors

from forecast_core.source.error import SourceError
from forecast_core.source.guess_values import Look, number_style
from forecast_core.source.mapping import MISSING, Csv, Table
from resources import with_environment
from resources.source_files import Origin, batches, header, origins
from resources.source_text import LINE, members


def look_at(path: Path, base: Path, rows: int) -> Look:
    """The first `rows` of a file as text; its name as a mapping in folder `base` would give it.

    Raises:
        SourceError: it cannot be read.
    """
    name = glob.escape(os.path.relpath(path.resolve(), base.resolve()))
    csv = Csv(nulls=MISSING)
    plain = Table(files=(name,))
    origin = origins(plain, base)[0]
    text = origin.format == "csv"
    if text:
        csv = _sniffed(path)
        origin = origins(Table(files=(name,), csv=csv), base)[0]
    sample = _sample(origin, rows)
    decimal, thousands = number_style(sample, csv.separator) if text else (".", "")
    return Look(name, sample, csv.separator, decimal, csv.encoding, thousands, csv.skip)


def look_into(url: str, rows: int) -> list[Look]:
    """The first `rows` of every table and view of a database, each as a query of its own.

    Raises:
        SourceError: it cannot be asked, or the URL holds a password, which no file may.
    """
    import sqlalchemy as sa

    told = sa.make_url(url)
    if told.password and not told.password.startswith("${"):
        raise SourceError(
            told.render_as_string(hide_password=True),
            None,
            "its password would stand in the mapping",
            "Put it in the environment and write '${NAME}' in its place, in quotes",
        )
    engine = sa.create_engine(with_environment(url))
    try:
        held = sa.inspect(engine)
        names = [*held.get_table_names(), *held.get_view_names()]
        queries = {n: f"select * from {engine.dialect.identifier_preparer.quote(n)}" for n in names}
    except sa.exc.SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        name = told.render_as_string(hide_password=True)
        raise SourceError(
            name, None, f"it cannot be asked ({reason})", "Correct the URL"
        ) from error
    finally:
        engine.dispose()
    return [_asked(url, name, query, rows) for name, query in queries.items()]


def _asked(url: str, name: str, query: str, rows: int) -> Look:
    origin = origins(Table(url=url, query=query), Path())[0]
    return Look(name, _sample(origin, rows), url=url, query=query)


def _sample(origin: Origin, rows: int) -> pl.DataFrame:
    found: list[pl.DataFrame] = []
    for batch in batches(origin, header(origin)):
        days = batch.rows.drop(LINE).with_columns(selectors.datetime().cast(pl.Date))
        found.append(days.select(pl.all().cast(pl.String)))
        if sum(part.height for part in found) >= rows:
            break
    return pl.concat(found).head(rows)


def _sniffed(path: Path) -> Csv:
    """Separator, encoding and lines before the header, by the first 64 KiB.

    Raises:
        SourceError: it is JSON.
    """
    opened = members(path)  # held: what it opened is shut when it is let go
    _, stream = next(opened)
    start = stream.read(1 << 16)
    encoding = "utf-8"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    else:
        try:
            start[: start.rfind(b"\n") + 1 or None].decode()
        except UnicodeDecodeError:
            encoding = "cp1252"
    text = start.decode(encoding, errors="replace").lstrip("\ufeff")
    if re.match(r'\s*(\[\s*)?\{\s*"', text):
        raise SourceError(
            str(path), None, "it is JSON, no table of text", "Save it as CSV or Parquet"
        )
    lines = text.splitlines()[:500]
    starts = [(at, mark) for mark in ",;\t|" if (at := _header_at(lines, mark)) is not None]
    at, separator = min(
        starts, key=lambda one: (one[0], -lines[one[0]].count(one[1])), default=(0, ",")
    )
    skip = at if any(line.strip() for line in lines[:at]) else 0
    return Csv(separator=separator, encoding=encoding, skip=skip, nulls=MISSING)


def _header_at(lines: list[str], separator: str) -> int | None:
    """The first line with more than half of the cells that most lines have; None of one cell."""
    widths = Counter(line.count(separator) + 1 for line in lines if line.strip())
    usual = widths.most_common(1)[0][0] if widths else 1
    filled = (sum(bool(cell.strip()) for cell in line.split(separator)) for line in lines)
    return next((at for at, cells in enumerate(filled) if usual > 1 and cells > usual / 2), None)
