"""`forecast budget`, `forecast admission` and `forecast policy`: what may start, and why not.

Belongs here: reading the store and printing. Does not: deciding. `--json` gives machines the same.
"""

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

budget_app = typer.Typer(help="Money: what is spent, held and free.", no_args_is_help=True)
admission_app = typer.Typer(help="Why runs start, wait or do not.", no_args_is_help=True)
policy_app = typer.Typer(help="The admission policy.", no_args_is_help=True)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _escrow() -> Any:
    from resources import Settings
    from resources.admission_store import StoreError
    from resources.coordinator import build_escrow
    from resources.policies import PolicyError

    try:
        return build_escrow(Settings.from_environment())
    except (PolicyError, StoreError) as error:
        _fail(str(error))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)


def _moment(at: float | None) -> str:
    return "never" if at is None else datetime.fromtimestamp(at, UTC).isoformat(" ", "seconds")


@budget_app.callback()
@policy_app.callback()
def _group() -> None:
    """Sub-commands below."""


@budget_app.command()
def status(as_json: AsJson = False) -> None:
    """Every node of the budget tree in its current period, and how many runs hold or wait."""
    escrow = _escrow()
    nodes = escrow.balance()
    with escrow.store.reading() as connection:
        waiting = len(escrow.store.waiting(connection, escrow.environment))
    holding = len(escrow.store.holders(escrow.environment))
    if as_json:
        budgets = {name: {k: str(v) for k, v in node.items()} for name, node in nodes.items()}
        body = {"environment": escrow.environment, "currency": escrow.policy.currency}
        typer.echo(json.dumps(body | {"holding": holding, "waiting": waiting, "budgets": budgets}))
        return
    table = Table(title=f"{escrow.environment}: budgets in {escrow.policy.currency}")
    for heading in ("budget", "period", "limit", "spent", "held", "free"):
        table.add_column(heading, justify="left" if heading in ("budget", "period") else "right")
    for name, node in nodes.items():
        amounts = [_amount(node[key]) for key in ("limit", "spent", "held", "free")]
        table.add_row(name, escrow.policy.budgets[name].period, *amounts)
    Console().print(table)
    typer.echo(f"{holding} runs hold money, {waiting} wait")


def _amount(value: Decimal) -> str:
    return f"{value:,.6f}".rstrip("0").rstrip(".")


@admission_app.command()
def explain(run: str, as_json: AsJson = False) -> None:
    """What was decided about RUN, why, and on which facts (each pass can be replayed)."""
    from resources.admission_log import verdicts

    escrow = _escrow()
    row = escrow.store.find(run)
    if row is None:
        _fail(f"run {run} is unknown to admission in {escrow.environment}; was it ever submitted?")
    said = list(verdicts(escrow.store, run, row["submitted"] - 1))
    told = {k: row[k] for k in ("run_id", "state", "work_class", "code", "reason", "rung")}
    times = {k: _moment(row[k]) for k in ("submitted", "earliest", "latest", "admitted", "ended")}
    if as_json:
        passes = [
            {
                "pass": v.number, "at": v.at, "snapshot": v.snapshot, "policy": v.policy,
                "action": v.decision.action, "code": v.decision.code, "reason": v.decision.reason,
            }
            for v in said
        ]  # fmt: skip
        typer.echo(json.dumps(told | {"times": times, "passes": passes}))
        return
    typer.echo(f"run {run}, {row['work_class']}: {row['state']}")
    if row["reason"]:
        typer.echo(f"  {row['reason']} ({row['code']})")
    typer.echo(f"  submitted {times['submitted']}")
    if row["state"] == "waiting":
        typer.echo(f"  may start {times['earliest']}, must start by {times['latest']}")
    for key in ("admitted", "ended"):
        if row[key] is not None:
            typer.echo(f"  {key} {times[key]}")
    for verdict in said:
        _say(verdict, escrow.policy)


def _say(verdict: Any, policy: Any) -> None:
    """One change of mind about a run, with the facts that it rested on."""
    from forecast_core.admission.policy import NANO

    decision, quote = verdict.decision, verdict.quote
    typer.echo(f"{_moment(verdict.at)}  {decision.action}: {decision.reason} ({decision.code})")
    typer.echo(
        f"  asked for up to {_amount(Decimal(quote.money) / NANO)} {policy.currency},"
        f" {quote.wall_s:.0f} s, {quote.cpu:g} cores, {quote.memory_gib:g} GiB"
        f" at rung {quote.rung}; beside it {verdict.waiting} waited and {verdict.running} ran"
    )
    gone = [f"{node} {_amount(Decimal(n) / NANO)}" for node, n in verdict.spent.items() if n]
    typer.echo(f"  spent by then: {', '.join(gone) or 'nothing'}")
    typer.echo(
        f"  pass {verdict.number}, policy {verdict.policy}, snapshot {verdict.snapshot[:12]}:"
        f" `forecast admission replay` decides it again"
    )


@admission_app.command("waiting")
def list_waiting(as_json: AsJson = False) -> None:
    """Every held run with its reason, its next chance and its latest start."""
    escrow = _escrow()
    rows = [escrow.store.find(run_id) for run_id in escrow.store.waiting_ids(escrow.environment)]
    names = ("run_id", "work_class", "code", "reason", "earliest", "latest")
    if as_json:
        typer.echo(json.dumps([{name: row[name] for name in names} for row in rows]))
        return
    for row in rows:
        late = " LATE" if (row["earliest"] or float("inf")) > (row["latest"] or 0) else ""
        typer.echo(
            f"{row['run_id']}  {row['work_class']:<11} {row['reason']} ({row['code']}); may start"
            f" {_moment(row['earliest'])}, must start by {_moment(row['latest'])}{late}"
        )


@admission_app.command()
def replay(
    run: Annotated[str | None, typer.Option(help="Only the pass that decided this run.")] = None,
    days: Annotated[float, typer.Option(min=0, help="Passes of the last so many days.")] = 7.0,
    as_json: AsJson = False,
) -> None:
    """Decide logged passes again from their records; exits 1 unless all agree."""
    from resources.escrow import replay as decide_again

    escrow = _escrow()
    if run is not None and escrow.store.find(run) is None:
        _fail(f"run {run} is unknown to admission in {escrow.environment}; was it ever submitted?")
    since = 0.0 if run is not None else time.time() - days * 86_400
    done = decide_again(escrow.store, run_id=run, since=since)
    same = done.passes - len(done.differing)
    if as_json:
        typer.echo(json.dumps({"passes": done.passes, "identical": same}))
    else:
        typer.echo(f"{same} of {done.passes} passes decided identically")
        for number in done.differing:
            typer.echo(f"pass {number} differs")
    raise typer.Exit(1 if done.differing else 0)


@admission_app.command()
def override(
    effect: Annotated[str, typer.Argument(help="release, block or raise.")],
    target: Annotated[str, typer.Argument(help="A run id, a class, or a budget node to raise.")],
    owner: Annotated[str, typer.Option(help="Who answers for it.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    hours: Annotated[float, typer.Option(help="How long it holds.")],
    amount: Annotated[str, typer.Option(help="Money, for a raise.")] = "0",
) -> None:
    """Make an exception: it needs an owner, a reason and an end, and is logged."""
    from forecast_core.admission import Override
    from forecast_core.admission.policy import nanos
    from resources.admission_log import add_override

    escrow = _escrow()
    effects = ("release", "block", "raise")
    if effect not in effects:
        _fail(f"{effect!r} is no override; use one of {', '.join(effects)}")
    if effect == "raise" and target not in escrow.policy.budgets:
        _fail(f"{target!r} is no budget; use one of {', '.join(escrow.policy.budgets)}")
    known_target = target in escrow.policy.classes or escrow.store.find(target) is not None
    if effect != "raise" and not known_target:
        _fail(
            f"{target!r} is neither a class ({', '.join(escrow.policy.classes)}) nor a run that"
            f" admission in {escrow.environment} knows: see `forecast admission waiting`"
        )
    kind: Literal["release", "block", "raise"] = effect  # type: ignore[assignment]
    try:
        now = escrow.clock()
        made = Override(kind, target, owner, reason, now + hours * 3600, nanos(amount))
        number = add_override(escrow.store, made, now)
    except ValueError as error:
        _fail(str(error))
    typer.echo(f"override {number}: {effect} {target} until {_moment(made.expires)}, by {owner}")


@admission_app.command("overrides")
def list_overrides(as_json: AsJson = False) -> None:
    """Every exception that was made: by whom, why, until when. None is ever deleted."""
    from resources.admission_log import every_override

    escrow = _escrow()
    rows = every_override(escrow.store)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        acts = "acts" if row["expires"] > escrow.clock() else "over"
        typer.echo(
            f"{row['override_id']}  {row['effect']} {row['target']}, made {_moment(row['made'])} by"
            f" {row['owner']} ({row['reason']}), until {_moment(row['expires'])}: {acts}"
        )


@policy_app.command()
def kubernetes(
    image: Annotated[str, typer.Option(help="The image that holds the project and Ray.")],
    file: Annotated[Path | None, typer.Option(help="A policy; default: the one in force.")] = None,
) -> None:
    """Print a namespace, a quota and a Ray cluster for each stage of the policy, as YAML."""
    import yaml

    from forecast_core.admission.kubernetes_stages import manifests
    from forecast_core.admission.policy import Policy
    from resources import Settings
    from resources.policies import PolicyError, load_policy

    try:
        policy = load_policy(file or Settings.from_environment().admission_policy, Policy.parse)
    except PolicyError as error:
        _fail(str(error))
    typer.echo(yaml.safe_dump_all(manifests(policy, image), sort_keys=False).rstrip())


@policy_app.command()
def check(file: Path) -> None:
    """Read a policy FILE and name every fault; exits 1 when it is refused."""
    from forecast_core.admission.policy import Policy, units
    from resources.policies import PolicyError, load_policy

    try:
        policy = load_policy(file, Policy.parse)
    except PolicyError as error:
        _fail(str(error))
    typer.echo(f"{file}: version {policy.version}, {policy.hash[:12]}: may govern")
    for name, budget in policy.budgets.items():
        floors = ", ".join(f"{c} {units(v)}" for c, v in policy.floors[name].items()) or "none"
        limit = f"{units(budget.limit)} {policy.currency} a {budget.period}"
        typer.echo(f"  {name}: {limit}; floors: {floors}")
