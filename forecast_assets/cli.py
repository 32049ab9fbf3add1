"""The console script `forecast`: one program, sub-commands mounted from `commands`.

Belongs here: the list of sub-commands. Does not: what they do, nor any import that costs time
before a command is chosen.
"""

import typer

from forecast_assets.commands import (
    admission,
    backfill,
    capacity,
    cost,
    incidents,
    lake,
    levers,
    partitions,
    run,
    source,
    stores,
)

app = typer.Typer(
    help="Forecast every item in every store, on budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("run")(run.run)
app.command("demo")(run.demo)
app.command("m5")(run.m5)
app.command("backtest")(run.backtest)
app.command("explain")(run.explain)
app.command("tune")(run.tune)
app.command("backfill")(backfill.backfill)
for name, commands in (
    ("admission", admission.admission_app),
    ("budget", admission.budget_app),
    ("capacity", capacity.app),
    ("cost", cost.app),
    ("incidents", incidents.app),
    ("lake", lake.app),
    ("levers", levers.app),
    ("partitions", partitions.app),
    ("policy", admission.policy_app),
    ("source", source.app),
    ("stores", stores.app),
):
    app.add_typer(commands, name=name)


def main() -> None:
    """Run the program; an error that we raise on purpose is its message, not a traceback."""
    try:
        app()
    except Exception as error:
        if not type(error).__module__.startswith(("forecast_core", "resources", "forecast_assets")):
            raise
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None
