"""What the values of a file's columns look like: dates, numbers and how they are written.

Belongs here: a sample of a file, and reading its values. Does not: what a column means
(`forecast_core.source.guess`), or families of columns (`forecast_core.source.guess_wide`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from forecast_core.source.guess_names import fit, match, plain

FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y%m%d",
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z",
    "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%Y%m%d%H%M%S",
    "%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%Y.%m.%d",
)  # fmt: skip
WEEKS = {"%G-W%V": r"^\d{4}-W\d{1,2}$", "%GW%V": r"^\d{4}W\d{1,2}$", "%G%V": r"^(19|20)\d{4}$"}
AMBIGUOUS = (
    "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M",
)  # fmt: skip
_NEARLY_ALL, _MOST = 0.95, 0.7  # of the values; most will do where the name says so
_BLANKS = " \t\u00a0\u202f$€£¥"


@dataclass(frozen=True)
class Look:
    """A file (or several alike): its name, columns and a sample of its first rows, as text."""

    name: str
    rows: pl.DataFrame
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"
    thousands: str = ""
    skip: int = 0
    url: str | None = None  # of the database that it is a table of, with `query`
    query: str | None = None
    others: tuple[str, ...] = ()  # files with the very same columns
    sizes: tuple[int, ...] = ()  # sampled rows of each of them, this one first

    def part(self, start: int, size: int) -> Look:
        """The rows of one of the files alone."""
        return replace(self, rows=self.rows.slice(start, size), others=(), sizes=())

    @property
    def place(self) -> dict[str, Any]:
        """Where a mapping finds it, and how its text is written where that is not as usual."""
        if self.url is not None:
            return {"url": self.url, "query": self.query}
        usual = {"separator": ",", "decimal": ".", "thousands": "", "encoding": "utf-8", "skip": 0}
        csv = {key: v for key, normal in usual.items() if (v := getattr(self, key)) != normal}
        files = [self.name, *self.others] if self.others else self.name
        return {"files": files, "csv": csv} if csv else {"files": files}

    def numbers(self, column: str) -> pl.Series:
        """A column as numbers; null where it is none."""
        text = self.rows[column].str.strip_chars(_BLANKS)
        if self.thousands:
            text = text.str.replace_all(self.thousands, "", literal=True)
        if self.decimal == ",":
            text = text.str.replace(",", ".", literal=True)
        return text.cast(pl.Float64, strict=False)

    def numeric(self, column: str) -> bool:
        """Whether nearly all values are numbers."""
        held = self.rows[column].drop_nulls()
        missing = held.str.to_lowercase().is_in(["na", "n/a", "nan", "null", "none", "-", ""])
        count = len(held) - int(missing.sum())
        return count > 0 and self.numbers(column).is_not_null().sum() >= 0.95 * count


@dataclass(frozen=True)
class Dated:
    """How a table tells its day: `spec` as the mapping has it; `format` None for whole numbers."""

    columns: tuple[str, ...]
    format: str | None
    spec: Any

    def days(self, look: Look) -> pl.Series:
        """Of the sample; null for what is no date, or a whole number."""
        if self.format is None:
            return pl.Series([None] * look.rows.height, dtype=pl.Date)
        text = look.rows.select(pl.concat_str(self.columns, separator="-")).to_series()
        return parsed(text, self.format)


def repeated(look: Look, when: Dated, columns: Sequence[str]) -> float:
    """The share of the sampled rows that have their day and `columns` in common with another."""
    # Receipts of one day differ in their time, so that it is the day that counts.
    told = [when.days(look)] if when.format else [look.rows[c] for c in when.columns]
    key = [*told, *(look.rows[c] for c in columns)]
    kept = pl.DataFrame([series.alias(str(at)) for at, series in enumerate(key)])
    return kept.filter(kept.is_duplicated()).height / max(kept.height, 1)


def parsed(text: pl.Series, form: str) -> pl.Series:
    """Dates of text; a week is its Monday."""
    text = text.str.strip_chars()
    if "%V" in form:
        return (text + "-1").str.to_date(f"{form}-%u", strict=False)
    return text.str.to_date(form, strict=False)


def dated(look: Look) -> Dated | None:
    """The date of a table: a column named like one first, then any that reads as one."""
    columns = look.rows.columns
    year, week = match(columns, "year"), match(columns, "week")
    named = sorted((c for c in columns if fit(c, "date") >= 0), key=lambda c: fit(c, "date"))
    for column in [*named, *(c for c in columns if c not in named)]:
        form = date_format(look.rows[column], column, _MOST if column in named else _NEARLY_ALL)
        if form is not None:
            spec = column if form == "%Y-%m-%d" else {"column": column, "format": form}
            return Dated((column,), form, spec)
    if year is not None and week is not None and look.numeric(year) and look.numeric(week):
        both = {"columns": [year, week], "format": "%G-%V"}
        return Dated((year, week), "%G-%V", both)
    for column in named:
        if look.numeric(column):
            return Dated((column,), None, {"column": column})
    return None


def date_format(values: pl.Series, name: str = "", least: float = _NEARLY_ALL) -> str | None:
    """The way in which at least that share of the values is written as a date, if there is one."""
    held = values.drop_nulls()
    held = held.filter(held.str.strip_chars() != "")
    if held.is_empty():
        return None
    weekly = fit(name, "week") >= 0 or "week" in plain(name) or "wk" in plain(name)
    for form, looks in WEEKS.items():
        if (form != "%G%V" or weekly) and bool(held.str.contains(looks).all()):
            days = parsed(held, form)
            if days.null_count() <= (1 - least) * len(held):
                return form
    for form in FORMATS:
        days = parsed(held, form)
        good = days.filter(days.dt.year().is_between(1900, 2200))
        if len(good) >= least * len(held):
            return form
    return None


def number_style(sample: pl.DataFrame, separator: str) -> tuple[str, str]:
    """(decimal, thousands) of a text file, by the numbers in it."""
    decimal, thousands = ".", ""
    for name in sample.columns:
        text = sample[name].drop_nulls().str.strip_chars(_BLANKS)
        text = text.filter(text.str.contains(r"^-?\d[\d.,' ]*$"))
        if len(text) < 0.5 * (sample.height - sample[name].null_count()) or text.is_empty():
            continue
        if date_format(text) is not None:
            continue
        comma = text.str.contains(r"^-?\d+,(\d{1,2}|\d{4,})$|^-?0,\d+$|^-?\d{1,3}(\.\d{3})+,\d+$")
        if comma.any() and separator != ",":
            decimal = ","
        for mark in ("'", " "):
            if text.str.contains(rf"^-?\d{{1,3}}({mark}\d{{3}})+([.,]\d+)?$").any():
                thousands = mark
        if text.str.contains(r"^-?\d{1,3}(,\d{3})+(\.\d+)?$").any() and not comma.any():
            thousands = ","
        if text.str.contains(r"^-?\d{1,3}(\.\d{3})+,\d+$").any():
            thousands = "."
    if thousands == decimal:
        thousands = ""
    return decimal, thousands
