"""Real ledgers of many small days: the product's own runs and charges, at simulated dates.

Belongs here: running a cycle a day in this process, what the ledger and the lake say after each.
Does not: any forecast of cost (`twin_calibration`, `estimator`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

ROOT = Path(__file__).parents[1]
# Two stores and departments of M5, 1,462 series: a night takes seconds.
M5_CUT = pl.col("store_id").is_in(["CA_1", "TX_2"]) & pl.col("dept_id").is_in(
    ["FOODS_1", "HOUSEHOLD_2"]
)


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


@contextmanager
def _unmetered() -> Iterator[None]:
    """What is done within is ours, not the product's: else the next run's overhead would hold it,
    and grow with the files that we look at."""
    from resources.meter_probe import Reading, probe

    before = probe().read()
    yield
    ours = probe().read().since(before)
    charged = asdict(probe().charged)
    probe().charged = Reading(**{name: v + getattr(ours, name) for name, v in charged.items()})


def lived(source: str, days: int, **how: Any) -> Ledger:
    """`live` in a process of its own: partitions are declared once a process, from its settings."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(live, source, days, **how).result()


def live(
    source: str,
    days: int,
    *,
    series: int = 80,
    history: int = 150,
    again: Mapping[str, int] = MappingProxyType({}),
    restated: bool = False,
) -> Ledger:
    """Live through `days` days: land once, then each day classify, build features, forecast,
    reconcile and score.

    Args:
        source: demo or m5 (a cut of what is in M5_DIR).
        days: to live; the first is a cold start.
        series: of the demo.
        history: days before the first cutoff.
        again: title -> how often a stage is run (once more) on each later day; landings are of
            the month at hand.
        restated: what is run again meets a source that says otherwise.
    """
    from benchmarks import _m5
    from resources import Settings
    from resources.ledger import open_ledger
    from resources.ledger_history import stored_files
    from resources.wiring import data_span, lake_of, source_of

    warnings.simplefilter("ignore")  # Dagster names its beta features each time they are used
    with _home() as root:
        if source == "m5":
            os.environ["M5_DIR"] = str(_m5.cut(root / "m5", M5_CUT))
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

        def loaded(day: Settings) -> Any:
            """The definitions, as a code server has them: loaded before any run asks for them."""
            with _unmetered():
                defs: Any = build_defs(day)
                defs.resolve_implicit_global_asset_job_def()
            return defs

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
                for done in run_stages(loaded(today), instance, stages):
                    dated[done.run_id] = cutoff
                    titles[done.run_id] = done.stage.title
                if again and number > 0:
                    told = replace(today, demo_seed=today.demo_seed + restated)
                    more = _more(cycle, again)
                    for done in run_stages(loaded(told), instance, more):
                        dated[done.run_id] = cutoff
                        titles[done.run_id] = done.stage.title
                    stages = [*stages, *more]
                with _unmetered():
                    files = stored_files(lake_of(today))
                    sizes = files.group_by("tier").agg(pl.col("bytes").sum())
                    stored[cutoff] = {tier: float(size) for tier, size in sizes.iter_rows()}
            steps = open_ledger(settings.ledger).settlements()
            keys = lake_of(settings).table("demand_segments").read(None).frame
            wide = keys.select(pl.struct("item_id", "store_id").n_unique()).collect().item()
    daily = {stage.title: stage.assets for stage in stages}
    return Ledger(source, simulated(steps, dated), stored, int(wide), daily, titles)


def _more(cycle: Any, again: Mapping[str, int]) -> list[Any]:
    """The stages by their titles, each so many times; a landing is of the cutoff's month."""
    from forecast_core.source.landing import Block

    month = cycle.cutoff.replace(day=1)
    block = Block(month, month, cycle.stores[0], cycle.stores[-1])
    known = (
        *cycle.training(), *cycle.refreshing(), *cycle.forecasting(),
        *cycle.landing_again(False, [block], [block]),
    )  # fmt: skip
    by_title = {stage.title: stage for stage in known}
    return [by_title[title] for title, times in again.items() for _ in range(times)]


def simulated(steps: pl.DataFrame, dated: dict[str, date]) -> pl.DataFrame:
    """The settlements as if each run had been on its simulated day, in the order they ran."""
    known = steps.filter(pl.col("x_run_id").is_in(list(dated)))
    day = pl.col("x_run_id").replace_strict(dated, return_dtype=pl.Date)
    order = known.sort("ChargePeriodStart").with_columns(date=day)
    moment = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + pl.int_range(
        pl.len()
    ).over("date") * pl.lit(timedelta(seconds=1))
    return order.with_columns(ChargePeriodStart=moment).sort("ChargePeriodStart")
