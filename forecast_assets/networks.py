"""The neural rung over the lake: its panel, its fit and its forecasts, each in one child process.

Belongs here: reading what a network learns from, over all stores at once. Does not: the network
(`forecast_core.rungs.neural`) or its process (`resources.neural_process`).
"""

from datetime import date

import polars as pl

from forecast_core.cells import Cells
from forecast_core.rungs.gbm import Fitted
from forecast_core.rungs.neural import NeuralSpec
from resources import neural_process
from resources.table_view import TableView

NOBODY = b'{"kind": "none"}'  # a group without members has no network
_MEANS = {"item_id": pl.String, "ds": pl.Date, "mean": pl.Float64}


def fit_network(
    cleaned_sales: TableView, members: pl.DataFrame, cutoff: date, horizon: int
) -> Fitted:
    """A network of the group's members, in a process of its own."""
    if members.is_empty():
        return Fitted(NOBODY, {"series": 0.0})
    spec = NeuralSpec(horizon=horizon)
    return neural_process.fit(
        _panel(cleaned_sales, members, cutoff, spec.history_days), cutoff, spec
    )


class Networks:
    """Forecasts by network and cutoff: a child is started once, whatever the number of stores."""

    def __init__(self, cleaned_sales: TableView) -> None:
        self._sales = cleaned_sales
        self._held: dict[tuple[bytes, date], pl.DataFrame] = {}

    def forecast(
        self, artefact: bytes, everyone: pl.DataFrame, store_id: str, cutoff: date, horizon: int
    ) -> pl.DataFrame:
        """(item_id, ds, mean) of one store's members; `everyone` are those of all stores."""
        if artefact == NOBODY or everyone.is_empty():
            return pl.DataFrame(schema=_MEANS)
        if (artefact, cutoff) not in self._held:
            panel = _panel(self._sales, everyone, cutoff, NeuralSpec().input_days)
            self._held[artefact, cutoff] = neural_process.predict(artefact, panel, cutoff)
        own = everyone.filter(store_id=store_id).select("item_id", "store_id")
        named = own.with_columns(unique_id=pl.concat_str("item_id", "store_id", separator="|"))
        rows = self._held[artefact, cutoff].join(named, on="unique_id")
        ahead = (pl.col("ds") - pl.lit(cutoff)).dt.total_days()
        return rows.filter(ahead <= horizon).select(list(_MEANS)).sort("item_id", "ds")


def _panel(
    cleaned_sales: TableView, members: pl.DataFrame, cutoff: date, days: int
) -> pl.DataFrame:
    """`unique_id, ds, y` of the members over the days before the cutoff."""
    parts = []
    for (store_id,), own in members.partition_by("store_id", as_dict=True).items():
        window = Cells(cutoff, cutoff, (str(store_id),)).back(days)
        sales = cleaned_sales.frame(window, ["item_id", "store_id", "date", "units"])
        parts.append(sales.join(own.select("item_id"), on="item_id", how="semi"))
    return pl.concat(parts).select(
        pl.concat_str("item_id", "store_id", separator="|").alias("unique_id"),
        ds="date",
        y="units",
    )
