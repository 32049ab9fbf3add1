"""Monitoring: what forecasters meet against what they were trained on, and how they fare.

Belongs here: gathering the windows, keeping scores, and the report where there is something to
see. Does not: the distances (`resources.drift_report`), verdicts
(`forecast_core.evaluation.drift`), or the reaction (`sensors_drift`). There is no setting that
turns any of it off.
"""

from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl

from forecast_assets.partitions import ANY_PARTITION, CUTOFF_DAYS, MONTH_OF_CUTOFF
from forecast_core.cells import Cells
from forecast_core.evaluation import drift
from forecast_core.evaluation.live_accuracy import ALL, live_accuracy
from forecast_core.schema import TABLES
from resources import DataSpan, Settings
from resources.drift_report import Comparison
from resources.meter import metered
from resources.table_view import TableView

SALES = ["item_id", "store_id", "date", "units", "sell_price"]
PREDICTED = ["item_id", "store_id", "ds", "cutoff", "mean", "rung"]


@dg.asset(
    pool="monitoring",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={
        **{
            name: dg.AssetIn(partition_mapping=ANY_PARTITION)
            for name in ("cleaned_sales", "feature_sales", "prediction_daily", "forecasters")
        },
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
    },
    io_manager_key="warm_io_manager",
    kinds={"evidently", "deltalake"},
)
@metered
def monitor_drift(
    context: dg.AssetExecutionContext,
    cleaned_sales: TableView,
    feature_sales: TableView,
    prediction_daily: TableView,
    forecasters: TableView,
    demand_segments: TableView,
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pl.DataFrame]:
    """Target, prices, features and predictions of each group since its forecaster was trained."""
    cutoff = date.fromisoformat(context.partition_key)
    segments = demand_segments.latest(cutoff)
    fitted = forecasters.latest(cutoff, by=["segment_group"])
    rows, reports = [TABLES["monitor_drift"].schema.to_frame()], {}
    verdicts: dict[str, str] = {}
    for group, trained_to in fitted["segment_group", "trained_to"].sort("segment_group").rows():
        members = segments.filter(segment_group=group).select(drift.SERIES)
        if members.is_empty():
            continue  # one fit for all groups has no members of its own
        first_then, first_now = drift.windows(trained_to, cutoff)
        reference, current = (
            _met(cells, members, cleaned_sales, feature_sales, prediction_daily)
            for cells in (Cells(first_then, trained_to), Cells(first_now, cutoff))
        )
        compared = Comparison(reference, current)
        scored = drift.judged(group, cutoff, trained_to, reference, current, compared.scores)
        found = drift.verdict(scored)
        verdicts[group] = f"{'drifted' if found.drifted else 'quiet'}: {found.reason}"
        context.log.info(f"{group}, trained to {trained_to}: {verdicts[group]}")
        if found.drifted:
            path = compared.save(_reports(settings) / cutoff.isoformat() / f"{group}.html")
            if path is not None:
                reports[f"report/{group}"] = dg.MetadataValue.path(str(path))
        rows.append(scored)
    table = pl.concat(rows)
    return dg.Output(
        table,
        metadata={
            "groups": len(verdicts),
            "drifted": table.filter("drifted")["segment_group"].n_unique(),
            "verdicts": dg.MetadataValue.json(verdicts),
            "scores": dg.MetadataValue.md(_markdown(table)),
            **reports,
        },
    )


@dg.asset(
    pool="monitoring",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={
        **{
            name: dg.AssetIn(partition_mapping=ANY_PARTITION)
            for name in ("cleaned_sales", "prediction_daily", "prediction_floor")
        },
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
    },
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def monitor_accuracy(
    context: dg.AssetExecutionContext,
    cleaned_sales: TableView,
    prediction_daily: TableView,
    prediction_floor: TableView,
    demand_segments: TableView,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
) -> dg.Output[pl.DataFrame]:
    """Every forecast of the last weeks against what was sold, by segment, store, rung, horizon."""
    day = date.fromisoformat(context.partition_key)
    scored = Cells(day, day).back(drift.WINDOW_DAYS - 1)
    made = scored.back(span.days(settings.horizon))
    groups = demand_segments.latest(day).select(*drift.SERIES, "segment_group")
    within = pl.col("ds").is_between(scored.first, day)
    table = live_accuracy(
        day,
        prediction_daily.frame(made, where=within),
        prediction_floor.frame(made, PREDICTED, where=within),
        cleaned_sales.frame(made, SALES[:4]).filter(pl.col("date") >= scored.first),
        groups,
    )
    whole = table.filter(
        pl.all_horizontal(pl.col("store_id", "forecaster", "horizon") == ALL)
    ).select("segment_group", "series", "wape", "bias", "coverage80", "scaled_pinball", "fva_wape")
    if table.is_empty():
        context.log.info(f"no forecast of the {drift.WINDOW_DAYS} days up to {day}: none to score")
    figures = whole.filter(segment_group=ALL)
    return dg.Output(
        table,
        metadata={
            "scored_groups": max(whole.height - 1, 0),
            "by_group": dg.MetadataValue.md(_markdown(whole)),
            **{
                name: float(figures[name].item())
                for name in ("wape", "bias", "coverage80", "scaled_pinball", "fva_wape")
                if figures.height and figures[name].item() is not None
            },
        },
    )


def _met(
    cells: Cells,
    members: pl.DataFrame,
    cleaned_sales: TableView,
    feature_sales: TableView,
    prediction_daily: TableView,
) -> pl.DataFrame:
    """What a group's forecaster meets in a window, a bounded sample: one float column a figure.

    The three tables lie under each other, each with nulls for the others' columns.
    """
    known = feature_sales.columns()
    watched = [name for name in drift.WATCHED_FEATURES if name in known]
    parts = (
        (cleaned_sales.frame(cells, SALES), ["units", "sell_price"]),
        (feature_sales.frame(cells, [*SALES[:3], *watched]), watched),
        (_last_made(prediction_daily, cells.last), ["mean"]),
    )
    kept = []
    for frame, columns in parts:
        own = frame.join(members, on=drift.SERIES, how="semi").sort(*drift.SERIES, frame.columns[2])
        kept.append(drift.sample(own).select(pl.col(columns).cast(pl.Float64)))
    return pl.concat(kept, how="diagonal")


def _last_made(prediction_daily: TableView, day: date) -> pl.DataFrame:
    """The forecast made on `day`; none where no one was made that day."""
    return prediction_daily.frame(Cells(day, day), ["item_id", "store_id", "ds", "mean"])


def _reports(settings: Settings) -> Path:
    return settings.state_dir / settings.dataset / "drift"


def _markdown(table: pl.DataFrame) -> str:
    shown = table.drop("cutoff", strict=False)
    head = " | ".join(shown.columns)
    lines = [f"| {head} |", "|" + " --- |" * len(shown.columns)]
    for row in shown.iter_rows():
        cells = (f"{v:.3f}" if isinstance(v, float) else "" if v is None else str(v) for v in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
