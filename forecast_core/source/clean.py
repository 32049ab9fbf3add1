"""Cleaning: every raw sales row is either kept or quarantined under the rule it breaks.

Belongs here: the rules, in order, what a source's policy makes of returns and duplicates, and the
price that holds on a row's day. Does not: reading a source (`resources.sources`), or repairing a
value.

Conservation: rows in = rows kept + rows merged + rows quarantined, and a key is kept at most
once. `source_rows` of a kept row says how many it stands for: none where a gap was filled by
policy. A bad price is no reason to lose a sale: the row is kept with a null price, still on sale,
and the price row is handed back in `Cleaned.refused_prices`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from forecast_core.frequency import DAILY, Frequency
from forecast_core.schema import TABLES
from forecast_core.source.gaps import filled
from forecast_core.source.mapping import Policy

_KEY = ("store_id", "item_id", "date")
PLAIN = Policy()


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
# Before all others: a reader that could not use a line says why, under a rule of its own naming.
_REFUSED = Rule("refused", pl.col("refused").is_not_null(), "its reader could not use it")
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


def clean(
    sales: pl.DataFrame,
    prices: pl.DataFrame,
    last: date | None = None,
    policy: Policy = PLAIN,
    often: Frequency = DAILY,
    series: pl.DataFrame | None = None,
) -> Cleaned:
    """Sort raw_sales into kept and quarantined rows, and give each kept row its price.

    Of several rows with the same key the one with the lowest source_row that breaks no other
    rule is kept. `on_sale` says that a price row covers the day; `sell_price` is null off sale and
    where that price row was refused. Any order of rows goes; sorted by item and date is quickest.

    Args:
        sales: raw_sales columns.
        prices: raw_prices columns, of at least the same stores and days.
        last: the source's last day with sales; rows after it are quarantined (None: no limit).
        policy: what becomes of gaps, returns and duplicates; by default nothing is added or merged.
        often: the frequency, for gaps that are filled.
        series: attributes of the items (`item_id` and the rest) that may have no row at all.
    """
    raw = TABLES["raw_sales"].conform(sales)
    extras = [name for name in raw.columns if name not in TABLES["raw_sales"].columns]
    fit, quarantined = _apply(raw, _ruled(policy, "refused" in extras), last, policy)
    good, refused = _apply(TABLES["raw_prices"].conform(prices), PRICE_RULES, None)
    spans = _spans(good, refused)
    if policy.gaps == "zero":
        fit = filled(fit, quarantined, spans, series, last, often)
    kept = _with_price(fit.drop(extras, strict=False), spans)
    return Cleaned(
        TABLES["cleaned_sales"].conform(kept.drop("source_row", "defect")),
        TABLES["quarantined_sales"].conform(quarantined),
        refused,
    )


def _ruled(policy: Policy, told: bool) -> tuple[Rule, ...]:
    """The rules that hold under a policy; `told`: the reader has words of its own."""
    negative = {"quarantine": "negative_units", "separate": "return"}.get(policy.negatives)
    rules = [_REFUSED] if told else []
    for rule in RULES:
        if rule.name == "negative_units":
            if negative is not None:
                rules.append(Rule(negative, rule.broken, rule.meaning))
            continue
        rules.append(rule)
    return tuple(rules)


def _apply(
    rows: pl.DataFrame,
    rules: tuple[Rule, ...],
    last: date | None,
    policy: Policy | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows that break no rule, sorted by key; the others with their `rule`).

    With a policy, the kept rows have `source_rows`.
    """
    *alone, duplicate = rules
    rows = rows.with_columns(pl.lit(last, pl.Date).alias(_LAST_DAY))
    out = []
    # First a look at each rule as a whole: on sound data nothing is copied.
    if any(rows.select(rule.broken.any()).item() for rule in alone):
        name = pl.coalesce(
            pl.when(rule.broken.fill_null(value=False)).then(
                pl.col("refused") if rule.name == "refused" else pl.lit(rule.name)
            )
            for rule in alone
        )
        named = rows.with_columns(rule=name)
        out.append(named.filter(pl.col("rule").is_not_null()))
        rows = named.filter(pl.col("rule").is_null()).drop("rule")
    rows = rows.drop(_LAST_DAY)
    if policy is not None:
        if policy.negatives == "clip":
            rows = rows.with_columns(pl.col("units").clip(lower_bound=0))
        rows = rows.with_columns(source_rows=pl.lit(1, pl.Int32))
    if not _strictly_sorted(rows):
        rows = rows[_order(rows)]
        if policy is not None and (policy.duplicates == "sum" or policy.negatives == "net"):
            rows = _summed(rows)
        else:
            keep_last = policy is not None and policy.duplicates == "last"
            rows, again = _once(rows, -1 if keep_last else 1)
            out.append(again.with_columns(rule=pl.lit(duplicate.name)))
    if policy is not None and policy.negatives == "net":
        rows = rows.with_columns(pl.col("units").clip(lower_bound=0))
    empty = (
        rows.clear().with_columns(rule=pl.lit(None, pl.String)).drop("source_rows", strict=False)
    )
    return rows, pl.concat([empty, *(part.select(empty.columns) for part in out)])


def _once(rows: pl.DataFrame, step: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(the first row of each key, those after it); with step -1 the last, those before it."""
    again = rows.select(
        pl.all_horizontal(pl.col(_KEY) == pl.col(_KEY).shift(step)).fill_null(value=False)
    ).to_series()
    return (rows.filter(~again), rows.filter(again)) if again.any() else (rows, rows.clear())


def _summed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of one key as one, with the sum of their units; rows are sorted by key."""
    rest = [name for name in rows.columns if name not in (*_KEY, "units", "source_rows")]
    return (
        rows.group_by(_KEY, maintain_order=True)
        .agg(pl.col("units", "source_rows").sum(), pl.col(rest).first())
        .select(rows.columns)
    )


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
    """Positions that sort the rows by key and line.

    One whole number a key sorts several times quicker than text; only where keys repeat do lines
    matter.
    """
    store, item = (
        rows[name].cast(pl.Enum(rows[name].unique().sort())).to_physical().cast(pl.Int64)
        for name in ("store_id", "item_id")
    )
    day = rows["date"].to_physical().cast(pl.Int64)
    since = day.min()
    assert isinstance(since, int)
    days = int(day.max()) - since + 1  # type: ignore[arg-type]
    key = (store * (int(item.max()) + 1) + item) * days + (day - since)  # type: ignore[arg-type]
    order: pl.Series = key.arg_sort()
    laid = key[order]
    if not (laid.diff() == 0).any():
        return order
    by = pl.DataFrame({"key": key, "line": rows["source_row"]})
    if "source_file" in rows.columns:
        by = by.with_columns(rows["source_file"])
        return by.select(pl.arg_sort_by("key", "source_file", "line")).to_series()
    return by.select(pl.arg_sort_by("key", "line")).to_series()


def _spans(good: pl.DataFrame, refused: pl.DataFrame) -> pl.DataFrame:
    """The price rows, refused ones too: they cover their days all the same, without a price."""
    if refused.is_empty():
        return good
    key = list(_KEY)
    covers = pl.col("rule").is_in(["missing_price_key", "duplicate_price"]).not_()
    without = refused.filter(covers).with_columns(sell_price=pl.lit(None, pl.Float64))
    return (
        pl.concat([good, without.drop("rule")])
        .unique(key, keep="first", maintain_order=True)
        .sort(key)
    )


def _with_price(sales: pl.DataFrame, spans: pl.DataFrame) -> pl.DataFrame:
    """Sales with the `sell_price` of the price row that covers the day, and `on_sale`.

    Price rows of an item should not overlap; where they do, the one that starts last holds.
    Covariates (`x_`) come from the same row; a day on which the store is shut is not on sale.
    """
    signals = [name for name in spans.columns if name.startswith("x_")]
    joined = sales.join_asof(
        spans.select(*_KEY, "until", "sell_price", *signals),
        on="date",
        by=["store_id", "item_id"],
        check_sortedness=False,  # both are sorted within each item, which is what it takes
    )
    covered = (pl.col("date") <= pl.col("until")).fill_null(value=False)
    closed = pl.col("x_closed") == 1 if "x_closed" in signals else pl.lit(False)
    shut = closed.fill_null(value=False)
    return joined.with_columns(
        on_sale=covered & ~shut,
        sell_price=pl.when(covered).then(pl.col("sell_price")),
        **{name: pl.when(covered).then(pl.col(name)) for name in signals},
    ).drop("until")
