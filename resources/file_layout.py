"""How rows of a dataset become files: who files them, in which order, with which settings.

Belongs here: partition columns, sorted frames for each file, writer properties by tier. Does
not: commits (`resources.commits`), what is replaced by what (`resources.lake`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
from deltalake import ColumnProperties, WriterProperties

from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.tiers import Tier, TierPolicy, TierRule
from resources.storable import HIDDEN, PERIOD, TIER, arrow_of


@dataclass(frozen=True)
class FileLayout:
    """The physical layout of one dataset under a tier policy."""

    table: Table
    policy: TierPolicy

    @property
    def owner_column(self) -> str | None:
        """The column besides the date that rows are filed by: store, segment group or none."""
        if self.table.by_store:
            return "store_id"
        return self.table.key[0] if self.table.cut == "group" else None

    @property
    def partition_columns(self) -> list[str]:
        """The physical partition columns; none for a table that is not cut."""
        if self.table.cut == "none":
            return []
        return [*HIDDEN, *([self.owner_column] if self.owner_column else [])]

    def indexed(self, columns: list[str]) -> list[str]:
        """Those of `columns` that reads prune by: the only ones that keep statistics.

        Statistics of the rest would be most of the log, and most of the footers in small row
        groups: without them a cold M5 row takes .43 bytes, with them .46.
        """
        named = (self.table.date_column, *self.table.sort)
        found = [name for name in named if name in columns and name not in self.partition_columns]
        return [str(name) for name in dict.fromkeys(found)]

    def writer(self, rule: TierRule, rows: pl.DataFrame) -> WriterProperties:
        """The settings that files of a tier are written with."""
        kept = self.indexed(rows.columns)
        dates = [name for name, dtype in rows.schema.items() if dtype == pl.Date]
        columns = {}
        for name in rows.columns:
            packed = rule.packed_dates and name in dates
            columns[name] = ColumnProperties(
                dictionary_enabled=False if packed else None,
                encoding="DELTA_BINARY_PACKED" if packed else None,
                statistics_enabled="CHUNK" if name in kept else "NONE",
            )
        return WriterProperties(
            compression="ZSTD",
            compression_level=rule.zstd_level,
            max_row_group_size=rule.row_group_rows,
            column_properties=columns,
        )

    def schema(self, rows: pl.DataFrame, tier: Tier) -> pa.Schema:
        """The Arrow schema of what is written."""
        return arrow_of(self.filed(rows.clear(), tier, "")).schema

    def batches(
        self, rows: pl.DataFrame, tier: Tier, window: Cells | None
    ) -> Iterator[pa.RecordBatch]:
        """Those rows of the window, one sorted batch for each file.

        The writer keeps the order inside a batch but not between batches, so a file must be one
        batch to stay sorted; and only one copy of a file's rows is held at a time.
        """
        for chunk in self._chunks(rows, tier, window):
            yield from arrow_of(chunk).combine_chunks().to_batches()

    def filed(self, rows: pl.DataFrame, tier: Tier, period: str) -> pl.DataFrame:
        """The rows with their physical columns."""
        if not self.partition_columns:
            return rows
        return rows.with_columns(pl.lit(tier.value).alias(TIER), pl.lit(period).alias(PERIOD))

    def _chunks(
        self, rows: pl.DataFrame, tier: Tier, window: Cells | None
    ) -> Iterator[pl.DataFrame]:
        order = [name for name in self.table.sort if name in rows.columns]
        if not self.partition_columns:
            yield rows.sort(order)
            return
        day = pl.col(self.table.date_column or "")
        # Rows are known to be inside the cells: only the days can differ from window to window.
        days = day.is_between(window.first, window.last) if window else pl.lit(True)
        length = "1mo" if self.policy.rule(tier).period == "month" else "1y"
        owner = [pl.col(self.owner_column)] if self.owner_column else []
        found = rows.lazy().filter(days).select(day.dt.truncate(length), *owner).unique()
        ends = pl.nth(0).dt.offset_by(length).dt.offset_by("-1d").alias("last day")
        files = found.with_columns(ends).collect().sort(pl.all())
        # Comparing the names of a single store would cost more than all the rest.
        several = bool(owner) and files[self.owner_column or ""].n_unique() > 1
        for first, *owners, last in files.iter_rows():
            mine = days & day.is_between(first, last)
            if several:
                mine &= owner[0] == owners[0]
            period = self.policy.period(first, tier)
            yield self.filed(rows.filter(mine).sort(order), tier, period)
