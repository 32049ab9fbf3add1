"""What is said of a row that could not be used: file, row, rule, reason, and what to do about it.

Belongs here: the remedies and the one way to say it. Does not: the rules
(`forecast_core.source.clean`, `forecast_core.source.rows`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from forecast_core.source.clean import PRICE_RULES, RULES

REMEDIES: Mapping[str, str] = {
    "unparseable_value": "Correct the number, or csv.decimal, csv.thousands, csv.nulls if all are "
    "written so; what a flag says is told by its `values`",
    "unparseable_date": "Correct the date, or add its way of writing to date.format",
    "unreadable_line": "Correct the line; a cell with the separator in it stands in quotes",
    "heading": "Nothing, or remove the line; if it is a sale, correct its date and its number",
    "repeated_header": "Nothing, or remove the line: a header is no sale",
    "missing_key": "Fill in date, item and store",
    "missing_hierarchy": "Give its item or store a line in the table that is joined",
    "missing_units": "Fill in the units, or leave the line out",
    "non_finite_units": "Correct the number",
    "negative_units": "Correct the number, or say in policy.negatives what returns are",
    "return": "Nothing: policy.negatives sets returns apart",
    "future_date": "Correct the date, or set `last` in the mapping",
    "early_date": "Correct the date, or set `first` in the mapping",
    "duplicate_key": "Remove one of the two, or set policy.duplicates to last or sum",
    "unparseable_price": "Correct the price; its sale is kept without one",
    "missing_price_key": "Fill in date and item",
    "missing_price": "Fill in the price; its sales are kept without one",
    "non_finite_price": "Correct the price; its sales are kept without one",
    "price_not_positive": "Correct the price, or leave it empty; its sales are kept without one",
    "unknown_store": "Correct the store, or map its name to one with sales in store_id.values",
    "duplicate_price": "Remove one of the two prices",
}
_MEANING = {rule.name: rule.meaning for rule in (*RULES, *PRICE_RULES)}


def told(row: Mapping[str, Any]) -> str:
    """One row of quarantined_sales, or a refused row of raw_prices: `file, row: rule (why): text.
    Remedy.`"""
    rule = row["rule"]
    why = row.get("defect") or _MEANING.get(rule, rule)
    values = (row.get(c) for c in ("date", "item_id", "store_id", "units", "sell_price"))
    text = row.get("raw_text") or ",".join(str(value) for value in values if value is not None)
    where = f"{row.get('source_file') or 'the source'}, row {row['source_row']}"
    return f"{where}: {rule} ({why}): {text}. {REMEDIES.get(rule, 'Correct the row')}."


def lines(rows: pl.DataFrame) -> Iterator[str]:
    """`told` of each row."""
    yield from map(told, rows.iter_rows(named=True))
