"""The ledger's history as Delta tables, the files of the lake, and the FOCUS export.

Belongs here: bringing the two history tables up to date, listing live files, writing the export.
Does not: the ledger itself (`ledger`), charging storage (`storage_usage`), FOCUS
(`forecast_core.cost.focus`).

A day is compared by its number of rows and replaced as a whole where it differs: the ledger only
grows, so equal counts are equal days, and it does not matter in which order its writers committed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from forecast_core.cells import Cells
from forecast_core.cost.charges import TIERS
from forecast_core.cost.focus import (
    LEDGER_COLUMNS,
    STEP_COLUMNS,
    Account,
    as_text,
    complete,
    export_rows,
    violations,
)
from forecast_core.cost.price_card import PriceCard
from forecast_core.schema import TABLES, Table
from resources.lake import Lake, LakeTable
from resources.ledger import Ledger

COST_LEDGER = Table(
    "cost_ledger", LEDGER_COLUMNS, key=("x_charge_id",), cut="day", sort=("date", "x_charge_id")
)
COST_STEPS = Table(
    "cost_steps", STEP_COLUMNS, key=("x_charge_set",), cut="day", sort=("date", "x_charge_set")
)


class InvalidExport(ValueError):
    """The ledger breaks a rule of FOCUS or of ours; nothing was written."""


@dataclass(frozen=True)
class Synced:
    """What bringing a table up to date did."""

    days: int
    rows: int
    total_rows: int


def account_of(card: PriceCard) -> Account:
    """The billing account that the card describes."""
    return Account(provider=card.provider, region=card.region)


def sync_history(ledger: Ledger, lake: Lake, account: Account) -> dict[str, Synced]:
    """Bring `cost_ledger` and `cost_steps` up to the ledger; by table name. Safe to repeat."""
    wanted = ledger.days()
    synced = {}
    for index, declared in enumerate((COST_LEDGER, COST_STEPS)):
        table = lake.table(declared)
        had = _rows_by_day(table)
        days = [day for day, counts in wanted.items() if counts[index] != had.get(day, 0)]
        rows = 0
        for day in days:
            frame = (
                complete(ledger.charges(first=day, last=day), account)
                if index == 0
                else ledger.settlements(first=day, last=day)
            )
            rows += table.replace(frame, Cells(day, day)).rows
        total = sum(counts[index] for counts in wanted.values())
        synced[declared.name] = Synced(len(days), rows, total)
    return synced


def _rows_by_day(table: LakeTable) -> dict[date, int]:
    if not table.exists():
        return {}
    frame = table.read(None, columns=["date"]).frame.group_by("date").len().collect()
    return dict(frame.iter_rows())


def stored_files(lake: Lake) -> pl.DataFrame:
    """Every live file of every table: table, tier, bytes. A table that is not cut is hot."""
    frames = []
    for declared in (*TABLES.values(), COST_LEDGER, COST_STEPS):
        table = lake.table(declared)
        if not table.exists():
            continue
        actions = pl.DataFrame(table.pin().get_add_actions(flatten=True))
        tier = "partition.tier" if "partition.tier" in actions.columns else None
        frames.append(
            actions.select(
                pl.lit(declared.name).alias("table"),
                (pl.col(tier) if tier else pl.lit(TIERS[0])).cast(pl.String).alias("tier"),
                pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
            )
        )
    schema = {"table": pl.String, "tier": pl.String, "bytes": pl.Int64}
    return pl.concat(frames) if frames else pl.DataFrame(schema=schema)


def export_focus(
    ledger: Ledger,
    card: PriceCard,
    out: Path,
    *,
    first: date | None = None,
    last: date | None = None,
) -> int:
    """Write the charges of those days as FOCUS to `out` (.parquet or .csv); rows written.

    The file is put in place whole, or not at all.

    Raises:
        InvalidExport: a row breaks an invariant (named, with a charge id).
        ValueError: neither Parquet nor CSV is asked for.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{out}: write to a .parquet or a .csv file")
    rows = complete(ledger.charges(first=first, last=last), account_of(card))
    broken = violations(rows)
    if broken:
        said = "; ".join(f"{v.rule}: {v.rows} rows, such as {v.example}" for v in broken)
        raise InvalidExport(f"{ledger.name}: {said}")
    export = export_rows(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    if out.suffix == ".parquet":
        export.write_parquet(partial)
    else:
        as_text(export).write_csv(partial)
    partial.replace(out)
    return export.height
