"""Features: what is known of each item in each store at the end of an origin day.

Belongs here: which days are origins and which history they need. Does not: the features
themselves (`forecast_core.rungs.origin_features`).
"""

import dagster as dg

from forecast_assets.partitions import MONTH_STORE, RANGE_IS_ONE_RUN, months_back
from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from forecast_core.rungs import origin_features
from forecast_core.schema import TABLES
from resources import DataSpan
from resources.meter import metered
from resources.partition_keys import decode
from resources.table_view import TableView

READ = ["item_id", "dept_id", "store_id", "date", "units", "sell_price"]
MONTHS_OF_HISTORY = -(-origin_features.HISTORY_DAYS // 30)


@dg.asset(
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={"cleaned_sales": dg.AssetIn(partition_mapping=months_back(MONTHS_OF_HISTORY))},
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def feature_sales(
    context: dg.AssetExecutionContext,
    cleaned_sales: TableView,
    span: dg.ResourceParam[DataSpan],
) -> ByStore:
    """Means, same-weekday means, prices, a year ago: nothing from after the origin day."""
    cells = decode(context.partition_keys, TABLES["feature_sales"].cut).cells
    assert cells is not None
    until = min(cells.last, span.as_of)
    if until < cells.first:
        return ByStore((), lambda _: TABLES["feature_sales"].schema.to_frame())
    origins = (
        span.frequency.periods(cells.first, until)
        if span.frequency.weekly
        else origin_features.origin_days(cells.first, until, (span.as_of,))
    )
    history = Cells(cells.first, until, cells.stores).back(origin_features.HISTORY_DAYS)
    return cleaned_sales.by_store(history, READ).map(
        lambda sales: origin_features.build(sales, origins)
    )
