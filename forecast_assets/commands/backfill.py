"""`forecast backfill`: deferrable work over a range, cut into pieces that admission lets in one by
one: by store, and by month where a store alone takes longer than a chunk.

Belongs here: which pieces, and what came of them. Does not: how long a piece may be (the policy's
`max_chunk`), what a key takes (measured), whether it may start (the gate).
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from resources import Settings

if TYPE_CHECKING:
    from forecast_assets.batch import Stage
    from resources.escrow import Escrow

CLASS = "backfill"


def backfill(
    assets: Annotated[str, typer.Argument(help="Assets by month and store, comma-separated.")],
    first: Annotated[str, typer.Option(help="First month, YYYY-MM-DD.")],
    last: Annotated[str, typer.Option(help="Last month, YYYY-MM-DD.")],
    stores: Annotated[str | None, typer.Option(help="Comma-separated; default: all.")] = None,
) -> None:
    """Materialize months again, store by store in pieces of at most the policy's chunk.

    Each piece asks admission on its own as backfill work; what is refused is named and left.
    """
    import dagster as dg

    from forecast_assets.batch import Admission, register_stores
    from forecast_assets.commands.run import with_progress
    from forecast_assets.definitions import build_defs
    from resources.coordinator import escrow_of
    from resources.run_facts import LAUNCH_TAG
    from resources.wiring import source_of

    settings = Settings.from_environment()
    escrow = escrow_of(settings)
    names = tuple(name.strip() for name in assets.split(","))
    months = (_month(first), _month(last))
    if months[0] > months[1]:
        raise typer.BadParameter(f"--first {first} is after --last {last}; swap them")
    with dg.DagsterInstance.get() as instance:
        known = register_stores(instance, source_of(settings).stores())
        wanted = tuple(stores.split(",")) if stores else known
        if strange := sorted(set(wanted) - set(known)):
            raise typer.BadParameter(f"no store {strange[0]!r}; known: {', '.join(known)}")
        defs = build_defs(settings)
        seconds = _seconds(names, months, escrow)
        chunk = escrow.policy.classes[CLASS].max_chunk or float("inf")
        cut = list(pieces_of(names, months, [s for s in known if s in wanted], seconds, chunk))
        typer.echo(f"{len(cut)} pieces; a store takes up to {seconds:.0f} s, a chunk {chunk:.0f} s")
        tags = {LAUNCH_TAG: uuid.uuid4().hex[:12], "admission/class": CLASS}
        results = with_progress(defs, instance, cut, tags, Admission(escrow))
    if any(done.put_off for done in results):
        raise typer.Exit(1)


def pieces_of(
    assets: Sequence[str],
    months: tuple[str, str],
    stores: Sequence[str],
    seconds: float,
    chunk: float,
) -> Iterator["Stage"]:
    """The pieces: stores together up to a chunk, neighbours in one run (a range is a run).

    `seconds` is what a store takes; where that is longer than a chunk, its months are cut.
    """
    from forecast_assets.batch import Stage
    from forecast_core.admission.split import pieces, spans

    at = {store: position for position, store in enumerate(stores)}
    every = _months(*months)
    for months_of_it in spans(every, seconds, chunk):
        first_month, last_month = months_of_it[0], months_of_it[-1]
        share = seconds * len(months_of_it) / len(every)
        for piece in pieces(dict.fromkeys(stores, share), chunk):
            held = sorted(piece, key=at.__getitem__)
            cuts = [i for i, (a, b) in enumerate(pairwise(held), 1) if at[b] != at[a] + 1]
            for low, high in pairwise([0, *cuts, len(held)]):
                first, last = held[low], held[high - 1]
                title = f"{'+'.join(assets)} {first}" + (f"..{last}" if last != first else "")
                title += f" {first_month}..{last_month}" if months_of_it != every else ""
                keys = (f"{first_month}|{first}", f"{last_month}|{last}")
                yield Stage(title, tuple(assets), *keys, optional=True)


def _seconds(assets: Sequence[str], months: tuple[str, str], escrow: "Escrow") -> float:
    """The measured bound of the time that one store takes; the stated one without history."""
    from forecast_core.admission.request import AssetFacts, Work, quotes_of

    priced = Work(
        tuple(AssetFacts(name, "ingest") for name in assets), ("ingest",), len(_months(*months))
    )
    return quotes_of(priced, escrow.policy, escrow.quoter)[0].wall_s


def _months(first: str, last: str) -> list[str]:
    """Every month of the closed range, by its first day."""
    low, high = date.fromisoformat(first), date.fromisoformat(last)
    count = (high.year - low.year) * 12 + high.month - low.month
    return [
        date(low.year + (low.month - 1 + n) // 12, (low.month - 1 + n) % 12 + 1, 1).isoformat()
        for n in range(count + 1)
    ]


def _month(text: str) -> str:
    try:
        return date.fromisoformat(text).replace(day=1).isoformat()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date; write it as YYYY-MM-DD") from None
