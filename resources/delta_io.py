"""The tiered Delta IO manager: assets exchange frames, the lake keeps them.

Belongs here: taking an output to the lake a store at a time, giving inputs back pruned, and
reporting both (rows, bytes, files, version, cost) on the right partition. Does not: layout and
commits (`resources.lake`), the spelling of keys (`resources.partition_keys`), prices
(`resources.meter`).

Input metadata (`dg.AssetIn(metadata={...})`) that it understands:
- `lake/optional`: a table that does not exist yet reads as no rows;
- `lake/columns`: only these columns, so that only they are read from disk;
- `lake/back_days`: that many days of history before the partitions.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import dagster as dg
import polars as pl

from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.content import HASH_SPACE, content_hash
from forecast_core.storage.tiers import Tier
from resources.lake import Lake, LakeTable, Read, Written
from resources.partition_keys import UNPARTITIONED, Scope, decode, rows_by_key
from resources.table_view import TableView

OPTIONAL, COLUMNS, BACK_DAYS = "lake/optional", "lake/columns", "lake/back_days"

Metadata = Mapping[str, Any]


class StepMeter(Protocol):
    """What the IO manager tells the meter (`resources.meter`)."""

    def opened(self, context: dg.InputContext | dg.OutputContext) -> None:
        """The step has begun; idempotent."""

    def read(self, context: dg.InputContext, bytes: int, files: int, tier: str = "hot") -> None:
        """Bytes and files that an input opens."""

    def wrote(self, context: dg.OutputContext, bytes: int, files: int, tier: str = "hot") -> None:
        """Bytes and files that an output wrote."""

    def within(self, context: dg.OutputContext) -> AbstractContextManager[None]:
        """Work within what admission granted the run."""

    def settle(
        self,
        context: dg.OutputContext,
        rows_by_partition: Mapping[str, int],
        series: Mapping[str, int] | None = None,
    ) -> Mapping[str, Metadata]:
        """Charge the step so far; metadata by partition key ('' when unpartitioned)."""


class NoMeter:
    """Counts nothing and charges nothing: for tests and one-off scripts."""

    def opened(self, context: dg.InputContext | dg.OutputContext) -> None:
        """Nothing to begin."""

    def read(self, context: dg.InputContext, bytes: int, files: int, tier: str = "hot") -> None:
        """Not counted."""

    def wrote(self, context: dg.OutputContext, bytes: int, files: int, tier: str = "hot") -> None:
        """Not counted."""

    def within(self, context: dg.OutputContext) -> AbstractContextManager[None]:
        """No limit."""
        return nullcontext()

    def settle(
        self,
        context: dg.OutputContext,
        rows_by_partition: Mapping[str, int],
        series: Mapping[str, int] | None = None,
    ) -> Mapping[str, Metadata]:
        """No charge, so no metadata."""
        return {}


class TieredDeltaIOManager(dg.IOManager):
    """Writes an asset's rows to the lake and reads them back; `tier` is where age zero lands."""

    def __init__(self, lake: Lake, tier: str, meter: StepMeter | None = None) -> None:
        self.lake = lake
        self.tier = Tier.named(tier)
        self.meter: StepMeter = meter or NoMeter()

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Replace the partitions of this run by `obj`: ByStore, pl.DataFrame, or None (nothing).

        A ByStore is computed, written and forgotten store by store.
        """
        keys = _own_keys(context)
        self.meter.opened(context)
        done = _Totals(dict.fromkeys(keys, 0))
        table = self.lake.table(context.asset_key.path[-1])
        with self.meter.within(context):  # most of a lazy body's work is done here
            for rows, written in self.write(table, obj, keys):
                for tier, sent in written.traffic.items():
                    self.meter.wrote(context, sent.bytes, sent.files, tier)
                done.add(rows, table.table, written)
                del rows
        costs = self.meter.settle(context, done.rows, done.series)
        _report(context, keys, done, costs)

    def write(
        self, table: LakeTable, obj: object, keys: Sequence[str]
    ) -> Iterator[tuple[pl.DataFrame, Written]]:
        """Replace the partitions `keys` by `obj` piece by piece; the rows of each, once written."""
        if obj is None:
            return
        for rows, cells, group in _pieces(table.table, obj, decode(keys, table.table.cut)):
            yield rows, table.replace(rows, cells, self.tier, group)

    def load_input(self, context: dg.InputContext) -> object:
        """The upstream rows of the mapped partitions, as the input is annotated."""
        self.meter.opened(context)
        wanted = context.dagster_type.typing_type
        if wanted not in (ByStore, pl.DataFrame, TableView):
            raise TypeError(
                f"input {context.name!r} is annotated {wanted!r}; annotate it ByStore (a store "
                "at a time), pl.DataFrame, or TableView (read by any window)"
            )
        table = self.lake.table(context.asset_key.path[-1])

        def observe(read: Read) -> None:
            for tier, fetched in read.traffic.items():
                self.meter.read(context, fetched.bytes, fetched.files, tier)
            if self.lake.books is not None:
                self.lake.books.read(table.uri, read.parts)

        if wanted is TableView:
            return TableView(table, observe)
        keys = list(context.asset_partition_keys) if context.has_asset_partitions else []
        asked = context.definition_metadata
        outside = context.has_asset_partitions and not keys  # mapped to before the first one
        if outside or not table.exists():
            if not (outside or asked.get(OPTIONAL)):
                raise dg.Failure(
                    f"{table.table.name} does not exist yet: materialize {table.table.name} "
                    f"before {context.step_context.step.key}, or mark the input "
                    f"metadata={{'{OPTIONAL}': True}}"
                )
            return _nothing(table, wanted, keys)
        scope = decode(keys, table.table.cut) if keys else Scope()
        columns = asked.get(COLUMNS)
        cells = scope.cells.back(int(asked.get(BACK_DAYS, 0))) if scope.cells else None
        if wanted is ByStore:
            return table.by_store(cells, columns, observe=observe)
        group = {table.table.key[0]: scope.groups} if scope.groups else {}
        found = table.read(cells, columns, keys=group)
        observe(found)
        return found.frame.collect()


@dataclass
class _Totals:
    """What one output wrote, over all its stores."""

    rows: dict[str, int]
    written: list[Written] = field(default_factory=list)
    content: int = 0
    series: dict[str, int] = field(default_factory=dict)

    def add(self, rows: pl.DataFrame, table: Table, written: Written) -> None:
        for key, count in rows_by_key(rows, table).items():
            self.rows[key] = self.rows.get(key, 0) + count
        self.content = (self.content + content_hash(rows)) % HASH_SPACE
        for store, count in series_by_store(rows, table).items():
            self.series[store] = max(self.series.get(store, 0), count)
        self.written.append(written)

    @property
    def tiers(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for written in self.written:
            for tier, count in written.tiers.items():
                found[tier] = found.get(tier, 0) + count
        return found


def shares(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Split `total` by weight into whole numbers that sum to it (evenly when all weigh nothing)."""
    weight = sum(weights.values())
    found: dict[str, int] = {}
    passed = given = 0
    for position, (key, own) in enumerate(weights.items(), start=1):
        passed += own
        upto = total * passed // weight if weight else total * position // len(weights)
        found[key] = upto - given
        given = upto
    return found


def series_by_store(rows: pl.DataFrame, table: Table) -> dict[str, int]:
    """How many series the rows hold, by store ('' where they belong to none).

    A series is what the table's key says besides its days: an item in a store, a node of a level.
    """
    names = [name for name in table.key if rows.schema.get(name, pl.Date) != pl.Date]
    if "store_id" not in names or "item_id" not in names:
        return {"": rows.select(names).n_unique()} if names and rows.height else {}
    stores = rows["store_id"]
    if rows.height and (stores == stores[0]).all():  # names of millions of rows by their hashes
        return {str(stores[0]): rows["item_id"].hash().n_unique()}
    return dict(rows.group_by("store_id").agg(pl.col("item_id").n_unique()).iter_rows())


def _own_keys(context: dg.OutputContext) -> list[str]:
    if not context.has_asset_partitions:
        return [UNPARTITIONED]
    return [str(key) for key in context.asset_partition_keys]


Piece = tuple[pl.DataFrame, Cells | None, Mapping[str, str]]


def _pieces(table: Table, obj: object, scope: Scope) -> Iterator[Piece]:
    """What is replaced by what: one piece a store, or a group, or all of it."""
    if isinstance(obj, ByStore) and not table.by_store:
        obj = obj.collect()
    if isinstance(obj, ByStore):
        yield from _store_pieces(table, obj, scope.cells)
    elif not isinstance(obj, pl.DataFrame):
        raise TypeError(
            f"{table.name}: the asset returned {type(obj).__name__}; "
            "return ByStore, pl.DataFrame or None"
        )
    elif table.by_store and scope.cells and scope.cells.stores and len(scope.cells.stores) > 1:
        parts = obj.partition_by("store_id", as_dict=True)
        frames = {str(store): frame for (store,), frame in parts.items()}
        held = ByStore(tuple(frames), frames.__getitem__)
        yield from _store_pieces(table, held, scope.cells, obj.clear())
    elif scope.groups is not None:
        yield from _group_pieces(table, obj, scope.groups)
    else:
        yield obj, scope.cells, {}


def _store_pieces(
    table: Table, stores: ByStore, cells: Cells | None, nothing: pl.DataFrame | None = None
) -> Iterator[Piece]:
    if cells is None or cells.stores is None:
        raise ValueError(f"{table.name} is filed by store: partition its asset by store")
    strange = sorted(set(stores.stores) - set(cells.stores))
    if strange:
        raise ValueError(
            f"{table.name}: rows of store {strange[0]!r}, which is not among the "
            f"partitions of this run {cells.stores}"
        )
    for store_id in stores.stores:
        yield stores.load(store_id), cells.only(store_id), {}
    # A store that has nothing this time must not keep what it had.
    empty = nothing if nothing is not None else table.schema.to_frame()
    for store_id in cells.stores:
        if store_id not in stores.stores:
            yield empty, cells.only(store_id), {}


def _group_pieces(table: Table, rows: pl.DataFrame, groups: Sequence[str]) -> Iterator[Piece]:
    """Forecasters keep their history: a group's rows replace those of the same days only."""
    column, day = table.key[0], table.date_column or ""
    strange = rows.filter(~pl.col(column).is_in(groups).fill_null(False))
    if strange.height:
        raise ValueError(
            f"{table.name}: rows of {column} {strange[column][0]!r}, which is not among the "
            f"partitions of this run {tuple(groups)}"
        )
    for group, dated in rows.group_by(column, day):
        yield dated, Cells(group[1], group[1]), {column: str(group[0])}


def _nothing(table: LakeTable, wanted: object, keys: Sequence[str]) -> object:
    if wanted is pl.DataFrame:
        return table.empty()
    scope = decode(keys, table.table.cut) if keys else Scope()
    stores = (scope.cells.stores if scope.cells else None) or ()
    return ByStore(stores, lambda _: table.empty())


def _report(
    context: dg.OutputContext,
    keys: Sequence[str],
    done: _Totals,
    costs: Mapping[str, Metadata],
) -> None:
    """Attach to each partition its own rows, bytes and cost, and to the run its data version."""
    each = shares(sum(written.bytes for written in done.written), done.rows)
    common: dict[str, Any] = {}
    if done.written:
        common = {
            "table_version": done.written[-1].version,
            "files_written": sum(written.files for written in done.written),
            "tiers": dg.MetadataValue.json(done.tiers),
        }
    # In a range this is one version for the whole range: it changes when any of it does.
    step = dg.AssetExecutionContext.get()
    if done.written:
        version = f"{sum(done.rows.values())}-{done.content:016x}"
        step.set_data_version(context.asset_key, dg.DataVersion(version))
    of_each: dict[str, Metadata] = {
        key: {
            "dagster/partition_row_count" if key else "dagster/row_count": done.rows[key],
            "bytes_written": each[key],
            **common,
            **costs.get(key, {}),
        }
        for key in keys
    }
    if len(keys) == 1:
        context.add_output_metadata(of_each[keys[0]])
    else:
        _attach(context, of_each)


def _attach(context: dg.OutputContext, of_each: Mapping[str, Metadata]) -> None:
    """What `add_asset_metadata` does for one partition, for all of them.

    That one lists every partition of the range, to see that its own is among them: of hundreds that
    is hundreds of lists. These keys are the range's own.
    """
    step = context.step_context
    for key, metadata in of_each.items():
        step._metadata_accumulator = step._metadata_accumulator.with_additional_asset_metadata(
            asset_key=context.asset_key, partition_key=key, metadata=metadata
        )
