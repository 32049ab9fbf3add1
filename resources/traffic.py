"""How many files and bytes a read or a write moves, by tier: what the meter is told.

Belongs here: counting by the Delta log. Does not: what a tier's traffic costs (the price card).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from forecast_core.storage.tiers import Tier
from resources.commits import DataFile
from resources.storable import PERIOD, TIER


class Traffic(NamedTuple):
    """Data files and their bytes."""

    files: int
    bytes: int


def traffic_of(files: Iterable[DataFile]) -> dict[str, Traffic]:
    """By tier; a table that is not cut has none and counts as hot."""
    return _by_tier((file.partition.get(TIER), file.bytes) for file in files)


def traffic_read(files: pl.DataFrame) -> dict[str, Traffic]:
    """By tier, from flattened add actions of the log."""
    column = f"partition.{TIER}"
    tiers = pl.col(column) if column in files.columns else pl.lit(None, pl.String).alias(column)
    return _by_tier(files.select(tiers, "size_bytes").iter_rows())


def sizes_by_path(files: pl.DataFrame) -> dict[str, tuple[str, int]]:
    """Path -> (tier, bytes), from flattened add actions of the log."""
    column = f"partition.{TIER}"
    tiers = pl.col(column) if column in files.columns else pl.lit(Tier.HOT.value)
    rows = files.select("path", tiers.alias("tier"), "size_bytes").iter_rows()
    return {path: (tier, size) for path, tier, size in rows}


Place = tuple[str, str, str]  # tier, period, owner ('' where there is none)


def traffic_by_part(files: pl.DataFrame, owner_column: str | None) -> dict[Place, Traffic]:
    """Files and bytes by physical part, from flattened add actions of a table that is cut."""
    tier, period = f"partition.{TIER}", f"partition.{PERIOD}"
    if tier not in files.columns or files.is_empty():
        return {}
    owner = pl.col(f"partition.{owner_column}") if owner_column else pl.lit("")
    by = files.group_by(tier, period, owner.alias("owner"))
    counted = by.agg(pl.len().alias("files"), pl.col("size_bytes").sum().alias("bytes"))
    return {(t, p, o or ""): Traffic(n, size) for t, p, o, n, size in counted.iter_rows()}


def _by_tier(files: Iterable[tuple[str | None, int]]) -> dict[str, Traffic]:
    found: dict[str, Traffic] = {}
    for named, size in files:
        tier = named or Tier.HOT.value
        so_far = found.get(tier, Traffic(0, 0))
        found[tier] = Traffic(so_far.files + 1, so_far.bytes + size)
    return found


def stored_by_tier(actions: pl.DataFrame) -> pl.DataFrame:
    """(tier, files, bytes, rows) of a table, from its flattened add actions."""
    column = f"partition.{TIER}"
    tier = pl.col(column) if column in actions.columns else pl.lit(Tier.HOT.value)
    return (
        actions.group_by(tier.alias("tier"))
        .agg(
            files=pl.len(),
            bytes=pl.col("size_bytes").sum(),
            rows=pl.col("num_records").sum(),
        )
        .sort("tier")
    )
