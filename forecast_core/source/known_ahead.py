"""What is known of an item beside its sales: price and covariates by span of days, past and ahead.

Belongs here: making `raw_prices` rows of one store from prices given in a table of their own, in
the sales, or nowhere. Does not: judging a price (`forecast_core.source.clean`).

A price holds until the next one of the item. Covariates (`x_promo`) ride on the same rows: they
have the same grain, and what is planned ahead stands in rows past the last sale. `x_closed` says
that the store is shut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core.frequency import Frequency
from forecast_core.schema import TABLES
from forecast_core.source.mapping import Policy

AHEAD_DAYS = 366  # a price is taken to hold so long past the last sale
CLOSED = "x_closed"
_WEEKS = 6  # in a row: a weekday that was shut so often stays so
_MARK = ("source_row", "source_file", "defect")


@dataclass(frozen=True)
class KnownAhead:
    """One store: its sales rows (raw_sales and what else their table tells), the rows of `prices`
    (date, until, item_id where it names one, sell_price, the mark of origin) and of each `known`
    table (date, until, item_id where it names one, `x_` columns, closed). `exact`: a price holds
    in its own days only."""

    sales: pl.DataFrame
    prices: pl.DataFrame | None
    exact: bool
    known: Sequence[pl.DataFrame]
    covariates: Sequence[str]
    policy: Policy
    frequency: Frequency


def price_rows(held: KnownAhead, store_id: str, first: date, last: date) -> pl.DataFrame:
    """raw_prices of the store, uncut: spans of days with a price and its covariates."""
    end = last + timedelta(days=AHEAD_DAYS)
    sound = held.sales.filter(pl.col("refused").is_null() & pl.col("item_id").is_not_null())
    if held.prices is not None:
        spans = _given(held.prices, sound, held.exact, first, end)
    elif "sell_price" in sound.columns:
        spans = _from_sales(sound, held.policy, end)
    else:
        spans = _worth_one(sound, held.policy, end)
    shut = _closures(held, sound, end)
    if held.covariates or shut is not None:
        spans = _with_covariates(spans, held, sound, shut, first, end)
    extras = ["source_file", *(c for c in spans.columns if c.startswith("x_"))]
    return TABLES["raw_prices"].conform(
        spans.with_columns(store_id=pl.lit(store_id)).select(*TABLES["raw_prices"].columns, *extras)
    )


def _given(
    prices: pl.DataFrame, sound: pl.DataFrame, exact: bool, first: date, end: date
) -> pl.DataFrame:
    if "item_id" not in prices.columns:
        prices = prices.join(sound.select("item_id").unique(), how="cross")
    # What cannot be filed by its own day is filed under the first, and covers no other.
    dateless = prices.filter(pl.col("date").is_null()).with_columns(
        date=pl.lit(first),
        until=pl.lit(first),
        defect=pl.coalesce("defect", pl.lit("it has no date")),
    )
    dated = prices.filter(pl.col("date").is_not_null()).sort("item_id", "date", "source_row")
    if not exact:
        days = dated.select("item_id", "date").unique().sort("item_id", "date")
        ends = pl.col("date").shift(-1).over("item_id").dt.offset_by("-1d").fill_null(end)
        dated = dated.drop("until").join(
            days.with_columns(until=ends), on=["item_id", "date"], how="left", nulls_equal=True
        )
    columns = ["item_id", "date", "until", "sell_price", *_MARK]
    return pl.concat([dated.select(columns), dateless.select(columns)]).sort(
        "item_id", "date", "source_row"
    )


def _from_sales(sound: pl.DataFrame, policy: Policy, end: date) -> pl.DataFrame:
    """A price seen on a sale holds until another is seen, and back to the item's first day.

    One that cannot be read is none, from its day on until one that can.
    """
    begins = _begins(sound, policy)
    wrong = pl.col("price_defect") if "price_defect" in sound.columns else pl.lit(None, pl.String)
    seen = (
        sound.with_columns(defect=wrong)
        .filter(pl.col("sell_price").is_not_null() | pl.col("defect").is_not_null())
        .sort("item_id", "date", "source_row")
        .unique(["item_id", "date"], keep="first", maintain_order=True)
        .join(begins, on="item_id", maintain_order="left")
    )
    first = pl.int_range(pl.len()).over("item_id") == 0
    changed = pl.col("sell_price").ne_missing(pl.col("sell_price").shift(1)) | first
    return (
        seen.filter(first | changed.over("item_id"))
        .with_columns(
            date=pl.when(first).then(pl.min_horizontal("date", "begins")).otherwise("date")
        )
        .with_columns(
            until=pl.col("date").shift(-1).over("item_id").dt.offset_by("-1d").fill_null(end),
        )
        .select("item_id", "date", "until", "sell_price", *_MARK)
    )


def _worth_one(sound: pl.DataFrame, policy: Policy, end: date) -> pl.DataFrame:
    return _begins(sound, policy).select(
        "item_id",
        pl.col("begins").alias("date"),
        pl.lit(end).alias("until"),
        pl.lit(1.0).alias("sell_price"),
        pl.lit(0, pl.Int64).alias("source_row"),
        pl.lit(None, pl.String).alias("source_file"),
        pl.lit(None, pl.String).alias("defect"),
    )


def _begins(sound: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """(item_id, begins): the first row of an item, or its first sale where zeros before are not
    its own."""
    rows = sound.filter(pl.col("units") > 0) if policy.leading_zeros == "drop" else sound
    return rows.group_by("item_id").agg(begins=pl.col("date").min()).sort("item_id")


def _closures(held: KnownAhead, sound: pl.DataFrame, end: date) -> pl.DataFrame | None:
    """(date, x_closed) of what any table says of closures, or None."""
    days: list[pl.DataFrame] = []
    if held.sales.schema["closed"] == pl.Boolean and held.sales["closed"].any():
        days.append(sound.group_by("date").agg(pl.col("closed").all()))
    days += [
        _expanded(known.filter(pl.col("closed").is_not_null()), held.frequency).select(
            "date", "closed"
        )
        for known in held.known
        if "closed" in known.columns
    ]
    if held.policy.gaps == "closed" and not sound.is_empty():
        first, last = sound["date"].min(), sound["date"].max()
        assert isinstance(first, date) and isinstance(last, date)
        every = pl.date_range(first, last, f"{held.frequency.step}d", eager=True)
        gone = pl.DataFrame({"date": every}).join(sound, on="date", how="anti")
        days.append(gone.with_columns(closed=pl.lit(True)))
    if not days:
        return None
    said = pl.concat([day.select("date", "closed") for day in days])
    shut = said.group_by("date").agg(pl.col("closed").any()).sort("date")
    if not held.frequency.weekly:
        shut = pl.concat([shut, _as_usual(shut, end)])
    return shut.select("date", pl.col("closed").cast(pl.Float64).alias(CLOSED))


def _as_usual(shut: pl.DataFrame, end: date) -> pl.DataFrame:
    """Days after the last that is told: those weekdays are shut that were so for weeks on end."""
    told = shut["date"].max()
    assert isinstance(told, date)
    lately = shut.filter(pl.col("date") > told - timedelta(weeks=_WEEKS))
    weekday = pl.col("date").dt.weekday()
    times = lately.filter("closed").group_by(weekday).len().filter(pl.col("len") >= _WEEKS)
    ahead = pl.DataFrame({"date": pl.date_range(told + timedelta(days=1), end, eager=True)})
    return ahead.with_columns(closed=weekday.is_in(times["date"].implode()))


def _with_covariates(
    spans: pl.DataFrame,
    held: KnownAhead,
    sound: pl.DataFrame,
    shut: pl.DataFrame | None,
    first: date,
    end: date,
) -> pl.DataFrame:
    """The spans cut wherever a covariate changes, with the covariates' columns."""
    spans = spans.with_columns(pl.col("date").clip(first, end), pl.col("until").clip(first, end))
    rows = _expanded(spans, held.frequency).sort("item_id", "date", maintain_order=True)
    tables = [sound, *held.known]
    for name in held.covariates:
        for table in tables:
            if name in table.columns:
                rows = _filled(rows, table, name, held.frequency)
        if name not in rows.columns:
            rows = rows.with_columns(pl.lit(None, pl.Float64).alias(name))
    extras = list(held.covariates)
    if shut is not None:
        rows = rows.join(shut, on="date", how="left", maintain_order="left").with_columns(
            pl.col(CLOSED).fill_null(0.0)
        )
        extras.append(CLOSED)
    step = held.frequency.step
    like = ["item_id", "sell_price", *_MARK, *extras]
    new = ~pl.all_horizontal(pl.col(c).eq_missing(pl.col(c).shift(1)) for c in like)
    apart = pl.col("date") != pl.col("date").shift(1).dt.offset_by(f"{step}d")
    return (
        rows.with_columns(span=(new | apart.fill_null(True)).cum_sum())
        .group_by("span", maintain_order=True)
        .agg(
            pl.col(like).first(),
            pl.col("date").first(),
            until=pl.col("date").last().dt.offset_by(f"{step - 1}d"),
        )
        .drop("span")
    )


def _filled(
    rows: pl.DataFrame, table: pl.DataFrame, name: str, frequency: Frequency
) -> pl.DataFrame:
    """Rows with covariate `name` of the table where it knows it; by item and day, or by day."""
    key = [c for c in ("item_id", "date") if c in table.columns]
    known = table.filter(pl.col(name).is_not_null() & pl.col("date").is_not_null())
    if "until" in known.columns:
        known = _expanded(known, frequency)
    values = known.group_by(key).agg(pl.col(name).last().alias("value"))
    found = rows.join(values, on=key, how="left", maintain_order="left")
    before = pl.col(name) if name in rows.columns else pl.lit(None, pl.Float64)
    return found.with_columns(pl.coalesce("value", before).alias(name)).drop("value")


def _expanded(spans: pl.DataFrame, frequency: Frequency) -> pl.DataFrame:
    """A row for each period of each span."""
    held = spans.filter(pl.col("date").is_not_null())
    until = pl.max_horizontal("date", "until")
    days = pl.date_ranges("date", until, f"{frequency.step}d")
    return held.with_columns(date=days).drop("until").explode("date")
