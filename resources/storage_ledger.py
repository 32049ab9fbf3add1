"""The storage ledger: what every file was when it was written, every move, hold and stay.

Belongs here: writing and asking, in the database of the cost ledger. Does not: moving
(`lifecycle`), comparing files with it (`scrub`), deleting (`vacuum`).

A move is begun here before it commits and closed after its result was read back, so whatever dies
in between is known, and the version that it started from is kept until it is settled.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

import polars as pl
import sqlalchemy as sa

from forecast_core.storage.lifecycle import Due, Hold, Part, Stay
from forecast_core.storage.tiers import Tier
from resources.commits import Commit, DataFile
from resources.ledger import open_ledger
from resources.storable import TIER
from resources.storage_tables import files, holds, metadata, moves, reads, stays
from resources.table_files import files_of, sha256
from resources.traffic import Place, Traffic

WRITE, SCRUB = "write", "scrub"


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when it was written."""

    path: str
    sha256: str
    bytes: int
    rows: int
    tier: str | None
    version: int
    origin: str
    recorded_at: datetime


@dataclass(frozen=True)
class Deleted:
    """A file deleted on purpose at `age_days`. What one vacuum deleted has one `at`."""

    tier: str
    bytes: int
    age_days: int
    at: datetime


@dataclass(frozen=True)
class MoveRecord:
    """A move as the ledger knows it; `version` None until its commit was seen."""

    id: str
    uri: str
    kind: str
    first: date
    last: date
    owner: str | None
    from_tier: str
    to_tier: str
    state: str
    base_version: int
    version: int | None
    begun_at: datetime


class StorageLedger:
    """The books of storage behind one database URL. Safe for any number of processes."""

    def __init__(self, url: str) -> None:
        self._engine = open_ledger(url).engine
        with self._write() as connection:
            if connection.dialect.name == "postgresql":
                lock = sa.func.pg_advisory_xact_lock(0x73746F72)
                connection.execute(sa.select(lock))
            metadata.create_all(connection)

    # -- files -----------------------------------------------------------------------------

    def wrote(self, uri: str, done: Commit, origin: str = WRITE) -> None:
        """Record the SHA-256 of every file that a commit added."""
        if not done.added:
            return
        store = files_of(uri)
        self.record(uri, [(f, sha256(store, f.path)) for f in done.added], done.version, origin)

    def record(
        self, uri: str, hashed: Sequence[tuple[DataFile, str]], version: int, origin: str
    ) -> None:
        """Record files with their hashes; what is recorded already stays as it is."""
        now = datetime.now(UTC)
        rows = [
            {
                "uri": uri,
                "path": file.path,
                "sha256": digest,
                "bytes": file.bytes,
                "rows": file.rows,
                "tier": file.partition.get(TIER),
                "version": version,
                "origin": origin,
                "recorded_at": now,
            }
            for file, digest in hashed
        ]
        with self._write() as connection:
            connection.execute(self._insert(connection, files).on_conflict_do_nothing(), rows)

    def files(self, uri: str) -> dict[str, FileRecord]:
        """Every recorded file of a table that was not deleted, by path."""
        named = [files.c[f.name] for f in fields(FileRecord)]
        query = sa.select(*named).where(files.c.uri == uri, files.c.deleted_at.is_(None))
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return {row["path"]: FileRecord(**_dated(row, "recorded_at")) for row in rows}

    def deleted(self, uri: str, paths: Sequence[str]) -> None:
        """These files were deleted on purpose."""
        now = datetime.now(UTC)
        with self._write() as connection:
            for path in paths:
                where = (files.c.uri == uri) & (files.c.path == path)
                connection.execute(sa.update(files).where(where).values(deleted_at=now))

    def deleted_on(self, uri: str, day: date) -> list[Deleted]:
        """Files deleted on a UTC day."""
        start = datetime.combine(day, time(), UTC)
        columns = (files.c.tier, files.c.bytes, files.c.recorded_at, files.c.deleted_at)
        inside = (files.c.deleted_at >= start) & (files.c.deleted_at < start + timedelta(days=1))
        with self._engine.connect() as connection:
            query = sa.select(*columns).where(files.c.uri == uri, inside)
            rows: list[tuple[Any, ...]] = [tuple(row) for row in connection.execute(query)]
        return [
            Deleted(tier or Tier.HOT.value, size, (gone - since).days, _zoned(gone))
            for tier, size, since, gone in rows
        ]

    # -- moves -----------------------------------------------------------------------------

    def begin(self, uri: str, due: Due, base_version: int) -> str:
        """A move is about to be tried from `base_version`; its id."""
        part, move_id = due.part, uuid.uuid4().hex
        row = {
            "id": move_id,
            "uri": uri,
            "kind": due.kind,
            "first": part.first,
            "last": part.last,
            "owner": part.owner,
            "from_tier": part.tier.value,
            "to_tier": due.tier.value,
            "state": "begun",
            "base_version": base_version,
            "reason": due.reason,
            "begun_at": datetime.now(UTC),
        }
        with self._write() as connection:
            connection.execute(sa.insert(moves), row)
        return move_id

    def based(self, move_id: str, base_version: int, rows: int, bytes_read: int) -> None:
        """The move is tried (again) from that version."""
        self._set(move_id, base_version=base_version, rows=rows, bytes_read=bytes_read)

    def close(self, move_id: str, state: str, done: Commit | None = None) -> None:
        """The move ended: 'verified', 'restored', 'overtaken' or 'abandoned'."""
        seen = {} if done is None else {"version": done.version, "bytes_written": done.bytes}
        self._set(move_id, state=state, closed_at=datetime.now(UTC), **seen)

    def open_moves(self, uri: str | None = None) -> list[MoveRecord]:
        """Moves that were begun and not closed, oldest first."""
        return self._moves(moves.c.state == "begun", uri)

    def moves_made(self, uri: str) -> list[MoveRecord]:
        """Verified moves of a table, newest first."""
        return self._moves(moves.c.state == "verified", uri)[::-1]

    def history(self, uri: str) -> pl.DataFrame:
        """Every move of a table, as a frame."""
        query = sa.select(moves).where(moves.c.uri == uri).order_by(moves.c.begun_at)
        with self._engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        return pl.DataFrame(rows, infer_schema_length=None)

    # -- holds and stays -------------------------------------------------------------------

    def place(self, uri: str, hold: Hold) -> None:
        """Place a hold.

        Raises:
            ValueError: one of that name exists.
        """
        row = {f.name: getattr(hold, f.name) for f in fields(Hold)}
        with self._write() as connection:
            taken = sa.select(holds.c.name).where(holds.c.name == hold.name)
            if connection.execute(taken).first():
                raise ValueError(f"a hold named {hold.name!r} exists; choose another name")
            now = datetime.now(UTC)
            connection.execute(sa.insert(holds), {**row, "uri": uri, "placed_at": now})

    def release(self, name: str) -> None:
        """Lift a hold.

        Raises:
            ValueError: there is none of that name.
        """
        with self._write() as connection:
            gone = connection.execute(sa.delete(holds).where(holds.c.name == name))
            if not gone.rowcount:
                raise ValueError(f"no hold is named {name!r}; `forecast lake holds` lists them")

    def holds(self, uri: str | None = None, today: date | None = None) -> list[Hold]:
        """Holds in force, of a table or of all."""
        query = sa.select(*(holds.c[f.name] for f in fields(Hold)))
        if uri is not None:
            query = query.where(holds.c.uri == uri)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(holds.c.name)).mappings()
            found = [Hold(**dict(row)) for row in rows]
        today = today or datetime.now(UTC).date()
        return [hold for hold in found if hold.in_force(today)]

    def stay(self, uri: str, stay: Stay) -> None:
        """A window was rehydrated until a day; an earlier stay of the same window is replaced."""
        name = f"{uri}|{stay.owner}|{stay.first}|{stay.last}"
        row = {f.name: getattr(stay, f.name) for f in fields(Stay)}
        with self._write() as connection:
            connection.execute(sa.delete(stays).where(stays.c.id == name))
            connection.execute(sa.insert(stays), {**row, "id": name, "uri": uri})

    def stays(self, uri: str) -> list[Stay]:
        """Windows that were rehydrated, those whose day has passed included."""
        query = sa.select(*(stays.c[f.name] for f in fields(Stay))).where(stays.c.uri == uri)
        with self._engine.connect() as connection:
            rows: list[dict[str, Any]] = [dict(row) for row in connection.execute(query).mappings()]
        return [Stay(**{**row, "tier": Tier.named(row["tier"])}) for row in rows]

    def end_stays(self, uri: str, as_of: date) -> None:
        """Forget the stays that are over and whose parts have returned."""
        with self._write() as connection:
            over = (stays.c.uri == uri) & (stays.c.until < as_of)
            connection.execute(sa.delete(stays).where(over))

    # -- reads -----------------------------------------------------------------------------

    def read(self, uri: str, parts: Mapping[Place, Traffic]) -> None:
        """Count a read of today: (tier, period, owner) -> (files, bytes)."""
        if not parts:
            return
        today = datetime.now(UTC).date()
        rows = [
            {
                **dict(zip(("tier", "period", "owner"), key, strict=True)),
                "uri": uri,
                "day": today,
                "reads": 1,
                "files": opened,
                "bytes": size,
            }
            for key, (opened, size) in parts.items()
        ]
        with self._write() as connection:
            insert = self._insert(connection, reads)
            grown = {name: reads.c[name] + insert.excluded[name] for name in _COUNTED}
            key = ["uri", "tier", "period", "owner", "day"]
            connection.execute(insert.on_conflict_do_update(index_elements=key, set_=grown), rows)

    def reads(self, uri: str) -> pl.DataFrame:
        """Reads of a table: tier, period, owner, day, reads, files, bytes."""
        named = ("tier", "period", "owner", "day", *_COUNTED)
        query = sa.select(*(reads.c[name] for name in named)).where(reads.c.uri == uri)
        with self._engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        text, whole = pl.String, pl.Int64
        types = [text, text, text, pl.Date, whole, whole, whole]
        return pl.DataFrame(rows, schema=dict(zip(named, types, strict=True)), orient="row")

    # -- the database ----------------------------------------------------------------------

    def _moves(self, where: sa.ColumnElement[bool], uri: str | None) -> list[MoveRecord]:
        query = sa.select(*(moves.c[f.name] for f in fields(MoveRecord))).where(where)
        if uri is not None:
            query = query.where(moves.c.uri == uri)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by("begun_at")).mappings()
            return [MoveRecord(**_dated(dict(row), "begun_at")) for row in rows]

    def _set(self, move_id: str, **values: Any) -> None:
        with self._write() as connection:
            connection.execute(sa.update(moves).where(moves.c.id == move_id).values(**values))

    def _write(self) -> Any:
        return self._engine.execution_options(writes=True).begin()

    @staticmethod
    def _insert(connection: sa.Connection, table: sa.Table) -> Any:
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as postgres_insert

            return postgres_insert(table)
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert(table)


_COUNTED = ("reads", "files", "bytes")


def _dated(row: dict[str, Any], column: str) -> dict[str, Any]:
    return {**row, column: _zoned(row[column])}


def _zoned(at: datetime) -> datetime:
    return at if at.tzinfo else at.replace(tzinfo=UTC)  # SQLite forgets the zone


def open_storage_ledger(url: str) -> StorageLedger:
    """The storage ledger at `url`, opened once in a process (and again after a fork)."""
    return _open(url, os.getpid())


@lru_cache(maxsize=16)
def _open(url: str, pid: int) -> StorageLedger:
    return StorageLedger(url)


def key_of(part: Part) -> tuple[str, str, str]:
    """A part as reads are counted by."""
    return (part.tier.value, part.period, part.owner or "")
