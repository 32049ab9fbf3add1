"""One series: its history, forecast with quantiles, stock-out risk and explanation.

Belongs here: finding series by level, store and item, and reading one. Does not: forecasting.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from dashboard.figures.today import COMMAND
from dashboard.live import Live
from dashboard.stores import NothingYet
from forecast_core.cells import Cells
from forecast_core.quantiles import column_of, is_quantile

ITEM_STORE = "item_id/store_id"
SERIES = ["item_id", "store_id"]
HISTORY_DAYS = 180
CLASSIFIED_WITHIN = 400  # days before a cutoff that its classification may be old


@dataclass(frozen=True)
class Series:
    """One series as of a cutoff.

    `history`: date, units. `forecast`: ds, mean and quantile columns (q10 … q90) where there are.
    `about`: plain facts (rung, reason, segment, stock). `explanation`: bucket, feature,
    contribution; empty where it was not worth explaining.
    """

    name: str
    cutoff: date
    history: pl.DataFrame
    forecast: pl.DataFrame
    about: dict[str, Any]
    explanation: pl.DataFrame

    @property
    def bands(self) -> list[tuple[str, str, float]]:
        """Pairs of quantile columns around the median, widest first, and their share."""
        levels = sorted(float(f"0.{c[1:]}") for c in self.forecast.columns if is_quantile(c))
        pairs = [(column_of(low), column_of(1 - low), 1 - 2 * low) for low in levels if low < 0.5]
        return [pair for pair in pairs if pair[1] in self.forecast.columns]


def cutoffs(live: Live) -> list[date]:
    """Cutoffs that have forecasts, newest first."""

    def ask() -> list[date]:
        table, handle = live.table("prediction_daily", COMMAND)
        rows = table.read(None, ["cutoff"], handle=handle).frame.unique().collect()
        return rows["cutoff"].sort(descending=True).to_list()

    return live.of_tables("cutoffs", ("prediction_daily",), ask)


def levels(live: Live, cutoff: date) -> list[str]:
    """The levels that were published for a cutoff, item-stores first."""

    def ask() -> list[str]:
        rows = _reconciled(live, cutoff).select("level").unique().collect()
        others = set(rows["level"].to_list()) - {ITEM_STORE}
        return [ITEM_STORE, *sorted(others, key=lambda name: (name.count("/"), name))]

    try:
        return live.of_tables(("levels", cutoff), ("prediction_reconciled",), ask)
    except NothingYet:
        return [ITEM_STORE]


def nodes(live: Live, cutoff: date, level: str) -> list[str]:
    """The series of a level above the item-store, by name."""

    def ask() -> list[str]:
        rows = _reconciled(live, cutoff).filter(pl.col("level") == level)
        return rows.select("node").unique().collect()["node"].sort().to_list()

    return live.of_tables(("nodes", cutoff, level), ("prediction_reconciled",), ask)


def stores(live: Live, cutoff: date) -> list[str]:
    """Stores with a forecast at that cutoff."""
    return list(_items(live, cutoff))


def items(live: Live, cutoff: date, store: str) -> list[str]:
    """Items of a store with a forecast at that cutoff, most units first."""
    return _items(live, cutoff).get(store, [])


def _items(live: Live, cutoff: date) -> dict[str, list[str]]:
    def ask() -> dict[str, list[str]]:
        table, handle = live.table("prediction_daily", COMMAND)
        columns = ["store_id", "item_id", "mean"]
        rows = table.read(Cells(cutoff, cutoff), columns, handle=handle).frame
        sums = rows.group_by("store_id", "item_id").agg(pl.col("mean").sum()).collect()
        ranked = sums.sort("store_id", "mean", "item_id", descending=[False, True, False])
        return {
            str(store): own["item_id"].to_list()
            for (store,), own in ranked.group_by("store_id", maintain_order=True)
        }

    return live.of_tables(("items", cutoff), ("prediction_daily",), ask)


def item_store(live: Live, cutoff: date, store: str, item: str) -> Series:
    """The series of an item in a store; raises `NothingYet` where there is none."""
    tables = ("prediction_daily", "cleaned_sales", "prediction_stockout",
              "prediction_explanations", "demand_segments")  # fmt: skip
    key = ("item-store", cutoff, store, item)
    return live.of_tables(key, tables, lambda: _item_store(live, cutoff, store, item))


def _item_store(live: Live, cutoff: date, store: str, item: str) -> Series:
    mine = pl.col("item_id") == item
    at = Cells(cutoff, cutoff, (store,))
    table, handle = live.table("prediction_daily", COMMAND)
    rows = table.read(at, None, mine, handle=handle).frame.collect().sort("ds")
    if rows.is_empty():
        raise NothingYet(f"no forecast of {item!r} in {store!r} at {cutoff}")
    past = Cells(cutoff - timedelta(days=HISTORY_DAYS), rows["ds"].max(), (store,))  # type: ignore[arg-type]
    history = _optional(live, "cleaned_sales", past, mine, ["date", "units", "sell_price"])
    about = {"rung": rows["rung"][0], "reason": rows["reason"][0]}
    about |= _first(_optional(live, "prediction_stockout", at, mine), "reason")
    segment = pl.col("store_id") == store
    labels = ["as_of", "segment", "abc", "demand_class", "life_stage", "dept_id", "store_id",
              "item_id"]  # fmt: skip
    found = _optional(live, "demand_segments", None, mine & segment, labels)
    about |= _first(found.filter(pl.col("as_of") <= cutoff).sort("as_of").tail(1), "as_of")
    explanation = _optional(live, "prediction_explanations", at, mine)
    quantiles = [c for c in rows.columns if is_quantile(c)]
    return Series(
        f"{item} in {store}",
        cutoff,
        history.select("date", "units").sort("date"),
        rows.select("ds", "mean", *quantiles),
        about,
        explanation.select("bucket", "feature", "contribution")
        if explanation.height
        else pl.DataFrame(schema={"bucket": pl.String, "feature": pl.String,
                                  "contribution": pl.Float64}),
    )  # fmt: skip


def node(live: Live, cutoff: date, level: str, name: str) -> Series:
    """The reconciled series of one node, and what was sold of it."""
    key = ("node", cutoff, level, name)
    tables = ("prediction_reconciled", "cleaned_sales")
    return live.of_tables(key, tables, lambda: _node(live, cutoff, level, name))


def _node(live: Live, cutoff: date, level: str, name: str) -> Series:
    own = (pl.col("level") == level) & (pl.col("node") == name)
    rows = _reconciled(live, cutoff).filter(own).collect().sort("ds")
    if rows.is_empty():
        raise NothingYet(f"no forecast of {name!r} at level {level} for {cutoff}")
    quantiles = [c for c in rows.columns if is_quantile(c) and rows[c].null_count() < rows.height]
    past = Cells(cutoff - timedelta(days=HISTORY_DAYS), rows["ds"].max())  # type: ignore[arg-type]
    sold = _optional_lazy(live, "cleaned_sales", past, None)
    columns = [] if level == "Total" else level.split("/")
    if sold is not None and columns:
        sold = sold.join(_members(live, cutoff, columns, name), on=SERIES, how="semi")
    history = (
        pl.DataFrame(schema={"date": pl.Date, "units": pl.Float64})
        if sold is None
        else sold.group_by("date").agg(pl.col("units").sum()).sort("date").collect()
    )
    forecast = rows.select("ds", "mean", *quantiles)
    none = {"bucket": pl.String, "feature": pl.String, "contribution": pl.Float64}
    return Series(name, cutoff, history, forecast, {"level": level}, pl.DataFrame(schema=none))


def _members(live: Live, cutoff: date, columns: list[str], name: str) -> pl.LazyFrame:
    """The item-stores of a node as they were classified: a level may be of any column there."""
    since = cutoff - timedelta(days=CLASSIFIED_WITHIN)
    own = pl.concat_str([pl.col(c).cast(pl.String) for c in columns], separator="/") == name
    labels = list(dict.fromkeys(["as_of", *SERIES, *columns]))
    found = _optional(live, "demand_segments", Cells(since, cutoff), None, labels)
    return found.filter(pl.col("as_of") == pl.col("as_of").max()).filter(own).select(SERIES).lazy()


def at_risk(live: Live, cutoff: date, most: int = 100) -> pl.DataFrame:
    """Item-stores most likely to run out: store_id, item_id, probability, stock, order."""

    def ask() -> pl.DataFrame:
        found = _optional(live, "prediction_stockout", Cells(cutoff, cutoff), None)
        columns = ["store_id", "item_id", "stockout_probability", "stockout_if_late", "on_hand",
                   "on_order", "lead_time_days", "order_units"]  # fmt: skip
        risky = found.drop_nulls("stockout_probability").select(columns)
        order = ["stockout_probability", "store_id", "item_id"]
        return risky.sort(order, descending=[True, False, False]).head(most)

    return live.of_tables(("at risk", cutoff), ("prediction_stockout",), ask)


def _reconciled(live: Live, cutoff: date) -> pl.LazyFrame:
    table, handle = live.table("prediction_reconciled", COMMAND)
    return table.read(Cells(cutoff, cutoff), handle=handle).frame


def _optional(
    live: Live,
    name: str,
    cells: Cells | None,
    where: pl.Expr | None,
    columns: list[str] | None = None,
) -> pl.DataFrame:
    frame = _optional_lazy(live, name, cells, where)
    if frame is None:
        empty = live.lake.table(name).empty()
        return empty.select(columns) if columns else empty
    return frame.select(columns or pl.all()).collect()


def _optional_lazy(
    live: Live, name: str, cells: Cells | None, where: pl.Expr | None
) -> pl.LazyFrame | None:
    table = live.lake.table(name)
    return table.read(cells, None, where).frame if table.exists() else None


def _first(rows: pl.DataFrame, without: str) -> dict[str, Any]:
    return rows.drop(without).row(0, named=True) if rows.height else {}
