"""`forecast incidents`: detect cost regressions, list them, and take one to its close.

Belongs here: arguments, tables and messages. Does not: detection
(`forecast_core.incidents.regressions`), states (`forecast_core.incidents`) or storage
(`resources.incident_store`).
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from forecast_core.events import Event, Refusal
from forecast_core.incidents import Incident, Safeguard
from resources import PROJECT_ROOT, Settings

app = typer.Typer(help="Cost regressions as incidents.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines")]
By = Annotated[str, typer.Option(help="the role that acts")]


@app.command()
def detect(
    ledger: Annotated[Path, typer.Option(help="FOCUS ledger with x_ columns (parquet or csv)")],
    out: Annotated[Path, typer.Option(help="where the incidents go (parquet)")],
    accuracy: Annotated[
        Path | None,
        typer.Option(help="day, forecaster, segment, wape; without it `accuracy.*` beside LEDGER"),
    ] = None,
    events: Annotated[
        Path | None,
        typer.Option(
            help="planned events: start, end, factor; without it `events.*` beside LEDGER"
        ),
    ] = None,
    dismissed: Annotated[Path | None, typer.Option(help="rises with an explanation")] = None,
    raw: Annotated[bool, typer.Option(help="watch raw cost instead, as a comparison")] = False,
) -> None:
    """Replay any ledger and write the incidents that would have been opened."""
    from forecast_core.incidents.regressions import Policy
    from forecast_core.incidents.regressions import detect as found_in
    from resources.cost_policy import read_cost_policy

    policy = Policy(gain_per_cost=read_cost_policy(_policy_path()).gain_per_cost)
    accuracy = accuracy or _beside(ledger, "accuracy")
    events = events or _beside(ledger, "events")
    try:
        found = found_in(
            _read(ledger),
            _read(accuracy) if accuracy else None,
            _read(events) if events else None,
            policy,
            raw=raw,
        )
    except ValueError as error:
        _fail(f"{ledger}: {error}")
    found.incidents.write_parquet(out)
    if dismissed is not None:
        found.dismissed.write_parquet(dismissed)
    short = found.series["reason"].drop_nulls().len()
    typer.echo(
        f"{len(found.incidents)} incidents in {len(found.series)} series "
        f"({found.basis}); {len(found.dismissed)} explained, {short} series too short to judge"
    )


@app.command()
def example(
    folder: Annotated[Path, typer.Argument(help="where the files go")],
    series: Annotated[int, typer.Option(min=4, help="series in the ledger")] = 24,
    days: Annotated[int, typer.Option(min=60, help="days of it")] = 150,
    seed: Annotated[int, typer.Option(help="another seed, another ledger")] = 7,
) -> None:
    """Write a ledger with planted regressions, its accuracy, events and truth, to try it on."""
    from forecast_core.incidents.planted_ledger import Recipe, generate

    drawn = generate(seed, Recipe(series=series, days=days))
    folder.mkdir(parents=True, exist_ok=True)
    drawn.ledger.write_parquet(folder / "ledger.parquet")
    drawn.accuracy.write_parquet(folder / "accuracy.parquet")
    drawn.events.write_csv(folder / "events.csv")
    drawn.truth.write_parquet(folder / "truth.parquet")
    typer.echo(f"{folder}: {drawn.ledger.height} charges, {drawn.truth.height} planted regressions")


@app.command("list")
def list_(
    every: Annotated[bool, typer.Option("--all", help="closed and withdrawn ones too")] = False,
    as_json: AsJson = False,
) -> None:
    """Incidents that are not closed, oldest first."""
    incidents = _store().all(active_only=not every)
    if as_json:
        typer.echo(json.dumps([_plain(i) for i in incidents]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "state", "kind", "series", "detected", "severity", "owner")
    for i in incidents:
        table.add_row(i.incident_id, i.state, i.kind, i.series, i.detected, i.severity, i.owner)
    Console().print(table if incidents else "no incidents")


@app.command()
def show(incident_id: str, as_json: AsJson = False) -> None:
    """One incident with its evidence and history."""
    incident = _store().get(incident_id)
    if incident is None:
        _fail(f"there is no incident {incident_id}; `forecast incidents list` shows them")
    plain = _plain(incident)
    if as_json:
        typer.echo(json.dumps(plain))
        return
    for key, value in plain.items():
        if key == "history":
            for event in value:
                typer.echo(f"  {event['at']}  {event['action']}  {json.dumps(event['details'])}")
        else:
            typer.echo(f"{key}: {json.dumps(value) if isinstance(value, dict) else value}")


@app.command()
def ack(incident_id: str, by: By) -> None:
    """Someone looks into it."""
    _append(incident_id, "acknowledged", {"by": by})


@app.command()
def explain(
    incident_id: str, root_cause: Annotated[str, typer.Option(help="what caused it")]
) -> None:
    """Write down the root cause."""
    _append(incident_id, "explained", {"root_cause": root_cause})


@app.command()
def mitigate(
    incident_id: str, by: By, mitigation: Annotated[str, typer.Option(help="what was done")]
) -> None:
    """The cost is down again; what was done."""
    _append(incident_id, "mitigated", {"by": by, "mitigation": mitigation})


@app.command()
def close(
    incident_id: str,
    by: By,
    safeguard: Annotated[
        str,
        typer.Option(
            help="what keeps it from coming back, checked every day: quota:TARGET=2 CPU-h a day, "
            "budget:TARGET=5 a month or asset_check:TARGET=0.001 a series; TARGET is a pipeline "
            "or the first parts of a series"
        ),
    ],
    root_cause: Annotated[str | None, typer.Option(help="if not written down before")] = None,
) -> None:
    """Close it: only with a root cause, a mitigation and a safeguard that runs."""
    try:
        Safeguard.parse(safeguard)
    except ValueError as error:
        _fail(f"--safeguard {safeguard!r}: {error}; write it as kind:target=setting")
    details = {"by": by, "safeguard": safeguard, "root_cause": root_cause}
    _append(incident_id, "closed", {k: v for k, v in details.items() if v})
    _keep_case(incident_id)


def _keep_case(incident_id: str) -> None:
    """The case joins those that the detector is held to."""
    from datetime import timedelta

    from resources.incident_cases import BEFORE_DAYS, keep
    from resources.ledger import open_ledger

    settings = Settings.from_environment()
    incident = _store().get(incident_id)
    first = datetime.fromisoformat(incident.start).date() - timedelta(days=BEFORE_DAYS)
    kept = keep(settings.state_dir, incident, open_ledger(settings.ledger).charges(first=first))
    typer.echo(
        "its charges are kept as a case that the detector is held to"
        if kept
        else "the ledger has no charges of its days: no case was kept"
    )


def _append(incident_id: str, action: str, details: dict[str, Any]) -> None:
    result = _store().append(Event(incident_id, datetime.now(UTC), action, details))
    if isinstance(result, Refusal):
        _fail(result.reason)
    typer.echo(f"{incident_id} is {result.state}")


def _store() -> Any:
    from resources.incident_store import IncidentStore

    settings = Settings.from_environment()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return IncidentStore(settings.ledger)


def _policy_path() -> Path:
    return PROJECT_ROOT / "policies" / "levers.yaml"


def _read(path: Path) -> Any:
    import polars as pl

    if not path.is_file():
        _fail(f"{path}: no such file")
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, try_parse_dates=True, infer_schema_length=None)
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        _fail(f"{path}: cannot be read as {path.suffix or 'parquet'}: {error}")


def _beside(ledger: Path, name: str) -> Path | None:
    """`ledger_NAME` or `NAME` in the ledger's folder, parquet before csv; said where it is used."""
    for stem in (f"{ledger.stem}_{name}", name):
        for suffix in (".parquet", ".csv"):
            if (path := ledger.with_name(stem + suffix)).is_file():
                typer.echo(f"{name} read from {path}")
                return path
    return None


def _plain(incident: Incident) -> dict[str, Any]:
    shown = {k: v for k, v in vars(incident).items() if k != "history"}
    history = [
        {"at": e.at.isoformat(timespec="seconds"), "action": e.action, "details": dict(e.details)}
        for e in incident.history
    ]
    plain = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in shown.items()}
    return {**plain, "history": history}


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)
