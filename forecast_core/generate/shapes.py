"""The generated data in the shapes in which retailers keep theirs: for documents and tests.

Belongs here: laying a `StoreHistory` out as other people's tables, with their holes and closures.
Does not: the demand itself (`forecast_core.generate`), or writing files.

- `promo_panel`: a row a week, centre and meal, in three tables; weeks are whole numbers, weeks
  without an order have no row, two promotions are flags.
- `store_revenue`: a row a day and store, takings instead of units; shut on Sundays.
- `wide_items`: a line a day, a column an item, promotion flags in columns beside.
- `m5`: the official layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date

import numpy as np
import polars as pl

from forecast_core import generate
from forecast_core.generate import DemoSpec

FIRST_WEEK = date(2019, 1, 5)  # what `promo_panel` counts from: its week 1


def shape(name: str, spec: DemoSpec) -> dict[str, pl.DataFrame]:
    """File name -> table.

    Raises:
        ValueError: no such shape; the message lists those there are.
    """
    if name not in SHAPES:
        raise ValueError(f"no shape {name!r}; there are {', '.join(SHAPES)}")
    return SHAPES[name](spec)


def _truth(spec: DemoSpec) -> pl.DataFrame:
    """Every store: item_id, dept_id, cat_id, store_id, state_id, date, units, price, promoted."""
    parts = []
    for store in spec.store_ids:
        held = generate.history(spec, store)
        days = held.truth(spec.first, spec.last).select("item_id", "date", "units", "promoted")
        spans = held.prices(spec.first, spec.last).select(
            "item_id", "sell_price", date=pl.date_ranges("date", "until")
        )
        parts.append(
            days.join(spans.explode("date"), on=["item_id", "date"], how="left")
            .join(held.items, on="item_id", how="left")
            .sort("item_id", "date")
        )
    return pl.concat(parts)


def promo_panel(spec: DemoSpec) -> dict[str, pl.DataFrame]:
    """weekly.csv, centers.csv, meals.csv."""
    truth = _truth(spec).filter(pl.col("sell_price").is_not_null())
    week = ((pl.col("date") - FIRST_WEEK).dt.total_days() // 7 + 1).alias("week")
    whole = ((spec.last - FIRST_WEEK).days + 1) // 7
    regular = pl.col("sell_price").max().over("item_id", "store_id").alias("base_price")
    panel = (
        truth.with_columns(week, regular)
        .filter(pl.col("week") <= whole)
        .group_by("week", "store_id", "item_id")
        .agg(
            checkout_price=pl.col("sell_price").mean().round(2),
            base_price=pl.col("base_price").first(),
            emailer_for_promotion=pl.col("promoted").any().cast(pl.Int8),
            num_orders=pl.col("units").sum().cast(pl.Int64),
        )
        .filter(pl.col("num_orders") > 0)  # holes: a week without an order has no row
        .sort("week", "store_id", "item_id")
        .with_columns(
            homepage_featured=(
                (pl.col("emailer_for_promotion") == 1) & (pl.col("week") % 2 == 0)
            ).cast(pl.Int8)
        )
        .rename({"store_id": "center_id", "item_id": "meal_id"})
        .select(
            "week",
            "center_id",
            "meal_id",
            "checkout_price",
            "base_price",
            "emailer_for_promotion",
            "homepage_featured",
            "num_orders",
        )
    )
    centers = truth.select(center_id="store_id", region_code="state_id").unique().sort("center_id")
    meals = truth.select(meal_id="item_id", category="dept_id", cuisine="cat_id").unique()
    return {"weekly.csv": panel, "centers.csv": centers, "meals.csv": meals.sort("meal_id")}


def store_revenue(spec: DemoSpec) -> dict[str, pl.DataFrame]:
    """train.csv, store.csv."""
    shut = pl.col("Date").dt.weekday() == 7
    days = (
        _truth(spec)
        .group_by("store_id", "state_id", "date")
        .agg(
            Sales=(pl.col("units") * pl.col("sell_price")).sum().round(2),
            Customers=pl.col("units").sum().cast(pl.Int64),
            Promo=(pl.col("promoted").mean() > 0.06).cast(pl.Int8),
        )
        .rename({"store_id": "Store", "date": "Date"})
        .sort("Store", "Date")
        .with_columns(
            Open=(~shut).cast(pl.Int8),
            Sales=pl.when(shut).then(0.0).otherwise("Sales"),
            Customers=pl.when(shut).then(0).otherwise("Customers"),
            DayOfWeek=pl.col("Date").dt.weekday(),
        )
    )
    order = ["Store", "DayOfWeek", "Date", "Sales", "Customers", "Open", "Promo"]
    kinds = days.select("Store", StoreType="state_id").unique().sort("Store")
    return {"train.csv": days.select(order), "store.csv": kinds}


def wide_items(spec: DemoSpec) -> dict[str, pl.DataFrame]:
    """sales.csv: DATE, QTY_<item>, PROMO_<item>; the first store alone."""
    truth = _truth(spec).filter(store_id=spec.store_ids[0])
    names = {item: f"B{1 + at % 4}_{1 + at // 4}" for at, item in enumerate(_items(truth))}
    long = truth.with_columns(pl.col("item_id").replace_strict(names))
    columns = sorted(names.values(), key=lambda name: [int(p) for p in name[1:].split("_")])
    wide = pl.DataFrame({"DATE": long["date"].unique().sort()})
    for head, value in (("QTY", pl.col("units").cast(pl.Int64)), ("PROMO", pl.col("promoted"))):
        part = long.select("date", "item_id", value.cast(pl.Int64).alias("v")).pivot(
            "item_id", index="date", values="v"
        )
        part = part.select(DATE="date", **{f"{head}_{c}": pl.col(c) for c in columns})
        wide = wide.join(part, on="DATE", how="left", maintain_order="left")
    return {"sales.csv": wide}


def m5_layout(spec: DemoSpec) -> dict[str, pl.DataFrame]:
    """sales_train_evaluation.csv, sell_prices.csv, calendar.csv."""
    truth = _truth(spec)
    days = pl.date_range(spec.first, spec.last, eager=True)
    names = {day: f"d_{at}" for at, day in enumerate(days, start=1)}
    ids = ["item_id", "dept_id", "cat_id", "store_id", "state_id"]
    wide = truth.with_columns(
        pl.col("date").replace_strict(names, return_dtype=pl.String), pl.col("units").cast(pl.Int64)
    ).pivot("date", index=ids, values="units", maintain_order=True)
    wide = wide.select(pl.format("{}_{}_evaluation", "item_id", "store_id").alias("id"), pl.all())
    calendar = generate.raw_calendar(spec)
    since = (pl.col("date") - calendar["date"].min()).dt.total_days()
    calendar = calendar.with_columns(wm_yr_wk=11101 + since // 7, d=pl.format("d_{}", since + 1))
    prices = (
        truth.filter(pl.col("sell_price").is_not_null())
        .join(calendar.select("date", "wm_yr_wk"), on="date")
        .group_by("store_id", "item_id", "wm_yr_wk")
        .agg(pl.col("sell_price").last())
        .sort("store_id", "item_id", "wm_yr_wk")
    )
    return {
        "sales_train_evaluation.csv": wide,
        "sell_prices.csv": prices,
        "calendar.csv": calendar,
    }


def _items(truth: pl.DataFrame) -> list[str]:
    return list(np.unique(truth["item_id"].to_numpy()))


SHAPES: Mapping[str, Callable[[DemoSpec], dict[str, pl.DataFrame]]] = {
    "promo_panel": promo_panel,
    "store_revenue": store_revenue,
    "wide_items": wide_items,
    "m5": m5_layout,
}
