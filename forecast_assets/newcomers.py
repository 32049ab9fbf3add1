"""Items that are about to be sold for the first time, found and forecast without any fit.

Belongs here: who they are in a store, and reading what their neighbours sell. Does not: the
forecast itself (`forecast_core.rungs.cold_start`).
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.cells import Cells
from forecast_core.rungs import cold_start
from resources.table_view import TableView

REASON = "new item: as items of its kind and price sell"
_READ = ["item_id", "store_id", "dept_id", "date", "units", "sell_price", "on_sale"]


class Newcomers:
    """Forecasts of newcomers; what others sell is read once a cutoff, and only where one is."""

    def __init__(self, cleaned_sales: TableView, raw_prices: TableView) -> None:
        self._sales, self._prices = cleaned_sales, raw_prices
        self._known: dict[date, _Known] = {}

    def served(
        self,
        rows: pl.DataFrame,
        segments: pl.DataFrame,
        prices: pl.DataFrame,
        cutoff: date,
        horizon: int,
    ) -> pl.DataFrame:
        """`prediction_daily` rows of one store with the means of its newcomers in their place.

        Args:
            segments: the store's; who was never on sale in their window has no `first_day`. Who
                had a price all the same, and for long, is no newcomer: nobody buys it.
            prices: (item_id, date, sell_price) planned over the horizon; days without one stay
                at zero.
        """
        never = segments.filter(pl.col("first_day").is_null())
        if never.is_empty():
            return rows
        idle = self._offered(str(never["store_id"][0]), cutoff - timedelta(days=cold_start.DAYS))
        never = never.filter(~pl.col("item_id").is_in(idle.implode()))
        new = cold_start.newcomers_of(never, prices, ())
        if new.is_empty():
            return rows
        known = self._look(cutoff)
        own = known.sales.filter(store_id=str(new["store_id"][0]))
        shape = {**known.weekdays, **cold_start.weekdays(own, cutoff)}
        found = cold_start.forecast(new, known.levels, shape, cutoff, horizon)
        offered = prices.select("item_id", ds="date").unique()
        found = found.join(offered, on=["item_id", "ds"], how="semi").rename({"mean": "new"})
        has = pl.col("new").is_not_null()
        return (
            rows.join(found, on=["item_id", "ds"], how="left", maintain_order="left")
            .with_columns(
                mean=pl.coalesce("new", "mean"),
                reason=pl.when(has).then(pl.lit(REASON)).otherwise("reason"),
            )
            .drop("new")
        )

    def _offered(self, store_id: str, day: date) -> pl.Series:
        """The items that had a price in the store on a day."""
        month = Cells(day.replace(day=1), day, (store_id,))
        spans = self._prices.frame(month, ["item_id", "date", "until"])
        return spans.filter(pl.lit(day).is_between("date", "until"))["item_id"]

    def _look(self, cutoff: date) -> "_Known":
        if cutoff not in self._known:
            sales = self._sales.frame(Cells(cutoff, cutoff).back(cold_start.DAYS), _READ)
            levels, weekdays = cold_start.levels(sales, cutoff), cold_start.weekdays(sales, cutoff)
            self._known = {cutoff: _Known(sales, levels, weekdays)}
        return self._known[cutoff]


@dataclass(frozen=True, eq=False)
class _Known:
    """What all stores sold before a cutoff, and what neighbours are looked up in."""

    sales: pl.DataFrame
    levels: pl.DataFrame
    weekdays: dict[str, np.ndarray]
