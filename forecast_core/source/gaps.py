"""Days on sale without a row: sales of nothing, where the source's policy says so.

Belongs here: adding those rows. Does not: deciding whether (`forecast_core.source.mapping.Policy`).

A day whose row was quarantined is no gap: something was sold, though nobody can say how much.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from forecast_core.frequency import Frequency

ATTRIBUTES = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
_KEY = ["store_id", "item_id", "date"]


def filled(
    fit: pl.DataFrame,
    quarantined: pl.DataFrame,
    spans: pl.DataFrame,
    series: pl.DataFrame | None,
    last: date | None,
    often: Frequency,
) -> pl.DataFrame:
    """`fit` with a row of zero units for each day that `spans` covers and no row has.

    Args:
        fit: raw_sales rows of one store with `source_rows`, sorted by key.
        spans: its price rows (`date`..`until`); a span with x_closed = 1 is shut, not idle.
        series: attributes of items without any row in `fit`.
        last: nothing is filled after it (None: after the last row).
        often: the frequency; only days on which a period begins are filled.
    """
    known = [fit.select(ATTRIBUTES).unique(maintain_order=True)]
    if series is not None and not fit.is_empty():
        known.append(series.filter(pl.col("store_id") == fit["store_id"][0]).select(ATTRIBUTES))
    elif series is not None:
        known.append(series.select(ATTRIBUTES))
    attributes = pl.concat(known).drop_nulls().unique(["store_id", "item_id"], keep="first")
    end = last if last is not None else fit["date"].max()
    if not isinstance(end, date):
        return fit
    open_spans = spans.filter(pl.col("x_closed") != 1) if "x_closed" in spans.columns else spans
    stop = pl.min_horizontal("until", pl.lit(end))
    taken = pl.concat([fit.select(_KEY), quarantined.select(_KEY)])
    begin = often.starts(pl.col("date").dt.offset_by(f"{often.step - 1}d"))
    idle = (
        open_spans.with_columns(date=begin)
        .filter(pl.col("date") <= stop)
        .select("store_id", "item_id", date=pl.date_ranges("date", stop, f"{often.step}d"))
        .explode("date")
        .unique()
        .join(taken, on=_KEY, how="anti")
        .join(attributes, on=["store_id", "item_id"])
    )
    if idle.is_empty():
        return fit
    rows = idle.with_columns(units=pl.lit(0.0), source_rows=pl.lit(0, pl.Int32))
    return pl.concat([fit, rows], how="diagonal_relaxed").select(fit.columns).sort(_KEY)
