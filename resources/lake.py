"""The tiered Delta lake: one table a dataset, the tier inside it, hidden from callers.

Belongs here: writing and reading rows by their logical cells (days x stores), and the physical
layout behind it. Does not: Dagster (`resources.delta_io`), the tier rules
(`forecast_core.storage.tiers`), or how a commit is retried and made durable (`resources.commits`).

Physical layout: partition columns `tier`, `period` and the owner column (`store_id`, or the
segment group of forecasters); rows sorted within a file. A replace is one commit for each tier
that its window spans, every one an overwrite by a predicate on logical columns, so:
- what a commit replaces does not depend on where earlier rows were put;
- a writer's settings hold for a whole commit, so each tier gets its own codec;
- tiers own whole months, so no commit splits a month of a store: a crash between two commits
  leaves each month either old or new, never mixed, and running again finishes the job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from forecast_core.by_store import ByStore
from forecast_core.cells import Cells
from forecast_core.schema import TABLES, Table
from forecast_core.storage.tiers import DEFAULT_POLICY, Tier, TierPolicy
from resources.commits import Commit, commit, is_local
from resources.file_layout import FileLayout
from resources.predicates import Keys, predicate
from resources.storable import HIDDEN, check_filed_by, storable
from resources.traffic import (
    Place,
    Traffic,
    sizes_by_path,
    traffic_by_part,
    traffic_of,
    traffic_read,
)

# The library percent-encodes these in the paths it hands out, and no reader decodes them.
_UNREADABLE = re.compile(r"[^A-Za-z0-9/._+,=@~:-]")


class Books(Protocol):
    """Who keeps a record of written files (`resources.storage_ledger`)."""

    def wrote(self, uri: str, done: Commit) -> None:
        """These files were added to the table at `uri`, and are on stable storage."""

    def read(self, uri: str, parts: Mapping[Place, Traffic]) -> None:
        """An asset read these parts of the table at `uri`."""


# Refuses to read files of the table at a location: path -> (tier, bytes).
Guard = Callable[[str, Mapping[str, tuple[str, int]]], None]


class MissingTable(LookupError):
    """The table has never been written."""


@dataclass(frozen=True)
class Written:
    """What a replace did. `rows` are the caller's; `bytes` and `files` are what was written,
    rows of the same files outside the cells included."""

    rows: int
    bytes: int
    files: int
    version: int
    tiers: Mapping[str, int]  # rows by tier
    traffic: Mapping[str, Traffic]  # files and bytes by tier


@dataclass(frozen=True)
class Read:
    """Rows to be read from one pinned version.

    `files` and `bytes` are those that the log cannot rule out: an upper bound of what is opened.
    """

    frame: pl.LazyFrame
    files: int
    bytes: int
    version: int
    traffic: Mapping[str, Traffic]  # files and bytes by tier
    parts: Mapping[Place, Traffic]  # and by (tier, period, owner)


class Lake:
    """A folder (or bucket prefix) of Delta tables under one tier policy.

    `as_of` is the day that ages count from: a date, or a callable asked at each write; None
    when unknown, and then rows stay in the tier where they land. `books` are told of every file
    that is written; `guard` is asked before files are read (archived objects cannot be).

    Raises:
        ValueError: a local root with a character that the Delta library spells two ways.
    """

    def __init__(
        self,
        root: str | Path,
        policy: TierPolicy = DEFAULT_POLICY,
        as_of: date | Callable[[], date | None] | None = None,
        storage_options: Mapping[str, str] | None = None,
        books: Books | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.books, self.guard = books, guard
        self.root = str(root).rstrip("/")
        strange = _UNREADABLE.search(self.root) if is_local(self.root) else None
        if strange:
            raise ValueError(
                f"the lake cannot be kept in {self.root}: what is written under a folder with "
                f"{strange[0]!r} in its name is not found again; set FORECAST_DATA to a folder "
                "named with letters, digits and ._-+,=@~ only"
            )
        self.policy = policy
        self.storage_options = dict(storage_options or {})
        self._as_of = as_of

    @property
    def as_of(self) -> date | None:
        """The day that ages count from."""
        return self._as_of() if callable(self._as_of) else self._as_of

    def table(self, table: str | Table) -> LakeTable:
        """The table of a dataset, by name or by its declaration; it need not exist yet.

        Raises:
            ValueError: no dataset of that name is declared.
        """
        if isinstance(table, str):
            if table not in TABLES:
                raise ValueError(f"unknown dataset {table!r}; declared are {sorted(TABLES)}")
            table = TABLES[table]
        return LakeTable(self, table)


@dataclass(frozen=True)
class LakeTable:
    """One dataset in the lake."""

    lake: Lake
    table: Table
    uri: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", f"{self.lake.root}/{self.table.name}")

    # -- the table itself ------------------------------------------------------------------

    @property
    def layout(self) -> FileLayout:
        """How its rows become files."""
        return FileLayout(self.table, self.lake.policy)

    @property
    def owner_column(self) -> str | None:
        """The column besides the date that rows are filed by: store, segment group or none."""
        return self.layout.owner_column

    @property
    def partition_columns(self) -> list[str]:
        """The physical partition columns; none for a table that is not cut."""
        return self.layout.partition_columns

    def exists(self) -> bool:
        """Whether the table has been created."""
        return bool(DeltaTable.is_deltatable(self.uri, self._options))

    def pin(self, version: int | None = None) -> DeltaTable:
        """A handle fixed to the newest version, or to a given one.

        Raises:
            MissingTable: the table has never been written.
        """
        try:
            return DeltaTable(self.uri, version=version, storage_options=self._options)
        except TableNotFoundError:
            raise MissingTable(
                f"{self.table.name} does not exist yet: materialize it first"
            ) from None

    def version(self) -> int:
        """The newest version."""
        return int(self.pin().version())

    # -- writing ---------------------------------------------------------------------------

    def replace(
        self,
        rows: pl.DataFrame,
        cells: Cells | None,
        landing_tier: str = Tier.HOT,
        keys: Keys | None = None,
    ) -> Written:
        """Make `rows` all that the table holds in `cells` (and of `keys`); the rest stays.

        `cells` None means every day. No rows: the cells become empty. Running it again changes
        nothing. Rows land by their age at the lake's `as_of`, never above `landing_tier`.

        Raises:
            ValueError: rows outside the cells, a missing column, a null or unusable store.
            LakeConflict: other writers of the same rows kept interfering.
        """
        keys = keys or {}
        rows = storable(self.table.name, self.table.conform(rows))
        self._check(rows, cells, keys)
        self._create(rows)
        landing = Tier.named(landing_tier)
        self.lake.policy.rule(landing)
        tiers: dict[str, int] = {}
        commits: list[Commit] = []
        for tier, window in self._windows(cells, landing):
            done = self._overwrite(lambda _: rows, tier, window, keys)
            self._record(done)
            commits.append(done)
            landed = rows.select(self._within(window).sum()).item() if rows.height else 0
            if landed:
                tiers[tier.value] = landed
        added = [file for done in commits for file in done.added]
        traffic = traffic_of(added)
        total = sum(file.bytes for file in added)
        return Written(rows.height, total, len(added), commits[-1].version, tiers, traffic)

    def rewrite(
        self,
        taken: Callable[[DeltaTable], pl.DataFrame],
        tier: Tier,
        window: Cells | None,
        keys: Keys,
        write_id: str,
    ) -> Commit:
        """Put the rows that `taken` finds in a pinned version in place of those of the window.

        One commit, all of it in `tier`. `taken` is asked again, on a fresh handle, when another
        writer was first; `write_id` marks the commit in the log. Nothing is recorded: whoever
        rewrites looks at the result first (`resources.lifecycle`).

        Raises:
            LakeConflict: other writers of the same rows kept interfering.
        """
        return self._overwrite(taken, tier, window, keys, write_id)

    def _record(self, done: Commit) -> None:
        if self.lake.books is not None:
            self.lake.books.wrote(self.uri, done)

    def _windows(self, cells: Cells | None, landing: Tier) -> Iterator[tuple[Tier, Cells | None]]:
        policy, as_of = self.lake.policy, self.lake.as_of
        if cells is None or self.table.date_column is None:
            yield landing, cells
            return
        for tier, first, last in policy.windows(cells.first, cells.last, as_of, landing):
            yield tier, Cells(first, last, cells.stores)

    def _overwrite(
        self,
        taken: Callable[[DeltaTable], pl.DataFrame],
        tier: Tier,
        window: Cells | None,
        keys: Keys,
        write_id: str | None = None,
    ) -> Commit:
        """One commit: those rows of `taken` in the window replace what the table holds in it."""
        rule = self.lake.policy.rule(tier)

        def write(handle: DeltaTable, properties: CommitProperties) -> None:
            rows = taken(handle)
            schema = self.layout.schema(rows, tier)
            batches = self.layout.batches(rows, tier, window)
            write_deltalake(
                handle,
                pa.RecordBatchReader.from_batches(schema, batches),
                mode="overwrite",
                schema_mode="merge",
                predicate=self._where(window, keys),
                target_file_size=rule.target_file_mb * 2**20,
                writer_properties=self.layout.writer(rule, rows),
                commit_properties=properties,
            )

        return commit(self.pin, write, storage_options=self._options, write_id=write_id)

    def _create(self, rows: pl.DataFrame) -> None:
        if self.exists():
            return
        if is_local(self.uri):
            Path(self.uri).parent.mkdir(parents=True, exist_ok=True)
        try:
            DeltaTable.create(
                self.uri,
                schema=self.layout.schema(rows, Tier.HOT),
                mode="ignore",
                partition_by=self.partition_columns or None,
                configuration={
                    "delta.dataSkippingStatsColumns": ",".join(self.layout.indexed(rows.columns)),
                    # A held version can be read for as long as its log entries last.
                    "delta.logRetentionDuration": "interval 36500 days",
                },
                storage_options=self._options,
            )
        except DeltaError:
            if not self.exists():  # else another writer created it between the two looks
                raise

    def _check(self, rows: pl.DataFrame, cells: Cells | None, keys: Keys) -> None:
        inside = self._within(cells) & _carries(keys)
        strays = rows.filter(~inside.fill_null(False))
        if strays.height:
            raise ValueError(
                f"{self.table.name}: {strays.height} of {rows.height} rows lie outside what is "
                f"being replaced ({self._where(cells, keys)}); the first: "
                f"{strays.row(0, named=True)}. Write them with the partition that they belong to"
            )
        if self.table.date_column:
            check_filed_by(self.table.name, rows, self.table.date_column)
        if self.owner_column:
            check_filed_by(self.table.name, rows, self.owner_column)

    # -- reading ---------------------------------------------------------------------------

    def read(
        self,
        cells: Cells | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
        keys: Keys | None = None,
        handle: DeltaTable | None = None,
    ) -> Read:
        """Rows of `cells` (all when None) from every tier, lazily, from one pinned version.

        Files are pruned by store, date and, through `where`, by the other indexed columns; the
        order of rows is not defined.

        Raises:
            MissingTable: the table has never been written.
        """
        handle = handle or self.pin()
        touched = self._touched(handle, cells, keys or {})
        if self.lake.guard is not None:
            self.lake.guard(self.uri, sizes_by_path(touched))
        frame = pl.scan_delta(handle, storage_options=self._options)
        frame = frame.filter(self._within(cells) & _carries(keys or {}))
        if where is not None:
            frame = frame.filter(where)
        names = [c for c in frame.collect_schema().names() if c not in self._hidden]
        # Declared order first: partition columns and later extras come wherever the log has them.
        declared = [name for name in self.table.columns if name in names]
        extras = [name for name in names if name not in self.table.columns]
        return Read(
            frame.select(columns if columns is not None else [*declared, *extras]),
            touched.height,
            int(touched["size_bytes"].sum()),
            handle.version(),
            traffic_read(touched),
            traffic_by_part(touched, self.owner_column),
        )

    def by_store(
        self,
        cells: Cells | None = None,
        columns: Sequence[str] | None = None,
        where: pl.Expr | None = None,
        observe: Callable[[Read], None] | None = None,
    ) -> ByStore:
        """The same rows one store at a time, all from one version; `observe` sees each read.

        Raises:
            MissingTable: the table has never been written.
            ValueError: its rows belong to no store.
        """
        if "store_id" not in self.table.columns:
            raise ValueError(f"{self.table.name} has no store_id: take it as a pl.DataFrame")
        handle = self.pin()

        def load(store_id: str) -> pl.DataFrame:
            mine = cells.only(store_id) if cells and self.table.by_store else cells
            one = pl.col("store_id") == store_id
            found = self.read(mine, columns, one if where is None else one & where, handle=handle)
            if observe:
                observe(found)
            return found.frame.collect()

        if cells is not None and cells.stores is not None:
            return ByStore(cells.stores, load)
        return ByStore(self._stores(handle, cells), load)

    def empty(self) -> pl.DataFrame:
        """No rows, with the declared columns."""
        return pl.DataFrame(schema=self.table.schema)

    def _stores(self, handle: DeltaTable, cells: Cells | None) -> tuple[str, ...]:
        if self.table.by_store:
            found = self._touched(handle, cells, {})["partition.store_id"]
        else:
            found = self.read(cells, ["store_id"], handle=handle).frame.collect()["store_id"]
        return tuple(found.unique().sort().to_list())

    def _touched(self, handle: DeltaTable, cells: Cells | None, keys: Keys) -> pl.DataFrame:
        """The files (path, size_bytes, ...) that may hold such rows, by the log alone."""
        files = pl.DataFrame(handle.get_add_actions(flatten=True))
        possible = pl.lit(True)
        lowest = f"min.{self.table.date_column}"
        highest = f"max.{self.table.date_column}"
        if cells is not None and lowest in files.columns:
            apart = (pl.col(lowest) > cells.last) | (pl.col(highest) < cells.first)
            possible &= ~apart.fill_null(False)
        filed = {**keys, "store_id": cells.stores} if cells and cells.stores else keys
        owner = f"partition.{self.owner_column}"
        for column, values in filed.items():
            if column == self.owner_column and values is not None and owner in files.columns:
                possible &= pl.col(owner).is_in([values] if isinstance(values, str) else values)
        return files.filter(possible)

    # -- logical windows -------------------------------------------------------------------

    def _within(self, cells: Cells | None) -> pl.Expr:
        inside = pl.lit(True)
        if cells is not None and self.table.date_column is not None:
            inside &= pl.col(self.table.date_column).is_between(cells.first, cells.last)
        if cells is not None and cells.stores is not None and self.table.by_store:
            inside &= pl.col("store_id").is_in(cells.stores)
        return inside

    def _where(self, cells: Cells | None, keys: Keys) -> str:
        store = "store_id" if self.table.by_store else None
        return predicate(cells, keys, self.table.date_column, store)

    @property
    def _hidden(self) -> tuple[str, ...]:
        return HIDDEN if self.partition_columns else ()

    @property
    def _options(self) -> dict[str, str] | None:
        return self.lake.storage_options or None


def _carries(keys: Keys) -> pl.Expr:
    held = pl.lit(True)
    for column, values in keys.items():
        held &= pl.col(column).is_in([values] if isinstance(values, str) else values)
    return held
