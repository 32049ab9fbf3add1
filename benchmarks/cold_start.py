"""Items hidden from the forecaster as if they were new, and what is forecast for them on day one.

A twentieth of the items are hidden in one store each (new to the store), another twentieth in all
stores (new everywhere), and each store once as a whole (opening): every row up to the cutoff is
taken away; price and attributes stay. The neighbours' forecast is beside the floor (which knows
nothing of them: zero) and beside what the floor says with the history that was hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from benchmarks import _past
from benchmarks._apart import apart, cpu_seconds
from forecast_core.rungs import cold_start, floor

HORIZON = 28
CUTOFFS = (1829, 1857, 1885)
STORES = ("CA_1", "CA_3", "TX_2", "WI_3")


def run(quick: bool) -> dict[str, float | int | str]:
    """WAPE and bias of hidden items, by what knows nothing of them and what knows all."""
    held = apart(_measure, STORES[:2] if quick else STORES, CUTOFFS[-1:] if quick else CUTOFFS)
    figures: dict[str, float | int | str] = {**held.result, "peak_gb": held.peak_gb}
    return figures


def _measure(stores: tuple[str, ...], cutoffs: tuple[int, ...]) -> dict[str, Any]:
    sales, _ = _past.sales_of(stores, _past.day(max(cutoffs) + HORIZON), aligned=False)
    rows, spent = [], 0.0
    for number in cutoffs:
        cutoff = _past.day(number)
        window = cutoff - timedelta(days=cold_start.DAYS)
        recent = {
            s: rows_of.filter(pl.col("date").is_between(window, cutoff))
            for s, rows_of in sales.items()
        }
        items = pl.concat(recent.values()).filter(pl.col("units") > 0)["item_id"].unique().sort()
        random = np.random.default_rng(number)
        drawn = random.permutation(items.to_numpy())
        share = len(drawn) // 20
        everywhere, one_store = drawn[:share].tolist(), drawn[share : 2 * share].tolist()
        at = dict(zip(one_store, random.integers(0, len(stores), share), strict=True))
        left = {
            store: rows_of.filter(
                ~pl.col("item_id").is_in([*everywhere, *(i for i, k in at.items() if k == place)])
            )
            for place, (store, rows_of) in enumerate(recent.items())
        }
        for place, store in enumerate(stores):
            others = {s: rows_of for s, rows_of in recent.items() if s != store}
            for kind, hidden, known in (
                ("everywhere", everywhere, left),
                ("store", [i for i, k in at.items() if k == place], left),
                ("opening", items.to_list(), others),
            ):
                used, found = _forecast(sales[store], hidden, known, recent[store], cutoff)
                spent += used
                rows.append(found.with_columns(kind=pl.lit(kind)))
    told = pl.concat(rows)
    figures: dict[str, Any] = {
        "hidden": told.select("item_id").height // HORIZON,
        "cpu_ms_per_item": 1000 * spent / max(told.height / HORIZON, 1),
        "windows": len(cutoffs),
    }
    for kind in ("store", "everywhere", "opening"):
        part = told.filter(kind=kind)
        units = float(part["units"].sum())
        for name in ("cold", "knowing"):
            miss = part[name] - part["units"]
            figures[f"wape_new_{kind}_{name}"] = float(miss.abs().sum()) / units
            figures[f"bias_new_{kind}_{name}"] = float(miss.sum()) / units
            of = part.group_by("item_id", "store_id", "cutoff").agg(
                pl.col(name).sum(), pl.col("units").sum()
            )
            total = float((of[name] - of["units"]).abs().sum()) / units
            figures[f"wape_of_28_days_new_{kind}_{name}"] = total
        figures[f"wape_new_{kind}_floor"] = 1.0  # the floor forecasts nothing for them
    return figures


def _forecast(
    sales: pl.DataFrame,
    hidden: list[str],
    known: Mapping[str, pl.DataFrame],
    recent: pl.DataFrame,
    cutoff: date,
) -> tuple[float, pl.DataFrame]:
    """CPU-seconds, and `cold` beside `knowing` for the hidden items of one store.

    `known`: by store what is left to ask; `recent` what was sold here, which only the floor sees.
    """
    store = recent["store_id"][0]
    truth = sales.filter(
        pl.col("item_id").is_in(hidden)
        & pl.col("date").is_between(cutoff + timedelta(1), cutoff + timedelta(HORIZON))
        & pl.col("on_sale")
    )
    new = truth.group_by("item_id", "store_id", "dept_id").agg(price=pl.col("sell_price").median())

    def forecast() -> pl.DataFrame:
        every = pl.concat(known.values())
        shape = cold_start.weekdays(every, cutoff)
        if store in known:
            shape |= cold_start.weekdays(known[store], cutoff)
        return cold_start.forecast(new, cold_start.levels(every, cutoff), shape, cutoff, HORIZON)

    used, cold = cpu_seconds(forecast)
    knowing = floor.seasonal_mean(recent, new["item_id"].to_list(), cutoff, HORIZON)
    return used, (
        truth.select("item_id", "store_id", "units", ds="date", cutoff=pl.lit(cutoff))
        .join(cold.rename({"mean": "cold"}), on=["item_id", "ds"])
        .join(knowing.rename({"mean": "knowing"}), on=["item_id", "ds"])
    )
