"""Days on which a store is known to be shut: nothing is sold, whatever a forecaster says.

Belongs here: which days those are, and forecasts of them. Does not: reading closures from a source
(`forecast_core.source.known_ahead`).

Forecasters learn from days on sale alone, so none of them has ever seen a shut one.
"""

from __future__ import annotations

import polars as pl

from forecast_core.quantiles import is_quantile
from forecast_core.source.known_ahead import CLOSED


def shut_days(spans: pl.DataFrame) -> pl.Series:
    """The days (Date) on which `raw_prices` spans of a store say that it is shut."""
    if CLOSED not in spans.columns:
        return pl.Series(dtype=pl.Date)
    shut = spans.filter(pl.col(CLOSED) == 1).select(pl.date_ranges("date", "until"))
    return shut.to_series().explode().drop_nulls().unique()


def nothing_when_shut(rows: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Forecast rows (`ds`, mean, quantiles) of a store, zero on the days on which it is shut."""
    days = shut_days(spans)
    if days.is_empty():
        return rows
    values = ["mean", *(name for name in rows.columns if is_quantile(name))]
    shut = pl.col("ds").is_in(days.implode())
    return rows.with_columns(
        pl.when(shut & pl.col(name).is_not_null()).then(0.0).otherwise(name).alias(name)
        for name in values
    )
