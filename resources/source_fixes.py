"""Corrections of single rows: a file of them is laid over the source, which is not read again.

Belongs here: writing quarantined rows out to be corrected, reading them back, and finding the rows
that they stand for. Does not: the rules (`forecast_core.source.clean`), or landing what changed.

A correction names its row by file, line and text. When any of them is another now, it no longer
applies and is left out: a new delivery is never overwritten by an old correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from forecast_core.source.error import SourceError
from forecast_core.source.mapping import ALL, IDS

COLUMNS = ("source_file", "source_row", "rule", "reason", "was", "date", *IDS, "units")
NO_DATE = "it has no date"
_DATELESS = (
    "unparseable_date", "heading", "unreadable_line", "repeated_header", "future_date",
    "early_date",
)  # fmt: skip
_MARK = ["source_file", "source_row", "was"]


@dataclass(frozen=True)
class Overlay:
    """What corrections make of staged rows.

    `gone`: (file, source_row, was) of the rows replaced; `rows`: those in their place, as staged;
    `series`: all series, new ones at the end, with their number and store code; `stale`:
    corrections that no longer apply; `open`: those still without a date, an item or units.
    """

    gone: pl.DataFrame
    rows: pl.DataFrame
    series: pl.DataFrame
    stale: int
    open: int


def was(rows: pl.DataFrame) -> pl.Series:
    """The text by which a row is known: its own, or what was read of it."""
    parts = ["date", "item_id", "store_id", "units"]
    read = pl.concat_str(pl.col(parts).cast(pl.String).fill_null(""), separator=",")
    return rows.select(pl.coalesce("raw_text", read).alias("was")).to_series()


def to_correct(quarantined: pl.DataFrame) -> pl.DataFrame:
    """Quarantined rows as a table to correct: `COLUMNS`, with what could be read of each.

    A day or a store under which a row was only filed is left out: nobody read it there.
    """
    rows = quarantined.with_columns(was(quarantined))
    no_date = (pl.col("rule") == "missing_key") & (pl.col("defect") == NO_DATE).fill_null(False)
    filed = pl.col("rule").is_in(_DATELESS) | no_date
    doubtful = filed | (pl.col("rule") == "missing_key")
    named = (pl.col("store_id") == ALL) | pl.col("was").str.contains(
        pl.col("store_id"), literal=True
    )
    rows = rows.with_columns(
        date=pl.when(~filed).then("date"),
        store_id=pl.when(~doubtful | named.fill_null(False)).then("store_id"),
    )
    return rows.rename({"defect": "reason"}).select(COLUMNS).sort("source_file", "source_row")


def read_fixes(paths: Sequence[Path]) -> pl.DataFrame:
    """Correction files as one table; rows still without a date, an item or units are marked `open`.

    Raises:
        SourceError: no such file, a column missing, a date or number that cannot be read.
    """
    return pl.concat([_read(path) for path in paths])


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise SourceError(
            str(path), None, "there is no such file", "Correct `fixes` in the mapping"
        )
    try:
        text = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise SourceError(str(path), None, reason, "Keep it a CSV with commas") from None
    missing = [name for name in COLUMNS if name not in text.columns]
    if missing:
        raise SourceError(
            str(path),
            1,
            f"column {missing[0]!r} is missing",
            "Keep the columns that `forecast source quarantine --out` wrote",
        )
    text = text.select(pl.col(COLUMNS).str.strip_chars().replace("", None)).with_columns(
        text["was"].fill_null("")  # compared as it stands
    )
    typed = text.with_columns(
        pl.col("source_row").cast(pl.Int64, strict=False),
        pl.col("date").str.to_date("%Y-%m-%d", strict=False),
        pl.col("units").cast(pl.Float64, strict=False),
    )
    for name, what in (
        ("source_row", "a line"),
        ("date", "a date such as 2024-01-31"),
        ("units", "a number"),
    ):
        wrong = (typed[name].is_null() & text[name].is_not_null()).arg_true()
        if len(wrong):
            at = int(wrong[0])
            raise SourceError(
                str(path), at + 2, f"{name} {text[name][at]!r} is not {what}", "Correct it"
            )
    blank = pl.any_horizontal(pl.col("date", "item_id", "store_id", "units").is_null())
    return typed.with_columns(open=blank)


def overlay(
    fixes: pl.DataFrame,
    staged: pl.LazyFrame,
    names: Sequence[str],
    series: pl.DataFrame,
    stores: dict[str, int],
) -> Overlay:
    """Find the staged rows that corrections stand for, and what they become.

    Args:
        fixes: of `read_fixes`.
        staged: staged sales; `names` are of its files by number.
        series: `IDS`, series, store by number; `stores`: their codes, to which new ones are added.
    """
    lines = fixes["source_row"].drop_nulls().unique()
    found = staged.filter(pl.col("source_row").is_in(lines.implode())).collect()
    ids = series.select("series", *IDS)
    found = found.join(ids, on="series", how="left", maintain_order="left").with_columns(
        pl.Series(names, dtype=pl.String)[found["file"]].alias("source_file")
    )
    found = found.with_columns(was(found))
    ready = fixes.filter(~pl.col("open")).unique(_MARK, keep="last", maintain_order=True)
    new = ready.select(*_MARK, *(pl.col(c).alias(f"new_{c}") for c in ("date", *IDS, "units")))
    matched = found.join(new, on=_MARK, maintain_order="left")
    kept = [c for c in found.columns if c not in (*IDS, "source_file", "was")]
    made = matched.with_columns(
        date="new_date",
        units="new_units",
        raw_text="was",
        refused=pl.lit(None, pl.String),
        defect=pl.lit(None, pl.String),
        **{name: pl.coalesce(f"new_{name}", pl.lit(ALL)) for name in IDS},
    ).drop("series", "store")
    every = _with_new(series, made.select(IDS).unique(maintain_order=True), stores)
    coded = made.join(every, on=IDS, how="left", maintain_order="left").select(kept)
    mended = pl.col("series").is_in(coded["series"].unique().implode())
    every = every.with_columns(real=pl.col("real").fill_null(True) | mended)
    return Overlay(
        matched.select("file", "source_row", "was"),
        coded,
        every,
        ready.height - matched.select(_MARK).unique().height,
        fixes.height - fixes.filter(~pl.col("open")).height,
    )


def _with_new(series: pl.DataFrame, given: pl.DataFrame, stores: dict[str, int]) -> pl.DataFrame:
    new = given.join(series, on=IDS, how="anti", nulls_equal=True, maintain_order="left")
    for store in new["store_id"].unique(maintain_order=True):
        stores.setdefault(store, max(stores.values(), default=-1) + 1)
    numbers = pl.int_range(series.height, series.height + new.height, dtype=pl.UInt32, eager=True)
    codes = new["store_id"].replace_strict(stores, return_dtype=pl.UInt32)
    return pl.concat(
        [series, new.with_columns(numbers.alias("series"), codes.alias("store"))],
        how="diagonal_relaxed",
    )
