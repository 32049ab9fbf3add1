"""What lies under the data root on a day, and what it costs: tables, leftovers, everything else.

Belongs here: counting bytes, rows and money by table, tier, store and pipeline, and charging them
once a day. Does not: prices (`forecast_core.cost.charges`), deleting (`vacuum`).

Kinds: `live` files of the newest version; `tombstones`, which only older versions name (or none);
`log` of a table; `early`, what deleted files still owe of a minimum duration; `other`, whatever
else is there (run and event store, ledger, marts, reports), charged as hot.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from forecast_core.cost.charges import Charge, Usage, early_deletion_charge, storage_charge
from forecast_core.cost.price_card import Rates
from forecast_core.cost.settlement import Owner, Settlement, charge_row
from forecast_core.storage.tiers import Tier
from resources.all_tables import ALL_TABLES, COST_STORAGE
from resources.lake import Lake, LakeTable
from resources.ledger import Ledger
from resources.lifecycle import parts_of
from resources.storage_ledger import Deleted
from resources.table_files import files_of

_LOG = "_delta_log/"


@dataclass(frozen=True)
class Stored:
    """Files of one kind: their sizes are what is paid for."""

    kind: str
    table: str
    tier: str
    store_id: str | None
    rows: int
    sizes: tuple[int, ...]


def stored(lake: Lake, others: Mapping[str, Path]) -> list[Stored]:
    """Everything of a lake, and of the folders beside it, by name; each file once, so that of two
    folders inside each other the outer one is without the inner."""
    found: list[Stored] = []
    for declared in ALL_TABLES:
        table = lake.table(declared)
        if table.exists():
            found += _of_table(table)
    apart = {lake.root, *map(str, others.values())}
    for name, folder in others.items():
        found += _of_folder(name, folder, apart)
    return found


def _of_table(table: LakeTable) -> Iterator[Stored]:
    name = table.table.name
    parts = parts_of(table)
    live = {path for part in parts for path in part.paths}
    by: dict[tuple[str, str | None], list[int]] = {}
    rows: dict[tuple[str, str | None], int] = {}
    for part in parts:
        key = (part.tier.value, part.owner if table.table.by_store else None)
        by.setdefault(key, []).extend(part.sizes)
        rows[key] = rows.get(key, 0) + part.rows
    if not table.partition_columns:
        files = pl.DataFrame(table.pin().get_add_actions(flatten=True))
        live = set(files["path"]) if files.height else set()
        if files.height:
            by["hot", None] = files["size_bytes"].to_list()
            rows["hot", None] = int(files["num_records"].sum())
    for (tier, store), sizes in by.items():
        yield Stored("live", name, tier, store, rows[tier, store], tuple(sizes))
    leftover: dict[str, list[int]] = {}
    log: list[int] = []
    for path, size in files_of(table.uri).sizes().items():
        if path.startswith(_LOG):
            log.append(size)
        elif path not in live:
            leftover.setdefault(_tier_in(path), []).append(size)
    for tier, sizes in leftover.items():
        yield Stored("tombstones", name, tier, None, 0, tuple(sizes))
    yield Stored("log", name, "hot", None, 0, tuple(log))


def _tier_in(path: str) -> str:
    first = path.partition("/")[0]
    named = first.removeprefix("tier=")
    return named if first != named and named in set(Tier) else Tier.HOT.value


def _of_folder(name: str, folder: Path, apart: Collection[str]) -> Iterator[Stored]:
    if folder.is_file():
        yield Stored("other", name, "hot", None, 0, (folder.stat().st_size,))
        return
    sizes: list[int] = []
    for where, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if os.path.join(where, f) not in apart]
        for path in (os.path.join(where, file) for file in files):
            if path in apart:
                continue
            try:
                sizes.append(os.stat(path).st_size)
            except FileNotFoundError:  # a journal that came and went
                continue
    if sizes:
        yield Stored("other", name, "hot", None, 0, tuple(sizes))


def usage(
    held: Sequence[Stored],
    day: date,
    rates: Rates,
    pipelines: Mapping[str, str],
    gone: Mapping[str, Sequence[Deleted]] | None = None,
) -> pl.DataFrame:
    """A day of what is stored, as rows of `COST_STORAGE`.

    `gone`: the files deleted that day, by table.
    """
    rows = []
    for item in held:
        money = storage_charge(item.sizes, item.tier, day, rates).cost
        rows.append(_row(item, day, float(money), rates, pipelines))
    for table, files in (gone or {}).items():
        for file in files:
            item = Stored("early", table, file.tier, None, 0, (file.bytes,))
            rows.append(_row(item, day, float(_owed(file, day, rates).cost), rates, pipelines))
    frame = pl.DataFrame(rows, schema=COST_STORAGE.schema, orient="row")
    by = ["date", "kind", "table", "storage_tier", "store_id", "pipeline", "currency"]
    summed = frame.group_by(by).agg(pl.col("files", "bytes", "rows", "money").sum())
    return COST_STORAGE.conform(summed)


def _row(
    item: Stored, day: date, money: float, rates: Rates, pipelines: Mapping[str, str]
) -> tuple[object, ...]:
    pipeline = pipelines.get(item.table, "platform")
    size = sum(item.sizes)
    return (
        day, item.kind, item.table, item.tier, item.store_id, pipeline,
        len(item.sizes), size, item.rows, money, rates.currency,
    )  # fmt: skip


def charge(
    ledger: Ledger,
    held: Sequence[Stored],
    day: date,
    rates: Rates,
    environment: str,
    data_set: str,
) -> int:
    """Charge a UTC day of what is stored to the ledger; rows written.

    A day of a table, kind and tier of a data set is charged once: by the first who asks. What
    stands beside the lakes of an environment is shared, and charged once for all of them.
    """
    by: dict[tuple[str, str, str], list[int]] = {}
    for item in held:
        by.setdefault((item.kind, item.table, item.tier), []).extend(item.sizes)
    rows = []
    for (kind, table, tier), sizes in by.items():
        whose = "" if kind == "other" else f"{data_set}:"
        name = f"{whose}{kind}:{table}:{day}"
        rows += _charged(
            storage_charge(sizes, tier, day, rates), name, table, day, rates, environment
        )
    return ledger.append(rows)


def charge_early(
    ledger: Ledger,
    gone: Mapping[str, Sequence[Deleted]],
    day: date,
    rates: Rates,
    environment: str,
    data_set: str,
) -> int:
    """Charge what the files deleted on a day still owed of their minimum duration; rows written.

    What one vacuum took of a table and tier is one charge, so whoever asks again later in the day
    charges only what was deleted since.
    """
    owed: dict[tuple[str, datetime, str], list[Charge]] = {}
    for table, files in gone.items():
        for file in files:
            owed.setdefault((table, file.at, file.tier), []).append(_owed(file, day, rates))
    rows = []
    for (table, at, _), lines in owed.items():
        line = replace(lines[0], quantity=sum((one.quantity for one in lines), Decimal(0)))
        name = f"{data_set}:early:{table}:{at.isoformat()}"
        rows += _charged(line, name, table, day, rates, environment)
    return ledger.append(rows)


def _owed(file: Deleted, day: date, rates: Rates) -> Charge:
    return early_deletion_charge(file.bytes, file.tier, file.age_days, day, rates)


def _charged(
    line: Charge, name: str, table: str, day: date, rates: Rates, environment: str
) -> list[dict[str, object]]:
    """The row of a day of one price-list line; none where nothing was stored or owed."""
    if not line.quantity:
        return []
    start = datetime.combine(day, time(), UTC)
    owner = Owner(environment=environment, pipeline="storage", asset=table)
    settled = Settlement(
        f"{environment}:storage:{name}", owner, start, start + timedelta(days=1), Usage()
    )
    return [charge_row(settled, rates, line, owner, "whole")]
