"""Scrubbing: every file of a table compared with what was recorded when it was written.

Belongs here: finding damage and saying how to restore it. Does not: recording (`storage_ledger`)
or moving (`lifecycle`).

A file that is not recorded yet (its writer died between its commit and the record) is decoded
whole, its rows are counted against the log, and it is recorded from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable

from forecast_core.storage.lifecycle import Part
from forecast_core.storage.tiers import Tier
from resources.commits import DataFile, commit
from resources.lake import LakeTable
from resources.lifecycle import Mover, content_of, parts_of, window_of
from resources.predicates import among
from resources.s3 import Archived
from resources.storable import PERIOD, TIER
from resources.storage_ledger import SCRUB, FileRecord, StorageLedger
from resources.table_files import MissingFile, TableFiles, files_of, sha256
from resources.traffic import Traffic, traffic_of

What = Literal["changed", "missing", "unreadable"]


class CannotRestore(LookupError):
    """No version of the table holds the rows of a damaged file; says what does."""


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written. `partition`: its part; `remedy`: what to type."""

    table: str
    path: str
    partition: str
    tier: str
    what: What
    remedy: str

    @property
    def message(self) -> str:
        """One line that names the file, the partition and the remedy."""
        return f"{self.partition}: {self.path} is {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Scrubbed:
    """What a scrub of one table saw; `traffic` by tier is what it read. `archived`: objects that
    it could not read before they are restored."""

    table: str
    files: int
    bytes: int
    adopted: int
    archived: int
    traffic: Mapping[str, Traffic]
    damages: tuple[Damage, ...]


def scrub(table: LakeTable, books: StorageLedger) -> Scrubbed:
    """Read every live file of a table, and those of its held versions."""
    handle = table.pin()
    store, known = files_of(table.uri), books.files(table.uri)
    damages: list[Damage] = []
    seen: list[DataFile] = []
    adopted = archived = 0
    for file, part in _files(table, handle, books):
        if _is_archived(table, file):
            archived += 1
            continue
        seen.append(file)
        record = known.get(file.path)
        what, digest = _look(store, file, record)
        if what is None and record is None:
            what = _decode(table, file)
            if what is None:
                books.record(table.uri, [(file, digest)], handle.version(), SCRUB)
                adopted += 1
        if what is not None:
            damages.append(_damage(table, file, part, what, books))
    size = sum(file.bytes for file in seen)
    return Scrubbed(
        table.table.name, len(seen), size, adopted, archived, traffic_of(seen), tuple(damages)
    )


def _is_archived(table: LakeTable, file: DataFile) -> bool:
    if table.lake.guard is None:
        return False
    tier = file.partition.get(TIER) or Tier.HOT.value
    try:
        table.lake.guard(table.uri, {file.path: (tier, file.bytes)})
    except Archived:
        return True
    return False


def restore(mover: Mover, table: LakeTable, path: str) -> int:
    """Put back the rows of a damaged file from the version that it was made from.

    Returns the version that has them again.

    Raises:
        ValueError: the table has no such file.
        CannotRestore: no intact version holds them; the message says how to make them anew.
    """
    handle = table.pin()
    part = next((part for part in parts_of(table, handle) if path in part.paths), None)
    if part is None:
        raise ValueError(f"{table.table.name} has no file {path}; `forecast lake scrub` lists them")
    base = _intact_version(table, path, mover.books)
    if base is None:
        raise CannotRestore(
            f"{part.name}: no earlier version holds its rows; {_again(table, part)}"
        )
    cells, keys = window_of(table, part.first, part.last, part.owner)
    expected = content_of(table, cells, keys, base)
    drop(table, part)
    done = mover.put_back(table, cells, keys, base, None, expected)
    assert done is not None, "nobody is asked whether it was overtaken"
    return done.version


def restore_window(
    mover: Mover, table: LakeTable, first: date, last: date, owner: str | None, version: int
) -> int:
    """Put back the rows that a version had of those days and that owner (all of them when None).

    Returns the version that has them again.

    Raises:
        ValueError: the table has no such version.
        MoveFailed: what was written reads differently.
    """
    if not 0 <= version <= table.version():
        raise ValueError(
            f"{table.table.name} has no version {version}; its newest is {table.version()}"
        )
    cells, keys = window_of(table, first, last, owner)
    expected = content_of(table, cells, keys, version)
    done = mover.put_back(table, cells, keys, version, None, expected)
    assert done is not None, "nobody is asked whether it was overtaken"
    return done.version


def drop(table: LakeTable, part: Part) -> None:
    """Take a damaged part out of the table, so that its rows can be written again.

    By its physical columns alone, so that none of its files is opened: an overwrite by days reads
    the files that it replaces, and fails where one is gone. Safe here, unlike in a move: nobody
    else can have moved a part that cannot be read.
    """

    def remove(handle: DeltaTable, properties: CommitProperties) -> None:
        filed = {TIER: part.tier.value, PERIOD: part.period}
        if table.owner_column is not None and part.owner is not None:
            filed[table.owner_column] = part.owner
        where = " AND ".join(among(column, value) for column, value in filed.items())
        handle.delete(where, commit_properties=properties)

    commit(table.pin, remove, storage_options=table.lake.storage_options or None)


def _files(
    table: LakeTable, handle: DeltaTable, books: StorageLedger
) -> Iterator[tuple[DataFile, Part | None]]:
    seen: set[str] = set()
    held = sorted({hold.version for hold in books.holds(table.uri)})
    for version in (handle, *(table.pin(version) for version in held)):
        parts = {path: part for part in parts_of(table, version) for path in part.paths}
        actions = pl.DataFrame(version.get_add_actions(flatten=True))
        for row in actions.iter_rows(named=True):
            if row["path"] not in seen:
                seen.add(row["path"])
                filed = {TIER: row.get(f"partition.{TIER}")}
                file = DataFile(row["path"], row["size_bytes"], row["num_records"] or 0, filed)
                yield file, parts.get(row["path"])


def _look(store: TableFiles, file: DataFile, record: FileRecord | None) -> tuple[What | None, str]:
    try:
        digest = sha256(store, file.path)
    except MissingFile:
        return "missing", ""
    return ("changed" if record is not None and record.sha256 != digest else None), digest


def _decode(table: LakeTable, file: DataFile) -> What | None:
    """Read a file whole: what the log says of it must be true."""
    options = table.lake.storage_options or None
    try:
        source = f"{table.uri}/{file.path}"
        rows = pl.read_parquet(source, storage_options=options, hive_partitioning=False, glob=False)
    except (pl.exceptions.PolarsError, OSError):
        return "unreadable"
    return None if rows.height == file.rows else "changed"


def _damage(
    table: LakeTable, file: DataFile, part: Part | None, what: What, books: StorageLedger
) -> Damage:
    name = part.name if part else table.table.name
    tier = file.partition.get(TIER) or "hot"
    if part and _intact_version(table, file.path, books) is not None:
        remedy = f"restore it with `forecast lake restore {table.table.name} '{file.path}'`"
    else:
        remedy = _again(table, part)
    return Damage(table.table.name, file.path, name, tier, what, remedy)


def _intact_version(table: LakeTable, path: str, books: StorageLedger) -> int | None:
    """The version that a move read the rows of this file from, while its files are all intact."""
    known = books.files(table.uri)
    record = known.get(path)
    if record is None:
        return None
    made = [move for move in books.moves_made(table.uri) if move.version == record.version]
    store = files_of(table.uri)
    for move in made:
        before = parts_of(table, table.pin(move.base_version))
        paths = [p for part in before if part.meets(move.first, move.last, move.owner)
                 for p in part.paths]  # fmt: skip
        if paths and all(_intact(store, known.get(p), p) for p in paths):
            return move.base_version
    return None


def _intact(store: TableFiles, record: FileRecord | None, path: str) -> bool:
    try:
        return record is not None and sha256(store, path) == record.sha256
    except MissingFile:
        return False


def _again(table: LakeTable, part: Part | None) -> str:
    """How to make the rows anew: the Dagster partitions that hold them."""
    name = table.table.name
    if part is None:
        return f"copy it back from a backup, or materialize {name} again"
    first, last = part.first, part.last
    if table.table.cut.startswith("month"):
        first, last = first.replace(day=1), last.replace(day=1)
    of = f"|{part.owner}" if part.owner and table.table.by_store else ""
    keys = f"{first}{of}" if first == last else f"{first}{of}...{last}{of}"
    if table.table.cut == "group":
        keys = part.owner or ""
    return (
        f"copy it back from a backup, or take it out (`forecast lake drop {name} "
        f"'{part.paths[0]}'`) and make it again: `forecast partitions refresh {name} --partitions "
        f"'{keys}'`"
    )
