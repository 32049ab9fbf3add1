"""What a frame must be before the Delta format can hold it.

Belongs here: types and names that the format lacks, and the Arrow layout that every reader
understands. Does not: which rows belong where (`resources.lake`).
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

TIER, PERIOD = "tier", "period"
HIDDEN = (TIER, PERIOD)

_UNSIGNED = (pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
# How the format spells a null partition value in a path: a reader could not tell them apart.
_NULL_IN_PATHS = "__HIVE_DEFAULT_PARTITION__"


def storable(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in types that the format has: text for categories, signed for unsigned.

    Raises:
        ValueError: a column of the lake's own name, or one without a type; `name` is the table.
    """
    clash = [column for column in HIDDEN if column in rows.columns]
    if clash:
        raise ValueError(f"{name}: column {clash[0]!r} is the lake's own; rename it")
    untyped = [column for column, dtype in rows.schema.items() if dtype == pl.Null]
    if untyped:
        raise ValueError(f"{name}: column {untyped[0]!r} has no type; cast it")
    casts = [
        pl.col(column).cast(pl.Int64 if dtype in _UNSIGNED else pl.String)
        for column, dtype in rows.schema.items()
        if dtype in (*_UNSIGNED, pl.Categorical, pl.Enum)
    ]
    return rows.with_columns(casts) if casts else rows


def check_filed_by(name: str, rows: pl.DataFrame, column: str) -> None:
    """Refuse rows that a column they are filed by leaves without a place.

    Raises:
        ValueError: the column is null, empty, or spelt as the format spells null.
    """
    nulls = rows[column].null_count()
    if nulls:
        raise ValueError(f"{name}: {column} is null in {nulls} of {rows.height} rows; fill it in")
    if rows.schema[column] == pl.String:
        unusable = rows.filter(pl.col(column).is_in(["", _NULL_IN_PATHS]))
        if unusable.height:
            raise ValueError(
                f"{name}: {column} {unusable[column][0]!r} cannot be stored; give it a name"
            )


def arrow_of(rows: pl.DataFrame) -> pa.Table:
    """The rows in Arrow's oldest layout: string views break the filters of other readers."""
    return rows.to_arrow(compat_level=pl.CompatLevel.oldest())
