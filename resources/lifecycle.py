"""Moving parts between tiers, and compacting them: one verified commit each.

Belongs here: the protocol of a move and what settles one that died. Does not: which moves are
due (`forecast_core.storage.lifecycle`, `forecast_core.storage.placement`), the commit itself
(`resources.lake`).

The protocol: the source files are compared with their recorded SHA-256 (a damaged file is never
given a new, valid hash); rows are read from a pinned version and written by one overwrite whose
predicate names days and owner, from that same handle; the committed version is read back and
compared in rows and content; only then are the new files recorded and the move closed. Until a
move is closed vacuum keeps the version that it started from. On a mismatch the rows of the pinned
version are put back.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
from deltalake import DeltaTable

from forecast_core.cells import Cells
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import Due, Kind, LifecyclePolicy, Part, Stay, check_movable
from forecast_core.storage.placement import READS_OF_THE_SOURCE, READS_OF_THE_WRITTEN
from forecast_core.storage.tiers import Tier
from resources.all_tables import ALL_TABLES
from resources.commits import Commit, find_commit
from resources.lake import Lake, LakeTable
from resources.predicates import Keys
from resources.s3 import ObjectClasses, is_s3
from resources.storable import PERIOD, TIER
from resources.storage_ledger import MoveRecord, StorageLedger
from resources.table_files import MissingFile, files_of, sha256
from resources.traffic import Traffic, traffic_of


class DamagedFile(RuntimeError):
    """A file is not what was written, or is not there: names it, its part and the remedy."""


class MoveFailed(RuntimeError):
    """A move could not be completed; the table holds what it held before."""


class StorageFull(MoveFailed):
    """No room for the new files of a move; the table holds what it held before."""


@dataclass(frozen=True)
class Moved:
    """What a move did. `traffic` by tier: what was read from the source, written to the target."""

    due: Due
    version: int
    rows: int
    bytes_before: int
    bytes_after: int
    files_before: int
    files_after: int
    read: dict[str, Traffic]
    written: dict[str, Traffic]


@dataclass(frozen=True)
class Content:
    """Rows as two numbers: how many, and their hash."""

    rows: int
    hash: int


def parts_of(table: LakeTable, handle: DeltaTable | None = None) -> list[Part]:
    """The physical parts of a table, oldest first; none for a table that is not cut by date."""
    if not table.partition_columns or not table.exists():
        return []
    files = pl.DataFrame((handle or table.pin()).get_add_actions(flatten=True))
    day = table.table.date_column or ""
    if files.is_empty():
        return []
    by = [f"partition.{name}" for name in table.partition_columns]
    held = files.group_by(by).agg(
        pl.col(f"min.{day}").min().alias("first"),
        pl.col(f"max.{day}").max().alias("last"),
        pl.col("num_records").sum().alias("rows"),
        pl.col("size_bytes").alias("sizes"),
        pl.col("path").alias("paths"),
    )
    owner = f"partition.{table.owner_column}" if table.owner_column else None
    found = [
        Part(
            table.table.name,
            Tier.named(row[f"partition.{TIER}"]),
            row[f"partition.{PERIOD}"],
            row[owner] if owner else None,
            row["first"],
            row["last"],
            row["rows"],
            tuple(row["sizes"]),
            tuple(row["paths"]),
        )
        for row in held.iter_rows(named=True)
    ]
    return sorted(found, key=lambda part: (part.first, part.owner or "", part.tier.depth))


class Mover:
    """Moves parts of the tables of one lake, and settles moves that died."""

    def __init__(self, lake: Lake, books: StorageLedger, policy: LifecyclePolicy) -> None:
        self.lake, self.books, self.policy = lake, books, policy
        self.options = lake.storage_options or None

    def tables(self) -> list[LakeTable]:
        """Every table of the lake that exists, those of the books included."""
        found = (self.lake.table(declared) for declared in ALL_TABLES)
        return [table for table in found if table.exists()]

    def table(self, name: str) -> LakeTable:
        """A table of the lake by name.

        Raises:
            ValueError: no dataset of that name is declared.
        """
        declared = next((table for table in ALL_TABLES if table.name == name), name)
        return self.lake.table(declared)

    def make(self, table: LakeTable, due: Due) -> Moved:
        """Make one move of a part of the table.

        Raises:
            HeldError: a legal hold covers the part.
            DamagedFile: a source file is damaged or missing; nothing was changed.
            MoveFailed: the part vanished, there was no room, or what was read back differs: the
                rows of before were put back, unless another writer had replaced them.
            LakeConflict: other writers of the same rows kept interfering.
        """
        check_movable(due.part, self.books.holds(table.uri))
        self.lake.policy.rule(due.tier)
        if self.lake.guard is not None:
            sizes = zip(due.part.paths, due.part.sizes, strict=True)
            tier = due.part.tier.value
            self.lake.guard(table.uri, {path: (tier, size) for path, size in sizes})
        attempt = _Attempt(self, table, due)
        return attempt.run()

    def record(self, table: LakeTable, done: Commit, origin: str) -> None:
        """What a verified commit added: hashes, and on S3 the storage class of its tier."""
        self.books.wrote(table.uri, done, origin)
        if is_s3(table.uri):  # last: an archived object could not be hashed any more
            ObjectClasses(self.policy).set(table.uri, done.added)

    def settle(self, table: LakeTable, patience: timedelta | None = None) -> int:
        """Close the moves that died half-way: verify those that committed, forget the others.

        `patience`: how long a move may still be under way (the longest job when None).
        Returns how many were closed.
        """
        if patience is None:
            patience = timedelta(hours=self.policy.longest_job_hours)
        return sum(self._settle(table, move, patience) for move in self.books.open_moves(table.uri))

    def _settle(self, table: LakeTable, move: MoveRecord, patience: timedelta) -> bool:
        if datetime.now(UTC) - move.begun_at < patience:
            return False
        done = find_commit(table.pin(), move.base_version, move.id, self.options)
        if done is None:
            self.books.close(move.id, "abandoned")
            return True
        cells, keys = window_of(table, move.first, move.last, move.owner)
        before = content_of(table, cells, keys, move.base_version)
        after = content_of(table, cells, keys, done.version)
        if before != after:
            again = self.put_back(table, cells, keys, move.base_version, done, before)
            self.books.close(move.id, _ended(again), done)
        else:
            self.record(table, done, move.kind)
            self.books.close(move.id, "verified", done)
        return True

    def rehydrate(
        self, table: LakeTable, cells: Cells, tier: Tier, until: date, reason: str
    ) -> list[Moved]:
        """Bring every deeper part that the cells meet up to `tier`, whole, until a day.

        Whole parts: what a look-up pays for is the file. They return by age after `until`.

        Raises:
            ValueError: the day of return is not ahead.
            and what `make` raises.
        """
        as_of = self.lake.as_of
        if as_of is not None and until <= as_of:
            raise ValueError(f"the day of return {until} is not after {as_of}; choose a later one")
        self._unarchive(table, cells, until)
        moved = []
        for part in parts_of(table):
            met = any(part.meets(cells.first, cells.last, s) for s in cells.stores or (None,))
            if not met or part.tier.depth <= tier.depth:
                continue
            stay = Stay(part.table, part.first, part.last, part.owner, tier, until, reason)
            # Before the move: a rollover in between must not take it back at once.
            self.books.stay(table.uri, stay)
            moved.append(self.make(table, Due(part, tier, "rehydrate", reason)))
        return moved

    def _unarchive(self, table: LakeTable, cells: Cells, until: date) -> None:
        """Ask the store for archived objects, once for all; the lake's guard says when to retry."""
        if not is_s3(table.uri) or self.lake.guard is None:
            return
        files = {
            path: (part.tier.value, size)
            for part in parts_of(table)
            for path, size in zip(part.paths, part.sizes, strict=True)
            if any(part.meets(cells.first, cells.last, s) for s in cells.stores or (None,))
        }
        days = max((until - (self.lake.as_of or until)).days, self.policy.rehydrate_days)
        ObjectClasses(self.policy).restore(table.uri, files, days)
        self.lake.guard(table.uri, files)

    def put_back(
        self,
        table: LakeTable,
        cells: Cells,
        keys: Keys,
        base_version: int,
        done: Commit | None,
        expected: Content,
    ) -> Commit | None:
        """Write the rows of an earlier version in place of those of the window.

        With `done`: only while the files of that commit are all still live, else somebody wrote
        after it and their rows stand. Returns the commit; None when it was not needed.

        Raises:
            MoveFailed: what was read back differs again; both versions are named.
        """

        def taken(handle: DeltaTable) -> pl.DataFrame:
            live = set(pl.DataFrame(handle.get_add_actions(flatten=True))["path"])
            if done is not None and not {file.path for file in done.added} <= live:
                raise _Overtaken
            return rows_of(table, cells, keys, table.pin(base_version))

        tier = self.lake.policy.owner(cells.last, self.lake.as_of)
        try:
            again = table.rewrite(taken, tier, cells, keys, _mark("restore", base_version))
        except _Overtaken:
            return None
        if content_of(table, cells, keys, again.version) != expected:
            of = "".join(f" --store {owner}" for owner in (cells.stores or keys.values()))
            raise MoveFailed(
                f"{table.table.name}: the rows of version {base_version} could not be put back: "
                f"version {again.version} reads differently. Check the disk and the memory of this "
                f"machine, then run `forecast lake restore {table.table.name} --version "
                f"{base_version} --first {cells.first} --last {cells.last}{of}`; vacuum keeps that "
                f"version for {self.policy.vacuum_after_hours} hours"
            )
        self.record(table, again, "restore")
        return again


class _Overtaken(Exception):
    """Another writer replaced the rows in question since."""


class _Attempt:
    """One move under way."""

    def __init__(self, mover: Mover, table: LakeTable, due: Due) -> None:
        self.mover, self.table, self.due = mover, table, due
        part = due.part
        self.cells, self.keys = window_of(table, part.first, part.last, part.owner)
        self.before = Content(0, 0)
        self.source: list[Part] = []
        self.tries = 0  # one more after each conflict

    def run(self) -> Moved:
        books, table, due = self.mover.books, self.table, self.due
        self.base = table.version()
        start = self.base
        self.id = books.begin(table.uri, due, self.base)
        try:
            done = table.rewrite(self._taken, due.tier, self.cells, self.keys, self.id)
        except Exception as error:
            # An error after the commit (a lost answer, a failed fsync) leaves the move open:
            # `settle` will look at what it did.
            if find_commit(table.pin(), start, self.id, self.mover.options) is None:
                books.close(self.id, "abandoned")
            raise _explained(error, table, self.base) from error
        after = content_of(table, self.cells, self.keys, done.version)
        if after != self.before:
            self._restore(done, after)
        self.mover.record(table, done, due.kind)
        books.close(self.id, "verified", done)
        return Moved(
            due,
            done.version,
            after.rows,
            sum(part.bytes for part in self.source),
            done.bytes,
            sum(part.files for part in self.source),
            len(done.added),
            _read(self.source, self.tries, done),
            traffic_of(done.added),
        )

    def _taken(self, handle: DeltaTable) -> pl.DataFrame:
        """The rows to be moved, as this version has them; asked again after a conflict."""
        first, last, owner = self.cells.first, self.cells.last, self.due.part.owner
        self.base = handle.version()
        self.tries += 1
        self.source = [p for p in parts_of(self.table, handle) if p.meets(first, last, owner)]
        check_files(self.table, self.source, self.mover.books)
        rows = rows_of(self.table, self.cells, self.keys, handle)
        if rows.is_empty():
            raise MoveFailed(f"{self.due.part.name} is gone: another writer emptied it; plan again")
        self.before = Content(rows.height, content_hash(rows))
        size = sum(part.bytes for part in self.source)
        self.mover.books.based(self.id, self.base, rows.height, size)
        return rows

    def _restore(self, done: Commit, after: Content) -> None:
        table = self.table
        again = self.mover.put_back(table, self.cells, self.keys, self.base, done, self.before)
        self.mover.books.close(self.id, _ended(again), done)
        outcome = (
            f"the rows of version {self.base} were put back"
            if again is not None
            else f"another writer has replaced them since; version {self.base} has those of before"
        )
        raise MoveFailed(
            f"{self.due.part.name}: what was written reads back differently ({self.before.rows} "
            f"rows before, {after.rows} after, or other values); {outcome}. Check the disk and the "
            "memory of this machine before trying again"
        )


def _ended(put_back: Commit | None) -> str:
    """How a move ended that read back differently."""
    return "overtaken" if put_back is None else "restored"


def rows_of(table: LakeTable, cells: Cells, keys: Keys, handle: DeltaTable) -> pl.DataFrame:
    """Every row of a window as a version has it, with all its columns."""
    return table.read(cells, keys=keys, handle=handle).frame.collect()


def content_of(table: LakeTable, cells: Cells, keys: Keys, version: int) -> Content:
    """Rows of a window in a version, as numbers."""
    rows = rows_of(table, cells, keys, table.pin(version))
    return Content(rows.height, content_hash(rows))


def window_of(table: LakeTable, first: date, last: date, owner: str | None) -> tuple[Cells, Keys]:
    """Days and owner as a write names them."""
    if owner is None:
        return Cells(first, last), {}
    if table.table.by_store:
        return Cells(first, last, (owner,)), {}
    return Cells(first, last), {table.owner_column or "": owner}


def check_files(table: LakeTable, parts: Sequence[Part], books: StorageLedger) -> None:
    """Compare the files of parts with what was recorded when they were written.

    Raises:
        DamagedFile: one differs or is missing.
    """
    known = books.files(table.uri)
    store = files_of(table.uri)
    for part in parts:
        for path in part.paths:
            try:
                found = sha256(store, path)
            except MissingFile as error:
                raise DamagedFile(_damage(part, path, str(error))) from None
            if path in known and known[path].sha256 != found:
                raise DamagedFile(_damage(part, path, f"{path} is not what was written"))


def _damage(part: Part, path: str, what: str) -> str:
    return (
        f"{part.name}: {what}; nothing was changed. `forecast lake scrub {part.table}` says how to "
        "restore it"
    )


def _explained(error: Exception, table: LakeTable, base: int) -> Exception:
    """Say what to do when there was no room; other errors as they are."""
    text = str(error)
    full = ("No space left", "os error 28", "File too large", "os error 27", "quota exceeded")
    if not any(word in text for word in full):
        return error
    return StorageFull(
        f"{table.table.name}: no room for the new files of the move ({text.splitlines()[0]}); the "
        f"table is unchanged at version {base}. Free room with `forecast lake vacuum`, or enlarge "
        f"the disk of {table.lake.root}, and try again"
    )


def _read(source: Sequence[Part], tries: int, done: Commit) -> dict[str, Traffic]:
    """What a move fetched: its source, and as hot what it wrote, as the planner counts them."""
    found: dict[str, Traffic] = {}

    def add(tier: Tier, files: int, size: int, times: int) -> None:
        so_far = found.get(tier.value, Traffic(0, 0))
        found[tier.value] = Traffic(so_far.files + times * files, so_far.bytes + times * size)

    for part in source:
        add(part.tier, part.files, part.bytes, READS_OF_THE_SOURCE * tries)
    add(Tier.HOT, len(done.added), done.bytes, READS_OF_THE_WRITTEN)
    return found


def _mark(kind: Kind, version: int) -> str:
    return f"{kind}-{version}-{uuid.uuid4().hex}"
