"""How often data speaks, and what its holes, returns and repeats seem to mean.

Belongs here: the guess at frequency and policy, from the sampled rows. Does not: whose columns are
which (`forecast_core.source.guess`).
"""

from __future__ import annotations

from datetime import date

import polars as pl

from forecast_core.frequency import WEEKDAYS
from forecast_core.source.guess_files import Files, Guess
from forecast_core.source.guess_names import fit, plain
from forecast_core.source.guess_values import Dated, Look, parsed, repeated

_MANY = 0.02  # of the sampled rows share their key: several rows a day are usual


def frequency(found: Guess, files: Files) -> None:
    when = files.when
    if when is None:
        wide = files.wide
        if wide is not None and plain(wide.numbered or "")[:1] in ("w", "k"):
            found.content["frequency"] = "weekly"
            found.notes["frequency"] = (0.8, f"columns {wide.sample} and so on count weeks")
        days = _column_days(files)
    elif when.format is None:
        if any("week" in plain(c) or fit(c, "week") >= 0 for c in when.columns):
            found.content["frequency"] = "weekly"
            found.notes["frequency"] = (0.9, f"{when.columns[0]} counts weeks")
        return
    else:
        days = when.days(files.sales).drop_nulls().unique().sort()
    if len(days) < 3:
        return
    weekdays = days.dt.weekday().unique()
    if len(weekdays) == 1:
        found.content["frequency"] = "weekly"
        found.content["week_start"] = WEEKDAYS[int(weekdays[0]) - 1]
        found.notes["frequency"] = (0.95, f"every date is a {WEEKDAYS[int(weekdays[0]) - 1]}")
    elif days.dt.day().n_unique() == 1 or (days.dt.month_end() == days).all():
        found.notes["frequency"] = (0.2, "one date a month: only days and weeks are forecast")


def _column_days(files: Files) -> pl.Series:
    if files.wide is None or files.wide.format is None:
        return pl.Series(dtype=pl.Date)
    names = pl.Series(files.value_columns, dtype=pl.String)
    return parsed(names, files.wide.format).drop_nulls().unique().sort()


def _idle_days(found: Guess, when: Dated, look: Look) -> int:
    """Periods between the first and the last sampled day without any row."""
    days = when.days(look).drop_nulls().unique()
    first, last = days.min(), days.max()
    if not (isinstance(first, date) and isinstance(last, date)):
        return 0
    step = 7 if found.content.get("frequency") == "weekly" else 1
    return (last - first).days // step + 1 - len(days)


def policy(found: Guess, files: Files) -> None:
    table, look, when = found.content["sales"], files.sales, files.when
    if files.wide is not None or when is None:
        return
    chosen: dict[str, str] = {}
    values = look.numbers(table["units"]).drop_nulls()
    plain_numbers = "scale" not in found.content
    if plain_numbers and bool((values < 0).any()):
        chosen["negatives"] = "net"
        found.notes["policy.negatives"] = (0.6, "there are negative values: returns?")
    named = [table[what] for what in ("item_id", "store_id") if what in table]
    ids = [c for c in named if c in look.rows.columns]
    by_file = len(named) > len(ids)  # a store a file, or an attribute of another table
    again = 0.0 if by_file and look.others else repeated(look, when, ids)
    if plain_numbers and again > _MANY:
        chosen["duplicates"] = "sum"
        found.notes["policy.duplicates"] = (
            0.6,
            f"{again:.0%} of the sampled rows share day, item and store: receipts, added up? Or an "
            "attribute that belongs to the item (item_id: [a, b])",
        )
    own = [*when.columns, *ids]
    series = look.rows.select(ids).n_unique() if ids else 1
    full = series * look.rows.select(when.columns).n_unique()
    written = bool((values == 0).any())
    idle = _idle_days(found, when, look)
    if plain_numbers and not written and look.rows.select(own).n_unique() < full:
        chosen["gaps"] = "zero"
        found.notes["policy.gaps"] = (0.7, "no zero is written down: no row means no sale")
    elif plain_numbers and not written and idle:
        chosen["gaps"] = "closed"
        found.notes["policy.gaps"] = (0.5, f"{idle} days have no row at all: shut?")
    if chosen:
        found.content["policy"] = chosen
