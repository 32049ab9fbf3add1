"""The processes that `tier_moves` kills: movers, the appending writer, the looping reader.

Belongs here: what each does until it dies. Does not: killing, counting (`tier_moves`).
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.lifecycle import Due, Kind, LifecyclePolicy, Part
from forecast_core.storage.tiers import Tier
from resources.commits import LakeConflict
from resources.lake import Lake, LakeTable
from resources.lifecycle import MoveFailed, Mover, parts_of
from resources.storable import arrow_of
from resources.storage_ledger import StorageLedger

STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Int64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)
FIRST = date(2016, 1, 1)
ITEMS = 6
STORES = ("A", "B")
HISTORY_DAYS = 90


@dataclass(frozen=True)
class Stage:
    """Where one episode plays: a lake, the books beside it, what the writer acknowledged."""

    root: str
    folder: Path
    seed: int
    naive: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def acknowledged(self) -> Path:
        """One line a write that returned: its number."""
        return self.folder / "acknowledged"

    def counts(self, name: str) -> Path:
        """One byte for each thing of that name that was done."""
        return self.folder / name

    def mover(self) -> Mover:
        """The lake as its movers see it; the process's environment leads to it."""
        os.environ.update(self.environment)
        books = StorageLedger(f"sqlite:///{self.folder / 'ledger.db'}")
        return Mover(Lake(self.root, books=books), books, LifecyclePolicy())


def cell(number: int) -> tuple[date, str]:
    """The day and store that write `number` fills."""
    return FIRST + timedelta(days=number // len(STORES)), STORES[number % len(STORES)]


def rows_of(number: int) -> pl.DataFrame:
    """The rows of write `number`; every one carries it."""
    day, store = cell(number)
    items = [f"i{n}" for n in range(ITEMS)]
    frame = pl.DataFrame({"item_id": items}).with_columns(
        date=pl.lit(day), store_id=pl.lit(store), units=pl.lit(number, pl.Int64)
    )
    return frame.select(*STOCK.columns)


def prepare(stage: Stage) -> int:
    """Write the history; the number of the next write."""
    table = stage.mover().lake.table(STOCK)
    numbers = range(HISTORY_DAYS * len(STORES))
    rows = pl.concat([rows_of(number) for number in numbers])
    table.replace(rows, Cells(FIRST, FIRST + timedelta(days=HISTORY_DAYS - 1)))
    stage.acknowledged.write_text("".join(f"{number}\n" for number in numbers))
    return len(numbers)


def move(stage: Stage, worker: int) -> None:
    """Move random parts to random tiers, and compact them, until killed."""
    mover = stage.mover()
    rng = random.Random(stage.seed * 1000 + worker + os.getpid())
    table = mover.lake.table(STOCK)
    while True:
        part = rng.choice(parts_of(table))
        tier = rng.choice([tier for tier in Tier if tier is not part.tier or part.files > 1])
        try:
            if stage.naive:
                _copy_then_delete(table, part, tier)
            else:
                kind: Kind = "compact" if tier is part.tier else "move"
                mover.make(table, Due(part, tier, kind, "benchmark"))
        except (LakeConflict, MoveFailed, CommitFailedError):
            continue  # another mover was there first
        _count(stage, "widened" if tier is Tier.COLD else "moves")


def append(stage: Stage) -> None:
    """Write the next day of a store, again and again; each is acknowledged once it returned."""
    table = stage.mover().lake.table(STOCK)
    number = len(stage.acknowledged.read_text().splitlines())
    while True:
        day, store = cell(number)
        table.replace(rows_of(number), Cells(day, day, (store,)))
        _append(stage.acknowledged, f"{number}\n")
        number += 1


def look(stage: Stage) -> None:
    """Read everything again and again: what was acknowledged is there once, as written."""
    table = stage.mover().lake.table(STOCK)
    while True:
        known = acknowledged(stage)
        try:
            lost, doubled = compare(table, known)
        except Exception as error:
            _append(stage.counts("failed_reads"), f"{type(error).__name__}: {error}\n")
            _count(stage, "bad_reads")
        else:
            if lost or doubled:
                _count(stage, "bad_reads")
        _count(stage, "reads")


def acknowledged(stage: Stage) -> int:
    """How many writes were acknowledged: their numbers are 0 up to it."""
    lines = stage.acknowledged.read_text().split("\n")
    return len(lines) - 1


def compare(table: LakeTable, known: int) -> tuple[int, int]:
    """Rows of the acknowledged writes that are missing or wrong, and rows that are there twice.

    A write that was not acknowledged is there whole or not at all; a part of it counts as lost.
    """
    rows = table.read().frame.collect()
    doubled = rows.height - rows.select("date", "item_id", "store_id").unique().height
    by_number = rows.unique(["date", "item_id", "store_id"])
    expected_day = pl.lit(FIRST) + pl.duration(days=pl.col("units") // len(STORES))
    right = by_number.filter(pl.col("date") == expected_day)
    found = dict(right.group_by("units").len().iter_rows())
    lost = sum(ITEMS - found.get(number, 0) for number in range(known))
    torn = sum(ITEMS - n for number, n in found.items() if number >= known and n < ITEMS)
    return lost + torn + (by_number.height - right.height), doubled


def _copy_then_delete(table: LakeTable, part: Part, tier: Tier) -> None:
    """The control: what a mover does that has not thought about it."""
    handle = table.pin()
    rows = table.read(Cells(part.first, part.last, (part.owner or "",)), handle=handle).frame
    period = table.lake.policy.period(part.first, tier)
    filed = table.layout.filed(rows.collect(), tier, period)
    write_deltalake(handle, arrow_of(filed), mode="append")
    old = f"tier = '{part.tier}' AND period = '{part.period}' AND store_id = '{part.owner}'"
    DeltaTable(table.uri).delete(old)


def _count(stage: Stage, name: str) -> None:
    _append(stage.counts(name), "x")


def _append(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
