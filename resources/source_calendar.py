"""The calendar of a mapped source as raw_calendar.

Belongs here: its events and flags, and the days that it leaves out. Does not: looking a date up in
it (`forecast_core.source.values`).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from forecast_core.schema import TABLES
from forecast_core.source.mapping import Calendar, SourceMapping
from forecast_core.source.values import calendar_dates
from resources.source_files import whole

_TABLE = TABLES["raw_calendar"]
_SPARSE = 0.9  # of the days of the sales: a calendar with fewer names holidays alone


def calendar_of(mapping: SourceMapping, base: Path, first: date, last: date) -> pl.DataFrame:
    """raw_calendar for sales of `first`..`last`: the mapping's calendar, or bare days.

    Raises:
        SourceError: it cannot be read, or a day stands twice.
    """
    # To the end of a year: a new day of sales makes no new calendar.
    every = pl.date_range(first, date(last.year + 1, 12, 31), eager=True)
    bare = pl.DataFrame({"date": every})
    calendar, often = mapping.calendar, mapping.how_often
    names = list(_TABLE.columns)[1:]
    if calendar is None:
        return bare.with_columns(**{name: pl.lit(None, pl.String) for name in names})
    text = whole(calendar, base, calendar.date.names)
    events = {}
    for name in names:
        spec = getattr(calendar, name)
        named = spec is not None and spec.names
        events[name] = _named(spec.names[0], calendar) if named else pl.lit(None, pl.String)
    flags = {name: pl.col(name).cast(pl.Int8, strict=False).fill_null(0) for name in calendar.flags}
    days = _TABLE.conform(
        text.with_columns(**events, **flags)
        .with_columns(calendar_dates(text, calendar).alias("date"))
        .select(*_TABLE.columns, *calendar.flags)
        .sort("date")
    )
    if days.height < _SPARSE * bare.filter(pl.col("date") <= last).height:
        days = _every_day(days, bare)
    if not often.weekly:
        return days
    # A week has the events of its days, the first two of them.
    starts = days.with_columns(often.starts(pl.col("date")))
    return starts.group_by("date", maintain_order=True).agg(pl.exclude("date").drop_nulls().first())


def _named(column: str, calendar: Calendar) -> pl.Expr:
    """An event's name; a word for nothing is none."""
    text = pl.col(column)
    return pl.when(~text.str.strip_chars().is_in(list(calendar.csv.missing))).then(text)


def _every_day(days: pl.DataFrame, bare: pl.DataFrame) -> pl.DataFrame:
    """A calendar that names holidays alone, with the days between them."""
    flags = [name for name, dtype in days.schema.items() if dtype == pl.Int8]
    whole = bare.join(days, on="date", how="full", coalesce=True, maintain_order="left_right")
    return whole.with_columns(pl.col(flags).fill_null(0)).sort("date")
