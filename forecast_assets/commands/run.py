"""`forecast run`, `forecast demo`, `forecast m5`: the main job, and what came of it.

Belongs here: options, progress and the closing report. Does not: the stages (`batch`) or any
forecasting. Everything heavy is imported when a command runs.
"""

import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resources import Settings

if TYPE_CHECKING:
    import dagster as dg

    from forecast_assets.batch import Admission, Cycle, Stage, StageResult
    from forecast_assets.landing import Landing

Cutoff = Annotated[str, typer.Option(help="Last day known to the forecast, YYYY-MM-DD.")]
Horizon = Annotated[int, typer.Option(min=1, help="Days ahead.")]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date; write it as YYYY-MM-DD") from None


def run_cycle(
    settings: Settings,
    *,
    land: bool = True,
    train: bool = True,
    books: bool = True,
    accept: bool = False,
) -> list[str]:
    """Land, train and forecast at `settings.as_of`, with progress; the run ids.

    `accept`: a source that lost or renamed something is landed as it is.
    """
    settings.adopt()  # before the code location is imported
    from forecast_assets.landing import Landing

    landing = Landing(settings, accept)

    def stages(cycle: "Cycle") -> Iterator["Stage"]:
        if land:
            yield from landing.stages(cycle)
        else:
            landing.check()
        yield from cycle.training() if train else cycle.refreshing()
        yield from cycle.forecasting()
        if books:
            yield from cycle.books()

    return _run_stages(settings, stages, landing.done)


def _run_stages(
    settings: Settings,
    stages: "Callable[[Cycle], Iterable[Stage]]",
    told: "Callable[[StageResult], None] | None" = None,
) -> list[str]:
    """Run what `stages` names of a cycle at `settings.as_of`; the run ids."""
    import dagster as dg

    from forecast_assets.batch import Admission, Cycle, item_stores, register_stores
    from forecast_assets.definitions import build_defs
    from forecast_assets.partitions import SEGMENT_GROUPS
    from forecast_core.rungs.gbm import TRAINING_DAYS
    from resources.coordinator import escrow_of
    from resources.meter_step import CYCLE
    from resources.wiring import data_span, lake_of, source_of

    span = data_span(settings)
    with dg.DagsterInstance.get() as instance:
        stores = register_stores(instance, source_of(settings).stores())
        cycle = Cycle(
            span.first,
            span.last,
            span.as_of,
            stores,
            tuple(SEGMENT_GROUPS.get_partition_keys()),
            TRAINING_DAYS * (3 if span.frequency.weekly else 1),
            span.days(settings.horizon),
        )
        # One cycle in the ledger: what landing, training and forecasting cost together.
        tags = {CYCLE: f"{span.as_of}-{uuid.uuid4().hex[:8]}"}
        admission = Admission(
            escrow_of(settings), lambda: item_stores(lake_of(settings), span.as_of)
        )
        results = with_progress(
            build_defs(settings), instance, list(stages(cycle)), tags, admission, told
        )
        return [done.run_id for done in results]


def with_progress(
    defs: "dg.Definitions",
    instance: "dg.DagsterInstance",
    stages: Sequence["Stage"],
    tags: Mapping[str, str],
    admission: "Admission",
    told: "Callable[[StageResult], None] | None" = None,
) -> list["StageResult"]:
    """Run the stages and say how each went, to the console and to `told`.

    Raises:
        typer.Exit: a stage failed.
    """
    from rich.console import Console

    from forecast_assets.batch import StageFailed, run_stages

    console = Console(stderr=True)
    results = run_stages(defs, instance, stages, tags, admission)
    done_so_far = []
    for at, stage in enumerate(stages, start=1):
        with console.status(f"{at}/{len(stages)} {stage.title} ..."):
            try:
                done = next(results)
            except StageFailed as failure:
                console.print(f"[red]failed[/red] {failure}", soft_wrap=True)
                raise typer.Exit(1) from failure
        done_so_far.append(done)
        if told is not None:
            told(done)
        console.print(f"{at:>2}/{len(stages)} {stage.title:<28} {done.seconds:6.1f} s")
        if done.put_off:
            console.print(f"      [yellow]put off[/yellow] {done.put_off}", soft_wrap=True)
        for check in done.failed_checks:
            console.print(f"      [yellow]check failed[/yellow] {check}")
    return done_so_far


def run(
    cutoff: Annotated[str | None, typer.Option(help="Default: the last day of the data.")] = None,
    horizon: Annotated[int | None, typer.Option(min=1, help="Days ahead.")] = None,
    land: Annotated[bool, typer.Option(help="Land and clean the source first.")] = True,
    train: Annotated[bool, typer.Option(help="Fit forecasters; else use the last ones.")] = True,
    source: Annotated[
        str | None, typer.Option(help="A mapping file, `demo` or `m5`; default FORECAST_SOURCE.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Parquet to write: unique_id, ds, mean, quantiles.")
    ] = None,
    accept_changes: Annotated[
        bool, typer.Option(help="Land a source that lost or renamed something as it is.")
    ] = False,
) -> None:
    """Land the source, train, and forecast every item in every store.

    Days of weekly data are weeks: the horizon counts them, and a forecast is dated like the data.
    """
    from resources.mapped_source import MappedSource
    from resources.wiring import data_span, source_of

    settings = Settings.from_environment(source=source)
    if land and isinstance(mapped := source_of(settings), MappedSource):
        mapped.ask_again()
        _ = mapped.stage
    settings = replace(
        settings,
        as_of=_day(cutoff) if cutoff else settings.as_of,
        horizon=horizon or settings.horizon,
    )
    span = data_span(settings)
    if horizon is None and span.frequency.weekly:
        settings = replace(settings, horizon=span.frequency.horizon)
    if not span.first <= span.as_of <= span.last:
        raise typer.BadParameter(
            f"the data goes from {span.first} to {span.last}; choose a --cutoff within"
        )
    settings = replace(settings, as_of=span.as_of)
    began = time.monotonic()
    with holding():
        runs = run_cycle(settings, land=land, train=train, accept=accept_changes)
    report(settings, runs, time.monotonic() - began, scored=settings.as_of)
    if out is not None:
        write_forecast(settings, out)
        typer.echo(f"Forecast written to {out}")


@contextmanager
def holding() -> Iterator[None]:
    """A source that changed in a way that needs a person's word: why, and exit code 3."""
    from forecast_core.source.changes import SourceChanged

    try:
        yield
    except SourceChanged as held:
        for change in held.changes:
            mark = "held" if change.holds else "told"
            typer.echo(f"{mark}: changed since the last load: {change.text}", err=True)
        typer.echo(
            "error: nothing was landed. Correct the mapping or the files, or say "
            "--accept-changes to take the source as it is",
            err=True,
        )
        raise typer.Exit(3) from None


def write_forecast(settings: Settings, out: Path) -> None:
    """unique_id, ds, mean and the quantile columns of the forecast made at `settings.as_of`.

    Beside them: item and store, cutoff, which forecaster it is of, and why where it is the floor.
    """

    from forecast_core.cells import Cells
    from forecast_core.quantiles import is_quantile
    from resources.wiring import lake_of

    assert settings.as_of is not None
    table = lake_of(settings).table("prediction_daily")
    rows = table.read(Cells(settings.as_of, settings.as_of)).frame.collect()
    quantiles = sorted(name for name in rows.columns if is_quantile(name))
    out.parent.mkdir(parents=True, exist_ok=True)
    rows.select(
        *("unique_id", "item_id", "store_id", "ds", "cutoff", "mean"), *quantiles, "rung", "reason"
    ).sort("unique_id", "ds").write_parquet(out)


def land_source(settings: Settings, accept: bool = False) -> "Landing":
    """Land and clean what the source has that the lake has not; what was done."""
    settings.adopt()  # before the code location is imported
    from forecast_assets.landing import Landing

    landing = Landing(settings, accept)
    _run_stages(settings, landing.stages, landing.done)
    return landing


def demo() -> None:
    """The main job on generated data: once with the last weeks hidden and scored, once live."""
    from resources.wiring import data_span

    settings = replace(Settings.from_environment(), source="demo")
    began = time.monotonic()
    last = data_span(replace(settings, as_of=None)).last
    hidden = last - timedelta(days=settings.horizon)
    typer.echo(f"Forecast of {hidden}, its {settings.horizon} days then scored:", err=True)
    # The books are kept once, at the end, over both cycles.
    runs = run_cycle(replace(settings, as_of=hidden), books=False)
    typer.echo(f"Forecast of {last}, by the forecasters just trained:", err=True)
    runs += run_cycle(replace(settings, as_of=last), land=False, train=False)
    report(replace(settings, as_of=last), runs, time.monotonic() - began, scored=hidden)
    typer.echo("Next: `make dev` and http://localhost:3000 (asset graph, costs, checks).")


def m5(
    m5_dir: Annotated[Path, typer.Option(help="Folder of the official M5 files.")],
    cutoff: Cutoff = "2016-05-22",
    horizon: Horizon = 28,
    out: Annotated[Path, typer.Option(help="Parquet to write, in the official row order.")] = Path(
        "out/m5_forecast.parquet"
    ),
) -> None:
    """The whole of M5 through the same graph, and its forecast in the official layout."""
    settings = replace(
        Settings.from_environment(),
        source="m5",
        m5_dir=m5_dir.expanduser().resolve(),
        as_of=_day(cutoff),
        horizon=horizon,
    )
    began = time.monotonic()
    runs = run_cycle(settings)
    write_official(settings, out)
    report(settings, runs, time.monotonic() - began, scored=settings.as_of)
    typer.echo(f"Forecast written to {out}")


def backtest(
    cutoff: Annotated[str | None, typer.Option(help="Default: the last day of the data.")] = None,
    series: Annotated[int, typer.Option(min=1, help="Whole stores until so many series.")] = 9_000,
    levers: Annotated[bool, typer.Option(help="Try the levers too, with a fit a window.")] = True,
) -> None:
    """Every rung at past cutoffs beside its cost, and the levers: what was landed is read."""
    settings = Settings.from_environment()
    settings = replace(settings, as_of=_day(cutoff) if cutoff else settings.as_of)
    settings.adopt()
    from forecast_assets.assets.backtests import WINDOWS

    runs = _run_stages(settings, lambda cycle: cycle.backtesting(WINDOWS, series, levers))
    typer.echo(f"{len(runs)} runs; next: `forecast levers propose --save 20%`")


def explain(
    cutoff: Annotated[str | None, typer.Option(help="Default: the last day of the data.")] = None,
) -> None:
    """Explain the published forecasts of class A items that changed, within the budget of rows."""
    settings = Settings.from_environment()
    settings = replace(settings, as_of=_day(cutoff) if cutoff else settings.as_of)
    settings.adopt()
    _run_stages(settings, lambda cycle: cycle.explaining())


def tune(
    cutoff: Annotated[str | None, typer.Option(help="Default: the last day of the data.")] = None,
    group: Annotated[str, typer.Option(help="The segment group to tune.")] = "gbm_core",
    series: Annotated[int, typer.Option(min=1, help="Whole stores until so many series.")] = 1_500,
    budget: Annotated[float, typer.Option(min=1, help="CPU-seconds to search for.")] = 300.0,
    worth: Annotated[float, typer.Option(min=0, help="Money a period for a WRMSSE lower by 1.")] = (
        50.0
    ),
) -> None:
    """Search the gbm's settings under a CPU budget; what wins is logged, `levers revert` undoes."""
    settings = Settings.from_environment()
    settings = replace(settings, as_of=_day(cutoff) if cutoff else settings.as_of)
    settings.adopt()
    from forecast_assets.assets.tuning import WINDOWS

    config = {"group": group, "series": series, "budget_cpu_s": budget, "worth_per_error": worth}
    _run_stages(settings, lambda cycle: cycle.tuning(WINDOWS, config))


def write_official(settings: Settings, out: Path) -> None:
    """`item_id, store_id, F1..F<horizon>`, rows in the order of the sales file."""
    import polars as pl

    from forecast_core.cells import Cells
    from resources.sources import M5Source
    from resources.wiring import lake_of, source_of

    assert settings.as_of is not None
    table = lake_of(settings).table("prediction_daily")
    rows = table.read(Cells(settings.as_of, settings.as_of)).frame.collect()
    ahead = (pl.col("ds") - pl.col("cutoff")).dt.total_days()
    wide = rows.with_columns(day=pl.format("F{}", ahead)).pivot(
        "day", index=["item_id", "store_id"], values="mean"
    )
    days = [f"F{k}" for k in range(1, settings.horizon + 1)]
    source = source_of(settings)
    assert isinstance(source, M5Source)
    order = source.series_order()
    out.parent.mkdir(parents=True, exist_ok=True)
    official = order.join(wide, on=["item_id", "store_id"], how="left", maintain_order="left")
    official.select("item_id", "store_id", *days).write_parquet(out)


def report(
    settings: Settings, runs: Sequence[str], seconds: float, scored: date | None = None
) -> None:
    """Print forecasts made, accuracy beside the floor, cost by pipeline, bytes by tier."""
    from rich.console import Console

    from forecast_assets import summary

    console = Console(file=sys.stdout)
    for table in summary.tables(settings, runs, scored):
        console.print(table)
    console.print(f"{seconds:.0f} s in all")
