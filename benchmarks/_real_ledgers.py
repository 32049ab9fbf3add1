"""Real ledgers of many small days: the product's own runs and charges, at simulated dates.

Belongs here: running a cycle a day in this process, what the ledger and the lake say after each.
Does not: any forecast of cost (`twin_calibration`, `estimator`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ledger:
    """What was lived through.

    `steps`: the settlements, dated by the simulated day that they served. `stored`: day -> tier ->
    bytes of the lake. `series`: item-stores. `daily`: what each day ran, title -> assets; `runs`:
    run -> title.
    """

    source: str
    steps: pl.DataFrame
    stored: dict[date, dict[str, float]]
    series: int
    daily: dict[str, tuple[str, ...]]
    runs: dict[str, str]


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "home").mkdir()
        shutil.copy(ROOT / "dagster.yaml", root / "home" / "dagster.yaml")
        before = dict(os.environ)
        os.environ |= {
            "DAGSTER_HOME": str(root / "home"),
            "FORECAST_DATA": str(root / "data"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
        }
        try:
            yield root
        finally:
            for key in os.environ.keys() - before.keys():
                del os.environ[key]
            os.environ |= before


def lived(source: str, days: int, **scale: int) -> Ledger:
    """`live` in a process of its own: partitions are declared once a process, from its settings."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(live, source, days, **scale).result()


def live(source: str, days: int, *, series: int = 80, history: int = 150) -> Ledger:
    """Live through `days` days: land once, then each day classify, build features, forecast,
    reconcile and score. `source`: demo or m5 (in M5_DIR)."""
    from resources import Settings
    from resources.ledger import open_ledger
    from resources.ledger_history import stored_files
    from resources.wiring import data_span, lake_of, source_of

    warnings.simplefilter("ignore")  # Dagster names its beta features each time they are used
    with _home():
        settings = replace(
            Settings.from_environment(), source=source, demo_series=series, demo_stores=2,
            demo_days=history + days + 29, horizon=28,
        )  # fmt: skip
        settings.adopt()
        # From here on: partitions are declared from the settings of the moment of import.
        import dagster as dg

        from forecast_assets.batch import Cycle, register_stores, run_stages
        from forecast_assets.definitions import build_defs
        from forecast_assets.partitions import SEGMENT_GROUPS
        from forecast_core.rungs.gbm import TRAINING_DAYS

        span = data_span(settings)
        dated: dict[str, date] = {}
        titles: dict[str, str] = {}
        stored: dict[date, dict[str, float]] = {}
        with dg.DagsterInstance.get() as instance:
            stores = register_stores(instance, source_of(settings).stores())
            groups = tuple(SEGMENT_GROUPS.get_partition_keys())
            for number in range(days):
                cutoff = span.last - timedelta(days=28 + days - number)
                today = replace(settings, as_of=cutoff)
                cycle = Cycle(
                    span.first, span.last, cutoff, stores, groups, TRAINING_DAYS, settings.horizon
                )
                first = [*cycle.landing(), *cycle.training()] if number == 0 else []
                stages = [*(first or cycle.refreshing()), *cycle.forecasting()]
                defs: Any = build_defs(today)
                for done in run_stages(defs, instance, stages):
                    dated[done.run_id] = cutoff
                    titles[done.run_id] = done.stage.title
                files = stored_files(lake_of(today))
                sizes = files.group_by("tier").agg(pl.col("bytes").sum())
                stored[cutoff] = {tier: float(size) for tier, size in sizes.iter_rows()}
            steps = open_ledger(settings.ledger).settlements()
            keys = lake_of(settings).table("demand_segments").read(None).frame
            wide = keys.select(pl.struct("item_id", "store_id").n_unique()).collect().item()
    daily = {stage.title: stage.assets for stage in stages}
    return Ledger(source, simulated(steps, dated), stored, int(wide), daily, titles)


def simulated(steps: pl.DataFrame, dated: dict[str, date]) -> pl.DataFrame:
    """The settlements as if each run had been on its simulated day, in the order they ran."""
    known = steps.filter(pl.col("x_run_id").is_in(list(dated)))
    day = pl.col("x_run_id").replace_strict(dated, return_dtype=pl.Date)
    order = known.sort("ChargePeriodStart").with_columns(date=day)
    moment = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + pl.int_range(
        pl.len()
    ).over("date") * pl.lit(timedelta(seconds=1))
    return order.with_columns(ChargePeriodStart=moment).sort("ChargePeriodStart")
