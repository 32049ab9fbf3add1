"""The placement plan of a lake: what is stored and read, put before the planner, and applied.

Belongs here: gathering parts, measured reads, holds and stays, and making the planned moves. Does
not: choosing a tier (`forecast_core.storage.placement`) or moving a part (`resources.lifecycle`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import polars as pl

from forecast_core.cost.price_card import Rates
from forecast_core.storage.lifecycle import Due, Part, Waiting, compaction, returns
from forecast_core.storage.placement import (
    STEP_DAYS,
    Placed,
    Reader,
    expected_reads,
    place,
    unplanned_rate,
)
from resources.lake import LakeTable
from resources.lifecycle import Moved, Mover, parts_of
from resources.storage_ledger import FileRecord, key_of


@dataclass(frozen=True)
class Applied:
    """Moves made, and those that could not be made with the reason."""

    moved: tuple[Moved, ...]
    failed: tuple[tuple[Part, str], ...]

    @property
    def rows(self) -> int:
        """Rows that moved."""
        return sum(moved.rows for moved in self.moved)


def plan(
    mover: Mover, tables: Iterable[LakeTable], readers: Sequence[Reader], rates: Rates, as_of: date
) -> list[Placed]:
    """What to do with every part of the tables; nothing is changed.

    Parts under a legal hold, and rehydrated ones until their day of return, stay; after it they go
    back to the tier of their age, once.
    """
    found: list[Placed] = []
    for table in tables:
        parts = parts_of(table)
        if not parts:
            continue
        known = mover.books.files(table.uri)
        holds, stays = mover.books.holds(table.uri), mover.books.stays(table.uri)
        reads = mover.books.reads(table.uri)
        back = returns(parts, mover.policy.tiers, as_of, holds, stays)
        for part in parts:
            placed = place(
                part,
                readers,
                rates,
                as_of,
                held_days=_held(part, known),
                unplanned_a_day=_unplanned(part, reads, readers, as_of),
                back=back.get(part),
            )
            hold = next((h for h in holds if h.over(part)), None)
            stay = next((s for s in stays if s.covers(part) and as_of <= s.until), None)
            if hold is not None:
                placed = _stays(placed, f"legal hold {hold.name}: {hold.reason}")
            elif stay is not None:
                placed = _stays(placed, f"rehydrated until {stay.until}: {stay.reason}")
            found.append(placed)
    return found


def small_files(mover: Mover, table: LakeTable) -> tuple[list[Due], list[Waiting]]:
    """The parts of a table that are due to be written again in fewer files, and those that wait."""
    due: list[Due] = []
    waiting: list[Waiting] = []
    parts, holds = parts_of(table), mover.books.holds(table.uri)
    for tier, rule in mover.policy.tiers.rules.items():
        mine = [part for part in parts if part.tier is tier]
        target = rule.target_file_mb * 2**20
        found = compaction(mine, mover.policy.compact_files, target, holds)
        due, waiting = due + found[0], waiting + found[1]
    return due, waiting


def apply(
    mover: Mover, due: Iterable[Due], said: Callable[[Moved], None] = lambda _: None
) -> Applied:
    """Make moves one after the other; one that fails does not stop the rest, and is reported.

    `said` hears of every move made: what it read and wrote is to be charged.
    """
    moved: list[Moved] = []
    failed: list[tuple[Part, str]] = []
    due = list(due)
    for one in due:
        try:
            made = mover.make(mover.table(one.part.table), one)
        except (RuntimeError, ValueError) as error:
            failed.append((one.part, str(error)))
            continue
        moved.append(made)
        said(made)
    for name in sorted({one.part.table for one in due}):
        _forget_stays(mover, mover.table(name))
    return Applied(tuple(moved), tuple(failed))


def _forget_stays(mover: Mover, table: LakeTable) -> None:
    """Once all have returned, stays that are over are forgotten: later moves are free again."""
    as_of = mover.lake.as_of
    if as_of is None:
        return
    holds, stays = mover.books.holds(table.uri), mover.books.stays(table.uri)
    if stays and not returns(parts_of(table), mover.policy.tiers, as_of, holds, stays):
        mover.books.end_stays(table.uri, as_of)


def due_of(placed: Iterable[Placed]) -> list[Due]:
    """The moves of a plan."""
    return [Due(p.part, p.tier, p.kind, p.reason) for p in placed if p.moves]


def _stays(placed: Placed, reason: str) -> Placed:
    tier = placed.part.tier
    return replace(placed, tier=tier, saving=0.0, move_cost=0.0, pays_from=None, reason=reason)


def _held(part: Part, known: dict[str, FileRecord]) -> float:
    """Days since its youngest file was written: minimum durations count by the wall clock."""
    written = [known[path].recorded_at for path in part.paths if path in known]
    return (datetime.now(UTC) - max(written)).total_seconds() / 86400 if written else 0.0


def _unplanned(part: Part, reads: pl.DataFrame, readers: Sequence[Reader], as_of: date) -> float:
    """Measured reads a day beyond the declared ones."""
    if reads.is_empty():
        return 0.0
    _, period, owner = key_of(part)
    mine = reads.filter(period=period, owner=owner)
    first = reads["day"].min()
    assert isinstance(first, date)
    days = (datetime.now(UTC).date() - first).days + 1
    declared = [reader for reader in readers if reader.table == part.table]
    age = (as_of - part.last).days
    expected = float(expected_reads(declared, age, 1)[0]) / STEP_DAYS * days
    return unplanned_rate(float(mine["reads"].sum()) - expected, days)
