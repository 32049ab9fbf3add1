"""Cleaning: every raw row is kept or quarantined, none is lost.

Belongs here: the two tables that split the raw one. Does not: the rules
(`forecast_core.source.clean`).
"""

import dagster as dg
import polars as pl

from forecast_assets.partitions import MONTH_STORE, RANGE_IS_ONE_RUN
from forecast_core.by_store import ByStore
from forecast_core.schema import TABLES
from forecast_core.source.clean import Cleaned, clean
from resources import DataSpan
from resources.meter import metered
from resources.sources import Source


@dg.multi_asset(
    outs={
        "cleaned_sales": dg.AssetOut(
            io_manager_key="hot_io_manager",
            kinds={"polars", "deltalake"},
            description="Sales that obey every rule, with the price of the day. Rows before an "
            "item's launch are kept, with on_sale = false.",
        ),
        "quarantined_sales": dg.AssetOut(
            io_manager_key="cold_io_manager",
            kinds={"polars", "deltalake"},
            description="Rows that broke a rule, each with the rule and its line in the source.",
        ),
    },
    partitions_def=MONTH_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
)
@metered
def split_sales(
    raw_sales: ByStore,
    raw_prices: ByStore,
    source: dg.ResourceParam[Source],
    span: dg.ResourceParam[DataSpan],
) -> tuple[ByStore, ByStore]:
    """Split raw sales by the rules of `clean` and the policy of their source."""
    spotless: set[str] = set()

    def split(store_id: str) -> Cleaned:
        return clean(
            raw_sales.load(store_id),
            raw_prices.load(store_id),
            policy=source.policy,
            last=span.last,
            often=span.frequency,
            series=source.series(),
        )

    def kept(store_id: str) -> pl.DataFrame:
        result = split(store_id)
        if result.quarantined.is_empty():
            spotless.add(store_id)
        return result.kept

    def quarantined(store_id: str) -> pl.DataFrame:
        # Asked for after `kept`: most stores have nothing to quarantine and are not read twice.
        if store_id in spotless:
            return TABLES["quarantined_sales"].schema.to_frame()
        return split(store_id).quarantined

    return ByStore(raw_sales.stores, kept), ByStore(raw_sales.stores, quarantined)
