"""Rows that come on top of what was landed: they replace those of the same key, the rest stays.

Belongs here: merging one store's rows of the same days. Does not: reading what was landed, or when
a source adds rather than replaces (`forecast_core.source.mapping.SourceMapping.delivery`).
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

_KEY = ["date", "item_id", "store_id"]


def sales_over(landed: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    """raw_sales: landed rows of keys that are not given, and all that is given.

    A row that its reader refused has no key to go by: it stays until the very same is given again.
    """
    if landed.is_empty():
        return given
    told = "refused" in landed.columns and "refused" in given.columns
    sound = landed.filter(pl.col("refused").is_null()) if told else landed
    kept = [sound.join(given.select(_KEY).drop_nulls(), on=_KEY, how="anti")]
    if told:
        like = ["raw_text", "source_file", "source_row", "refused"]
        bad = landed.filter(pl.col("refused").is_not_null())
        kept.append(bad.join(given.select(like), on=like, how="anti", nulls_equal=True))
    return pl.concat([*kept, given], how="diagonal_relaxed").sort(
        "item_id", "date", maintain_order=True
    )


def prices_over(landed: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    """raw_prices: of an item that is given, what was landed holds until the first given day."""
    if landed.is_empty():
        return given
    begins = given.group_by("item_id").agg(begins=pl.col("date").min())
    earlier = landed.join(begins, on="item_id", how="left").filter(
        pl.col("begins").is_null() | (pl.col("date") < pl.col("begins"))
    )
    ends = pl.col("begins") - timedelta(days=1)
    cut = earlier.with_columns(
        until=pl.when(pl.col("until") > ends).then(ends).otherwise("until")
    ).drop("begins")
    return pl.concat([cut, given], how="diagonal_relaxed").sort("item_id", "date")
