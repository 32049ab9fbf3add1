"""`forecast partitions`: what making them again takes, which are stale, and refreshing them.

Belongs here: the terminal's side. Does not: quotes (`resources.backfill_quotes`), the choice
(`forecast_core.storage.staleness`), long backfills that admission lets in by pieces (`backfill`).
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from resources import Settings

if TYPE_CHECKING:
    from forecast_core.storage.placement import Reader
    from resources.backfill_quotes import BackfillQuoter

app = typer.Typer(help="Quotes of backfills, stale partitions.", no_args_is_help=True)
Asset = Annotated[str, typer.Argument(help="An asset that is filed by month, day or cutoff.")]
Partitions = Annotated[
    str, typer.Option(help="A key, or FIRST...LAST: '2016-01-01|CA_1...2016-03-01|CA_1'.")
]


@app.command("quote")
def quote(asset: Asset, partitions: Partitions) -> None:
    """Partitions, rows, bytes to rehydrate, CPU, money and minutes, before anything runs."""
    typer.echo(_quoter().quote(asset, _keys(asset, partitions)).line())


@app.command("stale")
def stale(asset: Asset) -> None:
    """What is stale or missing, what would be refreshed now, and why the rest waits.

    What its sources have overtaken so lately that it need not be made again yet is named too.
    """
    import dagster as dg

    from forecast_assets.automation import sources_of, times
    from forecast_assets.definitions import defs
    from forecast_core.storage.staleness import Known, choose, why_behind, why_stale
    from resources.backfill_worth import appraise
    from resources.wiring import lifecycle_policy_of

    settings = Settings.from_environment()
    graph = defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey(asset))
    now = datetime.now(UTC)
    with dg.DagsterInstance.get() as instance:
        made, sources = times(instance, node.key), sources_of(instance, graph, node.key)
        existing = set(
            node.partitions_def.get_partition_keys(dynamic_partitions_store=instance)
            if node.partitions_def is not None
            else ()
        )
    promise = _promise(asset)
    known = [
        Known(key, made.get(key), sources.get(key)) for key in sorted({*made, *sources} & existing)
    ]
    found = {one.key: why for one in known if (why := why_stale(one, promise, now))}
    behind = {one.key: why for one in known if (why := why_behind(one, promise, now))}
    policy = lifecycle_policy_of(settings).backfill
    done = choose(
        appraise(settings, _readers(), asset, found),
        money_cap=policy.money_cap,
        partition_cap=policy.partition_cap,
    )
    for one in done.now:
        typer.echo(f"{one.key}: {one.reason}; worth {one.worth:.4f}")
    for key, reason in done.waiting.items():
        typer.echo(f"{key} waits: {reason}")
    for key, reason in behind.items():
        typer.echo(f"{key} is behind: {reason}")
    stale = len(done.now) + len(done.waiting)  # those later than the data are left out
    runs = f"{len(done.runs)} runs, {len(behind)} behind"
    typer.echo(f"{len(done.now)} of {stale} stale partitions in {runs}")


@app.command("refresh")
def refresh(
    asset: Asset,
    partitions: Partitions,
    rehydrate: Annotated[bool, typer.Option(help="Bring cold sources up first, once.")] = True,
) -> None:
    """Make partitions again in this process: quote, rehydrate what is cold, then one run."""
    import dagster as dg

    from forecast_assets.batch import Stage, run_stages
    from forecast_assets.definitions import defs
    from resources.wiring import data_span, lifecycle_policy_of

    settings = Settings.from_environment()
    keys, quoter = _keys(asset, partitions), _quoter()
    typer.echo(quoter.quote(asset, keys, rehydrate=rehydrate).line())
    if rehydrate:
        days = lifecycle_policy_of(settings).rehydrate_days
        until = data_span(settings).as_of + timedelta(days=days)
        moved = quoter.prefetch(asset, keys, until)
        if moved:
            typer.echo(f"{len(moved)} cold parts brought up until {until}")
    first, last = _ends(partitions)
    with dg.DagsterInstance.get() as instance:
        for done in run_stages(defs, instance, [Stage(f"refresh {asset}", (asset,), first, last)]):
            typer.echo(f"{done.stage.title}: {done.seconds:.1f} s, run {done.run_id}")


def _quoter() -> "BackfillQuoter":
    from resources.backfill_worth import quoter_of

    return quoter_of(Settings.from_environment(), _readers())


def _readers() -> "tuple[Reader, ...]":
    from forecast_assets.layers import layer_assets
    from forecast_assets.storage_reads import GraphFacts

    return GraphFacts.of(layer_assets()).readers


def _promise(asset: str) -> timedelta:
    from forecast_assets.layers import LAYERS, layer_assets

    for made in layer_assets():
        for spec in made.specs:
            if spec.key.path[-1] == asset and spec.group_name:
                return LAYERS[spec.group_name].fresh_within or timedelta(0)
    raise typer.BadParameter(f"no asset is named {asset!r}; `dagster asset list` names them")


def _ends(partitions: str) -> tuple[str, str]:
    first, _, last = partitions.partition("...")
    return first, last or first


def _keys(asset: str, partitions: str) -> list[str]:
    """Every key of a range: its days crossed with the stores from the first to the last."""
    import dagster as dg

    from forecast_assets.definitions import defs
    from forecast_core.schema import TABLES
    from resources.partition_keys import decode

    ends = first, last = _ends(partitions)
    key = dg.AssetKey(asset)
    graph = defs.resolve_asset_graph()
    if not graph.has(key):
        raise typer.BadParameter(f"no asset is named {asset!r}; `dagster asset list` names them")
    cut = graph.get(key).partitions_def
    if cut is None:
        raise typer.BadParameter(f"{asset} has no partitions: materialize it as a whole")
    if asset in TABLES:
        for end in ends:  # Dagster's own complaint about a key is a traceback
            decode([end], TABLES[asset].cut)
    with (
        dg.DagsterInstance.get() as instance,
        dg.partition_loading_context(dynamic_partitions_store=instance),
    ):
        return list(cut.get_partition_keys_in_range(dg.PartitionKeyRange(first, last)))
