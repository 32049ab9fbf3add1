"""The marts, read from a private copy: a rebuild is never locked out, a reader never sees half.

Belongs here: the copy and queries on it. Does not: which figures are asked for.

DuckDB lets one process write a file or many read it. A dashboard that held `marts.duckdb` open
would make the next `dbt build` fail, so the file itself is never opened here: when it has changed
and nobody is writing it (no `.wal` beside it) it is copied, and the copy is what is read. While a
rebuild is under way the copy of before it stays in use.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dashboard.stores import NothingYet, Unreadable, file_stamp

_TRIES = 3


class Marts:
    """The marts of one installation, for any number of threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._open: tuple[tuple[int, int, int], Any] | None = None
        self._folder = tempfile.mkdtemp(prefix="forecast-dashboard-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def rebuilding(self) -> bool:
        """Whether somebody writes them now."""
        return self._wal.exists()

    @property
    def built_at(self) -> datetime | None:
        """When the copy in use was last written; None before the first."""
        return None if self._open is None else datetime.fromtimestamp(self._open[0][1] / 1e9, UTC)

    @property
    def _wal(self) -> Path:
        return Path(f"{self.path}.wal")

    def stamp(self) -> tuple[int, int, int]:
        """What the answers rest on; changes when a newer copy is in use."""
        with self._lock:
            self._refresh()
            return self._open[0] if self._open else (0, 0, 0)

    def query(self, sql: str, values: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of one statement; values are bound, never spliced.

        Raises:
            NothingYet: no marts were built, or not the one that is asked for.
            Unreadable: they cannot be read.
        """
        import duckdb

        with self._lock:
            self._refresh()
            if self._open is None:
                raise NothingYet(
                    f"no marts yet at {self.path}: `make demo` or `forecast run` builds them"
                    + (" (a build is under way)" if self.rebuilding else "")
                )
            cursor = self._open[1].cursor()  # outlives the connection that a newer copy replaces
        try:
            found = cursor.sql(sql, params=list(values)).to_arrow_table()
            whole = [c for c, t in pl.DataFrame(found.slice(0, 0)).schema.items()
                     if isinstance(t, pl.Decimal) and not t.scale]  # fmt: skip
            return pl.DataFrame(found).cast(dict.fromkeys(whole, pl.Int64))
        except duckdb.CatalogException as error:
            raise NothingYet(
                f"a mart is missing in {self.path}: {str(error).splitlines()[0]}; build them again:"
                " `dagster asset materialize -m forecast_assets.definitions --select"
                " 'tag:dagster-dbt'` or `forecast run --no-land --no-train`"
            ) from None
        except duckdb.Error as error:
            raise Unreadable(f"{self.path}: {error}") from error
        finally:
            cursor.close()

    def _refresh(self) -> None:
        """Take a newer file into use, unless it is being written."""
        for _ in range(_TRIES):
            stamp = file_stamp(self.path)
            if not any(stamp) or self.rebuilding or (self._open and self._open[0] == stamp):
                return
            copy = Path(self._folder) / f"{stamp[1]}-{stamp[2]}.duckdb"
            shutil.copyfile(self.path, copy)
            if file_stamp(self.path) == stamp and not self.rebuilding and self._taken(copy, stamp):
                return
            copy.unlink(missing_ok=True)

    def _taken(self, copy: Path, stamp: tuple[int, int, int]) -> bool:
        import duckdb

        try:
            opened = duckdb.connect(str(copy), read_only=True, config={"threads": 1})
            opened.execute("select count(*) from information_schema.tables").fetchall()
        except duckdb.Error as error:
            if self._open is None:
                raise Unreadable(f"{self.path}: no DuckDB file that can be read: {error}") from None
            return False
        self._open = (stamp, opened)
        copy.unlink()  # the open handle keeps it; nothing is left behind
        return True
