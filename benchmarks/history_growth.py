"""A night with one year of history beside a night with five: the same shop, the same machine.

Two installations are filled and trained; then the night is run in a process of its own: land the
current month, classify, features of the day, floor, upgrades, every level. What is compared is the
CPU-seconds of that night's steps as the ledger has them, without the start of the process, which
is the same for both and would hide growth.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.m5_cycle import installation, timed_command

YEARS = (1, 5)
REPEATS = 3


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds of a night's steps by years of history, the least of some nights."""
    series, stores = (120, 2) if quick else (1200, 3)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for years in YEARS:
            found[years] = _night_s(Path(scratch) / str(years), years, series, stores)
    return {
        "ratio": found[5] / found[1],
        **{f"night_cpu_s_{years}_years": seconds for years, seconds in found.items()},
        "series": series,
        "stores": stores,
        "nights": REPEATS,
    }


def _night_s(root: Path, years: int, series: int, stores: int) -> float:
    scale = {
        "FORECAST_DEMO_SERIES": str(series),
        "FORECAST_DEMO_STORES": str(stores),
        # The features look back fourteen months; a year of history is that and the training's.
        "FORECAST_DEMO_DAYS": str(365 * years + 60),
    }
    os.environ.update(scale)
    root.mkdir(parents=True)
    timed_command(["run"], root)
    code = "from benchmarks.history_growth import night; night()"
    least = float("inf")
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**installation(root), **scale},
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
        )
        if done.returncode:
            raise RuntimeError(f"the night failed: {done.stderr[-2000:]}")
        least = min(least, float(done.stdout.strip().splitlines()[-1]))
    return least


def night() -> None:
    """Run one night on the installation of the environment; print its steps' CPU-seconds."""
    from dataclasses import replace

    import dagster as dg

    from resources import Settings

    settings = replace(Settings.from_environment(), source="demo")
    settings.adopt()
    from forecast_assets.batch import Cycle, Stage, register_stores, run_stages
    from forecast_assets.definitions import build_defs
    from forecast_assets.partitions import SEGMENT_GROUPS
    from forecast_core.rungs.gbm import TRAINING_DAYS
    from resources.ledger import open_ledger
    from resources.wiring import data_span, source_of

    span = data_span(settings)
    with dg.DagsterInstance.get() as instance:
        stores = register_stores(instance, source_of(settings).stores())
        groups = tuple(SEGMENT_GROUPS.get_partition_keys())
        cycle = Cycle(
            span.as_of.replace(day=1),
            span.as_of,
            span.as_of,
            stores,
            groups,
            TRAINING_DAYS,
            settings.horizon,
        )
        landing = [stage for stage in cycle.landing() if stage.title != "calendar"]
        stages: list[Stage] = [*landing, *cycle.refreshing(), *cycle.forecasting()]
        runs = {done.run_id for done in run_stages(build_defs(settings), instance, stages, {})}
    steps = open_ledger(settings.ledger).settlements()
    mine = steps.filter(steps["x_run_id"].is_in(list(runs)))
    print(_workload(mine))


def _workload(steps) -> float:  # type: ignore[no-untyped-def]
    """CPU-seconds of steps, overhead left out; the demo's making of its data is not a shop's."""
    import polars as pl

    generated = ["raw_sales", "raw_prices", "raw_inventory", "raw_calendar"]
    mine = steps.filter(
        (pl.col("x_cost_class") != "overhead")
        & ~pl.col("x_asset").is_in(generated).fill_null(False)
    )
    return float(mine["cpu_s"].sum())
