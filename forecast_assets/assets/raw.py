"""Landing: what the source says, untouched, a store at a time.

Belongs here: one asset for each table a source delivers. Does not: judging a row (`cleaned`)
or knowing a file format (`resources.sources`).
"""

import dagster as dg
import polars as pl

from forecast_assets.partitions import MONTH_STORE, RANGE_IS_ONE_RUN
from forecast_core.by_store import ByStore
from forecast_core.schema import TABLES
from resources.meter import metered
from resources.partition_keys import cells_of
from resources.sources import Source

SourceResource = dg.ResourceParam[Source]


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def raw_sales(context: dg.AssetExecutionContext, source: SourceResource) -> ByStore:
    """Daily units by item and store as the source gives them, defects included."""
    cells = cells_of(context.partition_keys)
    return ByStore(
        cells.stores or source.stores(),
        lambda store_id: source.sales(store_id, cells.first, cells.last),
    )


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def raw_prices(context: dg.AssetExecutionContext, source: SourceResource) -> ByStore:
    """Sell prices with the days they hold; a price that spans two months is two rows."""
    cells = cells_of(context.partition_keys)
    return ByStore(
        cells.stores or source.stores(),
        lambda store_id: source.prices(store_id, cells.first, cells.last),
    )


@dg.asset(io_manager_key="warm_io_manager", kinds={"polars", "deltalake"})
@metered
def raw_calendar(source: SourceResource) -> pl.DataFrame:
    """Days with their events and SNAP flags, past and known future."""
    return TABLES["raw_calendar"].conform(source.calendar())


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def raw_inventory(context: dg.AssetExecutionContext, source: SourceResource) -> ByStore:
    """Stock at the close of each day, what is on order and its lead time; M5 tells none."""
    cells = cells_of(context.partition_keys)
    return ByStore(
        cells.stores or source.stores(),
        lambda store_id: source.inventory(store_id, cells.first, cells.last),
    )
