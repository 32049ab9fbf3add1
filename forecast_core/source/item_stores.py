"""Which item-stores a source has: every one of them is owed a forecast, whatever its rows say.

Belongs here: one row an item-store, its attributes complete. Does not: reading the source
(`resources.mapped_source`), or what an item-store deserves (`forecast_core.segments`).
"""

from __future__ import annotations

import polars as pl

from forecast_core.source.mapping import ALL, IDS

_KEY = ["item_id", "store_id"]


def item_stores(*series: pl.DataFrame) -> pl.DataFrame:
    """One row an item-store of the frames, sorted; the last that names an attribute holds.

    What is not named takes after the item's other stores (department, category) or the store's
    other items (state).
    """
    every = pl.concat([frame.select(IDS) for frame in series]).drop_nulls(_KEY)
    latest = every.group_by(_KEY, maintain_order=True).agg(
        pl.col("dept_id", "cat_id", "state_id").drop_nulls().last()
    )
    filled = latest.with_columns(
        pl.col("dept_id", "cat_id").fill_null(
            pl.col("dept_id", "cat_id").drop_nulls().first().over("item_id")
        ),
        pl.col("state_id").fill_null(pl.col("state_id").drop_nulls().first().over("store_id")),
    )
    return filled.with_columns(pl.all().fill_null(ALL)).select(IDS).sort(_KEY[::-1])
