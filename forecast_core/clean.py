"""Cleaning: every raw sales row is either kept or quarantined under the rule it breaks.

Belongs here: the rules, in order, and the price that holds on a row's day. Does not: reading a
source (`resources.sources`), or repairing a value: nothing is imputed here.

Conservation: rows in = rows kept + rows quarantined, and a key is kept at most once. A bad price
is no reason to lose a sale: the row is kept with a null price, still on sale, and the price row is
handed back in `Cleaned.refused_prices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from forecast_core.schema import TABLES

_KEY = ("store_id", "item_id", "date")


@dataclass(frozen=True)
class Rule:
    """A named way for a row to be unfit; `broken` is true on the rows that break it."""

    name: str
    broken: pl.Expr
    meaning: str


# In order: a row is quarantined under the first rule that it breaks. The last two need more than
# the row: the last day of the source, and whether the key was seen before (`_REPEATED`).
_LAST_DAY, _REPEATED = "last_day", "repeated"
RULES = (
    Rule("unparseable_value", pl.col("defect").is_not_null(), "a value could not be read"),
    Rule(
        "missing_key",
        pl.any_horizontal(pl.col("date", "item_id", "store_id").is_null()),
        "no date, item or store",
    ),
    Rule(
        "missing_hierarchy",
        pl.any_horizontal(pl.col("dept_id", "cat_id", "state_id").is_null()),
        "no department, category or state",
    ),
    Rule("missing_units", pl.col("units").is_null(), "no units"),
    Rule("non_finite_units", ~pl.col("units").is_finite(), "units are infinite or not a number"),
    Rule("negative_units", pl.col("units") < 0, "units below zero"),
    Rule("future_date", pl.col("date") > pl.col(_LAST_DAY), "after the last day of the source"),
    Rule("duplicate_key", pl.col(_REPEATED), "an earlier line has the same date, item and store"),
)
PRICE_RULES = (
    Rule("unparseable_price", pl.col("defect").is_not_null(), "a price could not be read"),
    Rule(
        "missing_price_key",
        pl.any_horizontal(pl.col("date", "until", "item_id", "store_id").is_null()),
        "no dates, item or store",
    ),
    Rule("missing_price", pl.col("sell_price").is_null(), "no price"),
    Rule("non_finite_price", ~pl.col("sell_price").is_finite(), "infinite or not a number"),
    Rule("price_not_positive", pl.col("sell_price") <= 0, "a price of zero or less"),
    Rule("duplicate_price", pl.col(_REPEATED), "an earlier line has the same date, item and store"),
)


@dataclass(frozen=True)
class Cleaned:
    """`kept` (cleaned_sales, sorted by store, item, date) and `quarantined` (quarantined_sales).

    `refused_prices` are the raw_prices rows that gave no price, with their `rule`.
    """

    kept: pl.DataFrame
    quarantined: pl.DataFrame
    refused_prices: pl.DataFrame


def clean(sales: pl.DataFrame, prices: pl.DataFrame, last: date | None = None) -> Cleaned:
    """Sort raw_sales into kept and quarantined rows, and give each kept row its price.

    Of several rows with the same key the one with the lowest source_row that breaks no other
    rule is kept. `on_sale` says that a price row covers the day; `sell_price` is null off sale and
    where that price row was refused. Any order of rows goes; sorted by item and date is quickest.

    Args:
        sales: raw_sales columns.
        prices: raw_prices columns, of at least the same stores and days.
        last: the source's last day with sales; rows after it are quarantined (None: no limit).
    """
    fit, quarantined = _apply(TABLES["raw_sales"].conform(sales), RULES, last)
    good, refused = _apply(TABLES["raw_prices"].conform(prices), PRICE_RULES, None)
    kept = _with_price(fit, good, refused)
    return Cleaned(
        TABLES["cleaned_sales"].conform(kept),
        TABLES["quarantined_sales"].conform(quarantined),
        refused,
    )


def _apply(
    rows: pl.DataFrame, rules: tuple[Rule, ...], last: date | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows that break no rule, sorted by key; the others with their `rule`)."""
    *alone, duplicate = rules
    rows = rows.with_columns(pl.lit(last, pl.Date).alias(_LAST_DAY))
    out = []
    # First a look at each rule as a whole: on sound data nothing is copied.
    if any(rows.select(rule.broken.any()).item() for rule in alone):
        name = pl.coalesce(
            pl.when(rule.broken.fill_null(value=False)).then(pl.lit(rule.name)) for rule in alone
        )
        named = rows.with_columns(rule=name)
        out.append(named.filter(pl.col("rule").is_not_null()))
        rows = named.filter(pl.col("rule").is_null()).drop("rule")
    rows = rows.drop(_LAST_DAY)
    if not _strictly_sorted(rows):
        rows = rows[_order(rows)]
        rows = rows.with_columns(
            pl.all_horizontal(pl.col(_KEY) == pl.col(_KEY).shift(1))
            .fill_null(value=False)
            .alias(_REPEATED)
        )
        out.append(rows.filter(duplicate.broken).with_columns(rule=pl.lit(duplicate.name)))
        rows = rows.filter(~duplicate.broken).drop(_REPEATED)
    empty = rows.clear().with_columns(rule=pl.lit(None, pl.String))
    return rows, pl.concat([empty, *(part.select(empty.columns) for part in out)])


def _strictly_sorted(rows: pl.DataFrame) -> bool:
    """Whether each key is greater than the one before: then no key stands twice."""
    store, item, day = (pl.col(name) for name in _KEY)
    return bool(
        rows.select(
            (
                (store > store.shift(1))
                | (
                    (store == store.shift(1))
                    & ((item > item.shift(1)) | ((item == item.shift(1)) & (day > day.shift(1))))
                )
            ).all()
        ).item()
    )


def _order(rows: pl.DataFrame) -> pl.Series:
    """Positions that sort the rows by key and line; whole numbers sort quicker than text."""
    ranks = (
        pl.col(name).cast(pl.Enum(rows[name].unique().sort())).to_physical()
        for name in ("store_id", "item_id")
    )
    return rows.select(pl.arg_sort_by(*ranks, "date", "source_row")).to_series()


def _with_price(sales: pl.DataFrame, good: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    """Sales with the `sell_price` of the price row that covers the day, and `on_sale`.

    Price rows of an item should not overlap; where they do, the one that starts last holds.
    """
    key = list(_KEY)
    spans = good
    if not refused.is_empty():  # they cover their days all the same, only without a price
        covers = pl.col("rule").is_in(["missing_price_key", "duplicate_price"]).not_()
        without = refused.filter(covers).with_columns(sell_price=pl.lit(None, pl.Float64))
        spans = (
            pl.concat([good, without.drop("rule")])
            .unique(key, keep="first", maintain_order=True)
            .sort(key)
        )
    joined = sales.join_asof(
        spans.select(*key, "until", "sell_price"),
        on="date",
        by=["store_id", "item_id"],
        check_sortedness=False,  # both are sorted within each item, which is what it takes
    )
    on_sale = (pl.col("date") <= pl.col("until")).fill_null(value=False)
    return joined.with_columns(
        on_sale=on_sale, sell_price=pl.when(on_sale).then(pl.col("sell_price"))
    )
