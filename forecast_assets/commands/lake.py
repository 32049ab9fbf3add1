"""`forecast lake`: a look at the tables from the terminal, read-only.

Belongs here: counting and listing. Does not: changing a table.
"""

from typing import Annotated

import typer

from resources import Settings

app = typer.Typer(help="Look at the Delta tables.", no_args_is_help=True)


@app.command("count")
def count(
    table: Annotated[str, typer.Argument(help="Name of a dataset.")],
    store: Annotated[str | None, typer.Option(help="Only this store.")] = None,
) -> None:
    """Rows of a table; exits 1 when it has none."""
    import polars as pl

    from forecast_core.schema import TABLES
    from resources.wiring import lake_of

    if table not in TABLES:
        raise typer.BadParameter(f"{table!r} is no dataset; use one of {', '.join(TABLES)}")
    held = lake_of(Settings.from_environment()).table(table)
    if not held.exists():
        typer.echo(f"{table} does not exist yet: materialize it first", err=True)
        raise typer.Exit(1)
    where = None if store is None else pl.col("store_id") == store
    rows = held.read(where=where).frame.select(pl.len()).collect().item()
    typer.echo(f"{rows} rows in {table}")
    if not rows:
        raise typer.Exit(1)
