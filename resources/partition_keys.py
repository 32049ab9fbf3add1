"""From Dagster partition keys to the cells that they cover, and from rows back to keys.

Belongs here: the spelling of a partition key for each cut of `forecast_core.schema`. Does not:
the partition definitions themselves (`forecast_assets.partitions`).

Keys: `2016-04-01|CA_1` (month x store, cutoff day x store; dimensions in order of their names,
so the day comes first and may not hold a `|`, while a store may), `2016-04-01` (month, or a
day), and the name of a segment group.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core.cells import Cells
from forecast_core.schema import Cut, Table
from forecast_core.storage.tiers import month_end, next_month

UNPARTITIONED = ""


@dataclass(frozen=True)
class Scope:
    """What a list of keys covers: days x stores, or segment groups; neither: the whole table."""

    cells: Cells | None = None
    groups: tuple[str, ...] | None = None


def decode(keys: Sequence[str], cut: Cut) -> Scope:
    """The cells of one key or of a range of them.

    Raises:
        ValueError: no key, a key that is not spelt as its cut says, or keys that are not a
            gapless window of days crossed with stores.
    """
    if cut == "none":
        return Scope()
    if not keys:
        raise ValueError(f"no partition key, where the table is cut by {cut}")
    if cut == "group":
        return Scope(groups=tuple(sorted(set(keys))))
    days, stores = zip(*(_split(key, cut) for key in keys), strict=True)
    window = sorted(set(days))
    for day, following in itertools.pairwise(window):
        if following not in _next(day, cut):
            raise ValueError(
                f"partitions {day} and {following} leave a gap between them: "
                "launch one run for each gapless range"
            )
    first, last = window[0], window[-1]
    if cut in ("month_store", "month"):
        last = month_end(last)
    if cut in ("month", "cutoff", "day"):
        return Scope(Cells(first, last))
    held = set(zip(days, stores, strict=True))
    missing = [(day, store) for day in window for store in set(stores) if (day, store) not in held]
    if missing:
        day, store = min(missing)
        raise ValueError(
            f"the partitions are not every day of every store: {day}|{store} is missing; "
            "launch the stores in runs of their own"
        )
    return Scope(Cells(first, last, tuple(sorted(set(stores)))))


def cells_of(keys: Sequence[str], cut: Cut = "month_store") -> Cells:
    """The days and stores of an asset's own partition keys.

    Raises:
        ValueError: as `decode`, or the cut has no days.
    """
    cells = decode(keys, cut).cells
    if cells is None:
        raise ValueError(f"a table cut by {cut} has no days in its partition keys")
    return cells


def rows_by_key(rows: pl.DataFrame, table: Table) -> dict[str, int]:
    """How many rows belong to each partition key; keys without rows are absent."""
    if table.cut == "none":
        return {UNPARTITIONED: rows.height}
    if rows.is_empty():
        return {}
    if table.cut == "group":
        return dict(rows.group_by(table.key[0]).len().rows())
    day = pl.col(table.date_column or "date")
    counts = _by_day(rows, day, table)
    first = day.dt.truncate("1mo") if table.cut.startswith("month") else day
    key = first.cast(pl.String)
    if table.by_store:
        key = pl.concat_str(key, pl.lit("|"), pl.col("store_id"))
    return dict(counts.group_by(key.alias("key")).agg(pl.col("len").sum()).rows())


def _by_day(rows: pl.DataFrame, day: pl.Expr, table: Table) -> pl.DataFrame:
    """Rows by day, and by store where rows are filed by it.

    Days first, since months of every row cost more; and of one store by the day alone, since a
    second key costs several times what one does.
    """
    if not table.by_store:
        return rows.group_by(day).len()
    stores = rows["store_id"]
    if (stores == stores[0]).all():
        return rows.group_by(day).len().with_columns(store_id=pl.lit(stores[0]))
    return rows.group_by(day, "store_id").len()


def _split(key: str, cut: Cut) -> tuple[date, str]:
    by_store = cut in ("month_store", "cutoff_store")
    text, bar, store = str(key).partition("|") if by_store else (str(key), "|", "-")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or not bar or not store or (cut.startswith("month") and day.day != 1):
        example = "2016-04-01|CA_1" if by_store else "2016-04-01"
        raise ValueError(f"partition key {key!r} is not spelt as {cut}: {example!r}")
    return day, store


def _next(day: date, cut: Cut) -> tuple[date, ...]:
    """What may follow a key's day: a cutoff is a day's or a week's."""
    if cut in ("month_store", "month"):
        return (next_month(day),)
    return (day + timedelta(days=1), day + timedelta(days=7))
