"""Tuning: settings searched under a budget, and the champion replaced when it surely pays.

Belongs here: what is searched and on which series. Does not: the search or the verdict
(`forecast_core.evaluation.tuning`), nor the decision log (`forecast_assets.champions`).
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.champions import champions, promote
from forecast_assets.partitions import ANY_PARTITION, CUTOFF_DAYS, MONTH_OF_CUTOFF
from forecast_assets.past import past_of
from forecast_core.cells import Cells
from forecast_core.evaluation import backtest, frontier
from forecast_core.evaluation.accuracy import Scales, scales
from forecast_core.evaluation.backtest import Past
from forecast_core.evaluation.contest import Run
from forecast_core.evaluation.tuning import Choice, Range, Space, compare, search
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs import gbm
from forecast_core.schema import TABLES
from forecast_core.segments import SegmentPolicy
from resources import DataSpan, Settings
from resources.meter import Meter, metered
from resources.table_view import TableView

SPACE: Space = {
    "loss": Choice(gbm.LOSSES),
    "rounds": Range(80, 500, log=True, whole=True),
    "learning_rate": Range(0.03, 0.2, log=True),
    "num_leaves": Range(16, 192, log=True, whole=True),
    "min_data_in_leaf": Range(50, 1000, log=True, whole=True),
    "feature_fraction": Range(0.3, 0.9),
    "lambda_l2": Range(0.1, 20.0, log=True),
}
SOLD = [*gbm.LEVELS, "date", "units", "sell_price"]
WINDOWS = 4  # one to search on, the others to judge what won


class TuningConfig(dg.Config):
    """What is tuned, on how many series, for how many CPU-seconds, and what accuracy is worth.

    `worth_per_error`: money a period for an item-store WRMSSE lower by 1, from whoever uses the
    forecasts; the search weighs it over `periods` of use.
    """

    group: str = "gbm_core"
    series: int = 1_500
    budget_cpu_s: float = 300.0
    worth_per_error: float = 50.0
    periods: int = 6


@dg.asset(
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={
        "cleaned_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
        "feature_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
    },
    io_manager_key="warm_io_manager",
    kinds={"lightgbm", "deltalake"},
)
@metered
def eval_tuning(
    context: dg.AssetExecutionContext,
    config: TuningConfig,
    cleaned_sales: TableView,
    feature_sales: TableView,
    demand_segments: TableView,
    raw_calendar: pl.DataFrame,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    meter: dg.ResourceParam[Meter],
) -> pl.DataFrame:
    """Trials of one group's settings; a winner over three windows that pays becomes champion."""
    as_of = date.fromisoformat(context.partition_key)
    group = segment_policy.group(config.group)
    members = demand_segments.latest(as_of).filter(segment_group=config.group)
    taken = backtest.sample_stores(members, config.series)
    members = members.filter(pl.col("store_id").is_in(taken)).select(gbm.LEVELS)
    past = past_of(cleaned_sales, feature_sales, raw_calendar, span.frequency.step)
    horizon = span.days(settings.horizon)
    # What won the search is judged where it was not searched.
    searched, *windows = backtest.origins(as_of, horizon, WINDOWS)
    if members.is_empty():
        context.log.info(f"{config.group} has no members: nothing to tune")
        return TABLES["eval_tuning"].schema.to_frame()
    by = {day: _scales(cleaned_sales, members, span.first, day) for day in (searched, *windows)}
    spec = gbm.GbmSpec.of_size(group.features, members.height)
    spec = replace(spec, per_origin=min(spec.per_origin, 2), **champions(settings, config.group))
    rate = float(meter.card.on(datetime.now(UTC).date(), meter.environment).of("vcpu_s"))

    def tried(changed: Mapping[str, Any], day: date) -> tuple[float, float]:
        began = time.process_time()
        error = _error(past, members, day, horizon, replace(spec, **changed), by[day])
        return error, time.process_time() - began

    today = {name: asdict(spec)[name] for name in SPACE}
    found = search(
        lambda changed: tried(changed, searched),
        today,
        SPACE,
        budget_cpu_s=config.budget_cpu_s,
        worth_per_error=config.worth_per_error * config.periods,
        usd_per_cpu_s=rate,
    )
    context.log.info(
        f"{len(found.trials)} trials in {found.cpu_s:.0f} CPU-s, stopped by {found.stopped}; "
        f"error {found.trials[0].error:.4f} -> {found.best.error:.4f}"
    )
    verdict = None
    if found.best is not found.trials[0]:
        pairs = [[tried(of, day) for day in windows] for of in (today, found.best.settings)]
        champion, challenger = ([(e, s * rate) for e, s in each] for each in pairs)
        judged = compare(champion, challenger, config.worth_per_error)
        verdict = judged.verdict
        context.log.info(f"{judged}")
        if verdict == "promote":
            key = promote(settings, config.group, found.best.settings, judged)
            context.log.info(
                f"promoted by decision {key}; `forecast levers revert {key}` undoes it"
            )
    rows = [
        {
            "as_of": as_of,
            "segment_group": config.group,
            "trial": at,
            "settings": json.dumps(dict(trial.settings), sort_keys=True),
            "error": trial.error,
            "cpu_s": trial.cpu_s,
            "verdict": verdict if trial is found.best else None,
        }
        for at, trial in enumerate(found.trials)
    ]
    return pl.DataFrame(rows, schema=TABLES["eval_tuning"].schema)


def _error(
    past: Past, members: pl.DataFrame, day: date, horizon: int, spec: gbm.GbmSpec, by: Scales
) -> float:
    """Revenue-weighted RMSSE of the members at one window."""
    model = gbm.Model(backtest.fit_gbm(past, members, day, horizon, spec).artefact)
    rows = backtest.run_gbm(past, model, members, day, horizon)
    return frontier.weighted_rmsse(frontier.per_series(past, Run("gbm", day, day, rows, 0, 0), by))


def _scales(sales: TableView, members: pl.DataFrame, first: date, day: date) -> Scales:
    hierarchy = Hierarchy.of(members.sort("store_id", "item_id"))
    stores = tuple(members["store_id"].unique().sort())
    own = members.select("item_id", "store_id")
    history = (
        (store, rows.join(own, on=["item_id", "store_id"], how="semi"))
        for store, rows in sales.by_store(Cells(first, day, stores), SOLD).frames()
    )
    return scales(history, hierarchy, first, day)
