"""One commit to a Delta table: retried on conflict, identified, and made to outlast a power cut.

Belongs here: what any writer of a table needs around `write_deltalake`, whatever it writes.
Does not: what is written and where it lands (`resources.lake`).
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

# The library's default of 15 loses commits with 8 writers.
_RETRIES_IN_LIBRARY = 200
# A conflict that the library does not retry (the same rows, a changed schema): start over.
_FRESH_STARTS = 12
_WRITE_ID = "writeId"


class LakeConflict(RuntimeError):
    """Writers of the same rows kept getting in each other's way."""


@dataclass(frozen=True)
class DataFile:
    """A file that a commit added. `path` is relative to the table, as it stands on disk."""

    path: str
    bytes: int
    rows: int
    partition: Mapping[str, str | None]


@dataclass(frozen=True)
class Commit:
    """What one write did: the version it made and the files it added.

    `version` is the version found after a write that had nothing to change.
    """

    version: int
    added: tuple[DataFile, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the added files."""
        return sum(file.bytes for file in self.added)


def commit(
    pin: Callable[[], DeltaTable],
    write: Callable[[DeltaTable, CommitProperties], None],
    *,
    storage_options: Mapping[str, str] | None = None,
    write_id: str | None = None,
) -> Commit:
    """Run `write(handle, properties)` on a freshly pinned handle until its commit lands.

    `write` may run more than once, so it must make its data anew each time. When this returns,
    the added files, their folders and the log entry are on stable storage (local disks).
    `write_id` marks the commit in the log, for `find_commit`; one is made up where none is given.

    Raises:
        LakeConflict: it kept conflicting with other writers.
    """
    write_id = write_id or uuid.uuid4().hex
    for attempt in range(_FRESH_STARTS):
        handle = pin()
        base = handle.version()
        properties = CommitProperties(
            custom_metadata={_WRITE_ID: write_id}, max_commit_retries=_RETRIES_IN_LIBRARY
        )
        try:
            write(handle, properties)
        except CommitFailedError as error:
            if attempt + 1 == _FRESH_STARTS:
                raise LakeConflict(
                    f"{handle.table_uri}: gave up after {_FRESH_STARTS} conflicts with other "
                    f"writers; run writers of the same partition one at a time. Last: {error}"
                ) from error
            time.sleep(random.uniform(0, 0.05 * 2 ** min(attempt, 6)))
            continue
        done = _landed(handle, base, write_id, storage_options)
        if is_local(handle.table_uri):
            make_durable(local_path(handle.table_uri), done)
        return done
    raise AssertionError("unreachable")


def make_durable(root: Path, done: Commit) -> None:
    """fsync the files of a commit, their folders and its log entry.

    The library never calls fsync: after a power cut a commit could name files that are empty.
    """
    log = _log_path(root, done.version)
    files = [root / file.path for file in done.added] + ([log] if log.exists() else [])
    folders = {parent for file in files for parent in _up_to(file.parent, root)} | {root.parent}
    for path in [*files, *sorted(folders)]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def is_local(uri: str) -> bool:
    """Whether a table lies on a local disk."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> Path:
    """The folder of a local table."""
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _landed(
    handle: DeltaTable, base: int, write_id: str, storage_options: Mapping[str, str] | None
) -> Commit:
    """Find our own entry in the log: others may have committed since."""
    found = find_commit(handle, base, write_id, storage_options)
    return found or Commit(handle.version(), ())


def find_commit(
    handle: DeltaTable,
    after: int,
    write_id: str,
    storage_options: Mapping[str, str] | None = None,
) -> Commit | None:
    """The commit marked `write_id`, among those after a version up to that of the handle."""
    for version in range(handle.version(), after, -1):
        actions = _actions(handle.table_uri, version, storage_options)
        if any(action.get("commitInfo", {}).get(_WRITE_ID) == write_id for action in actions):
            added = tuple(_data_file(action["add"]) for action in actions if "add" in action)
            return Commit(version, added)
    return None


def _actions(
    uri: str, version: int, storage_options: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    if is_local(uri):
        # Not splitlines(): a name may hold any of the other characters that end a line.
        text: Iterable[str] = _log_path(local_path(uri), version).read_text("utf-8").split("\n")
    else:
        entry = f"{uri.rstrip('/')}/_delta_log/{version:020d}.json"
        options = dict(storage_options or {})
        text = pl.scan_lines(entry, storage_options=options).collect().to_series().to_list()
    return [json.loads(line) for line in text if line]


def _data_file(add: Mapping[str, Any]) -> DataFile:
    stats = json.loads(add.get("stats") or "{}")
    return DataFile(
        unquote(add["path"]), add["size"], stats.get("numRecords", 0), add["partitionValues"]
    )


def _log_path(root: Path, version: int) -> Path:
    return root / "_delta_log" / f"{version:020d}.json"


def _up_to(folder: Path, root: Path) -> list[Path]:
    found = [folder]
    while found[-1] != root:
        found.append(found[-1].parent)
    return found
