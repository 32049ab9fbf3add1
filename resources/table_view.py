"""A table as an asset body reads it: by any window of days and stores, every read metered.

Belongs here: the handle that an input annotated `TableView` receives. Does not: inputs cut like
the asset itself (`ByStore`, `pl.DataFrame`), which the IO manager loads for the run's partitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from resources.lake import LakeTable, Read


@dataclass(frozen=True)
class TableView:
    """Read what you name: nothing is loaded until then.

    `observe` is told of every read (files, bytes, version).
    """

    table: LakeTable
    observe: Callable[[Read], None]

    def columns(self) -> list[str]:
        """The names of its columns; none of its rows is read."""
        if not self.table.exists():
            return list(self.table.empty().columns)
        return self.table.read().frame.collect_schema().names()

    def frame(
        self,
        cells: Cells | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> pl.DataFrame:
        """Rows of `cells` in one frame; no rows when the table was never written."""
        if not self.table.exists():
            return self.table.empty()
        read = self.table.read(cells, columns, where)
        self.observe(read)
        return read.frame.collect()

    def by_store(
        self,
        cells: Cells,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
    ) -> ByStore:
        """Rows of `cells`, one store at a time."""
        return self.table.by_store(cells, columns, where, observe=self.observe)

    def latest(
        self, day: date, by: Sequence[str] = (), within_days: int = 400, stores: str | None = None
    ) -> pl.DataFrame:
        """Of the rows dated up to `day`, those of the newest date (for each `by`).

        What was not known on `day` is never returned, so a backtest cannot see ahead.
        """
        dated = self.table.table.date_column
        assert dated is not None, f"{self.table.table.name} has no dates"
        where = None if stores is None else pl.col("store_id") == stores
        rows = self.frame(Cells(day - timedelta(days=within_days), day), where=where)
        newest = pl.col(dated).max().over(*by) if by else pl.col(dated).max()
        return rows.filter(pl.col(dated) == newest)
