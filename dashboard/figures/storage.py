"""Storage: bytes and money by table and tier, and the moves that would pay.

Belongs here: what lies where by the Delta logs, the mart of storage charges, the placement plan of
now. Does not: choosing a tier (`forecast_core.storage.placement`) or moving anything.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from dashboard.live import Live
from dashboard.stores import NothingYet
from forecast_core.storage.declared_reads import declared_readers
from forecast_core.storage.lifecycle import LifecyclePolicy
from forecast_core.storage.placement import HORIZON_DAYS as HORIZON_DAYS
from resources.all_tables import ALL_TABLES
from resources.lifecycle import Mover
from resources.placements import plan
from resources.policies import load_policy
from resources.price_card import load_price_card
from resources.storage_tables import holds, moves
from resources.traffic import stored_by_tier

PLAN_EVERY_S = 300.0
STORED = {"table": pl.String, "tier": pl.String, "files": pl.Int64, "bytes": pl.Int64,
          "rows": pl.Int64}  # fmt: skip
PLANNED = {"table": pl.String, "period": pl.String, "owner": pl.String, "from": pl.String,
           "to": pl.String, "bytes": pl.Int64, "saving": pl.Float64, "move_cost": pl.Float64,
           "pays_from": pl.Date, "reason": pl.String}  # fmt: skip


def _versions(live: Live) -> tuple[int, ...]:
    tables = (live.lake.table(table) for table in ALL_TABLES)
    return tuple(table.version() if table.exists() else -1 for table in tables)


def stored(live: Live) -> pl.DataFrame:
    """table, tier, files, bytes, rows of every table that exists, by the newest versions."""

    def ask() -> pl.DataFrame:
        found = [pl.DataFrame(schema=STORED)]
        for table in map(live.lake.table, ALL_TABLES):
            if not table.exists():
                continue
            files = pl.DataFrame(table.pin().get_add_actions(flatten=True))
            if files.height:
                rows = stored_by_tier(files).with_columns(table=pl.lit(table.table.name))
                found.append(rows.select(list(STORED)).cast(STORED))  # type: ignore[arg-type]
        return pl.concat(found)

    return live.kept.get("stored", lambda: _versions(live), ask)


def charged(live: Live) -> pl.DataFrame:
    """The mart of storage charges: day, table, gib, cost, tier (upkeep: the work of keeping it)."""
    query = """select charge_date as day, table_name as "table", gib, billed_cost as cost, tier
        from storage_by_tier where environment = ? order by day, "table", tier"""
    place = live.settings.environment
    return live.of_marts("storage", lambda: live.marts.query(query, [place]))


def as_of(live: Live) -> date:
    """The day that ages count from: the setting, else the newest day of sales."""
    found = live.settings.as_of
    return found or live.newest("cleaned_sales", "`make demo` or `forecast run`")


def planned(live: Live) -> pl.DataFrame:
    """Moves that would pay now (`PLANNED`), by the reads that assets declare and those measured.

    Nothing is moved: `forecast lake plan --apply` or the asset `storage_rollover` does.
    """

    def ask() -> pl.DataFrame:
        day = as_of(live)
        policy = load_policy(live.settings.lifecycle_policy, LifecyclePolicy.parse)
        rates = load_price_card(live.settings.price_card).on(
            datetime.now(UTC).date(), live.settings.environment
        )
        mover = Mover(live.lake, live.storage, policy)
        tables = [t for t in mover.tables() if t.partition_columns]
        if not live.storage.begun:
            raise NothingYet("the books of storage were not begun: `make demo` writes the first")
        rows = [
            (p.part.table, p.part.period, p.part.owner, p.part.tier.value, p.tier.value,
             p.part.bytes, p.saving, p.move_cost, p.pays_from, p.reason)
            for p in plan(mover, tables, declared_readers(), rates, day)
            if p.moves
        ]  # fmt: skip
        found = pl.DataFrame(rows, schema=PLANNED, orient="row")
        return found.sort("saving", "table", "period", descending=[True, False, False])

    # Every part is put before the planner: seconds on a large lake, and no news within minutes.
    stamp = lambda: (_versions(live), live.today)  # noqa: E731
    return live.kept.get("planned", stamp, ask, look_every_s=PLAN_EVERY_S)


def made(live: Live, most: int = 200) -> pl.DataFrame:
    """Moves on record, newest first."""

    def ask() -> pl.DataFrame:
        schema: dict[str, Any] = {
            "begun": pl.Datetime("us"),
            "table": pl.String,
            "kind": pl.String,
            "first": pl.Date,
            "last": pl.Date,
            "owner": pl.String,
            "from": pl.String,
            "to": pl.String,
            "state": pl.String,
            "rows": pl.Int64,
            "reason": pl.String,
        }
        if not live.storage.begun:
            return pl.DataFrame(schema=schema)
        m = moves.c
        columns = (m.begun_at, m.uri, m.kind, m.first, m.last, m.owner, m.from_tier, m.to_tier,
                   m.state, m.rows, m.reason)  # fmt: skip
        query = sa.select(*columns).order_by(m.begun_at.desc())
        with live.ledger.engine.connect() as connection:
            found = connection.execute(query.limit(most)).all()
        rows = [(row[0].replace(tzinfo=None), row[1].rsplit("/", 1)[-1], *row[2:]) for row in found]
        return pl.DataFrame(rows, schema=schema, orient="row")

    return live.of_ledger(("moves", most), ask)


def held(live: Live) -> pl.DataFrame:
    """Holds on record: name, table, kind, reason, until."""

    def ask() -> pl.DataFrame:
        schema: dict[str, Any] = {
            "name": pl.String,
            "table": pl.String,
            "kind": pl.String,
            "reason": pl.String,
            "until": pl.Date,
        }
        if not live.storage.begun:
            return pl.DataFrame(schema=schema)
        h = holds.c
        with live.ledger.engine.connect() as connection:
            query = sa.select(h.name, h.table, h.kind, h.reason, h.until).order_by(h.name)
            rows = [tuple(row) for row in connection.execute(query)]
        return pl.DataFrame(rows, schema=schema, orient="row")

    return live.of_ledger("holds", ask)
