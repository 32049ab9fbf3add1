"""A first look at a file: its separator, encoding and first rows, for a proposed mapping.

Belongs here: sniffing how text is written. Does not: what the columns are
(`forecast_core.mapping_guess`).
"""

from __future__ import annotations

import os.path
from pathlib import Path

import polars as pl

from forecast_core.mapping import Csv, Table
from forecast_core.mapping_guess_wide import Look
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
    if origin.format == "csv":
        csv = _sniffed(path)
        origin = origins(Table(files=(name,), csv=csv), base)[0]
    found: list[pl.DataFrame] = []
    for batch in batches(origin, header(origin)):
        found.append(batch.rows.drop(LINE).select(pl.all().cast(pl.String)))
        if sum(part.height for part in found) >= rows:
            break
    sample = pl.concat(found).head(rows)
    return Look(name, sample, csv.separator, _decimal(sample, csv), csv.encoding)


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


def _decimal(sample: pl.DataFrame, csv: Csv) -> str:
    if csv.separator == ",":
        return "."
    for name in sample.columns:
        values = sample[name].drop_nulls()
        if len(values) and values.str.contains(r"^-?\d+,\d+$").any():
            return ","
    return "."
