"""A forecast for items that have sold nothing yet: what their neighbours by attribute sell.

Belongs here: means of items without a history, from items that resemble them. Does not: items
with one, and retraining: nothing is fitted.

An item that sells in other stores is taken to sell here as it does there, after the ratio of what
the two stores sell of its department. One that is new everywhere sells as its department's items
in the store do at about its price. A department that the store has never sold, and so a store
that opens, is taken to sell as it does in the other stores. Of one that nobody has ever sold, or
that is not known, every item of the store is a neighbour. Weekdays follow the department.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.rungs.frames import means

DAYS = 56  # of sales that neighbours are known by
NEIGHBOURS = 30
_PRICE_SPREAD = 0.4  # of log prices: an item at half the price counts little
_STRANGER = 0.8  # how much of the neighbours' mean an item new everywhere is taken to sell
_FLAT = np.ones(7) / 7


def levels(sales: pl.DataFrame, cutoff: date) -> pl.DataFrame:
    """What each item of each store sold a day, by weekday: what `neighbours` are looked up in.

    Args:
        sales: `cleaned_sales` rows, `DAYS` back from the cutoff, of as many stores as are at hand.

    Returns:
        `item_id, store_id, dept_id, daily, price`; only items on sale count their days.
    """
    since = cutoff - timedelta(days=DAYS - 1)
    offered = sales.filter(
        pl.col("date").is_between(since, cutoff)
        & (pl.col("on_sale").fill_null(False) | (pl.col("units") > 0))
    )
    return (
        offered.group_by("item_id", "store_id", "dept_id")
        .agg(
            daily=pl.col("units").fill_nan(None).mean(),
            price=pl.col("sell_price").fill_nan(None).median(),
        )
        .drop_nulls("daily")
        .sort("store_id", "item_id")
    )


def weekdays(sales: pl.DataFrame, cutoff: date) -> dict[str, np.ndarray]:
    """The share of each weekday (0 is Monday) in what each department sold; others have none."""
    since = cutoff - timedelta(days=DAYS - 1)
    sold = (
        sales.filter(pl.col("date").is_between(since, cutoff))
        .group_by("dept_id", weekday=pl.col("date").dt.weekday() - 1)
        .agg(pl.col("units").fill_nan(None).sum())
    )
    found = {}
    for (dept,), rows in sold.group_by("dept_id"):
        share = np.zeros(7)
        share[rows["weekday"].to_numpy()] = rows["units"].to_numpy()
        if share.sum() > 0:
            found[str(dept)] = share / share.sum()
    return found


def forecast(
    newcomers: pl.DataFrame,
    known: pl.DataFrame,
    shape: dict[str, np.ndarray],
    cutoff: date,
    horizon: int,
) -> pl.DataFrame:
    """(item_id, ds, mean) of one store's items that have no history there.

    Args:
        newcomers: `item_id, store_id, dept_id, price` (null: unknown) of one store.
        known: `levels` of this store and of others; the newcomers' own rows here are not used.
        shape: `weekdays` of this store, and of all stores for a department new to it.
    """
    if newcomers.is_empty():
        return means([], cutoff, np.empty((0, horizon)))
    store = str(newcomers["store_id"][0])
    here = known.filter(store_id=store).join(newcomers, on="item_id", how="anti")
    elsewhere = known.filter(pl.col("store_id") != store)
    on_average = elsewhere.group_by("item_id", "dept_id").agg(pl.col("daily", "price").mean())
    ratio = _ratios(here, elsewhere)
    usual = np.mean([*shape.values()], axis=0) if shape else _FLAT
    ordered = newcomers.sort("item_id")
    first = cutoff + timedelta(days=1)
    ahead = (first.weekday() + np.arange(horizon)) % 7
    rows = []
    for item, dept, price in ordered.select("item_id", "dept_id", "price").iter_rows():
        away = elsewhere.filter(item_id=item)
        department = here.filter(dept_id=dept)
        daily = _as_elsewhere(away, ratio)
        if department.is_empty():
            department = on_average.filter(dept_id=dept).sort("item_id")
            if daily is None and away.height:
                daily = float(away["daily"].to_numpy().mean())
        if department.is_empty():
            department = here if here.height else on_average
        if daily is None:
            daily = _STRANGER * _as_neighbours(department, price)
        rows.append(7 * daily * shape.get(dept, usual)[ahead])
    return means(ordered["item_id"].to_list(), cutoff, np.array(rows))


def _ratios(here: pl.DataFrame, elsewhere: pl.DataFrame) -> dict[tuple[str, str], float]:
    """Store and department -> sales here over sales there, of the items that both sell."""
    both = here.join(elsewhere, on=["item_id", "dept_id"], suffix="_there")
    sums = both.group_by("store_id_there", "dept_id").agg(
        pl.col("daily").sum(), pl.col("daily_there").sum()
    )
    return {
        (store, dept): mine / there
        for store, dept, mine, there in sums.iter_rows()
        if there > 0 and mine > 0
    }


def _as_elsewhere(away: pl.DataFrame, ratio: dict[tuple[str, str], float]) -> float | None:
    told = [
        daily * ratio[store, dept]
        for store, dept, daily in away.select("store_id", "dept_id", "daily").iter_rows()
        if (store, dept) in ratio
    ]
    return float(np.mean(told)) if told else None


def _as_neighbours(department: pl.DataFrame, price: float | None) -> float:
    """The mean of the items nearest in price, the nearest weighing most."""
    if department.is_empty():
        return 0.0
    daily = department["daily"].to_numpy()
    if price is None or not price > 0:
        return float(daily.mean())
    asked = department["price"].fill_null(price).to_numpy()
    apart = np.abs(np.log(np.maximum(asked, 1e-6) / price))
    nearest = np.argsort(apart, kind="stable")[:NEIGHBOURS]
    weight = np.exp(-0.5 * (apart[nearest] / _PRICE_SPREAD) ** 2) + 1e-9
    return float(np.average(daily[nearest], weights=weight))


def newcomers_of(members: pl.DataFrame, prices: pl.DataFrame, sold: Sequence[str]) -> pl.DataFrame:
    """Who of a store's items is about to be sold and has never been.

    Args:
        members: `demand_segments` rows of one store.
        prices: (item_id, sell_price) planned over the horizon.
        sold: items with a known sale day in the store.
    """
    planned = prices.group_by("item_id").agg(price=pl.col("sell_price").median())
    unsold = members.filter(~pl.col("item_id").is_in(list(sold)))
    return unsold.join(planned, on="item_id").select("item_id", "store_id", "dept_id", "price")
