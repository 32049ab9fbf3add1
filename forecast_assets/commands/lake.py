"""`forecast lake`: the tables and their storage from the terminal.

Belongs here: counting, planning, moving, scrubbing, restoring, holding. Does not: how any of it is
done (`resources`). What changes stored files is a dry run until `--apply` is given.
"""

from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from resources import Settings

if TYPE_CHECKING:
    from forecast_core.cost.price_card import Rates
    from resources.lake import LakeTable
    from resources.lifecycle import Moved, Mover

app = typer.Typer(help="Look at the Delta tables and after their storage.", no_args_is_help=True)

TableName = Annotated[str, typer.Argument(help="Name of a dataset.")]
Apply = Annotated[bool, typer.Option("--apply", help="Do it; a dry run otherwise.")]
Store = Annotated[str | None, typer.Option(help="Only this store (or segment group).")]
Day = Annotated[str | None, typer.Option(help="A day, YYYY-MM-DD.")]


@app.command("count")
def count(
    table: TableName,
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


@app.command("parts")
def parts(table: TableName) -> None:
    """The physical parts of a table: tier, period, owner, files, bytes, rows."""
    from resources.lifecycle import parts_of

    for part in parts_of(_table(_mover(), table)):
        typer.echo(f"{part.name}: {part.files} files, {part.bytes:,} bytes, {part.rows:,} rows")


@app.command("plan")
def plan(apply: Apply = False) -> None:
    """Where every part should lie and what that saves; `--apply` moves and charges it."""
    from forecast_assets.layers import layer_assets
    from forecast_assets.storage_reads import GraphFacts
    from forecast_core.storage.placement import markdown
    from resources import placements

    mover, rates = _mover(), _rates()
    as_of = mover.lake.as_of or date.today()
    readers = GraphFacts.of(layer_assets()).readers
    placed = placements.plan(mover, mover.tables(), readers, rates, as_of)
    typer.echo(markdown(placed, rates.currency))
    if not apply:
        return
    done = placements.apply(mover, placements.due_of(placed), _booked)
    for part, reason in done.failed:
        typer.echo(f"{part.name} was not moved: {reason}", err=True)
    typer.echo(f"{len(done.moved)} parts moved, {done.rows:,} rows")
    if done.failed:
        raise typer.Exit(1)


@app.command("move")
def move(
    table: TableName,
    period: Annotated[str, typer.Argument(help="2016-04, or 2016 where periods are years.")],
    tier: Annotated[str, typer.Argument(help="hot, warm or cold.")],
    store: Store = None,
) -> None:
    """Move parts of one period to a tier."""
    from forecast_core.storage.lifecycle import Due
    from forecast_core.storage.tiers import Tier
    from resources.lifecycle import parts_of

    try:
        wanted = Tier.named(tier)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    mover = _mover()
    held = _table(mover, table)
    found = [p for p in parts_of(held) if p.period == period and store in (None, p.owner)]
    if not found:
        raise typer.BadParameter(f"{table} has no part {period}; `forecast lake parts {table}`")
    for part in found:
        if part.tier is not wanted:
            moved = mover.make(held, Due(part, wanted, "move", "by hand"))
            _booked(moved)
            typer.echo(f"{part.name} -> {tier}: {moved.rows:,} rows, version {moved.version}")


@app.command("rehydrate")
def rehydrate(
    table: TableName,
    first: Day = None,
    last: Day = None,
    store: Store = None,
    until: Annotated[str | None, typer.Option(help="Day of return, by the as-of day.")] = None,
) -> None:
    """Bring deeper parts up for a while; they return to their tier by themselves."""
    from forecast_core.cells import Cells

    mover = _mover()
    held = _table(mover, table)
    as_of = mover.lake.as_of or date.today()
    returns = _day(until) if until else as_of + timedelta(days=mover.policy.rehydrate_days)
    cells = Cells(
        _day(first or "1900-01-01"), _day(last or "2200-01-01"), (store,) if store else None
    )
    moved = mover.rehydrate(held, cells, mover.policy.rehydrate_tier, returns, "by hand")
    for one in moved:
        _booked(one)
    typer.echo(f"{len(moved)} parts of {table} in {mover.policy.rehydrate_tier} until {returns}")


@app.command("compact")
def compact(table: TableName, apply: Apply = False) -> None:
    """Small files of a part into one."""
    from resources import placements

    mover = _mover()
    due, waiting = placements.small_files(mover, _table(mover, table))
    for one in due:
        typer.echo(f"{one.part.name}: {one.reason}")
    for held_back in waiting:
        typer.echo(f"{held_back.part.name} waits: {held_back.reason}")
    if apply:
        done = placements.apply(mover, due, _booked)
        typer.echo(f"{len(done.moved)} parts compacted, {len(done.failed)} failed")
        raise typer.Exit(1 if done.failed else 0)


@app.command("scrub")
def scrub_table(
    table: Annotated[str | None, typer.Argument(help="A dataset; all when left out.")] = None,
) -> None:
    """Compare every file with what was recorded; exits 1 when one is damaged."""
    from resources.scrub import scrub

    mover = _mover()
    damaged = 0
    for held in [_table(mover, table)] if table else mover.tables():
        seen = scrub(held, mover.books)
        damaged += len(seen.damages)
        asleep = f", {seen.archived} archived and not read" if seen.archived else ""
        typer.echo(f"{seen.table}: {seen.files} files, {seen.adopted} recorded now{asleep}")
        for damage in seen.damages:
            typer.echo(f"  {damage.message}", err=True)
    if damaged:
        raise typer.Exit(1)


@app.command("restore")
def restore_rows(
    table: TableName,
    path: Annotated[str | None, typer.Argument(help="A damaged file, as scrub names it.")] = None,
    version: Annotated[int | None, typer.Option(help="Instead: rows as this version had.")] = None,
    first: Day = None,
    last: Day = None,
    store: Store = None,
) -> None:
    """Put back the rows of a damaged file, or those that a version had from --first to --last."""
    from resources.scrub import restore, restore_window

    mover = _mover()
    held = _table(mover, table)
    if path is not None and version is None:
        now = restore(mover, held, path)
    elif path is None and version is not None and first and last:
        now = restore_window(mover, held, _day(first), _day(last), store, version)
    else:
        raise typer.BadParameter("give a file, or --version with --first and --last")
    typer.echo(f"{table}: its rows are back in version {now}")


@app.command("drop")
def drop_file(table: TableName, path: Annotated[str, typer.Argument(help="A file.")]) -> None:
    """Take the part of a damaged file out of the table, to make it again."""
    from resources.lifecycle import parts_of
    from resources.scrub import drop

    held = _table(_mover(), table)
    part = next((p for p in parts_of(held) if path in p.paths), None)
    if part is None:
        raise typer.BadParameter(f"{table} has no file {path}; `forecast lake scrub {table}`")
    typer.confirm(f"take {part.rows:,} rows of {part.name} out of the table?", abort=True)
    drop(held, part)
    typer.echo(f"{part.name} is out: make its partitions again")


@app.command("vacuum")
def vacuum_tables(
    table: Annotated[str | None, typer.Argument(help="A dataset; all when left out.")] = None,
    hours: Annotated[
        int | None, typer.Option(help="Retention; the policy's when left out.")
    ] = None,
    apply: Apply = False,
) -> None:
    """Delete files that no version in use names."""
    from resources.vacuum import vacuum

    mover, rates = _mover(), _rates()
    for held in [_table(mover, table)] if table else mover.tables():
        done = vacuum(mover, held, rates, hours=hours, dry_run=not apply)
        what = "deleted" if apply else "would go"
        typer.echo(
            f"{done.table}: {done.files} files, {done.bytes:,} bytes {what}; "
            f"{done.early_deletion:.6f} {rates.currency} owed for leaving early"
        )


@app.command("settle")
def settle() -> None:
    """Close the moves that died half-way, without waiting for the longest job."""
    mover = _mover()
    closed = sum(mover.settle(held, timedelta(0)) for held in mover.tables())
    typer.echo(f"{closed} moves settled")


@app.command("hold")
def hold(
    table: TableName,
    name: Annotated[str, typer.Argument(help="What the hold is called.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    kind: Annotated[str, typer.Option(help="legal: parts stay; pin: a version stays.")] = "legal",
    first: Day = None,
    last: Day = None,
    store: Store = None,
    until: Annotated[str | None, typer.Option(help="Last day of it, by the calendar.")] = None,
) -> None:
    """Keep the present version of a table (legal: and its parts where they are)."""
    from forecast_core.storage.lifecycle import Hold

    if kind not in ("legal", "pin"):
        raise typer.BadParameter(f"{kind!r} is no kind of hold; use legal or pin")
    mover = _mover()
    held = _table(mover, table)
    days = [_day(day) if day else None for day in (first, last, until)]
    version = held.version()
    if kind == "legal":
        placed = Hold(name, table, "legal", version, reason, days[0], days[1], store, days[2])
    else:
        placed = Hold(name, table, "pin", version, reason, until=days[2])
    mover.books.place(held.uri, placed)
    typer.echo(f"{name}: version {placed.version} of {table} is kept")


@app.command("release")
def release(name: Annotated[str, typer.Argument(help="What the hold is called.")]) -> None:
    """Lift a hold."""
    try:
        _mover().books.release(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    typer.echo(f"{name} is lifted")


@app.command("holds")
def holds() -> None:
    """Holds in force, a line each."""
    for found in _mover().books.holds():
        until = f" until {found.until}" if found.until else ""
        typer.echo(
            f"{found.name}: {found.kind}, {found.table} v{found.version}{until}: {found.reason}"
        )


def _mover() -> "Mover":
    from resources.wiring import mover_of

    return mover_of(Settings.from_environment())


def _table(mover: "Mover", name: str) -> "LakeTable":
    held = mover.table(name)
    if not held.exists():
        raise typer.BadParameter(f"{name} does not exist yet: materialize it first")
    return held


def _rates() -> "Rates":
    from resources.price_card import load_price_card

    settings = Settings.from_environment()
    return load_price_card(settings.price_card).on(date.today(), settings.environment)


def _booked(moved: "Moved") -> None:
    """Charge what a move read and wrote: no step of Dagster does it here."""
    from resources.move_cost import book

    settings = Settings.from_environment()
    book(settings, moved)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; write it as YYYY-MM-DD") from None
