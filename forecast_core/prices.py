"""Prices by day, from the spans that a source gives.

Belongs here: spreading `raw_prices` rows over their days. Does not: judging a price
(`forecast_core.source.clean`).
"""

from __future__ import annotations

from datetime import date

import polars as pl


def daily_prices(spans: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """(item_id, date, sell_price) for each day of `first`..`last` on which a good price holds.

    Covariates (`x_` columns) of the spans follow.

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
    signals = [name for name in spans.columns if name.startswith("x_")]
    return (
        good.select("item_id", "sell_price", *signals, date=pl.date_ranges(since, until))
        .explode("date")
        .unique(["item_id", "date"], keep="last", maintain_order=True)
        .select("item_id", "date", "sell_price", *signals)
    )


def month_pieces(spans: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """`raw_prices` rows cut to `first`..`last` and at month ends: each month stands alone."""
    start = pl.max_horizontal("date", pl.lit(first))
    stop = pl.min_horizontal("until", pl.lit(last))
    months = pl.date_ranges(
        pl.col("date").dt.month_start().dt.offset_by("1mo"), pl.col("until"), "1mo"
    )
    return (
        spans.with_columns(date=start, until=stop)
        .filter(pl.col("date") <= pl.col("until"))
        .with_columns(date=pl.concat_list("date", months))
        .explode("date")
        .with_columns(until=pl.min_horizontal("until", pl.col("date").dt.month_end()))
    )
