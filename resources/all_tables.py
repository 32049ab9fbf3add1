"""Every table that a lake may hold: the datasets, and what the books keep in it.

Belongs here: the list, and the table of storage costs. Does not: the datasets
(`forecast_core.schema`), the ledger's own tables (`resources.ledger_history`).
"""

from __future__ import annotations

import polars as pl

from forecast_core.schema import TABLES, Table
from resources.ledger_history import COST_LEDGER, COST_STEPS

COST_STORAGE = Table(
    "cost_storage",
    {
        "date": pl.Date,
        "kind": pl.String,
        "table": pl.String,
        "storage_tier": pl.String,
        "store_id": pl.String,
        "pipeline": pl.String,
        "files": pl.Int64,
        "bytes": pl.Int64,
        "rows": pl.Int64,
        "money": pl.Float64,
        "currency": pl.String,
    },
    key=("date", "kind", "table", "storage_tier", "store_id"),
    cut="day",
    sort=("table", "kind", "storage_tier", "store_id"),
)
ALL_TABLES = (*TABLES.values(), COST_LEDGER, COST_STEPS, COST_STORAGE)
