"""What orchestration adds: the graph beside the same functions called one after the other.

Both sides land, clean, build features, train, forecast and store the same demo data in the same
kind of lake; the graph adds Dagster (runs, events, metadata), the meter and the ledger.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from benchmarks._apart import apart

SCALES = {True: (600, 3, 730), False: (6_000, 10, 1_000)}  # series, stores, days


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds of both sides, the overhead in percent, and how much there was to orchestrate."""
    series, stores, days = SCALES[quick]
    with tempfile.TemporaryDirectory() as scratch:
        direct = apart(_directly, scratch, series, stores, days)
        graph = apart(_through_the_graph, scratch, series, stores, days)
    direct_cpu_s, rows = direct.result
    graph_cpu_s, graph_rows, partitions, steps = graph.result
    if rows != graph_rows:
        raise AssertionError(f"the two sides made different tables: {rows} and {graph_rows} rows")
    return {
        "overhead_pct": 100 * (graph_cpu_s - direct_cpu_s) / direct_cpu_s,
        "graph_cpu_s": graph_cpu_s,
        "direct_cpu_s": direct_cpu_s,
        "partitions": partitions,
        "steps": steps,
        "series": series,
        "stores": stores,
        "days": days,
        "graph_peak_gb": graph.peak_gb,
        "direct_peak_gb": direct.peak_gb,
    }


def _directly(scratch: str, series: int, stores: int, days: int) -> tuple[float, int]:
    """CPU-seconds and forecast rows of the same work without Dagster, meter or ledger."""
    from forecast_core.cells import Cells
    from forecast_core.clean import clean
    from forecast_core.generate import DemoSpec
    from forecast_core.hierarchy import Hierarchy
    from forecast_core.prices import daily_prices
    from forecast_core.reconcile import bottom_up
    from forecast_core.rungs import floor, gbm, origin_features
    from forecast_core.rungs.frames import published, upgraded
    from forecast_core.segments import SegmentPolicy, classify, measure
    from resources import Settings
    from resources.lake import Lake
    from resources.policies import load_policy
    from resources.sources import DemoSource

    began = time.process_time()
    source = DemoSource(DemoSpec(series=series, stores=stores, days=days))
    first, cutoff = source.span()
    horizon = 28
    lake = Lake(Path(scratch) / "direct", as_of=cutoff)
    policy = load_policy(Settings().segment_policy, SegmentPolicy.parse)
    calendar = source.calendar()
    names = source.stores()
    lake.table("raw_calendar").replace(calendar, None)
    for store in names:
        cells = Cells(first.replace(day=1), cutoff, (store,))
        ahead = replace(cells, last=cutoff + timedelta(days=horizon))
        lake.table("raw_prices").replace(source.prices(store, ahead.first, ahead.last), ahead)
        lake.table("raw_sales").replace(source.sales(store, first, cutoff), cells)
        split = clean(
            lake.table("raw_sales").read(cells).frame.collect(),
            lake.table("raw_prices").read(cells).frame.collect(),
        )
        lake.table("cleaned_sales").replace(split.kept, cells)
        lake.table("quarantined_sales").replace(split.quarantined, cells, "cold")
    cleaned = lake.table("cleaned_sales")
    window = Cells(cutoff, cutoff).back(policy.window_days - 1)
    measured = [measure(rows, cutoff, policy) for _, rows in cleaned.by_store(window).frames()]
    segments = classify(pl.concat(measured), cutoff, policy)
    core = segments.filter(rung="gbm")
    coding = gbm.Coding.of(calendar, core)
    spec = gbm.GbmSpec.of_size("full", core.height)
    parts, today = [], {}
    since = max(first, cutoff - timedelta(days=gbm.TRAINING_DAYS)).replace(day=1)
    origins = origin_features.origin_days(since, cutoff, (cutoff,))
    for store in names:
        window = Cells(since, cutoff, (store,))
        history = cleaned.read(window.back(origin_features.HISTORY_DAYS)).frame.collect()
        features = origin_features.build(history, origins)
        lake.table("feature_sales").replace(features, window)
        today[store] = features.filter(date=cutoff)
        sales = cleaned.read(window).frame.collect()
        mine = core.filter(store_id=store)
        parts.append(gbm.examples(features, sales, mine, calendar, coding, cutoff, horizon, spec))
    model = gbm.Model(gbm.fit(parts, coding, spec).artefact)
    made = []
    for store in names:
        one = Cells(cutoff, cutoff, (store,))
        items = segments.filter(store_id=store)
        recent = cleaned.read(one.back(28)).frame.collect()
        rows = floor.seasonal_mean(recent, items["item_id"].to_list(), cutoff, horizon)
        base = published(rows, store, cutoff, "floor", None)
        lake.table("prediction_floor").replace(base, one)
        ahead = Cells(cutoff + timedelta(days=1), cutoff + timedelta(days=horizon), (store,))
        spans = lake.table("raw_prices").read(ahead).frame.collect()
        prices = daily_prices(spans, ahead.first, ahead.last)
        better = model.predict(
            today[store], prices, items.filter(rung="gbm"), calendar, cutoff, horizon
        )
        daily = upgraded(base, {"gbm": better})
        lake.table("prediction_daily").replace(daily, one)
        made.append(daily)
    forecasts = pl.concat(made)
    nodes = bottom_up(forecasts, Hierarchy.of(segments))
    lake.table("prediction_reconciled").replace(nodes, Cells(cutoff, cutoff))
    return time.process_time() - began, forecasts.height


def _through_the_graph(
    scratch: str, series: int, stores: int, days: int
) -> tuple[float, int, int, int]:
    """CPU-seconds, forecast rows, partitions materialized and steps of the graph."""
    from benchmarks.m5_cycle import installation

    os.environ.update(installation(Path(scratch) / "graph"))
    os.environ.update(
        FORECAST_DEMO_SERIES=str(series),
        FORECAST_DEMO_STORES=str(stores),
        FORECAST_DEMO_DAYS=str(days),
    )
    began = time.process_time()
    import dagster as dg

    from forecast_assets.commands.run import run_cycle
    from resources import Settings
    from resources.wiring import data_span, lake_of

    settings = Settings.from_environment()
    settings = replace(settings, as_of=data_span(settings).last)
    runs = run_cycle(settings, books=False)
    used = time.process_time() - began
    with dg.DagsterInstance.get() as instance:
        events = [event for run in runs for event in instance.all_logs(run)]
    of_type = [e.dagster_event_type for e in events if e.dagster_event_type is not None]
    rows = lake_of(settings).table("prediction_daily").read().frame.select(pl.len()).collect()
    return (
        used,
        rows.item(),
        of_type.count(dg.DagsterEventType.ASSET_MATERIALIZATION),
        of_type.count(dg.DagsterEventType.STEP_SUCCESS),
    )
