"""SQL predicates for Delta, and nothing else that is spliced into SQL.

Belongs here: quoting, and the predicate of a window of logical columns. Does not: physical
columns (`tier`, `period`): a predicate on them could resurrect rows that a move took elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from forecast_core.cells import Cells

EVERYTHING = "true"

Keys = Mapping[str, str | Sequence[str]]


def literal(value: str | date) -> str:
    """A SQL literal: single quotes are doubled, and nothing else has a meaning in it."""
    text = value.isoformat() if isinstance(value, date) else value
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A quoted column name."""
    return '"' + name.replace('"', '""') + '"'


def among(column: str, values: str | Sequence[str]) -> str:
    """`column = value`, or `column IN (values)`."""
    if isinstance(values, str):
        return f"{identifier(column)} = {literal(values)}"
    if len(values) == 1:
        return among(column, values[0])
    return f"{identifier(column)} IN ({', '.join(literal(value) for value in values)})"


def predicate(
    cells: Cells | None, keys: Keys, date_column: str | None, store_column: str | None
) -> str:
    """The rows of `cells` that also carry `keys`; the whole table when neither says anything."""
    parts: list[str] = []
    if cells is not None and date_column is not None:
        column = identifier(date_column)
        parts.append(f"{column} >= {literal(cells.first)} AND {column} <= {literal(cells.last)}")
    if cells is not None and cells.stores is not None and store_column is not None:
        parts.append(among(store_column, cells.stores))
    parts.extend(among(column, values) for column, values in keys.items())
    return " AND ".join(parts) or EVERYTHING
