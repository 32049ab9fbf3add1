"""`forecast cost`: what was spent and by whom, what a run would cost, and the books behind it.

Belongs here: arguments, tables and messages. Does not: sums (`forecast_core.cost.report`),
estimates (`forecast_core.cost.estimate`), the ledger. Everything heavy is imported when a command
runs.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from resources import Settings

if TYPE_CHECKING:
    from forecast_core.cost.estimate import Ask
    from forecast_core.cost.price_card import PriceCard
    from resources.ledger import Ledger

app = typer.Typer(help="What was spent, by whom, and what would be.", no_args_is_help=True)

Since = Annotated[str | None, typer.Option(help="First UTC day, YYYY-MM-DD.")]
Until = Annotated[str | None, typer.Option(help="Last UTC day, YYYY-MM-DD.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


@app.command()
def report(
    by: Annotated[
        str, typer.Option(help="Cuts, separated by commas: pipeline, forecaster, store, day, ...")
    ] = "class,pipeline,forecaster",
    since: Since = None,
    until: Until = None,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Spending by any cut; total = workload + idle + overhead, to the last decimal."""
    from forecast_core.cost.report import by as cut
    from forecast_core.cost.report import summary

    with _books() as (settings, ledger, _):
        charges = ledger.charges(first=_day(since), last=_day(until), run_id=run)
        total = summary(charges)
        rows = cut(charges, [name.strip() for name in by.split(",") if name.strip()])
    if as_json:
        _print_json({"environment": settings.environment, **asdict(total), "by": rows.to_dicts()})
        return
    head = [name.removeprefix("x_") for name in rows.columns[:-2]]
    body = [[*map(_cell, row[:-2]), f"{row[-2]:.6f}", f"{row[-1]:.1f}"] for row in rows.iter_rows()]
    currency = total.currency or ""
    _print_table(f"Cost, {settings.environment}", [*head, f"cost {currency}", "share %"], body)
    typer.echo(
        f"total {total.total:.6f} {currency} = workload {total.workload:.6f}"
        f" + idle {total.idle:.6f} + overhead {total.overhead:.6f};"
        f" unattributed {total.unattributed_pct:.2f} % of compute,"
        f" estimated {total.estimated_pct:.2f} %, corrections {total.corrections:+.6f}"
    )


@app.command()
def quote(
    selection: Annotated[str, typer.Argument(help="Assets, as Dagster selects them.")],
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each asset.")] = 1,
    level: Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the upper bound.")] = 0.95,
    as_json: AsJson = False,
) -> None:
    """What a run of SELECTION would cost, from what such runs have cost, with an upper bound."""
    from forecast_core.cost.estimate import Estimator, NoHistory, observations

    with _books() as (_, ledger, card):
        try:
            estimator = Estimator(observations(ledger.settlements()))
        except NoHistory as error:
            _fail(str(error))
    asks = _asks(selection, partitions)
    lines = [{"asset": ask.asset, **asdict(estimator.estimate(ask, level))} for ask in asks]
    expected = sum(line["expected"] for line in lines)
    upper = sum(line["upper"] for line in lines)
    if as_json:
        whole = {"expected": expected, "upper": upper, "currency": card.currency, "level": level}
        _print_json({**whole, "partitions": partitions, "lines": lines})
        return
    body = [
        [line["asset"], f"{line['expected']:.6f}", f"{line['upper']:.6f}", line["novelty"]]
        for line in lines
    ]
    bound = f"below, {100 * level:g} %"
    _print_table(f"Quote, {card.currency}", ["asset", "expected", bound, "seen before"], body)
    typer.echo(f"expected {expected:.6f} {card.currency}, at most {upper:.6f} at {100 * level:g} %")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="A .parquet or .csv file to write.")],
    focus: Annotated[bool, typer.Option("--focus", help="In FOCUS 1.2, the only format.")] = True,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the charges in FOCUS 1.2, checked against its invariants first."""
    from resources.ledger_history import InvalidExport, export_focus

    with _books() as (_, ledger, card):
        try:
            rows = export_focus(ledger, card, out, first=_day(since), last=_day(until))
        except (InvalidExport, ValueError) as error:
            _fail(str(error))
    typer.echo(f"{rows} charges written to {out}")


@app.command()
def rerate(
    card: Annotated[
        Path | None, typer.Option(help="Another card; default: the current one.")
    ] = None,
    since: Since = None,
    until: Until = None,
    dry_run: Annotated[
        bool, typer.Option(help="Say what would be corrected, write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rate the past again under a card: corrections are added, history is never edited."""
    from decimal import Decimal

    from forecast_core.cost.price_card import PriceCardError
    from forecast_core.cost.rerate import corrections
    from resources.price_card import load_price_card

    with _books() as (_, ledger, current):
        wanted = load_price_card(card) if card else current
        charges = ledger.charges(first=_day(since), last=_day(until))
        try:
            found = corrections(charges, wanted)
        except PriceCardError as error:
            _fail(f"{card or 'the price card'}: {error}")
        pairs = [(correction.takes_back, correction.charges) for correction in found]
        written = 0 if dry_run else ledger.correct(pairs)
    difference = sum((correction.difference for correction in found), Decimal(0))
    if as_json:
        done = {"charges": charges.height, "corrected": len(found), "written": written}
        _print_json({**done, "difference": difference, "currency": wanted.currency})
        return
    verb = "would be corrected" if dry_run else "corrected"
    typer.echo(
        f"{len(found)} of {charges.height} charges {verb}: {difference:+.6f} {wanted.currency}"
    )


@app.command()
def reconcile(
    everything: Annotated[bool, typer.Option("--all", help="Read every run again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Charge an estimate to every attempt that died unmeasured. Safe to repeat."""
    import dagster as dg

    from forecast_assets.definitions import defs
    from resources.ledger_reconcile import reconcile as settle

    metadata = {spec.key.to_user_string(): spec.metadata for spec in defs.resolve_all_asset_specs()}
    with _books() as (settings, ledger, card), dg.DagsterInstance.get() as instance:
        done = settle(
            instance,
            ledger,
            card,
            settings.environment,
            lambda asset: metadata.get(asset, {}),
            everything=everything,
        )
    if as_json:
        _print_json(asdict(done))
        return
    typer.echo(
        f"{done.attempts} attempts of {done.runs} runs: {done.estimated} settled by estimate,"
        f" idle capacity of {done.idle} runs charged"
    )


@contextmanager
def _books() -> Iterator[tuple[Settings, "Ledger", "PriceCard"]]:
    """The installation's ledger and card; their errors end the command with a message."""
    from resources.ledger import LedgerError, open_ledger
    from resources.policies import PolicyError
    from resources.price_card import load_price_card

    settings = Settings.from_environment()
    try:
        yield settings, open_ledger(settings.ledger), load_price_card(settings.price_card)
    except (LedgerError, PolicyError) as error:
        _fail(str(error))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _asks(selection: str, partitions: int) -> "list[Ask]":
    """The selected assets, and the overhead of the run that would make them."""
    import dagster as dg

    from forecast_assets.definitions import defs
    from forecast_core.cost.estimate import OVERHEAD, Ask
    from resources.meter_step import FORECASTER, SEGMENT_GROUP

    graph = defs.resolve_asset_graph()
    try:
        keys = sorted(dg.AssetSelection.from_string(selection).resolve(graph))
    except dg.DagsterError as error:
        _fail(f"{selection!r}: {str(error).splitlines()[0]}; `dagster asset list` shows them")
    if not keys:
        _fail(f"{selection!r} selects no asset; `dagster asset list` shows them")

    def said(key: dg.AssetKey, name: str) -> str | None:
        value = graph.get(key).metadata.get(name)
        return None if value is None else str(getattr(value, "value", value))

    asks = [
        Ask(
            key.to_user_string(),
            said(key, FORECASTER),
            said(key, SEGMENT_GROUP),
            partitions if graph.get(key).is_partitioned else 1,
        )
        for key in keys
    ]
    return [*asks, Ask(OVERHEAD, partitions=len(keys) + 1)]


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; write it as YYYY-MM-DD") from None


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _print_json(content: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(content, default=str))


def _print_table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for name in head:
        numeric = name.startswith(("cost", "share", "expected", "below"))
        table.add_column(name, justify="right" if numeric else "left")
    for row in body:
        table.add_row(*row)
    Console().print(table)
