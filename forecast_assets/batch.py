"""The main job from end to end: which partitions of which assets, in which order.

Belongs here: the stages of a forecast cycle as data, and running them in one process on the
Dagster instance at hand. Does not: what an asset does, nor what is printed (`commands.run`).

Assets with different partitions cannot share a run, so a cycle is a short list of runs.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.assets.storage import today
from forecast_assets.partitions import STORES
from forecast_core.admission.request import COVERS_TAG
from forecast_core.cells import Cells
from forecast_core.source.landing import Block
from resources.escrow import Escrow
from resources.lake import Lake
from resources.quotas import QuotaExceeded

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
LANDED = ("raw_sales", "cleaned_sales", "quarantined_sales")
QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@dataclass(frozen=True)
class Stage:
    """One run: assets that share their partitions, over the closed range `start`..`end`."""

    title: str
    assets: tuple[str, ...]
    start: str | None = None
    end: str | None = None
    covers: bool = False  # it gives every item its first forecast of the cycle
    optional: bool = False  # refused by admission it is put off, and the cycle goes on
    config: Mapping[str, Any] = field(default_factory=dict)  # of the first asset

    @property
    def tags(self) -> dict[str, str]:
        """The run tags that make Dagster take the range as one run."""
        return {RANGE_START: self.start, RANGE_END: self.end} if self.start and self.end else {}

    @property
    def run_config(self) -> dict[str, Any]:
        """As Dagster takes it."""
        ops = {"ops": {self.assets[0]: {"config": dict(self.config)}}} if self.config else {}
        return {**QUIET, **ops}


@dataclass(frozen=True)
class Cycle:
    """What a cycle covers: data `first`..`last`, a forecast made at `cutoff`.

    `stores` and `groups` in the order in which the instance lists their partitions;
    `feature_days` is how far back a forecaster looks, `horizon` how far ahead, in days.
    """

    first: date
    last: date
    cutoff: date
    stores: tuple[str, ...]
    groups: tuple[str, ...]
    feature_days: int
    horizon: int

    def landing(self) -> Iterator[Stage]:
        """Land and clean everything that the source has."""
        known = self.last + timedelta(days=self.horizon)  # prices are planned ahead
        yield Stage("calendar", ("raw_calendar",))
        yield Stage("land prices", ("raw_prices",), *self._months(self.first, known))
        yield Stage("land and clean sales", LANDED, *self._months(self.first, self.last))

    def landing_again(
        self, calendar: bool, prices: Sequence[Block], sales: Sequence[Block]
    ) -> Iterator[Stage]:
        """Only what changed in the source; partitions made of anything else stay as they are."""
        if calendar:
            yield Stage("calendar", ("raw_calendar",))
        for block in prices:
            yield Stage("land prices", ("raw_prices",), *_keys(block))
        for block in sales:
            yield Stage("land and clean sales", LANDED, *_keys(block))

    def training(self) -> Iterator[Stage]:
        """Classify demand, build features as far back as training looks, fit the forecasters."""
        month = _month(self.cutoff)
        since = max(self.first, self.cutoff - timedelta(days=self.feature_days))
        yield self._stock()
        yield Stage("classify demand", ("demand_segments",), month, month)
        yield Stage("build features", ("feature_sales",), *self._months(since, self.cutoff))
        yield Stage(
            "train forecasters", ("forecasters",), self.groups[0], self.groups[-1], optional=True
        )

    def refreshing(self) -> Iterator[Stage]:
        """What a later cutoff needs when its forecasters are already trained."""
        month = _month(self.cutoff)
        yield self._stock()
        yield Stage("classify demand", ("demand_segments",), month, month)
        yield Stage("build features", ("feature_sales",), *self._months(self.cutoff, self.cutoff))

    def forecasting(self) -> Iterator[Stage]:
        """The floor for every item-store, then the upgrades, then every level and the score."""
        day = self.cutoff.isoformat()
        first, last = f"{day}|{self.stores[0]}", f"{day}|{self.stores[-1]}"
        yield Stage("floor for every item", ("prediction_floor",), first, last, covers=True)
        upgraded = ("prediction_daily", "prediction_stockout")
        yield Stage("upgrade by segment", upgraded, first, last)
        yield Stage("every level", ("prediction_reconciled",), day, day)
        # Apart from serving: what goes wrong in watching leaves forecasts alone.
        yield Stage("score", ("eval_accuracy",), day, day, optional=True)
        watched = ("monitor_drift", "monitor_accuracy")
        yield Stage("watch drift and accuracy", watched, day, day, optional=True)

    def explaining(self) -> Iterator[Stage]:
        """Why the forecasts of the cutoff changed, where it is worth knowing."""
        day = self.cutoff.isoformat()
        yield Stage(
            "explain what changed",
            ("prediction_explanations",),
            f"{day}|{self.stores[0]}",
            f"{day}|{self.stores[-1]}",
            optional=True,
        )

    def backtesting(self, windows: int, series: int, levers: bool = True) -> Iterator[Stage]:
        """Earlier origins to learn from, then every rung at past cutoffs, and the levers.

        `series`: whole stores are tried until so many series are reached.
        """
        day = self.cutoff.isoformat()
        yield self._earlier(windows)
        yield Stage(
            "backtest every rung",
            ("eval_backtest",),
            day,
            day,
            optional=True,
            config={"series": series, "windows": windows},
        )
        if levers:
            yield Stage("backtest the levers", ("eval_levers",), day, day, optional=True)

    def tuning(self, windows: int, config: Mapping[str, Any]) -> Iterator[Stage]:
        """Earlier origins to learn from, then a search of settings within its budget; what is
        surely better and pays is promoted. `config` is the asset's."""
        day = self.cutoff.isoformat()
        yield self._earlier(windows)
        yield Stage(
            "tune within the budget", ("eval_tuning",), day, day, optional=True, config=config
        )

    def _earlier(self, windows: int) -> Stage:
        """Features as far back as the first of so many horizons before the cutoff looks."""
        back = self.feature_days + (windows + 1) * self.horizon
        since = max(self.first, self.cutoff - timedelta(days=back))
        return Stage(
            "build earlier features", ("feature_sales",), *self._months(since, self.cutoff)
        )

    def books(self) -> Iterator[Stage]:
        """The ledger's history into the lake, and the marts over it."""
        yield Stage("charge storage", ("cost_storage",), today(), today(), optional=True)
        yield Stage("keep the books", ("cost_ledger", "cost_steps"), optional=True)
        yield Stage("watch the costs", ("cost_incidents", "cost_levers"), optional=True)
        from forecast_assets.assets.marts import mart_names

        yield Stage("cost marts", mart_names(), optional=True)

    def _stock(self) -> Stage:
        """Of the stock only the cutoff's own month is asked for."""
        return Stage("land stock", ("raw_inventory",), *self._months(self.cutoff, self.cutoff))

    def _months(self, first: date, last: date) -> tuple[str, str]:
        return f"{_month(first)}|{self.stores[0]}", f"{_month(last)}|{self.stores[-1]}"


@dataclass(frozen=True)
class StageResult:
    """What a stage left behind. `failed_checks` do not stop a cycle: they are shown.

    `put_off` says why admission refused an optional stage; nothing of it was done.
    """

    stage: Stage
    run_id: str
    seconds: float
    failed_checks: tuple[str, ...]
    put_off: str | None = None


@dataclass(frozen=True)
class Admission:
    """What a command asks of admission. `items` counts the item-stores that its cycle will
    forecast; None: it opens no cycle."""

    escrow: Escrow
    items: Callable[[], int] | None = None

    def refusal(self, run_id: str) -> str | None:
        """Why the run was not let in; None when it was."""
        row = self.escrow.store.find(run_id)
        if row is None or row["state"] not in ("withdrawn", "rejected"):
            return None
        return f"{row['reason']} ({row['code']})"


class StageFailed(RuntimeError):
    """A stage did not succeed; the message names the step and its error."""


def run_stages(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    stages: Sequence[Stage],
    tags: Mapping[str, str] | None = None,
    admission: Admission | None = None,
) -> Iterator[StageResult]:
    """Run the stages in this process, one after the other, each run with `tags`.

    With `admission` serving's reserve is kept from the first stage on, and each run is settled as
    soon as it ends.

    Raises:
        StageFailed: a step failed; the earlier stages keep what they wrote.
    """
    if admission is not None and admission.items is not None:
        admission.escrow.open_cycle(admission.items())
    for stage in stages:
        yield _run_stage(defs, instance, stage, tags or {}, admission)


def item_stores(lake: Lake, day: date) -> int:
    """Item-stores of the last classification up to `day`: what a cycle owes a forecast."""
    table = lake.table("demand_segments")
    if not table.exists():
        return 0
    dates = table.read(Cells(day - timedelta(days=400), day), ["as_of"]).frame.collect()
    return dates.filter(pl.col("as_of") == pl.col("as_of").max()).height


def register_stores(instance: dg.DagsterInstance, stores: Sequence[str]) -> tuple[str, ...]:
    """Make a partition of every store that has none yet; all stores, in partition order."""
    name = STORES.name or ""
    known = instance.get_dynamic_partitions(name)
    new = [store for store in stores if store not in known]
    if new:
        instance.add_dynamic_partitions(name, new)
    return tuple(instance.get_dynamic_partitions(name))


def _run_stage(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    stage: Stage,
    tags: Mapping[str, str],
    admission: Admission | None,
) -> StageResult:
    began = time.monotonic()
    if admission is not None and admission.items is not None and stage.covers:
        items = admission.items()
        admission.escrow.open_cycle(items)
        tags = {**tags, COVERS_TAG: str(items)}
    job = defs.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(
        run_config=stage.run_config,
        instance=instance,
        tags={**tags, **stage.tags},
        asset_selection=[dg.AssetKey(name) for name in stage.assets],
        raise_on_error=False,
    )
    if admission is not None:
        admission.escrow.settle(done.run_id, succeeded=done.success)
        refusal = admission.refusal(done.run_id)
        if refusal is not None and stage.optional:
            return StageResult(stage, done.run_id, time.monotonic() - began, (), refusal)
    if not done.success:
        raise StageFailed(f"{stage.title}: {_first_failure(done)}")
    failed = tuple(
        f"{check.asset_key.to_user_string()}:{check.check_name}"
        for check in done.get_asset_check_evaluations()
        if not check.passed
    )
    return StageResult(stage, done.run_id, time.monotonic() - began, failed)


def _first_failure(done: dg.ExecuteInProcessResult) -> str:
    for event in done.all_events:
        if event.is_step_failure and event.step_failure_data.error is not None:
            error = event.step_failure_data.error
            while error.cause is not None and error.cls_name != QuotaExceeded.__name__:
                error = error.cause  # below a quota is only how the step was interrupted
            return f"step {event.step_key}: {error.message.strip()}"
    return "the run failed before any step; see its log in the Dagster UI"


def _keys(block: Block) -> tuple[str, str]:
    first, last = block.first.isoformat(), block.last.isoformat()
    return f"{first}|{block.first_store}", f"{last}|{block.last_store}"


def _month(day: date) -> str:
    return day.replace(day=1).isoformat()
