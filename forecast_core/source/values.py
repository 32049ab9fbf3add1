"""Single values of somebody's columns as ours: text, numbers, flags and dates.

Belongs here: reading a column by its `Column` or `DateColumn`, and saying what could not be read.
Does not: rows (`forecast_core.source.rows`), or opening the calendar's file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from forecast_core.source.error import SourceError
from forecast_core.source.mapping import (
    ALL,
    IDS,
    Calendar,
    Column,
    Csv,
    DateColumn,
    Facts,
    Sales,
    SourceMapping,
)

LINE = "\x00line"
FILE = "\x00file"  # the name of the file, in rows of a table that asks for it
_TRUE = (
    "1", "1.0", "true", "t", "yes", "y", "x", "on", "ja", "j", "oui", "o", "si", "sí", "s", "sim",
    "tak", "wahr", "vrai",
)  # fmt: skip
_FALSE = (
    "", "0", "0.0", "false", "f", "no", "n", "none", "off", "nein", "non", "nee", "não", "nej",
    "nie", "falsch", "faux",
)  # fmt: skip
_SHUT = ("closed", "shut", "geschlossen", "zu", "fermé", "ferme", "cerrado", "chiuso", "gesloten")
_OPEN = ("open", "geöffnet", "offen", "auf", "ouvert", "abierto", "aperto")
_BLANKS = " \t\u00a0\u202f$€£¥"


@dataclass(frozen=True)
class Lookups:
    """What a row's values are looked up in.

    `joins`: tables by the table that they join, keys under the names they join to. `days`: calendar
    column -> frame (key String, first Date, last Date).
    """

    joins: Mapping[str, Sequence[tuple[Sequence[str], pl.DataFrame]]] = field(default_factory=dict)
    days: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def calendar_days(text: pl.DataFrame, calendar: Calendar, names: Sequence[str]) -> Lookups:
    """The calendar columns that dates are looked up by: value -> first and last of its days.

    Raises:
        SourceError: a day that cannot be read.
    """
    days = calendar_dates(text, calendar)
    found = {}
    for name in names:
        keyed = pl.DataFrame({"key": text[name].str.strip_chars(), "day": days}).drop_nulls()
        found[name] = keyed.group_by("key", maintain_order=True).agg(
            first=pl.col("day").min(), last=pl.col("day").max()
        )
    return Lookups(days=found)


def calendar_dates(text: pl.DataFrame, calendar: Calendar) -> pl.Series:
    """The days of a calendar's lines.

    Raises:
        SourceError: one that cannot be read, or stands twice, with its line.
    """
    days = read_dates(text, calendar.date, None, Lookups(), calendar.csv)[0]
    for wrong, what in (
        (days.is_null(), "is no date"),
        (~days.is_first_distinct(), "stands twice"),
    ):
        if wrong.any():
            at = wrong.arg_max() or 0
            raise SourceError(
                text["file"][at],
                int(text[LINE][at]),
                f"{calendar.date.label} {_stamp(text, calendar.date)[at]!r} {what}",
                "Give every day once, as `calendar.date.format` says",
            )
    return days


def read_ids(rows: pl.DataFrame, sales: Sales) -> dict[str, pl.Series]:
    """The five attributes; what the mapping does not name is `all`."""
    return {
        name: read_text(rows, spec)
        if (spec := getattr(sales, name)) is not None
        else pl.repeat(ALL, rows.height, dtype=pl.String, eager=True)
        for name in IDS
    }


def read_text(rows: pl.DataFrame, spec: Column) -> pl.Series:
    if spec.constant is not None:
        return pl.repeat(spec.constant, rows.height, dtype=pl.String, eager=True)
    if spec.file is not None:
        said = rows[FILE].str.extract(rf"^{spec.file}$").str.strip_chars()
        return said.replace(dict(spec.values)) if spec.values else said
    parts = [_plain(rows[name]) for name in spec.names]
    joined = parts[0]
    if len(parts) > 1:
        frame = pl.DataFrame([part.alias(str(at)) for at, part in enumerate(parts)])
        joined = frame.select(pl.concat_str(pl.all(), separator="-")).to_series()
    return joined.replace(dict(spec.values)) if spec.values else joined


def _plain(values: pl.Series) -> pl.Series:
    """As text, without blanks around; a whole number read as 7.0 is 7."""
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        if (whole.cast(values.dtype) == values).fill_null(True).all():
            return whole.cast(pl.String)
    text = values.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def read_number(rows: pl.DataFrame, spec: Column, csv: Csv) -> tuple[pl.Series, pl.Series]:
    """(Float64, text of what is no number)."""
    values = rows[spec.names[0]] if spec.names else read_text(rows, spec)
    nothing = pl.repeat(None, len(values), dtype=pl.String, eager=True)
    if values.dtype.is_numeric():
        return values.cast(pl.Float64), nothing
    text = values.cast(pl.String)
    bare = text.str.strip_chars(_BLANKS)
    if spec.values:
        bare = bare.replace(dict(spec.values))
    if csv.thousands:
        mark = re.escape(csv.thousands)
        grouped = bare.str.contains(rf"^-?\d{{1,3}}({mark}\d{{3}})+(\D|$)|^[^{mark}]*$")
        bare = bare.str.replace_all(csv.thousands, "", literal=True).set(
            ~grouped & (bare != ""), None
        )
    if csv.decimal == ",":
        bare = bare.set(bare.str.contains(".", literal=True), None)
        bare = bare.str.replace(",", ".", literal=True)
    number = bare.cast(pl.Float64, strict=False)
    missing = _missing(text, csv)
    number = number.set(missing, None)  # "nan" would be a number
    wrong = number.is_null() & ~missing
    return number, text.set(~wrong, None) if wrong.any() else nothing


def _missing(text: pl.Series, csv: Csv) -> pl.Series:
    """Where nothing stands, or a word for it."""
    return text.is_null() | text.str.strip_chars().is_in([*csv.missing, ""])


def read_signal(rows: pl.DataFrame, spec: Column, csv: Csv) -> pl.Series:
    """A covariate as a number: yes and no are 1 and 0, any other word is 1."""
    number, text = read_number(rows, spec, csv)
    if text.is_not_null().any():
        word = text.str.to_lowercase().str.strip_chars()
        said = (~word.is_in(_FALSE)).cast(pl.Float64)
        number = number.zip_with(text.is_null(), said)
    return number


def read_closed(rows: pl.DataFrame, facts: Facts) -> tuple[pl.Series, pl.Series] | None:
    """(whether the store is shut, text that says neither); a flag that is missing says nothing."""
    spec = facts.closed or facts.open
    if spec is None:
        return None
    said = read_text(rows, spec)
    text = said.set(_missing(said, facts.csv), None).str.to_lowercase()
    yes, no = (_TRUE, _FALSE) if facts.closed is not None else (_FALSE, _TRUE)
    shut = text.is_in([*yes, *_SHUT]).fill_null(False)
    strange = text.is_not_null() & ~shut & ~text.is_in([*no, *_OPEN])
    return shut, said.set(~strange.fill_null(False), None)


def read_dates(
    rows: pl.DataFrame,
    spec: DateColumn,
    mapping: SourceMapping | None,
    lookups: Lookups,
    csv: Csv,
) -> tuple[pl.Series, pl.Series, pl.Series]:
    """(first day, last day, what is wrong) of each row's date; nulls are only null."""
    values = _stamp(rows, spec)
    good: pl.Series
    text = values.cast(pl.String).str.strip_chars()
    last: pl.Series | None = None
    how = "a date written as " + " or ".join(spec.format)
    if spec.calendar is not None:
        how = f"in the column {spec.calendar} of the calendar"
        found = pl.DataFrame({"key": _plain(values)}).join(
            lookups.days[spec.calendar], on="key", how="left", maintain_order="left"
        )
        good, last = found["first"], found["last"]
    elif spec.epoch is not None:
        how = "a whole number of periods"
        step = mapping.how_often.step if mapping else 1
        number = _plain(values).cast(pl.Int32, strict=False)
        number = number.set((number.abs() > 100_000).fill_null(False), None)
        since = (spec.epoch - date(1970, 1, 1)).days
        good = ((number - spec.epoch_number) * step + since).cast(pl.Date)
    elif values.dtype.is_temporal():
        good = values.cast(pl.Date)
    else:
        tried = [_day(text, form) for form in spec.format]
        good = tried[0]
        for other in tried[1:]:
            good = good.zip_with(good.is_not_null(), other)
        good = good.set((good.dt.year() < 1900).fill_null(False), None)
    wrong = good.is_null() & ~_missing(text, csv)
    bad = pl.repeat(None, len(text), dtype=pl.String, eager=True)
    if wrong.any():
        bad = (text + f" is not {how}").set(~wrong, None)
    if mapping is not None and mapping.how_often.weekly:
        good = pl.DataFrame({"d": good}).select(mapping.how_often.starts(pl.col("d"))).to_series()
    return good, good if last is None else last, bad


def _stamp(rows: pl.DataFrame, spec: DateColumn) -> pl.Series:
    """What stands for the date: a column, or several joined."""
    if len(spec.names) == 1:
        return rows[spec.names[0]]
    parts = pl.DataFrame([_plain(rows[name]).alias(str(at)) for at, name in enumerate(spec.names)])
    return parts.select(pl.concat_str(pl.all(), separator="-").alias("date")).to_series()


def _day(text: pl.Series, form: str) -> pl.Series:
    if "%V" in form and "%u" not in form:
        return (text + "-1").str.to_date(f"{form}-%u", strict=False)
    return text.str.to_date(form, strict=False)


def unscaled(units: pl.Series, mapping: SourceMapping) -> pl.Series:
    """The target as it sold: a log is undone, and rounded where it came from a whole number."""
    if mapping.scale == "linear":
        return units
    sold = units.exp() if mapping.scale == "log" else units.exp() - 1
    if mapping.unit != "units":
        return sold
    near = (sold - sold.round(0)).abs() < 1e-5 * sold.abs() + 1e-6
    return sold.zip_with(~near.fill_null(False), sold.round(0))
