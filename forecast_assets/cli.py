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

PACKAGES = ("forecast_core", "resources", "forecast_assets")

NO_HOME = (
    "this command asks Dagster, and DAGSTER_HOME names no folder: `make install` makes one; then"
    " export DAGSTER_HOME=$PWD/.dagster_home in the project"
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
        if _is_about_the_home(error):
            typer.echo(f"error: {NO_HOME}", err=True)
            raise SystemExit(1) from None
        if not _ours(error):
            raise
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


def _is_about_the_home(error: Exception) -> bool:
    """Dagster's complaint that it has no home; by name, since importing its types takes long."""
    missing = "DAGSTER_HOME" in str(error) and "directory" in str(error)
    return type(error).__module__.startswith("dagster.") and missing


def _ours(error: Exception) -> bool:
    """An error of a type of our own, or a ValueError that our own code raised."""
    if type(error).__module__.startswith(PACKAGES):
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raised_in = str(frame.tb_frame.f_globals.get("__name__", "")) if frame is not None else ""
    return type(error) is ValueError and raised_in.startswith(PACKAGES)
