"""Explanations: why the forecasts that matter changed, as a history by cutoff and store.

Belongs here: reading what is explained, and saying how much was covered. Does not: TreeSHAP or
its budget (`forecast_core.explain`).
"""

from datetime import timedelta

import dagster as dg
import polars as pl

from forecast_assets.ladder import NOTHING_LEARNT
from forecast_assets.partitions import (
    ANY_PARTITION,
    CUTOFF_STORE,
    CUTOFF_TO_MONTH_STORE,
    MONTH_OF_CUTOFF_STORE,
    RANGE_IS_ONE_RUN,
)
from forecast_core import explain
from forecast_core.cells import Cells
from forecast_core.prices import daily_prices
from forecast_core.rungs import gbm
from forecast_core.schema import TABLES
from resources import DataSpan, Settings
from resources.meter import metered
from resources.partition_keys import decode
from resources.table_view import TableView

_LOOK_BACK_DAYS = 35  # for the forecast before this one


class ExplanationConfig(dg.Config):
    """The budget: rows that TreeSHAP is run on, three an item; about 15 CPU-ms each."""

    rows: int = 3_000


@dg.asset(
    partitions_def=CUTOFF_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={
        "feature_sales": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "raw_prices": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF_STORE),
        "forecasters": dg.AssetIn(partition_mapping=ANY_PARTITION),
    },
    io_manager_key="warm_io_manager",
    kinds={"lightgbm", "deltalake"},
)
@metered
def prediction_explanations(
    context: dg.AssetExecutionContext,
    config: ExplanationConfig,
    prediction_daily: TableView,
    feature_sales: TableView,
    raw_prices: TableView,
    demand_segments: TableView,
    forecasters: TableView,
    raw_calendar: pl.DataFrame,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
) -> pl.DataFrame:
    """Contributions of features to the forecasts of class A items that changed, under a budget."""
    table = TABLES["prediction_explanations"]
    cells = decode(context.partition_keys, table.cut).cells
    assert cells is not None and cells.stores is not None
    horizon = span.days(settings.horizon)
    found = [table.schema.to_frame()]
    for cutoff in span.frequency.periods(cells.first, cells.last):
        segments = demand_segments.latest(cutoff)
        of_stores = segments.filter(pl.col("store_id").is_in(cells.stores))
        today = prediction_daily.frame(Cells(cutoff, cutoff, cells.stores))
        yesterday = cutoff - timedelta(days=1)
        before = prediction_daily.latest(yesterday, within_days=_LOOK_BACK_DAYS)
        candidates = explain.changed(today, before, of_stores)
        chosen, coverage = explain.within(candidates, config.rows)
        context.log.info(f"{cutoff}: {coverage}")
        for row in forecasters.latest(cutoff, by=["segment_group"]).iter_rows(named=True):
            members = chosen.filter(segment_group=row["segment_group"])
            learnt = row["rung"] == "gbm" and row["artefact"] != NOTHING_LEARNT
            if not learnt or members.is_empty():
                continue
            model = gbm.Model(row["artefact"])
            for (store_id,), own in members.partition_by("store_id", as_dict=True).items():
                store = (str(store_id),)
                ahead = Cells(cutoff + timedelta(days=1), cutoff + timedelta(days=horizon), store)
                planned = Cells(ahead.first.replace(day=1), ahead.last, store)
                prices = daily_prices(raw_prices.frame(planned), ahead.first, ahead.last)
                features = feature_sales.frame(Cells(cutoff, cutoff, store))
                rows = explain.explain(model, features, prices, own, raw_calendar, cutoff, horizon)
                found.append(
                    table.conform(
                        rows.with_columns(cutoff=pl.lit(cutoff), version=pl.lit(row["version"]))
                    )
                )
    return pl.concat(found)
