"""Costs: any cut of the ledger, its trend, and what a unit costs.

Belongs here: the cube that every cut is taken from, the trend, unit costs. Does not: pricing or
attribution: those are the ledger's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa

from dashboard.live import Live
from forecast_core.cost.focus import INSTANT, MONEY
from resources.ledger_tables import charges, exact_sum

# Dimension -> column of a charge.
CUTS = {
    "pipeline": "x_pipeline",
    "forecaster": "x_forecaster",
    "segment group": "x_segment_group",
    "store": "x_store_id",
    "asset": "x_asset",
    "price line": "SkuId",
    "class": "x_cost_class",
    "status": "x_status",
    "forecaster version": "x_forecaster_version",
}
NOBODY = "(none)"


def span(live: Live) -> tuple[date, date] | None:
    """First and last day with a charge; None for an empty ledger."""

    def ask() -> tuple[date, date] | None:
        query = sa.select(sa.func.min(charges.c.date), sa.func.max(charges.c.date))
        with live.ledger.engine.connect() as connection:
            first, last = connection.execute(query).tuples().one()
        return None if first is None else (first, last)

    return live.of_ledger("span", ask)


def cube(live: Live, first: date, last: date) -> pl.DataFrame:
    """day, a column a dimension of `CUTS`, cost (exact), charges of the days `first`..`last`."""

    def ask() -> pl.DataFrame:
        columns = [_named(name) for name in CUTS]
        query = (
            sa.select(charges.c.date, *columns, exact_sum(charges.c.BilledCost), sa.func.count())
            .where(charges.c.date.between(first, last),
                   charges.c.x_environment == live.settings.environment)
            .group_by(charges.c.date, *columns)
        )  # fmt: skip
        with live.ledger.engine.connect() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        text = dict.fromkeys(CUTS, pl.String)
        schema: dict[str, Any] = {"day": pl.Date, **text, "cost": MONEY, "charges": pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    return live.of_ledger(("cube", first, last), ask)


def _named(cut: str) -> sa.ColumnElement[Any]:
    """A dimension without nulls; idle and overhead stand beside the pipelines, as in the marts."""
    if cut == "pipeline":
        return sa.func.coalesce(charges.c.x_pipeline, charges.c.x_cost_class, NOBODY)
    return sa.func.coalesce(charges.c[CUTS[cut]], NOBODY)


def cut(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Cost, share (percent) and charges by dimensions, dearest first; costs sum to the total."""
    total = float(rows["cost"].sum() or 0)
    return (
        rows.group_by(by)
        .agg(pl.col("cost").sum(), pl.col("charges").sum())
        .with_columns(share=100 * pl.col("cost").cast(pl.Float64) / (total or 1.0))
        .sort(["cost", *by], descending=[True, *(False for _ in by)])
    )


def total(rows: pl.DataFrame) -> Decimal:
    """The exact sum of a cube."""
    return Decimal(rows["cost"].sum() or 0)


def classes(rows: pl.DataFrame) -> dict[str, Decimal]:
    """The three cost classes; they sum to the total."""
    found = dict(rows.group_by("class").agg(pl.col("cost").sum()).iter_rows())
    return {name: Decimal(found.get(name, 0)) for name in ("workload", "idle", "overhead")}


def trend(rows: pl.DataFrame, by: str, most: int = 8) -> pl.DataFrame:
    """day, `by`, cost (float): the dearest `most` names, the others as one."""
    kept = cut(rows, [by])[by].head(most).to_list()
    named = pl.when(pl.col(by).is_in(kept)).then(by).otherwise(pl.lit("(others)"))
    return (
        rows.with_columns(named.alias(by))
        .group_by("day", by)
        .agg(pl.col("cost").sum().cast(pl.Float64))
        .sort("day", by)
    )


def within_a_day(live: Live, day: date, by: str, most: int = 8) -> pl.DataFrame:
    """at, `by`, cost of one day in quarters of an hour, where days alone show nothing."""

    def ask() -> pl.DataFrame:
        column = _named(by)
        query = (
            sa.select(charges.c.ChargePeriodStart, column, exact_sum(charges.c.BilledCost))
            .where(charges.c.date == day, charges.c.x_environment == live.settings.environment)
            .group_by(charges.c.ChargePeriodStart, column)
        )
        with live.ledger.engine.connect() as connection:
            found = connection.execute(query).tuples()
            rows = [(at, name, float(cost)) for at, name, cost in found]
        schema: dict[str, Any] = {"at": INSTANT, by: pl.String, "cost": pl.Float64}
        by_moment = pl.DataFrame(rows, schema=schema, orient="row")
        sums = by_moment.group_by(by).agg(pl.col("cost").sum()).sort("cost", descending=True)
        kept = sums[by].head(most).to_list()
        named = pl.when(pl.col(by).is_in(kept)).then(by).otherwise(pl.lit("(others)"))
        return (
            by_moment.with_columns(named.alias(by), pl.col("at").dt.truncate("15m"))
            .group_by("at", by)
            .agg(pl.col("cost").sum())
            .sort("at", by)
        )

    return live.of_ledger(("within", day, by), ask)


def unit_costs(live: Live, days: int = 90) -> pl.DataFrame:
    """series, day, unit (money of one item-store at reference prices), volume, cost.

    The series that cost incidents are found in: pipeline / forecaster / segment group.
    """

    def ask() -> pl.DataFrame:
        from forecast_core.incidents import unit_costs as core

        ledger = live.ledger.charges(first=live.today - timedelta(days=days))
        mine = ledger.filter(pl.col("x_environment") == live.settings.environment)
        name = pl.concat_str(core.SERIES[:3], separator=" / ")
        found = core.daily(mine).frame.with_columns(series=name)
        return found.select("series", "day", "unit", "volume", "cost").drop_nulls("unit")

    return live.of_ledger(("unit costs", days), ask)


def per_batch(live: Live) -> pl.DataFrame:
    """The mart of forecast batches, newest cutoff first."""
    query = """select cutoff, item_stores, runs, floor_cost, upgrade_cost, reconciliation_cost,
        billed_cost, cost_per_item_store from cost_per_forecast_batch
        where environment = ? order by cutoff desc nulls last"""
    return _mart(live, "batches", query)


def per_version(live: Live) -> pl.DataFrame:
    """The mart of forecaster versions, dearest first."""
    query = """select forecaster, forecaster_version, segment_group, batches, training_cost,
        inference_cost, billed_cost, last_used from cost_per_forecaster_version
        where environment = ? and forecaster <> 'none' order by billed_cost desc"""
    return _mart(live, "versions", query)


def dearest(live: Live, most: int = 100) -> pl.DataFrame:
    """The mart of dear operations."""
    query = f"""select place, kind, coalesce(asset, step_key) as operation, began, attempts, cpu_s,
        peak_rss_gib, rows_written, billed_cost, failed_cost, share_pct, run_id
        from high_cost_operations where environment = ? order by place limit {int(most)}"""
    return _mart(live, ("dearest", most), query)


def item_stores(live: Live, most: int = 200) -> pl.DataFrame:
    """The dearest item-stores of the mart that divides all money over them."""
    query = f"""select item_id, store_id, segment_group, inference_cost, billed_cost
        from cost_per_item_store where environment = ? and item_id is not null
        order by billed_cost desc, item_id, store_id limit {int(most)}"""
    return _mart(live, ("item-stores", most), query)


def _mart(live: Live, key: object, query: str) -> pl.DataFrame:
    place = live.settings.environment
    return live.of_marts(("mart", key), lambda: live.marts.query(query, [place]))
