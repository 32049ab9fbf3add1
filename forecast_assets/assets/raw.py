"""Landing: what the source says, untouched, a store at a time.

Belongs here: one asset for each table a source delivers. Does not: judging a row (`cleaned`)
or knowing a file format (`resources.sources`).
"""

import dagster as dg
import polars as pl

from forecast_assets.partitions import MONTH_STORE, RANGE_IS_ONE_RUN
from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from forecast_core.schema import TABLES
from forecast_core.source.upsert import prices_over, sales_over
from resources.lake import Lake
from resources.meter import metered
from resources.partition_keys import cells_of
from resources.sources import Source

SourceResource = dg.ResourceParam[Source]
LakeResource = dg.ResourceParam[Lake]


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def raw_sales(
    context: dg.AssetExecutionContext, source: SourceResource, lake: LakeResource
) -> ByStore:
    """Daily units by item and store as the source gives them, defects included."""
    cells = cells_of(context.partition_keys)

    def given(store_id: str) -> pl.DataFrame:
        rows = source.sales(store_id, cells.first, cells.last)
        return sales_over(_landed(lake, "raw_sales", cells.only(store_id)), rows) if adds else rows

    adds = source.adds
    return ByStore(cells.stores or source.stores(), given)


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def raw_prices(
    context: dg.AssetExecutionContext, source: SourceResource, lake: LakeResource
) -> ByStore:
    """Sell prices with the days they hold; a price that spans two months is two rows."""
    cells = cells_of(context.partition_keys)

    def given(store_id: str) -> pl.DataFrame:
        rows = source.prices(store_id, cells.first, cells.last)
        return (
            prices_over(_landed(lake, "raw_prices", cells.only(store_id)), rows) if adds else rows
        )

    adds = source.adds
    return ByStore(cells.stores or source.stores(), given)


def _landed(lake: Lake, name: str, cells: Cells) -> pl.DataFrame:
    table = lake.table(name)
    return table.read(cells).frame.collect() if table.exists() else table.empty()


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
