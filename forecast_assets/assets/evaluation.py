"""Publishing at every level, and the score of what was published.

Belongs here: the assets of one cutoff over all stores. Does not: the arithmetic
(`forecast_core.reconcile`, `forecast_core.evaluation.accuracy`).
"""

from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.partitions import (
    ANY_PARTITION,
    CUTOFF_DAYS,
    FREQUENCY,
    HORIZON,
    MONTH_OF_CUTOFF,
    STORES_OF_CUTOFF,
)
from forecast_assets.reconciling import Reconciler
from forecast_core.cells import Cells
from forecast_core.evaluation.accuracy import evaluate, fva, scales
from forecast_core.frequency import Frequency
from forecast_core.reconciliation_policy import Reconciliation
from forecast_core.rungs.floor import seasonal_mean
from forecast_core.rungs.frames import published
from forecast_core.schema import TABLES
from resources import DataSpan, Settings
from resources.factor_cache import FactorCache
from resources.meter import metered
from resources.table_view import TableView

SALES = ["date", "units"]
SOLD = ["item_id", "store_id", *SALES, "sell_price"]
# Of the sales these read what there is: months to come must not hold them up.
LANDED = dg.AssetSelection.assets("cleaned_sales")


def _when_sold(horizon: timedelta, step: timedelta) -> dg.AutomationCondition[Any]:
    """The cutoff whose horizon the last sales complete: a younger one has less to be held against,
    an older one was scored when it was this old."""
    condition = dg.AutomationCondition
    complete = condition.in_latest_time_window(horizon + step) & ~condition.in_latest_time_window(
        horizon
    )
    return (
        complete
        & (complete & condition.any_deps_updated()).since_last_handled()
        & ~condition.any_deps_missing().ignore(LANDED)
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
    )


@dg.asset(
    pool="monitoring",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={
        "prediction_daily": dg.AssetIn(partition_mapping=STORES_OF_CUTOFF),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
        "cleaned_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
    },
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake"},
    metadata={"cost/pipeline": "reconciliation"},
    automation_condition=dg.AutomationCondition.eager().ignore(LANDED),
)
@metered
def prediction_reconciled(
    context: dg.AssetExecutionContext,
    prediction_daily: pl.DataFrame,
    demand_segments: TableView,
    cleaned_sales: TableView,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
    reconciliation: dg.ResourceParam[Reconciliation],
) -> dg.Output[pl.DataFrame]:
    """Coherent forecasts of every declared level: each node is the sum of the item-stores below.

    By the policy's method the item-stores also hear what the coarse levels forecast of themselves.
    """
    often = span.frequency
    night = Reconciler(
        reconciliation,
        reconciliation.hierarchy(demand_segments.latest(_day(context))),
        cleaned_sales,
        FactorCache(settings.factors, reconciliation.kept_factors),
        often,
    )
    made = night.run(often.numbered(prediction_daily, "cutoff", "ds"))
    return dg.Output(often.dated(made.rows, "cutoff", "ds"), metadata=made.facts)


@dg.asset(
    pool="monitoring",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={
        "prediction_floor": dg.AssetIn(partition_mapping=STORES_OF_CUTOFF),
        "prediction_daily": dg.AssetIn(partition_mapping=STORES_OF_CUTOFF),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
        "cleaned_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
    },
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
    automation_condition=_when_sold(HORIZON, timedelta(days=FREQUENCY.step)),
)
@metered
def eval_accuracy(
    context: dg.AssetExecutionContext,
    prediction_floor: pl.DataFrame,
    prediction_daily: pl.DataFrame,
    demand_segments: TableView,
    cleaned_sales: TableView,
    span: dg.ResourceParam[DataSpan],
    reconciliation: dg.ResourceParam[Reconciliation],
) -> pl.DataFrame:
    """WAPE, bias and WRMSSE by level against the naive floor; empty until actuals arrive."""
    cutoff = _day(context)
    horizon = Cells(cutoff + timedelta(days=1), prediction_daily.select(pl.max("ds")).item())
    actual = cleaned_sales.frame(horizon, SOLD)
    if actual.is_empty():
        context.log.info(f"no sales after {cutoff} yet: nothing to score")
        return TABLES["eval_accuracy"].schema.to_frame()
    hierarchy = reconciliation.hierarchy(demand_segments.latest(cutoff))
    often = span.frequency
    history = cleaned_sales.by_store(Cells(span.first, cutoff), SOLD).map(
        lambda sold: often.numbered(sold, "date")
    )
    days = often.numbered_day(span.first), often.numbered_day(cutoff)
    by = scales(history.frames(), hierarchy, *days)
    naive = often.only(_seasonal_naive(prediction_floor, cleaned_sales, cutoff, often))
    compared = {"seasonal_naive": naive, "floor": prediction_floor, "governed": prediction_daily}
    actual = often.numbered(actual, "date")
    scored = [
        evaluate(often.numbered(prediction, "cutoff", "ds"), actual, by, name)
        for name, prediction in compared.items()
    ]
    return often.dated(fva(pl.concat(scored, how="diagonal"), floor="seasonal_naive"), "cutoff")


def _seasonal_naive(
    served: pl.DataFrame, cleaned_sales: TableView, cutoff: date, often: Frequency
) -> pl.DataFrame:
    """Last week again, for whoever was served: what any forecast must beat."""
    week = cleaned_sales.frame(Cells(cutoff, cutoff).back(6), ["item_id", "store_id", *SALES])
    horizon = served["ds"].n_unique() * often.step
    naive = []
    for (store_id,), rows in served.partition_by("store_id", as_dict=True).items():
        items = rows["item_id"].unique().to_list()
        last_week = week.filter(store_id=store_id)
        mean = seasonal_mean(last_week, items, cutoff, horizon, weeks=1)
        naive.append(published(mean, str(store_id), cutoff, "floor", "seasonal naive"))
    return pl.concat(naive)


def _day(context: dg.AssetExecutionContext) -> date:
    return date.fromisoformat(context.partition_key)
