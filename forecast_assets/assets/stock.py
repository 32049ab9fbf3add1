"""Stock-out risk: what is on the shelf and on its way, against what will be asked for.

Belongs here: risk and reorder point of every item-store with stock on record. Does not: the
arithmetic (`forecast_core.stockout`), the forecasts, or placing orders.
"""

from datetime import timedelta

import dagster as dg
import polars as pl

from forecast_assets.partitions import (
    ANY_PARTITION,
    CUTOFF_STORE,
    CUTOFF_TO_MONTH_STORE,
    MONTH_OF_CUTOFF_STORE,
    RANGE_IS_ONE_RUN,
    SPREAD,
)
from forecast_core.by_store import ByStore
from forecast_core.calibration import Spreads
from forecast_core.cells import Cells
from forecast_core.schema import TABLES
from forecast_core.stockout import stockout_risk
from resources.meter import metered
from resources.partition_keys import decode
from resources.table_view import TableView


@dg.asset(
    pool="inference",
    partitions_def=CUTOFF_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={
        "raw_inventory": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF_STORE),
        "forecasters": dg.AssetIn(partition_mapping=ANY_PARTITION),
    },
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def prediction_stockout(
    context: dg.AssetExecutionContext,
    prediction_daily: ByStore,
    raw_inventory: TableView,
    demand_segments: TableView,
    forecasters: TableView,
) -> ByStore:
    """Chance that demand over the lead time exceeds the stock, and when to order.

    Item-stores without stock on record have no row; a source without inventory gives none.
    """
    cells = decode(context.partition_keys, TABLES["prediction_stockout"].cut).cells
    assert cells is not None

    def of_store(store_id: str) -> pl.DataFrame:
        rows = [TABLES["prediction_stockout"].schema.to_frame()]
        predictions = prediction_daily.load(store_id)
        for day in (cells.first + timedelta(days=k) for k in range(cells.days)):
            stock = raw_inventory.frame(Cells(day, day, (store_id,)))
            fitted = forecasters.latest(day, by=["segment_group"]).filter(segment_group=SPREAD)
            if stock.is_empty() or fitted.is_empty():
                continue
            spreads = Spreads.from_bytes(fitted["artefact"][0])
            segments = demand_segments.latest(day, stores=store_id)
            risk = stockout_risk(stock, predictions.filter(cutoff=day), segments, spreads.by_days)
            rows.append(
                TABLES["prediction_stockout"].conform(risk.with_columns(cutoff=pl.lit(day)))
            )
        return pl.concat(rows)

    return ByStore(cells.stores or (), of_store)
