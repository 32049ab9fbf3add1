"""`forecast levers`: propose the cuts that cost the least accuracy, and follow them to review.

Belongs here: arguments, tables and messages. Does not: the choice (`forecast_core.levers`), the
life of a decision (`forecast_core.levers.decisions`) or storage (`resources.decision_store`).
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from forecast_core.events import Event, Refusal
from forecast_core.levers.decisions import Decision, trust
from resources import PROJECT_ROOT, Settings

app = typer.Typer(help="Levers that trade accuracy for cost.", no_args_is_help=True)

By = Annotated[str, typer.Option(help="the role that acts")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines")]
Backtests = Annotated[
    Path | None,
    typer.Option(help="group, lever, level, fold, cost, error, value (parquet); level 0 is today"),
]


@app.command()
def propose(
    save: Annotated[str, typer.Option(help="a share of today's cost (20%) or money (12.50)")],
    backtests: Backtests = None,
    reason: Annotated[str, typer.Option(help="why")] = "asked for by hand",
    as_json: AsJson = False,
) -> None:
    """Open a proposal with the best set of levers; pre-approved ones apply themselves."""
    from resources.cost_policy import read_cost_policy
    from resources.lever_proposals import propose as propose_levers

    frame = _backtests(backtests)
    store, policy = _store(), read_cost_policy(_policy_path())
    today = frame.filter(frame["level"] == 0).group_by("group").agg(cost=_mean("cost"))
    try:
        decision = propose_levers(
            store,
            policy,
            _base_version(),
            frame,
            _wanted(save, float(today["cost"].sum())),
            reason,
            _now(),
        )
    except ValueError as error:
        _fail(str(error))
    if isinstance(decision, Refusal):
        _fail(decision.reason)
    details = dict(decision.history[0].details)
    if as_json:
        typer.echo(
            json.dumps({"decision": decision.decision_id, "state": decision.state, **details})
        )
        return
    _print(decision, float(details["shadow_price"]))


@app.command("list")
def list_() -> None:
    """Every decision and its state."""
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "state", "levers", "saves", "costs accuracy worth", "reason")
    for d in _store().all():
        figures = (_amount(d.saving_expected), _amount(d.loss_expected))
        table.add_row(d.decision_id, d.state, str(len(d.options)), *figures, d.reason)
    Console().print(table)


@app.command()
def approve(decision_id: str, by: By) -> None:
    """Agree to a proposal."""
    _append(decision_id, "approved", {"by": by})


@app.command()
def reject(decision_id: str, by: By, reason: Annotated[str, typer.Option(help="why")]) -> None:
    """Turn a proposal down."""
    _append(decision_id, "rejected", {"by": by, "reason": reason})


@app.command()
def apply(decision_id: str, by: By) -> None:
    """Put an approved decision in force: runs from now on follow it."""
    from resources.lever_proposals import put_in_force

    done = put_in_force(_store(), _base_version(), decision_id, by, _now())
    _told(decision_id, "applied", done)


@app.command()
def review(
    decision_id: str,
    by: By,
    saved: Annotated[float, typer.Option(help="money saved per period, as measured")],
    lost: Annotated[float, typer.Option(help="value-weighted accuracy lost, as measured")],
) -> None:
    """Write down what it really saved and cost; its levers are trusted accordingly."""
    details = {"by": by, "saving_realised": saved, "loss_realised": lost}
    _append(decision_id, "reviewed", details)
    for lever, t in sorted(trust(_store().all()).items()):
        typer.echo(f"  {lever}: saves {t.saving:.2f}, costs {t.loss:.2f} of what is predicted")


@app.command()
def revert(decision_id: str, by: By, reason: Annotated[str, typer.Option(help="why")]) -> None:
    """Take it out of force: runs from now on go without it."""
    from resources.lever_proposals import effective_version

    _append(decision_id, "reverted", {"by": by, "reason": reason})
    typer.echo(f"policy version {effective_version(_store(), _base_version())}")


def _base_version() -> str:
    """The version that the segment policy's file states."""
    from forecast_core.segments import SegmentPolicy
    from resources.policies import load_policy

    return load_policy(Settings.from_environment().segment_policy, SegmentPolicy.parse).version


def _append(key: str, action: str, details: dict[str, Any]) -> None:
    _told(key, action, _store().append(Event(key, _now(), action, details)))


def _told(key: str, action: str, result: Decision | Refusal) -> None:
    if isinstance(result, Refusal):
        _fail(result.reason)
    version = f", policy version {result.policy_version}" if action == "applied" else ""
    typer.echo(f"{key} is {result.state}{version}")


def _now() -> datetime:
    return datetime.now(UTC)


def _print(decision: Decision, shadow_price: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("group", "lever", "level", "saves", "costs accuracy worth", "90 %")
    for o in decision.options:
        low, high = o["loss_interval"]
        figures = (_amount(o["saving"]), _amount(o["loss"]), f"{_amount(low)} .. {_amount(high)}")
        table.add_row(o["group"], o["lever"], str(o["level"]), *figures)
    Console().print(table)
    typer.echo(
        f"{decision.decision_id} is {decision.state}: saves {_amount(decision.saving_expected)} "
        f"for accuracy worth {_amount(decision.loss_expected)}; the next unit of money would cost "
        f"{_amount(shadow_price)}"
    )


def _amount(value: float) -> str:
    """Cents of large amounts, three figures of small ones: a demo's month costs no cent."""
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _wanted(text: str, today: float) -> float:
    share = text.strip().endswith("%")
    try:
        value = float(text.strip().rstrip("%"))
    except ValueError:
        value = -1.0
    if value <= 0 or (share and value > 100):
        _fail(f"--save {text!r}: write a share like 20% or an amount of money")
    return today * value / 100 if share else value


def _backtests(path: Path | None) -> Any:
    import polars as pl

    path = path or Settings.from_environment().state_dir / "lever_backtests.parquet"
    if not path.is_file():
        _fail(f"{path}: no backtests of the levers; measure them first or name them by --backtests")
    return pl.read_parquet(path)


def _mean(column: str) -> Any:
    import polars as pl

    return pl.col(column).mean()


def _store() -> Any:
    from resources.decision_store import DecisionStore

    settings = Settings.from_environment()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return DecisionStore(settings.ledger)


def _policy_path() -> Path:
    return PROJECT_ROOT / "policies" / "levers.yaml"


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(1)
