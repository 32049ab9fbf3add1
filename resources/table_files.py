"""The files of a table as bytes: on a local disk or in a bucket.

Belongs here: reading, measuring and hashing a file by its path in the table. Does not: what
the bytes mean (`resources.lake`), storage classes (`resources.s3`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from resources.commits import is_local, local_path

_CHUNK = 1 << 20


class MissingFile(LookupError):
    """A file that the table names is not there."""


class TableFiles(Protocol):
    """Files below the root of one table, by relative path."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file.

        Raises:
            MissingFile: it is not there.
        """

    def sizes(self) -> dict[str, int]:
        """Every file below the root, by relative path: bytes."""


class LocalFiles:
    """On a local disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, as on disk."""
        try:
            with open(self._root / path, "rb", buffering=0) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except FileNotFoundError:
            raise MissingFile(f"{self._root / path} is missing") from None

    def sizes(self) -> dict[str, int]:
        """Every file below the root."""
        found = {}
        for path in self._root.rglob("*"):
            try:
                if path.is_file():
                    found[str(path.relative_to(self._root))] = path.stat().st_size
            except FileNotFoundError:  # vacuumed between the two looks
                continue
        return found


def files_of(uri: str) -> TableFiles:
    """The files of the table at `uri`."""
    if is_local(uri):
        return LocalFiles(local_path(uri))
    from resources.s3 import S3Files

    return S3Files(uri)


def sha256(files: TableFiles, path: str) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        MissingFile: it is not there.
    """
    digest = hashlib.sha256()
    for chunk in files.chunks(path):
        digest.update(chunk)
    return digest.hexdigest()
