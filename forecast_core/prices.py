"""Prices by day, from the spans that a source gives.

Belongs here: spreading `raw_prices` rows over their days. Does not: judging a price
(`forecast_core.clean`).
"""

from __future__ import annotations

from datetime import date

import polars as pl


def daily_prices(spans: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """(item_id, date, sell_price) for each day of `first`..`last` on which a good price holds.

    Args:
        spans: `raw_prices` rows of one store (`date`..`until` inclusive); unreadable and
            non-positive prices give no day.
    """
    good = spans.filter(
        pl.col("sell_price").is_finite()
        & (pl.col("sell_price") > 0)
        & (pl.col("until") >= first)
        & (pl.col("date") <= last)
    )
    since = pl.max_horizontal("date", pl.lit(first))
    until = pl.min_horizontal("until", pl.lit(last))
    return (
        good.select("item_id", "sell_price", date=pl.date_ranges(since, until))
        .explode("date")
        .unique(["item_id", "date"], keep="last", maintain_order=True)
        .select("item_id", "date", "sell_price")
    )
