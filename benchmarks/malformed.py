"""`python -m benchmarks malformed`: every kind of bad input is explained, and no row is lost.

Belongs here: reading each kind of `_malformed_kinds` and judging what was said. Does not: what is
malformed about it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks._malformed_kinds import DAYS, KINDS, MAPPING, Kind, lines
from forecast_core.source.clean import clean
from forecast_core.source.error import SourceError
from forecast_core.source.quarantine_told import REMEDIES, told
from resources.mapped_source import MappedSource


def run(quick: bool = False) -> dict[str, float | int | str]:
    """Kinds tried; of how many file, row and remedy were named; of how many all rows were kept
    account of. The names of those that failed, if any."""
    explained = conserved = 0
    failed: list[str] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            told, whole = judge(kind, Path(folder))
        explained, conserved = explained + told, conserved + whole
        if not (told and whole):
            failed.append(kind.name)
    return {
        "kinds": len(KINDS),
        "explained": explained,
        "conserved": conserved,
        "failed": ", ".join(failed) or "none",
    }


def judge(kind: Kind, folder: Path) -> tuple[bool, bool]:
    """(file, row and remedy are named; rows in = kept + merged + quarantined)."""
    kind.write(folder)
    mapping: dict[str, Any] = {**MAPPING, **kind.mapping}
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    source = MappedSource(folder / "mapping.yaml", folder / "staged")
    try:
        first, last = source.span()
        source.calendar()
    except SourceError as error:
        named = all(word in str(error) for word in kind.says) and bool(error.remedy)
        right = kind.rule is None and not kind.fine and (kind.row is None or error.row == kind.row)
        ours = Path(error.file).name.startswith(("sales", "*.tsv"))
        return (named and right and ours) or _other(error, kind), True
    rows = kept = merged = quarantined = 0
    named = kind.fine or _found(source.passed_over(), kind)
    for store in source.stores():
        sales = source.sales(store, first, last)
        prices = source.prices(store, first, last)
        done = clean(sales, prices, last, source.policy, source.frequency, source.series())
        real = done.kept.filter(done.kept["source_rows"] > 0)
        rows, kept = rows + sales.height, kept + real.height
        merged += int(real["source_rows"].sum()) - real.height
        quarantined += done.quarantined.height
        named = named or _found(done.quarantined, kind) or _found(done.refused_prices, kind)
    given = sum(file.rows for file in source.manifest.files if file.table == "sales")
    whole = given == rows == kept + merged + quarantined
    if kind.fine:
        whole = whole and rows == 4 * DAYS == len(lines()) - 1 and not quarantined
    return named, whole


def _found(rows: pl.DataFrame, kind: Kind) -> bool:
    """Whether the row of the kind is among these, and told as it should be."""
    return any(
        _said(told(row), kind)
        for row in rows.iter_rows(named=True)
        if row["rule"] == kind.rule and row["source_row"] == kind.row
    )


def _said(text: str, kind: Kind) -> bool:
    """File, row, rule and remedy stand in what a person is told of a row."""
    remedy = REMEDIES.get(kind.rule or "", "")
    file = kind.mapping.get("sales", MAPPING["sales"])["files"]
    return bool(remedy) and all(
        part in text for part in (f"{kind.file or file}, row {kind.row}: {kind.rule} (", remedy)
    )


def _other(error: SourceError, kind: Kind) -> bool:
    """A joined table is to blame: its own name must be there."""
    return (
        kind.rule is None
        and all(word in str(error) for word in kind.says)
        and (kind.file or "stores.csv") in error.file
        and error.row == kind.row
    )
