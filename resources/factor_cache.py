"""Factored reconciliations kept between nights, as files of plain arrays.

Belongs here: keeping a bounded number of byte strings by key, whole or not at all. Does not: what
they hold (`forecast_core.reconcile.Mint`). Losing them costs the time to make them again.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FactorCache:
    """At most `most` entries under `folder`; the one used longest ago goes first."""

    folder: Path
    most: int

    def get(self, key: str) -> bytes | None:
        """What was put under the key; None where it is no longer, or never was, there."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, and let go of what is too much."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(self._path(key))  # a reader sees the whole of it or nothing
        for path in self._oldest()[: -self.most]:
            path.unlink(missing_ok=True)

    def _oldest(self) -> list[Path]:
        used = {}
        for path in self.folder.glob("*.npz"):
            try:
                used[path] = path.stat().st_mtime_ns
            except FileNotFoundError:  # another run let go of it
                continue
        return sorted(used, key=lambda path: (used[path], path.name))

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_.-]+", key):
            raise ValueError(f"{key!r} is no key: use small letters, digits, '_', '-' and '.'")
        return self.folder / f"{key}.npz"
