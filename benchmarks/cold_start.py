"""Items hidden from the forecaster as if they were new, and what is forecast for them on day one.

A twentieth of the items are hidden in one store each (new to the store), another twentieth in all
stores (new everywhere): every row up to the cutoff is taken away; price and attributes stay. The
neighbours' forecast is beside the floor (which knows nothing of them: zero) and beside what the
floor says with the history that was hidden.
"""

from __future__ import annotations

from datetime import timedelta
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
        everywhere, one_store = drawn[:share], drawn[share : 2 * share]
        at = dict(zip(one_store, random.integers(0, len(stores), share), strict=True))
        left = {
            store: rows_of.filter(
                ~pl.col("item_id").is_in(everywhere.tolist())
                & ~pl.col("item_id").is_in([i for i, k in at.items() if k == place])
            )
            for place, (store, rows_of) in enumerate(recent.items())
        }
        for place, store in enumerate(stores):
            hidden = [*everywhere, *(i for i, k in at.items() if k == place)]
            truth = sales[store].filter(
                pl.col("item_id").is_in(hidden)
                & pl.col("date").is_between(cutoff + timedelta(1), cutoff + timedelta(HORIZON))
                & pl.col("on_sale")
            )
            new = truth.group_by("item_id", "store_id", "dept_id").agg(
                price=pl.col("sell_price").median()
            )

            def forecast(store: str = store, new: pl.DataFrame = new) -> pl.DataFrame:
                known = cold_start.levels(pl.concat(left.values()), cutoff)  # noqa: B023
                shape = cold_start.weekdays(left[store], cutoff)  # noqa: B023
                return cold_start.forecast(new, known, shape, cutoff, HORIZON)  # noqa: B023

            used, cold = cpu_seconds(forecast)
            spent += used
            knowing = floor.seasonal_mean(recent[store], new["item_id"].to_list(), cutoff, HORIZON)
            both = (
                truth.select("item_id", "units", ds="date")
                .join(cold.rename({"mean": "cold"}), on=["item_id", "ds"])
                .join(knowing.rename({"mean": "knowing"}), on=["item_id", "ds"])
            )
            all_over = pl.when(pl.col("item_id").is_in(everywhere.tolist()))
            of_kind = all_over.then(pl.lit("everywhere")).otherwise(pl.lit("store"))
            rows.append(both.with_columns(kind=of_kind))
    told = pl.concat(rows)
    figures: dict[str, Any] = {
        "hidden": told.select("item_id").height // HORIZON,
        "cpu_ms_per_item": 1000 * spent / max(told.height / HORIZON, 1),
        "windows": len(cutoffs),
    }
    for kind in ("store", "everywhere"):
        part = told.filter(kind=kind)
        units = float(part["units"].sum())
        for name in ("cold", "knowing"):
            miss = part[name] - part["units"]
            figures[f"wape_new_{kind}_{name}"] = float(miss.abs().sum()) / units
            figures[f"bias_new_{kind}_{name}"] = float(miss.sum()) / units
            of = part.group_by("item_id").agg(pl.col(name).sum(), pl.col("units").sum())
            total = float((of[name] - of["units"]).abs().sum()) / units
            figures[f"wape_of_28_days_new_{kind}_{name}"] = total
        figures[f"wape_new_{kind}_floor"] = 1.0  # the floor forecasts nothing for them
    return figures
