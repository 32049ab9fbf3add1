"""`forecast stores`: the stores of the source and their partitions.

Belongs here: registering and listing. Does not: landing anything.
"""

import typer

from resources import Settings

app = typer.Typer(help="Stores of the source and their partitions.", no_args_is_help=True)


@app.command("register")
def register() -> None:
    """Give every store of the source its partitions in the Dagster instance."""
    import dagster as dg

    from forecast_assets.batch import register_stores
    from resources.wiring import source_of

    with dg.DagsterInstance.get() as instance:
        stores = register_stores(instance, source_of(Settings.from_environment()).stores())
    typer.echo(f"{len(stores)} stores: {', '.join(stores)}")


@app.command("list")
def list_stores() -> None:
    """The stores of the source, a line each."""
    from resources.wiring import source_of

    for store_id in source_of(Settings.from_environment()).stores():
        typer.echo(store_id)


@app.command("months")
def months() -> None:
    """The first and the last month with sales, as partition keys."""
    from resources.wiring import data_span

    span = data_span(Settings.from_environment())
    typer.echo(f"{span.first.replace(day=1)} {span.last.replace(day=1)}")
