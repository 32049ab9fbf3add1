"""Predictions: the floor for every item-store first, then upgrades by segment.

Belongs here: who is served by which forecaster, store by store. Does not: the forecasters.

The morning promise rests on `prediction_floor`, the cheapest pass; `prediction_daily` never
serves fewer rows than it.
"""

from collections.abc import Mapping
from datetime import date, timedelta

import dagster as dg
import polars as pl

from forecast_assets.ladder import SALES, Serving
from forecast_assets.newcomers import REASON as NEW
from forecast_assets.newcomers import Newcomers
from forecast_assets.partitions import (
    ANY_PARTITION,
    CUTOFF_STORE,
    CUTOFF_TO_MONTH_STORE,
    MONTH_OF_CUTOFF_STORE,
    RANGE_IS_ONE_RUN,
)
from forecast_assets.upgrading import Batch, Night, weights_of
from forecast_core import alignment
from forecast_core.by_store import ByStore
from forecast_core.calibration import Spreads
from forecast_core.cells import Cells
from forecast_core.closures import nothing_when_shut
from forecast_core.combination import Weights, combined
from forecast_core.prices import daily_prices
from forecast_core.quantiles import LEVELS, column_of, only_levels, with_quantiles
from forecast_core.rungs import floor, granted, upgrades
from forecast_core.rungs.frames import published, upgraded
from forecast_core.schema import TABLES
from forecast_core.segments import SegmentPolicy
from forecast_core.source.known_ahead import CLOSED
from resources import DataSpan, Settings
from resources.gate import granted as terms_of
from resources.lake import Lake
from resources.meter import Meter, metered
from resources.meter_share import Laps
from resources.partition_keys import decode
from resources.sources import Source
from resources.table_view import TableView

TOTALS = ["date", "store_id", "state_id", "dept_id", "units"]
FLOOR_REASON = "floor: published before any upgrade"


def _cells(context: dg.AssetExecutionContext) -> Cells:
    cells = decode(context.partition_keys, TABLES["prediction_daily"].cut).cells
    assert cells is not None and cells.stores is not None
    return cells


@dg.asset(
    partitions_def=CUTOFF_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={
        "cleaned_sales": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF_STORE),
    },
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake"},
    pool="inference",
    metadata={"cost/forecaster": "floor"},
)
@metered
def prediction_floor(
    context: dg.AssetExecutionContext,
    cleaned_sales: TableView,
    demand_segments: TableView,
    settings: dg.ResourceParam[Settings],
    span: dg.ResourceParam[DataSpan],
) -> ByStore:
    """The cheapest forecast of every item in every store: the mean of its last four weekdays."""
    cells = _cells(context)

    def of_store(store_id: str) -> pl.DataFrame:
        frames = []
        for cutoff in span.frequency.periods(cells.first, cells.last):
            items = demand_segments.latest(cutoff, stores=store_id)["item_id"].to_list()
            recent = Cells(cutoff, cutoff, (store_id,)).back(7 * floor.WEEKS)
            sales = cleaned_sales.frame(recent, SALES)
            rows = floor.seasonal_mean(sales, items, cutoff, span.days(settings.horizon))
            base = published(rows, store_id, cutoff, "floor", FLOOR_REASON)
            frames.append(span.frequency.only(base))
        return pl.concat(frames)

    return ByStore(cells.stores or (), of_store)


@dg.asset(
    partitions_def=CUTOFF_STORE,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={
        "feature_sales": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "cleaned_sales": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "raw_prices": dg.AssetIn(partition_mapping=CUTOFF_TO_MONTH_STORE),
        "demand_segments": dg.AssetIn(partition_mapping=MONTH_OF_CUTOFF_STORE),
        "forecasters": dg.AssetIn(partition_mapping=ANY_PARTITION),
    },
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake", "lightgbm"},
    pool="inference",
    metadata={"cost/forecaster": granted.WHOLE, "cost/rungs": ", ".join(granted.LADDER)},
)
@metered
def prediction_daily(
    context: dg.AssetExecutionContext,
    prediction_floor: ByStore,
    feature_sales: TableView,
    cleaned_sales: TableView,
    raw_prices: TableView,
    demand_segments: TableView,
    forecasters: TableView,
    raw_calendar: pl.DataFrame,
    settings: dg.ResourceParam[Settings],
    span: dg.ResourceParam[DataSpan],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    source: dg.ResourceParam[Source],
    lake: dg.ResourceParam[Lake],
    meter: dg.ResourceParam[Meter],
) -> ByStore:
    """Every item-store's forecast by the rung its segment earns, the floor where that fails.

    Under a rung that admission granted instead, nobody is served by a dearer one, and each
    forecast that is degraded says so.
    """
    cells = _cells(context)
    terms = terms_of(context.instance, context.run)
    laps = Laps(meter, context, "predict_seconds")
    serving = Serving(
        cleaned_sales, feature_sales, raw_prices, demand_segments, raw_calendar, context.log.warning
    )
    newcomers = Newcomers(cleaned_sales, raw_prices)
    closing = CLOSED in raw_prices.columns()
    horizon = span.days(settings.horizon)
    cutoffs = span.frequency.periods(cells.first, cells.last)
    night = Night(
        serving, forecasters, segment_policy, terms.rung, span.days, settings.horizon, laps
    )
    bounds = segment_policy.content.upgrades
    places = [(cutoff, store) for cutoff in cutoffs for store in cells.stores or ()]

    def more() -> upgrades.Room | None:
        grown = meter.grant(context, more=True)
        return None if grown is None else upgrades.Room.of(bounds, grown)

    room = upgrades.Room.of(bounds, meter.grant(context))
    batch = Batch(night, room, lambda day: _gains(lake, day), places, more)

    def of_cutoff(store_id: str, cutoff: date, base: pl.DataFrame) -> pl.DataFrame:
        better, left = batch.of(cutoff, store_id)
        known = night.known(cutoff, store_id)
        segments = known.segments
        ahead = Cells(cutoff + timedelta(days=1), cutoff + timedelta(days=horizon), (store_id,))
        # A price span is cut at month ends only: one that holds tomorrow may have begun before.
        planned = Cells(ahead.first.replace(day=1), ahead.last, (store_id,))
        today = Cells(cutoff, cutoff, (store_id,))
        rows = upgraded(_explained(base, segments, left), better)
        rows = granted.said(rows, segments, terms.rung, terms.reason)
        if source.plans and not span.frequency.weekly:
            prices = daily_prices(raw_prices.frame(planned), ahead.first, ahead.last)
            rows = newcomers.served(rows, segments, prices, cutoff, horizon)
        shapes = known.shapes
        if shapes is not None and not span.frequency.weekly:  # the shapes are of weekdays
            recent = cleaned_sales.frame(today.back(alignment.LEVEL_DAYS), TOTALS)
            totals = alignment.node_totals(recent)
            level = alignment.levels(totals, shapes, raw_calendar, cutoff, horizon)
            departments = segments.select("item_id", "store_id", "dept_id")
            boosted = alignment.expected(totals, shapes, raw_calendar, cutoff, horizon)
            rows = alignment.align(rows, departments, shapes, raw_calendar, level, boosted)
        rows = _with_floor(rows, base, segments, weights_of(known.spreads))
        rows = _spread_out(rows, segments, known.spreads, segment_policy)
        if closing:
            spans = raw_prices.frame(planned, ["date", "until", CLOSED])
            rows = nothing_when_shut(rows, spans)
        laps.lap(*known.shares.values())
        return rows

    def of_store(store_id: str) -> pl.DataFrame:
        laps.start()
        base = prediction_floor.load(store_id)
        return pl.concat(of_cutoff(store_id, day, base.filter(cutoff=day)) for day in cutoffs)

    return ByStore(cells.stores or (), of_store)


def _gains(lake: Lake, cutoff: date) -> upgrades.Gains:
    """What the newest backtest up to the cutoff measured; read past the graph, since a night goes
    on without one."""
    table = TableView(lake.table("eval_backtest"), lambda _: None)
    return upgrades.measured_gains(table.latest(cutoff))


def _explained(base: pl.DataFrame, segments: pl.DataFrame, left: Mapping[str, str]) -> pl.DataFrame:
    """Say why an item is on the floor: nothing sold, its segment, its group was not upgraded
    (`left`: group -> reason), a forecaster without answer."""
    group = pl.col("segment_group")
    reasons = segments.select(
        "item_id",
        reason=pl.when(pl.col("demand_class") == "none")
        .then(pl.lit(floor.UNSOLD))
        .when(pl.col("rung") == "floor")
        .then(pl.format("segment group {} is served by the floor", "segment_group"))
        .when(group.is_in(list(left)))
        .then(group.replace_strict(left, default=None, return_dtype=pl.String))
        .otherwise(pl.format("no forecast from rung {}: floor used instead", "rung")),
    )
    return base.drop("reason").join(reasons, on="item_id", how="left", maintain_order="left")


def _with_floor(
    rows: pl.DataFrame, base: pl.DataFrame, segments: pl.DataFrame, weights: Weights
) -> pl.DataFrame:
    """The floor in the part that held-back weeks say, and why; it knows nothing of what is new."""
    found = rows.join(
        segments.select("item_id", "segment_group"), on="item_id", how="left", maintain_order="left"
    ).join(
        base.select("item_id", "ds", floor="mean"),
        on=["item_id", "ds"],
        how="left",
        maintain_order="left",
    )
    new = pl.col("reason").eq_missing(NEW)
    mixed = combined(found, weights).with_columns(
        mean=pl.when(~new).then("mean").otherwise(found["mean"])
    )
    better = (pl.col("rung") != "floor") & ~new
    kinds = found.filter(better).select("segment_group", "rung").drop_nulls().unique()
    said = [(group, rung, weights.of(group, rung).said(rung)) for group, rung in kinds.iter_rows()]
    schema = {"segment_group": pl.String, "rung": pl.String, "said": pl.String}
    return (
        mixed.join(
            pl.DataFrame(said, schema=schema, orient="row"),
            on=["segment_group", "rung"],
            how="left",
            maintain_order="left",
        )
        .with_columns(
            reason=pl.when(better & pl.col("said").is_not_null())
            .then(pl.concat_str("reason", "said", separator="; ", ignore_nulls=True))
            .otherwise("reason")
        )
        .select(rows.columns)
    )


def _spread_out(
    rows: pl.DataFrame, segments: pl.DataFrame, spreads: Spreads | None, policy: SegmentPolicy
) -> pl.DataFrame:
    """Add the quantiles that each group publishes; null where no spread has been calibrated."""
    if spreads is None:
        return rows.with_columns(pl.lit(None, pl.Float64).alias(column_of(q)) for q in LEVELS)
    labels = rows.select("item_id").join(
        segments.select("item_id", "segment", "segment_group"),
        on="item_id",
        how="left",
        maintain_order="left",
    )
    wanted = {name: policy.group(name).quantiles for name in policy.groups}
    every = with_quantiles(rows, labels["segment"], spreads.daily)
    return only_levels(every, labels["segment_group"], wanted)
