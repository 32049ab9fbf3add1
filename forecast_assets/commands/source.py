"""`forecast source`: bring your own tables: propose a mapping, check it, land it.

Belongs here: options, progress and what is printed. Does not: guessing
(`forecast_core.source.guess`), reading (`resources.mapped_source`) or counting
(`forecast_core.source.report`). Exit codes: 0 sound, 1 cannot be used, 2 rows would
be quarantined, 3 the source changed in a way that needs a person's word.
"""

import json
import os.path
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from resources import Settings

if TYPE_CHECKING:
    import polars as pl
    import rich.console
    import rich.progress

    from forecast_core.source.changes import Change
    from forecast_core.source.report import Report
    from resources.mapped_source import MappedSource
    from resources.source_stage import Progress

app = typer.Typer(help="Your own sales data, mapped without code.", no_args_is_help=True)
SCHEMA = "source_mapping.schema.json"
SAMPLE = 20_000
Given = Annotated[Path, typer.Argument(help="The mapping file, as `source init` writes it.")]


@app.command("init")
def init(
    files: Annotated[
        list[str],
        typer.Argument(help="Sales, and what belongs to them; or the URL of a database."),
    ],
    out: Annotated[Path, typer.Option(help="The mapping to write.")] = Path("mapping.yaml"),
    force: Annotated[bool, typer.Option(help="Write over a mapping that is there.")] = False,
) -> None:
    """Look at files and propose a mapping, with a reason and a confidence for each guess."""
    from forecast_core.source.guess import guess
    from forecast_core.source.guess_yaml import as_yaml
    from forecast_core.source.mapping import SourceMapping, json_schema
    from resources.source_look import look_at, look_into

    if out.exists() and not force:
        raise typer.BadParameter(f"{out} is there already; choose another --out, or --force")
    urls = [name for name in files if "://" in name]
    paths = [Path(name) for name in files if name not in urls]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise typer.BadParameter(f"{missing[0]}: there is no such file")
    try:
        looks = [look_at(path, out.parent, SAMPLE) for path in paths]
        found = guess([*looks, *(look for url in urls for look in look_into(url, SAMPLE))])
    except ValueError as error:
        _fail(error)
    SourceMapping.parse(found.content)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(as_yaml(found), encoding="utf-8")
    (out.parent / SCHEMA).write_text(json.dumps(json_schema(), indent=1), encoding="utf-8")
    typer.echo(out.read_text(encoding="utf-8"))
    unsure = [place for place, (sure, _) in found.notes.items() if sure < 0.6]
    if unsure:
        typer.echo(f"Look at these first: {', '.join(unsure)}")
    typer.echo(f"Written to {out}. Next: forecast source check {out}")


@app.command("check")
def check(
    mapping: Given,
    show: Annotated[int, typer.Option(help="Quarantined rows to show of each rule.")] = 3,
) -> None:
    """Read it all in bounded memory and say what is in it, what would be quarantined, and why."""
    from rich.console import Console

    with _reading(mapping) as source:
        report = _report(source)
        first, last = source.span()
    console = Console()
    _print_report(console, report, source, first.isoformat(), last.isoformat(), show)
    for change in (found := _changes(source)):
        said = f"changed since the last load: {change.text}"
        console.print(said, soft_wrap=True, markup=False)
    if not report.conserved:
        raise typer.Exit(1)
    if any(change.holds for change in found):
        console.print("`forecast source load` would stop here: correct it, or --accept-changes")
        raise typer.Exit(3)
    raise typer.Exit(2 if report.quarantined else 0)


@app.command("load")
def load(
    mapping: Given,
    accept_changes: Annotated[
        bool, typer.Option(help="Land a source that lost or renamed something as it is.")
    ] = False,
) -> None:
    """Land and clean it in the lake; afterwards only the months and stores that changed.

    What was made of the rest stays as it is, and fresh.
    """
    from forecast_assets.commands.run import holding, land_source

    settings = Settings.from_environment(source=str(mapping))
    with _reading(mapping) as source:
        stores, span = source.stores(), source.span()
        if source.corrected is not None:
            typer.echo(_corrections(source))
    with holding():
        landing = land_source(settings, accept_changes)
    for change in landing.changes:
        typer.echo(f"changed since the last load: {change.text}")
    if landing.partitions == 0:
        typer.echo("no sales changed since the last load")
    elif landing.partitions is not None:
        typer.echo(f"{landing.partitions} months of a store changed and were landed again")
    typer.echo(f"{len(stores)} stores, {span[0]} to {span[1]}, landed in {settings.lake_root}")
    typer.echo(f"Next: forecast run --source {mapping} --out forecast.parquet")


@app.command("quarantine")
def quarantine(
    mapping: Given,
    rule: Annotated[str | None, typer.Option(help="Only rows that broke this rule.")] = None,
    limit: Annotated[int, typer.Option(help="Rows to show.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="Write them all to a CSV to correct, for `source fix`.")
    ] = None,
) -> None:
    """The quarantined rows in the lake, with file, line, rule, raw text and remedy."""
    import polars as pl

    settings = Settings.from_environment(source=str(mapping))
    settings.adopt()
    from forecast_core.source.quarantine_told import lines
    from resources.source_fixes import to_correct
    from resources.wiring import lake_of

    table = lake_of(settings).table("quarantined_sales")
    if not table.exists():
        typer.echo("nothing has been loaded yet: forecast source load", err=True)
        raise typer.Exit(1)
    rows = table.read().frame
    if rule is not None:
        rows = rows.filter(pl.col("rule") == rule)
    if out is None:
        for line in lines(rows.head(limit).collect()):
            typer.echo(line)
        return
    found = to_correct(rows.collect())
    found.write_csv(out)
    typer.echo(f"{found.height} rows written to {out}. Correct date, item, store or units of")
    typer.echo(f"those you can, leave the rest, and then: forecast source fix {mapping} {out}")


@app.command("fix")
def fix(
    mapping: Given,
    fixes: Annotated[Path, typer.Argument(help="What `source quarantine --out` wrote, corrected.")],
) -> None:
    """Lay corrected rows over the source and land their months; no file is read again for it."""
    from resources.mapped_source import read_mapping
    from resources.source_fixes import read_fixes

    try:
        read_fixes([fixes])
        named = read_mapping(mapping).fixes
    except ValueError as error:
        _fail(error)
    place = Path(os.path.relpath(fixes.resolve(), mapping.resolve().parent)).as_posix()
    if place not in named:
        if named:
            _fail(ValueError(f"{mapping}: `fixes` is there already; add {place} to its list"))
        with mapping.open("a", encoding="utf-8") as file:
            file.write(f"fixes: {json.dumps(place)}\n")
        typer.echo(f"{mapping}: added `fixes: {place}`")
    load(mapping, accept_changes=False)


def _corrections(source: "MappedSource") -> str:
    done = source.corrected
    if done is None:
        return "none"
    return (
        f"{done.gone.height} rows corrected, {done.stale} corrections that no longer apply (the "
        f"row is another now), {done.open} still without a value"
    )


@app.command("schema")
def schema() -> None:
    """The JSON Schema of a mapping, for editors."""
    from forecast_core.source.mapping import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@app.command("example")
def example(
    shape: Annotated[str, typer.Argument(help="promo_panel, store_revenue, wide_items or m5.")],
    folder: Annotated[Path, typer.Argument(help="Where to write its files.")],
    series: int = 120,
    stores: int = 3,
    days: int = 730,
    seed: int = 7,
) -> None:
    """Write generated data in somebody else's shape."""
    from forecast_core.generate import DemoSpec
    from forecast_core.generate.shapes import shape as tables_of

    folder.mkdir(parents=True, exist_ok=True)
    try:
        tables = tables_of(shape, DemoSpec(series=series, stores=stores, days=days, seed=seed))
    except ValueError as error:
        _fail(error)
    for name, table in tables.items():
        table.write_csv(folder / name)
        typer.echo(f"{folder / name}: {table.height:,} rows, {table.width} columns")


@contextmanager
def _reading(path: Path) -> Iterator["MappedSource"]:
    """The source, read with progress; what is wrong with it as a message and exit code 1."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    from resources.mapped_source import MappedSource

    settings = Settings.from_environment(source=str(path))
    count = TextColumn("{task.completed:,} rows")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), count)
    try:
        with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as bar:
            source = MappedSource(path.resolve(), settings.stage, _advance(bar))
            source.ask_again()
            _ = source.manifest
        yield source
    except ValueError as error:
        _fail(error)


def _advance(bar: "rich.progress.Progress") -> "Progress":
    tasks: dict[str, rich.progress.TaskID] = {}

    def advance(name: str, rows: int) -> None:
        if name not in tasks:
            tasks[name] = bar.add_task(Path(name).name, total=None)
        bar.update(tasks[name], completed=rows)

    return advance


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(1) from None


def _report(source: "MappedSource") -> "Report":
    from forecast_core.source.clean import clean
    from forecast_core.source.report import Report

    first, last = source.span()
    report = Report(source.frequency, last)
    for store in source.stores():
        sales = source.sales(store, first, last)
        prices = source.prices(store, first, last)
        how = {"policy": source.policy, "often": source.frequency, "last": last}
        report.planned += source.planned(store)
        report.add(sales, clean(sales, prices, series=source.series(), **how))  # type: ignore[arg-type]
    return report


def _print_report(
    console: "rich.console.Console",
    report: "Report",
    source: "MappedSource",
    first: str,
    last: str,
    show: int,
) -> None:
    from rich.table import Table

    from resources.landed import months_of

    table = Table("what", "figure", title=f"{source.name}: {source.path}")
    periods = source.frequency.between(*source.span())
    share = report.priced / max(report.kept + report.filled, 1)
    figures = {
        "files": len(source.manifest.files),
        "span": f"{first} to {last}, {periods} {source.frequency.unit}s",
        "stores": report.stores,
        "series (item in store)": report.series,
        "rows in": report.rows,
        "rows kept": report.kept,
        "rows merged": report.merged,
        "rows quarantined": report.quarantined,
        "rows filled by policy": report.filled,
        source.mapping.unit: f"{report.units:,.2f}".rstrip("0").rstrip("."),
        "zeros written down": report.zeros,
        "holes (no row)": report.holes,
        "series with an outlier": report.outliers,
        "series without a sale at the end": report.dead,
        "rows with a price": f"{share:.0%}",
        "rows that only plan ahead": report.planned,
        "price rows refused": report.refused_prices,
        "covariates": ", ".join(source.mapping.covariates) or "none",
        "rows in = kept + merged + quarantined": "yes" if report.conserved else "NO",
        "corrections": _corrections(source),
        "forecasting it once": _cost(report, len(months_of(*source.span()))),
    }
    for name, value in figures.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    console.print(table)
    _print_rules(console, "What would be quarantined", report.rules, report.examples, show)
    title = "Prices that would not be taken; their sales are kept"
    _print_rules(console, title, report.price_rules, report.price_examples, show)
    over = source.passed_over()
    rules = Counter(dict(over["rule"].value_counts().iter_rows()))
    _print_rules(console, "Rows of other tables that say nothing", rules, [over], show)


def _print_rules(
    console: "rich.console.Console",
    title: str,
    rules: Counter[str],
    examples: "list[pl.DataFrame]",
    show: int,
) -> None:
    import polars as pl
    from rich.table import Table

    from forecast_core.source.quarantine_told import lines

    if not rules:
        return
    table = Table("rule", "rows", title=title)
    for rule, rows in rules.most_common():
        table.add_row(rule, f"{rows:,}")
    console.print(table)
    few = pl.concat(examples, how="diagonal_relaxed")
    for line in lines(few.group_by("rule", maintain_order=True).head(show)):
        console.print(line, soft_wrap=True, markup=False)


def _cost(report: "Report", months: int) -> str:
    """What a cycle costs, its first landing included, by the price card's vCPU-second.

    The CPU is what cycles took from five small sources to the whole of M5, give or take a third.
    """
    from datetime import UTC, datetime

    from resources.price_card import load_price_card

    settings = Settings.from_environment()
    parts = 0.2 * months * report.stores + 0.026 * report.series + 3e-6 * report.rows
    cpu_s = 48 + parts
    rates = load_price_card(settings.price_card).on(datetime.now(UTC).date(), settings.environment)
    return f"about {cpu_s:,.0f} CPU-s, {float(rates.of('vcpu_s')) * cpu_s:.5f} USD of compute"


def _changes(source: "MappedSource") -> "list[Change]":
    """What is different since the last load; nothing before the first."""
    from forecast_core.source.changes import changes
    from resources.landed import Landed, stage_of, survey
    from resources.wiring import lake_of

    settings = Settings.from_environment(source=str(source.path))
    landed = Landed(settings.stage, lake_of(settings), source.path)
    if (other := landed.another()) is not None:
        return [other]
    before = landed.read()
    if before is None or before.stage == stage_of(source):
        return []
    return changes(before.state, survey(source, before.known).state, not source.adds)
