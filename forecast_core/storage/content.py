"""What rows are, as a number: equal before and after whatever only moves them.

Belongs here: the hash of rows. Does not: which rows, or what follows from a difference.
"""

from __future__ import annotations

import polars as pl

HASH_SPACE = 1 << 64


def content_hash(rows: pl.DataFrame) -> int:
    """A 64-bit hash of the rows whatever their order; hashes of disjoint parts add up.

    Comparable between frames with the same columns, within one version of polars.
    """
    if rows.is_empty():
        return 0
    ordered = rows.select(sorted(rows.columns))
    return int(ordered.hash_rows(seed=0).sum()) % HASH_SPACE
