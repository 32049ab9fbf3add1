"""`forecast capacity`: what the plan costs and risks, under stress, under a change, and in review.

Belongs here: arguments, progress, tables and exit codes. Does not: draws
(`resources.capacity_draws`), figures (`forecast_core.capacity`), records (`resources.plan_store`).
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from resources import Settings

if TYPE_CHECKING:
    from forecast_core.capacity.outcomes import Outcome
    from resources.capacity_inputs import Inputs

app = typer.Typer(help="Capacity planning by a twin that runs the policy.", no_args_is_help=True)

PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="Plan file; default policies/capacity.yaml.")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help="An admission policy to plan with instead.")
]
Draws = Annotated[int, typer.Option(min=1, help="Futures to draw; the bands rest on them.")]
Days = Annotated[int | None, typer.Option(min=1, help="Only the first days of the plan.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default one a core.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines")]


@app.command()
def plan(
    plan_file: PlanFile = None,
    policy: PolicyFile = None,
    draws: Draws = 20,
    days: Days = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Draw the plan's futures; keep the version, a record and a plot of it."""
    from forecast_core.capacity.report import markdown, plain
    from resources.capacity_records import save
    from resources.plan_store import OUTCOME

    settings, inputs = _inputs(plan_file, policy)
    today = datetime.now(UTC).date()
    for overdue in inputs.plan.overdue(today):
        typer.secho(f"overdue: {overdue}", fg="yellow", err=True)
    outcome = _drawn(inputs, draws, days, workers, "futures")
    store = _store(settings)
    version = store.put(inputs.plan)
    figures = plain(outcome)
    details = {"version": version.number, "policy": inputs.policy.hash, **figures}
    store.note(inputs.plan.name, OUTCOME, details)
    text = markdown(inputs.plan, version.number, outcome, today)
    folder = save(settings, inputs.plan, version.number, text, outcome)
    if as_json:
        typer.echo(json.dumps(details))
        return
    _print(inputs, outcome)
    typer.echo(f"version {version.number}; record and plot in {folder}")


@app.command()
def stress(
    name: Annotated[str | None, typer.Argument(help="One stress; default all of them.")] = None,
    plan_file: PlanFile = None,
    policy: PolicyFile = None,
    seeds: Annotated[int, typer.Option(min=1, help="Nights a stress.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Nights under stress, estimates wrong by up to 3x: what is forecast, spent and kept."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from forecast_core.capacity.proof import night, sized, worst
    from forecast_core.capacity.stress import EVERY, named
    from resources.plan_store import STRESS

    settings, inputs = _inputs(plan_file, policy)
    try:
        chosen = (named(name),) if name else EVERY
    except LookupError as error:
        _fail(str(error.args[0]))
    tight = sized(inputs.policy, inputs.plan, inputs.rates)
    table = Table("stress", "items forecast, %", "monitoring, %", "overshoot, %", "skill kept, %")
    rows = []
    for one in chosen:
        nights = [
            night(inputs.plan, inputs.rates, tight, one, seed)
            for seed in track(range(seeds), one.name, console=Console(stderr=True), transient=True)
        ]
        row = worst(one.name, nights)
        rows.append(row)
        table.add_row(one.name, *(f"{v:.2f}" for v in row.values() if isinstance(v, float)))
    store = _store(settings)
    version = store.put(inputs.plan).number
    details = {"version": version, "policy": inputs.policy.hash, "nights": seeds, "rows": rows}
    store.note(inputs.plan.name, STRESS, details)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    Console().print(table)
    typer.echo(f"worst of {seeds} nights (skill: the mean), on the money of a calm night")


@app.command()
def whatif(
    lever: Annotated[list[str] | None, typer.Option(help="A lever; may be repeated.")] = None,
    plan_file: PlanFile = None,
    policy: Annotated[Path | None, typer.Option(help="The changed admission policy.")] = None,
    new_plan: Annotated[Path | None, typer.Option(help="The changed plan.")] = None,
    draws: Draws = 5,
    days: Days = 91,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """What a lever, a policy or a plan would change; without any, every lever in turn."""
    from rich.console import Console
    from rich.table import Table

    from forecast_core.capacity.whatif import delta, pulled

    _, inputs = _inputs(plan_file, None)
    changed: dict[str, tuple[Any, float]] = {}
    try:
        for name in lever or (() if policy or new_plan else tuple(inputs.plan.levers)):
            error = inputs.plan.levers[name].error if name in inputs.plan.levers else 0.0
            changed[name] = (inputs.under(plan=pulled(inputs.plan, name)), error)
    except LookupError as error_:
        _fail(str(error_.args[0]))
    if policy or new_plan:
        other = _inputs(new_plan or plan_file, policy)[1]
        changed[str(policy or new_plan)] = (other, 0.0)
    before = _drawn(inputs, draws, days, workers, "as it is")
    table = Table("change", "money", "%", "delay, min", "skill, points", "error, %",
                  "deadline risk", "budget risk")  # fmt: skip
    rows = []
    for name, (other, error) in changed.items():
        after = _drawn(other, draws, days, workers, name)
        change = delta(before, after, error)
        rows.append({"change": name, **change.__dict__})
        minutes = max(change.minutes.values(), key=abs, default=0.0)
        table.add_row(
            name, f"{change.money:+.3f}", f"{change.money_pct:+.1f}", f"{minutes:+.0f}",
            f"{change.accuracy_kept:+.1f}", f"{change.error_pct:+.1f}",
            f"{change.risk_deadline:+.2f}", f"{change.risk_budget:+.2f}",
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(rows))
        return
    Console().print(table)
    typer.echo(f"against {before.total.mid:.3f} {inputs.plan.currency}; {draws} common futures")
    for name in changed.keys() & inputs.plan.levers.keys():
        typer.echo(f"  {name}: {inputs.plan.levers[name].source}")


@app.command()
def gate(
    policy: Annotated[Path, typer.Option(help="The admission policy that wants in.")],
    plan_file: PlanFile = None,
    max_cost: Annotated[float, typer.Option(help="Most rise of cost, percent.")] = 5.0,
    max_deadline_risk: Annotated[float, typer.Option(help="Share of futures.")] = 0.01,
    max_budget_risk: Annotated[float, typer.Option(help="Share of futures.")] = 0.05,
    draws: Draws = 5,
    days: Days = 91,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Fail (exit 1) when a policy raises cost or risk beyond the bounds; for CI."""
    from forecast_core.capacity.whatif import Bounds, delta, verdict

    _, inputs = _inputs(plan_file, None)
    _, other = _inputs(plan_file, policy)
    before = _drawn(inputs, draws, days, workers, "as it is")
    after = _drawn(other, draws, days, workers, "as proposed")
    bounds = Bounds(max_cost, max_deadline_risk, max_budget_risk)
    faults, change = verdict(before, after, bounds), delta(before, after)
    if as_json:
        typer.echo(json.dumps({"passed": not faults, "faults": faults, **change.__dict__}))
    else:
        typer.echo(f"cost {change.money_pct:+.2f} %, deadline risk {change.risk_deadline:+.3f},"
                   f" budget risk {change.risk_budget:+.3f}")  # fmt: skip
        for fault in faults:
            typer.secho(f"refused: {fault}", fg="red")
        typer.echo("passed" if not faults else f"{len(faults)} bounds are broken")
    if faults:
        raise typer.Exit(1)


@app.command()
def review(
    name: Annotated[str | None, typer.Option(help="Plan name; default the plan file's.")] = None,
    plan_file: PlanFile = None,
    day: Annotated[str | None, typer.Option(help="Day of the review; default today.")] = None,
    sign: Annotated[str | None, typer.Option(help="Sign the last review, as this role.")] = None,
    decision: Annotated[str, typer.Option(help="With --sign: what was decided.")] = "",
) -> None:
    """Write the review that is due: what was assumed, what happened, what changes; or sign it."""
    from resources.capacity_records import sign_review, write_review

    settings = Settings.from_environment()
    inputs = _inputs(plan_file, None)[1]
    store = _store(settings)
    if sign:
        if not decision.strip():
            _fail("--sign needs --decision: what was decided")
        try:
            signed = sign_review(store, name or inputs.plan.name, sign, decision)
        except LookupError as error:
            _fail(str(error.args[0]))
        typer.echo(f"review of {signed} signed by {sign}")
        return
    when = _day(day) if day else datetime.now(UTC).date()
    typer.echo(f"review written to {write_review(settings, store, inputs, when)}")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        _fail(f"--day {text!r} is no date; write it as YYYY-MM-DD")


def _inputs(plan_file: Path | None, policy: Path | None) -> "tuple[Settings, Inputs]":
    from resources.capacity_inputs import read_inputs, read_policy

    settings = Settings.from_environment()
    inputs = read_inputs(settings, plan_file)
    return settings, inputs if policy is None else inputs.under(policy=read_policy(policy))


def _drawn(
    inputs: "Inputs", draws: int, days: int | None, workers: int | None, title: str
) -> "Outcome":
    from rich.console import Console
    from rich.progress import Progress

    from forecast_core.capacity.outcomes import summarise
    from resources.capacity_draws import run_draws

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=draws)
        found = run_draws(inputs.jobs(draws, days), workers=workers, told=lambda: bar.advance(task))
    return summarise(found)


def _print(inputs: "Inputs", outcome: "Outcome") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("month", f"money, {inputs.plan.currency}", "10 %", "90 %", "CPU h", "GiB stored",
                  "every item, %")  # fmt: skip
    for month in outcome.months:
        band = outcome.money[month]
        hours = outcome.hours.get((month, "cpu_h"))
        stored = sum(b.mid for (m, _), b in outcome.stored_gib.items() if m == month)
        table.add_row(
            month, f"{band.mid:,.3f}", f"{band.low:,.3f}", f"{band.high:,.3f}",
            f"{hours.mid:,.1f}" if hours else "0", f"{stored:,.2f}",
            f"{100 * outcome.p_every_item.get(month, 1.0):.1f}",
        )  # fmt: skip
    Console().print(table)
    _say_breaks(outcome.breaks)
    for note in outcome.notes:
        typer.secho(f"  {note}", fg="yellow")
    for reason, count in outcome.rejected.items():
        typer.secho(f"  rejected {count}x: {reason}", fg="red")


def _say_breaks(breaks: Sequence[tuple[str, str, float]]) -> None:
    if not breaks:
        typer.echo("no quota or budget runs short")
    for month, what, share in breaks:
        typer.echo(f"  {what} runs short from {month} in {100 * share:.0f} % of the futures")


def _store(settings: Settings) -> Any:
    from resources.plan_store import PlanStore

    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return PlanStore(settings.ledger)


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)
