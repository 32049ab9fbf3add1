"""Items that are about to be sold for the first time, found and forecast without any fit.

Belongs here: who they are in a store, and reading what their neighbours sell. Does not: the
forecast itself (`forecast_core.rungs.cold_start`).
"""

from datetime import date

import polars as pl

from forecast_core.cells import Cells
from forecast_core.rungs import cold_start
from resources.table_view import TableView

REASON = "new item: as items of its kind and price sell"
_READ = ["item_id", "store_id", "dept_id", "date", "units", "sell_price", "on_sale"]


class Newcomers:
    """Forecasts of newcomers; what others sell is read once a cutoff, and only where one is."""

    def __init__(self, cleaned_sales: TableView) -> None:
        self._sales = cleaned_sales
        self._known: dict[date, tuple[pl.DataFrame, dict[str, pl.DataFrame]]] = {}

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
            segments: the store's; who was never on sale in their window has no `first_day`.
            prices: (item_id, date, sell_price) planned over the horizon; days without one stay
                at zero.
        """
        never = segments.filter(pl.col("first_day").is_null())
        new = cold_start.newcomers_of(never, prices, ())
        if new.is_empty():
            return rows
        levels, by_store = self._look(cutoff)
        store = by_store.get(str(new["store_id"][0]))
        shape = cold_start.weekdays(store, cutoff) if store is not None else {}
        found = cold_start.forecast(new, levels, shape, cutoff, horizon)
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

    def _look(self, cutoff: date) -> tuple[pl.DataFrame, dict[str, pl.DataFrame]]:
        if cutoff not in self._known:
            window = Cells(cutoff, cutoff).back(cold_start.DAYS)
            sales = self._sales.frame(window, _READ)
            parts = {str(k[0]): v for k, v in sales.partition_by("store_id", as_dict=True).items()}
            self._known = {cutoff: (cold_start.levels(sales, cutoff), parts)}
        return self._known[cutoff]
