"""Backtests: every rung at past cutoffs, its accuracy beside its cost, and what levers would do.

Belongs here: how much is tried, and keeping what came of it. Does not: running a rung
(`forecast_core.evaluation.contest`), scoring (`forecast_core.evaluation.frontier`), or choosing a
lever.

Both take a sample of whole stores: a comparison needs many series, not all of them.
"""

import base64
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.networks import NeuralChallenger
from forecast_assets.partitions import ANY_PARTITION, CUTOFF_DAYS, MONTH_OF_CUTOFF
from forecast_assets.past import past_of
from forecast_core.cells import Cells
from forecast_core.evaluation import backtest, frontier, frontier_plot
from forecast_core.evaluation.accuracy import Scales, scales
from forecast_core.evaluation.contest import Contest, Setup, contest
from forecast_core.hierarchy import Hierarchy
from forecast_core.rungs.gbm import LEVELS, GbmSpec
from forecast_core.schema import TABLES
from forecast_core.segments import SegmentPolicy
from resources import DataSpan, Settings
from resources.meter import Meter, metered
from resources.meter_share import cpu_clock
from resources.table_view import TableView

WINDOWS = 3
SOLD = [*LEVELS, "date", "units", "sell_price"]
INPUTS = {
    "cleaned_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
    "feature_sales": dg.AssetIn(partition_mapping=ANY_PARTITION),
    "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF),
}


class BacktestConfig(dg.Config):
    """How much is tried: whole stores until `series` of them, over `windows` past horizons."""

    series: int = 9_000
    windows: int = WINDOWS


@dg.asset(
    pool="training",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins=INPUTS,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake", "lightgbm"},
)
@metered
def eval_backtest(
    context: dg.AssetExecutionContext,
    config: BacktestConfig,
    cleaned_sales: TableView,
    feature_sales: TableView,
    demand_segments: TableView,
    raw_calendar: pl.DataFrame,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    meter: dg.ResourceParam[Meter],
) -> dg.Output[pl.DataFrame]:
    """Every rung over past windows by level and segment, and the frontier of accuracy and cost.

    One fit serves all windows, as a forecaster does between two trainings.
    """
    as_of = date.fromisoformat(context.partition_key)
    past = past_of(cleaned_sales, feature_sales, raw_calendar)
    series = _sample(demand_segments.latest(as_of), config.series)
    windows = backtest.origins(as_of, settings.horizon, config.windows)
    spec = GbmSpec.of_size("full", series.height)
    _warm_up()
    setup = Setup(spec, **_challenge(segment_policy))
    held = contest(past, series, windows, settings.horizon, segment_policy, cpu_clock, setup)
    by = _scales(cleaned_sales, series, span.first, held)
    scored = frontier.by_segment(past, held, by, _usd_per_cpu_s(meter))
    levels = frontier.by_level(past, held, by)
    table = frontier.frontier(scored)
    for row in table.filter("efficient").iter_rows(named=True):
        context.log.info(
            f"{row['segment']}: {row['forecaster']} at {row['cpu_ms_per_series']:.2f} CPU-ms a "
            f"series has WRMSSE {_figure(row['wrmsse'])}"
        )
    rows = pl.concat(
        [
            levels.with_columns(scope=pl.lit("level"), name=pl.col("level")),
            scored.with_columns(scope=pl.lit("segment"), name=pl.col("segment")),
        ],
        how="diagonal_relaxed",
    )
    picture = base64.b64encode(frontier_plot.svg(table).encode()).decode()
    return dg.Output(
        _conform("eval_backtest", rows, as_of),
        metadata={
            "windows": dg.MetadataValue.json([day.isoformat() for day in windows]),
            "series": series.height,
            "frontier": dg.MetadataValue.md(_markdown(table)),
            "frontier_plot": dg.MetadataValue.md(
                f"![frontier](data:image/svg+xml;base64,{picture})"
            ),
        },
    )


@dg.asset(
    pool="training",
    partitions_def=CUTOFF_DAYS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins=INPUTS,
    io_manager_key="warm_io_manager",
    kinds={"polars", "deltalake", "lightgbm"},
)
@metered
def eval_levers(
    context: dg.AssetExecutionContext,
    config: BacktestConfig,
    cleaned_sales: TableView,
    feature_sales: TableView,
    demand_segments: TableView,
    raw_calendar: pl.DataFrame,
    settings: dg.ResourceParam[Settings],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    meter: dg.ResourceParam[Meter],
) -> pl.DataFrame:
    """What each lever would have saved and missed at past windows: what `forecast levers` reads.

    Fits anew at every window with every feature set, so it tries a third of the series only.
    """
    as_of = date.fromisoformat(context.partition_key)
    past = past_of(cleaned_sales, feature_sales, raw_calendar)
    series = _sample(demand_segments.latest(as_of), max(config.series // 3, 1))
    windows = backtest.origins(as_of, settings.horizon, config.windows)
    setup = Setup(
        GbmSpec(per_origin=2, rounds=120, learning_rate=0.1),
        features=("full", "reduced", "minimal"),
        refit=True,
        governed=False,
        **_challenge(segment_policy),
    )
    _warm_up()
    held = contest(past, series, windows, settings.horizon, segment_policy, cpu_clock, setup)
    rows = frontier.lever_backtests(past, held, segment_policy, _usd_per_cpu_s(meter))
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(settings.state_dir / "lever_backtests.parquet")
    context.log.info(f"{rows.height} rows for `forecast levers propose`")
    return _conform("eval_levers", rows, as_of)


def _conform(name: str, rows: pl.DataFrame, as_of: date) -> pl.DataFrame:
    table = TABLES[name]
    dated = rows.with_columns(as_of=pl.lit(as_of))
    missing = [column for column in table.columns if column not in dated.columns]
    return table.conform(dated.with_columns(pl.lit(None).alias(column) for column in missing))


def _challenge(policy: SegmentPolicy) -> dict[str, Any]:
    """The neural rung on its own series, where the policy has it serve any."""
    if not any(group.enabled and group.rung == "neural" for group in policy.content.groups):
        return {}
    return {
        "challengers": {"neural": NeuralChallenger()},
        "challenged": lambda members: members.filter(rung="neural"),
    }


def _warm_up() -> None:
    """Import what the rungs import, so that no rung is charged for it."""
    import lightgbm  # noqa: F401
    import statsforecast.models  # noqa: F401


def _sample(segments: pl.DataFrame, series: int) -> pl.DataFrame:
    every = segments.select(LEVELS)
    return every.filter(pl.col("store_id").is_in(backtest.sample_stores(every, series)))


def _scales(
    cleaned_sales: TableView, series: pl.DataFrame, first: date, held: Contest
) -> dict[date, Scales]:
    hierarchy = Hierarchy.of(series.sort("store_id", "item_id"))
    stores = tuple(series["store_id"].unique().sort())
    found = {}
    for day in held.members:
        history = cleaned_sales.by_store(Cells(first, day, stores), SOLD)
        found[day] = scales(history.frames(), hierarchy, first, day)
    return found


def _usd_per_cpu_s(meter: Meter) -> float:
    today = datetime.now(UTC).date()  # money is of today, whatever day the data are of
    return float(meter.card.on(today, meter.environment).of("vcpu_s"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _markdown(table: pl.DataFrame) -> str:
    columns: dict[str, Callable[[Any], str]] = {
        "segment": str, "forecaster": str, "series": str, "wape": _figure, "wrmsse": _figure,
        "fva_wrmsse": _figure, "cpu_ms_per_series": _figure,
        "wrmsse_gained_per_cpu_s": _figure, "wrmsse_gained_per_usd": _figure, "efficient": str,
    }  # fmt: skip
    head = " | ".join(columns)
    rows = [
        " | ".join(show(row[name]) for name, show in columns.items())
        for row in table.iter_rows(named=True)
    ]
    return "\n".join([f"| {head} |", "|" + " --- |" * len(columns), *(f"| {r} |" for r in rows)])
