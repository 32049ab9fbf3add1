"""What of a source changed since it was landed: by month and store, and in how few runs.

Belongs here: the fingerprint of a store's rows in a month, and rectangles of changed ones. Does
not: reading a source or remembering what was landed (`resources.landed`).

A row's line number is no part of it: a line put in at the top of a file moves every line below, and
changes no sale. Rows that their reader refused are taken with theirs, since it is what a person
looks them up by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from forecast_core.storage.content import HASH_SPACE
from forecast_core.storage.tiers import next_month

_ORIGIN = ("source_row", "source_file")


@dataclass(frozen=True)
class Block:
    """Months `first`..`last` (their first days) of the stores between two in partition order."""

    first: date
    last: date
    first_store: str
    last_store: str


def fingerprints(rows: pl.DataFrame, salt: int = 0) -> dict[date, int]:
    """Month -> a number that changes when what its rows say does; their order does not matter.

    Args:
        rows: with `date`, and `refused` where a reader may have refused some.
        salt: what else their meaning rests on.
    """
    if rows.is_empty():
        return {}
    said = sorted(c for c in rows.columns if c not in _ORIGIN)
    hashed = rows.select(said).hash_rows(seed=0)
    if "refused" in rows.columns and rows["refused"].is_not_null().any():
        origin = rows.select(c for c in _ORIGIN if c in rows.columns).hash_rows(seed=1)
        at = pl.when(rows["refused"].is_not_null()).then(origin).otherwise(pl.lit(0, pl.UInt64))
        hashed = hashed + rows.select(at.alias("at")).to_series()
    months = pl.DataFrame({"month": rows["date"].dt.month_start(), "hash": hashed})
    summed = months.group_by("month").agg(pl.col("hash").sum())
    return {month: (value + salt) % HASH_SPACE for month, value in summed.iter_rows()}


def changed(
    now: Mapping[date, int], before: Mapping[date, int], within: Collection[date]
) -> set[date]:
    """Months of `within` whose fingerprints differ, or that one side lacks."""
    return {month for month in within if now.get(month) != before.get(month)}


def blocks(changed: Mapping[str, Iterable[date]], stores: Sequence[str]) -> list[Block]:
    """Few rectangles that together are exactly the changed months of the changed stores.

    Args:
        changed: store -> its changed months.
        stores: all stores in the order in which a range of partitions runs through them.
    """
    open_runs: dict[tuple[date, date], Block] = {}
    found: list[Block] = []
    for store in stores:
        mine = _runs(sorted(set(changed.get(store, ()))))
        for run in [run for run in open_runs if run not in mine]:
            found.append(open_runs.pop(run))
        for first, last in mine:
            begun = open_runs.get((first, last))
            open_runs[first, last] = Block(
                first, last, begun.first_store if begun else store, store
            )
    found += open_runs.values()
    return sorted(found, key=lambda b: (stores.index(b.first_store), b.first))


def _runs(months: Sequence[date]) -> list[tuple[date, date]]:
    found: list[tuple[date, date]] = []
    for month in months:
        if found and next_month(found[-1][1]) == month:
            found[-1] = (found[-1][0], month)
        else:
            found.append((month, month))
    return found
