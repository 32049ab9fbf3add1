"""Today: is everything forecast, what did it cost, what is left, what waits.

Belongs here: coverage of the last cutoff, budgets, the month's end, held and failed work. Does not:
showing them (`dashboard.views.today`), nor deciding any of it (`forecast_core.admission`).
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa

from dashboard.live import Live
from dashboard.stores import NothingYet
from forecast_core.cells import Cells
from forecast_core.cost.spend_forecast import Spend, forecast
from resources.admission_tables import runs
from resources.ledger_tables import exact_sum, settlements

HISTORY_DAYS = 84
FORECASTS, SEGMENTS = "prediction_daily", "demand_segments"
COMMAND = "`make demo` or `forecast run`"
HELD: dict[str, Any] = {
    "run_id": pl.String,
    "class": pl.String,
    "reason": pl.String,
    "code": pl.String,
    "submitted": pl.Datetime("us", "UTC"),
    "may start": pl.Datetime("us", "UTC"),
    "must start": pl.Datetime("us", "UTC"),
    "late": pl.Boolean,
}


@dataclass(frozen=True)
class Coverage:
    """Whether every known item-store has its forecast at a cutoff.

    `served`: store_id, rung, item_stores. `missing`: item_id, store_id of those without. `reasons`:
    reason, item_stores of forecasts that say why they are at their rung. `whole`: every served
    item-store has every one of the `days`.
    """

    cutoff: date
    known: int
    served: pl.DataFrame
    missing: pl.DataFrame
    reasons: pl.DataFrame
    days: int
    whole: bool

    @property
    def forecast(self) -> int:
        """Known item-stores that have a forecast."""
        return self.known - self.missing.height

    @property
    def complete(self) -> bool:
        """Nobody is left out."""
        return self.missing.is_empty() and self.whole and self.known > 0


def coverage(live: Live) -> Coverage:
    """Coverage of the newest cutoff; raises `NothingYet` before the first forecast."""
    return live.of_tables("coverage", (FORECASTS, SEGMENTS), lambda: _coverage(live))


def _coverage(live: Live) -> Coverage:
    cutoff = live.newest(FORECASTS, COMMAND)
    table, handle = live.table(FORECASTS, COMMAND)
    columns = ("store_id", "item_id", "rung", "reason", "ds")
    rows = table.read(Cells(cutoff, cutoff), columns, handle=handle).frame
    each = (
        rows.group_by("store_id", "item_id")
        .agg(pl.col("rung").first(), pl.col("reason").first(), days=pl.len())
        .collect()
    )
    known = _known(live, cutoff, each)
    days = int(each["days"].max() or 0)  # type: ignore[arg-type]
    count = pl.len().cast(pl.Int64).alias("item_stores")
    return Coverage(
        cutoff,
        known.height,
        each.group_by("store_id", "rung").agg(count).sort("store_id", "rung"),
        known.join(each, on=["item_id", "store_id"], how="anti").sort("store_id", "item_id"),
        each.drop_nulls("reason").group_by("reason").agg(count).sort("item_stores", "reason",
                                                                    descending=[True, False]),
        days,
        bool((each["days"] == days).all()),
    )  # fmt: skip


def _known(live: Live, cutoff: date, served: pl.DataFrame) -> pl.DataFrame:
    """The item-stores that were classified last; those served where none were."""
    pair = ["item_id", "store_id"]
    try:
        table, handle = live.table(SEGMENTS, COMMAND)
    except NothingYet:
        return served.select(pair)
    rows = table.read(None, ["as_of", *pair], pl.col("as_of") <= cutoff, handle=handle).frame
    newest = rows.filter(pl.col("as_of") == pl.col("as_of").max()).select(pair).unique()
    return newest.collect()


def budgets(live: Live) -> pl.DataFrame:
    """budget, period, limit, spent, held, free of the nodes that this environment meets."""

    def ask() -> pl.DataFrame:
        policy, environment = live.policy, live.settings.environment
        rows = [
            (name, policy.budgets[name].period, *(float(node[k]) for k in _AMOUNTS))
            for name, node in live.escrow.balance().items()
            if policy.budgets[name].environment in (None, environment)
        ]
        schema: dict[str, Any] = {
            "budget": pl.String,
            "period": pl.String,
            **dict.fromkeys(_AMOUNTS, pl.Float64),
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    return live.of_admission("budgets", ask)


_AMOUNTS = ("limit", "spent", "held", "free")


def tightest(nodes: pl.DataFrame) -> dict[str, object] | None:
    """The budget with the least of its limit left."""
    if nodes.is_empty():
        return None
    share = pl.col("free") / pl.when(pl.col("limit") > 0).then("limit")
    return nodes.sort(share, nulls_last=True).row(0, named=True)


@dataclass(frozen=True)
class Month:
    """Money of a month: day, cost so far (`days`), and how it will end, with its limit if any."""

    days: pl.DataFrame
    spend: Spend
    last: date
    limit: float | None


def month(live: Live) -> Month:
    """The month that holds today; raises `NothingYet` without a ledger."""
    return live.of_ledger("month", lambda: _month(live))


def _month(live: Live) -> Month:
    today, environment = live.today, live.settings.environment
    last = today.replace(day=calendar.monthrange(today.year, today.month)[1])
    totals = live.ledger.totals(
        ("x_environment", "x_pipeline", "date"), first=today - timedelta(days=HISTORY_DAYS)
    )
    daily = pl.DataFrame(
        [
            (pipeline or "idle and overhead", day, float(cost))
            for (place, pipeline, day), cost in totals.items()
            if place in (environment, None)
        ],
        schema={"pipeline": pl.String, "day": pl.Date, "cost": pl.Float64},
        orient="row",
    )
    spend = forecast(daily, today, today.replace(day=1), last)
    mine = daily.filter(pl.col("day").is_between(today.replace(day=1), today))
    days = mine.group_by("day").agg(pl.col("cost").sum()).sort("day")
    return Month(days, spend, last, _limit(live))


def _limit(live: Live) -> float | None:
    """The monthly budget of the whole environment."""
    for budget in live.policy.budgets.values():
        whole = budget.pipeline is None and budget.work_class is None
        if whole and budget.period == "month" and budget.environment == live.settings.environment:
            return float(Decimal(budget.limit) / 10**9)
    return None


def held(live: Live) -> pl.DataFrame:
    """Runs that wait, latest start first: `HELD`. Late: the next chance comes after it."""

    def ask() -> pl.DataFrame:
        query = (
            sa.select(runs.c.run_id, runs.c.work_class, runs.c.reason, runs.c.code,
                      runs.c.submitted, runs.c.earliest, runs.c.latest)
            .where(runs.c.state == "waiting", runs.c.environment == live.settings.environment)
            .order_by(runs.c.latest, runs.c.submitted, runs.c.run_id)
        )  # fmt: skip
        with live.admission.reading() as connection:
            found = connection.execute(query).all()
        rows = [
            (*row[:4], *map(_moment, row[4:]), (row[5] or float("inf")) > (row[6] or float("inf")))
            for row in found
        ]
        return pl.DataFrame(rows, schema=HELD, orient="row")

    return live.of_admission("held", ask)


def decisions(live: Live, days: int = 7) -> pl.DataFrame:
    """state, item (runs) of what was submitted in the last days."""

    def ask() -> pl.DataFrame:
        since = datetime.now(UTC).timestamp() - days * 86_400
        query = (
            sa.select(runs.c.state, runs.c.work_class, sa.func.count())
            .where(runs.c.submitted >= since, runs.c.environment == live.settings.environment)
            .group_by(runs.c.state, runs.c.work_class)
        )
        with live.admission.reading() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        schema: dict[str, Any] = {"state": pl.String, "class": pl.String, "runs": pl.Int64}
        return pl.DataFrame(rows, schema=schema, orient="row").sort("class", "state")

    return live.of_admission(("decisions", days), ask)


def _moment(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def failures(live: Live, days: int = 2, most: int = 50) -> pl.DataFrame:
    """Attempts of the last days that did not succeed: when, asset, partition, status, cost, run."""

    def ask() -> pl.DataFrame:
        s = settlements.c
        query = (
            sa.select(s.ChargePeriodEnd, sa.func.coalesce(s.x_asset, s.x_step_key), s.x_partition,
                      s.x_status, s.money, s.x_run_id)
            .where(s.date >= live.today - timedelta(days=days - 1), s.x_status != "success",
                   s.x_environment == live.settings.environment, s.x_step_key.is_not(None))
            .order_by(s.ChargePeriodEnd.desc())
            .limit(most)
        )  # fmt: skip
        with live.ledger.engine.connect() as connection:
            rows = [(*row[:4], float(row[4] or 0), row[5]) for row in connection.execute(query)]
        schema: dict[str, Any] = {
            "ended": pl.Datetime("us", "UTC"),
            "asset": pl.String,
            "partition": pl.String,
            "status": pl.String,
            "cost": pl.Float64,
            "run": pl.String,
        }
        return pl.DataFrame(rows, schema=schema, orient="row")

    return live.of_ledger(("failures", days), ask)


@dataclass(frozen=True)
class Batch:
    """What the forecasts of a cutoff cost, up to now."""

    cost: Decimal
    item_stores: int
    runs: int

    @property
    def each(self) -> float | None:
        """Money of one item-store."""
        return float(self.cost) / self.item_stores if self.item_stores else None


def batch(live: Live, cutoff: date) -> Batch:
    """Inference and reconciliation of a cutoff, as the mart defines it, live from the ledger."""

    def ask() -> Batch:
        s = settlements.c
        day = cutoff.isoformat()
        query = sa.select(exact_sum(s.money), sa.func.count(s.x_run_id.distinct())).where(
            s.x_environment == live.settings.environment,
            s.x_pipeline.in_(("inference", "reconciliation")),
            s.x_partition.startswith(day, autoescape=True),
        )
        with live.ledger.engine.connect() as connection:
            cost, count = connection.execute(query).one()
        return Batch(cost or Decimal(0), coverage(live).forecast, int(count))

    return live.of_ledger(("batch", cutoff), ask)
