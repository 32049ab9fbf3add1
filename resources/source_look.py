"""A first look at a file: its separator, encoding and first rows, for a proposed mapping.

Belongs here: sniffing how text is written. Does not: what the columns are
(`forecast_core.mapping_guess`).
"""

from __future__ import annotations

import os.path
from pathlib import Path

import polars as pl
from polars import selectors

from forecast_core.mapping import Csv, Table
from forecast_core.mapping_guess_values import Look, number_style
from resources.source_files import batches, header, origins
from resources.source_text import LINE, members


def look_at(path: Path, base: Path, rows: int) -> Look:
    """The first `rows` of a file as text; its name as a mapping in folder `base` would give it.

    Raises:
        SourceError: it cannot be read.
    """
    name = os.path.relpath(path.resolve(), base.resolve())
    csv = Csv()
    plain = Table(files=(name,))
    origin = origins(plain, base)[0]
    text = origin.format == "csv"
    if text:
        csv = _sniffed(path)
        origin = origins(Table(files=(name,), csv=csv), base)[0]
    found: list[pl.DataFrame] = []
    for batch in batches(origin, header(origin)):
        days = batch.rows.drop(LINE).with_columns(selectors.datetime().cast(pl.Date))
        found.append(days.select(pl.all().cast(pl.String)))
        if sum(part.height for part in found) >= rows:
            break
    sample = pl.concat(found).head(rows)
    decimal, thousands = number_style(sample, csv.separator) if text else (".", "")
    return Look(name, sample, csv.separator, decimal, csv.encoding, thousands)


def _sniffed(path: Path) -> Csv:
    """Separator and encoding, by the first 64 KiB."""
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
    first = start.decode(encoding, errors="replace").lstrip("\ufeff").splitlines()[:1]
    line = first[0] if first else ""
    separator = max(",;\t|", key=line.count)
    return Csv(separator=separator if line.count(separator) else ",", encoding=encoding)
