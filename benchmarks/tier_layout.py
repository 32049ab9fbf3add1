"""What a read of the tiered layout opens, on the whole of M5, by the Delta log and the footers.

Belongs here: writing raw sales of every store as the lake does, and counting files, row groups and
bytes. Does not: time. `bytes_share`: bytes of column chunks in the row groups that survive their
statistics, for one item's whole history in every store; `bytes_share_with_footers` adds every
footer that such a read has to open.
"""

from __future__ import annotations

import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from benchmarks import _m5
from forecast_core.cells import Cells
from forecast_core.source.clean import clean
from resources.lake import Lake, LakeTable
from resources.lifecycle import parts_of
from resources.sources import build_source

TABLES = ("raw_sales", "cleaned_sales")
QUICK_STORES = 2


def run(quick: bool) -> dict[str, float | int]:
    """Land stores of M5 in the lake and look at what reads touch."""
    began = time.process_time()
    source = build_source("m5", m5_dir=_m5.folder(), series=1, stores=1, days=60, seed=0)
    first, last = source.span()
    stores = source.stores()[: QUICK_STORES if quick else None]
    with tempfile.TemporaryDirectory(prefix="layout") as folder:
        lake = Lake(Path(folder) / "lake", as_of=last)
        raw, cleaned = (lake.table(name) for name in TABLES)
        for store in stores:
            sales, prices = source.sales(store, first, last), source.prices(store, first, last)
            cells = Cells(first, last, (store,))
            raw.replace(sales, cells)
            cleaned.replace(clean(sales, prices).kept, cells)
        item = sales["item_id"].unique().sort()[1500]
        recent = Cells(last - timedelta(days=59), last, (stores[0],))
        opened = max(table.read(recent).files for table in (raw, cleaned))
        shares = [_share(table, item) for table in (raw, cleaned)]
        figures: dict[str, float | int] = {
            "rows": sum(part.rows for part in parts_of(cleaned)),
            "stores": len(stores),
            "files_in_table": sum(part.files for part in parts_of(cleaned)),
            "files_opened": opened,
            "bytes_share": max(share for share, _, _ in shares),
            "bytes_share_with_footers": max(share for _, share, _ in shares),
            "bytes_share_one_store": max(
                _share(table, item, stores[0])[0] for table in (raw, cleaned)
            ),
            "row_groups_read": max(groups for _, _, groups in shares),
            **_bytes_per_row(cleaned),
        }
    figures["csv_bytes_per_row"] = _csv_bytes_per_row(sales)
    figures["cpu_s"] = time.process_time() - began
    figures["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return figures


def _share(table: LakeTable, item: str, store: str | None = None) -> tuple[float, float, int]:
    """Share of the table's bytes that a look-up of one item reads, without and with footers; and
    the row groups read. Files are ruled out by the log, row groups by their statistics."""
    read = total = footers = groups = 0
    for part in parts_of(table):
        for path in part.paths:
            footer = pq.read_metadata(Path(table.uri) / path)
            mine = store is None or part.owner == store
            footers += footer.serialized_size if mine else 0
            for index in range(footer.num_row_groups):
                group = footer.row_group(index)
                columns = [group.column(n) for n in range(group.num_columns)]
                size = sum(column.total_compressed_size for column in columns)
                total += size
                (named,) = [c for c in columns if c.path_in_schema == "item_id"]
                if mine and named.statistics.min <= item <= named.statistics.max:
                    read += size
                    groups += 1
    whole = sum(part.bytes for part in parts_of(table))
    return read / total, (read + footers) / whole, groups


def _bytes_per_row(table: LakeTable) -> dict[str, float]:
    by_tier: dict[str, list[int]] = {}
    for part in parts_of(table):
        held = by_tier.setdefault(part.tier.value, [0, 0])
        held[0], held[1] = held[0] + part.bytes, held[1] + part.rows
    return {f"bytes_per_row_{tier}": size / rows for tier, (size, rows) in by_tier.items()}


def _csv_bytes_per_row(sales: pl.DataFrame) -> float:
    sample = sales.head(100_000)
    return len(sample.write_csv(None).encode()) / sample.height
