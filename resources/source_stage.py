"""A mapped source, read once and kept sorted by store: the price of asking it store by store.

Belongs here: the runs on disk, their manifest, and when they are out of date. Does not: reading a
file (`resources.source_files`), or what a row means (`forecast_core.source.rows`).

Memory stays bounded by a run, whatever the files hold: rows gather until there are `RUN` of them,
are sorted by store, series and date, and are written with the statistics by which a reader of one
store passes over the others. The folder is written aside and renamed, so it is whole or absent;
its name is a hash of the mapping and of the files' sizes and times.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import polars as pl

from forecast_core.source.error import SourceError
from forecast_core.source.mapping import IDS, Facts, Join, SourceMapping
from forecast_core.source.rows import (
    columns_of,
    fact_rows,
    sales_rows,
    sales_schema,
    wide_columns,
    wide_covariates,
)
from forecast_core.source.values import LINE, Lookups, calendar_days
from resources.source_files import Origin, batches, column_kinds, header, joined, origins, whole
from resources.source_text import Batch

RUN = 2_000_000
GROUP = 1 << 16  # rows of a row group
ASKED_AGAIN = 6 * 3600  # seconds
_PARTING = ("|", "...")  # parts a key of month and store, and a range of keys
TOLD = ("refused", "defect", "raw_text")  # what a reader says of a row it could not use
_VERSION = 8  # of this layout
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class FileRead:
    """What a file gave: its rows, and rows staged (as many, but for the cells of a wide one)."""

    table: str
    name: str
    rows: int
    staged: int
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # of the columns, as `source_changes.kind_of` calls them


@dataclass(frozen=True)
class Manifest:
    """What the runs hold. `days`: rows by day, undated ones left out."""

    files: tuple[FileRead, ...]
    days: dict[str, int]
    stores: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # of files, by their number
    asked: str = ""  # another one each time that a database was asked

    @property
    def rows(self) -> int:
        """Rows of sales."""
        return sum(file.staged for file in self.files if file.table == "sales")

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """From a stage's folder."""
        held = json.loads((path / "manifest.json").read_text())
        files = tuple(
            FileRead(**{**f, "columns": tuple(f["columns"]), "kinds": tuple(f["kinds"])})
            for f in held.pop("files")
        )
        stores, covariates, names = (tuple(held[k]) for k in ("stores", "covariates", "names"))
        return cls(files, held["days"], stores, covariates, names, held["asked"])


def tables(mapping: SourceMapping) -> dict[str, Facts]:
    """The tables with a date, by name."""
    found: dict[str, Facts] = {"sales": mapping.sales}
    if mapping.prices is not None:
        found["prices"] = mapping.prices
    return found | {f"known_{at}": table for at, table in enumerate(mapping.known)}


def fingerprint(mapping: SourceMapping, base: Path) -> str:
    """Changes when the mapping does, or a file's size or time.

    Raises:
        SourceError: a file that is not there.
    """
    every = [*tables(mapping).values(), *(j for t in tables(mapping).values() for j in t.join)]
    every += [mapping.calendar] if mapping.calendar else []
    stats = []
    for table in every:
        for origin in origins(table, base):
            parts = [origin.path]
            if origin.format == "sql":
                stats.append((origin.name, table.query, 0))
                continue
            if origin.format == "delta":
                parts = sorted((origin.path / "_delta_log").glob("*.json"))
            for path in parts:
                stat = path.stat()
                stats.append((str(path), str(stat.st_size), stat.st_mtime_ns))
    text = json.dumps([_VERSION, mapping.model_dump(mode="json", exclude={"fixes"}), stats])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def staged(
    mapping: SourceMapping,
    base: Path,
    root: Path,
    progress: Progress | None = None,
    fresh: bool = False,
) -> Path:
    """The folder of the runs, made now unless it is there for these very files.

    A database does not say when it changes: what was asked of one is asked again after
    `ASKED_AGAIN`.

    Raises:
        SourceError: a file that cannot be used as it stands.
    """
    path = root / fingerprint(mapping, base)
    if fresh or _outdated(mapping, path):
        shutil.rmtree(path, ignore_errors=True)
    if (path / "manifest.json").is_file():
        return path
    aside = root / f"aside-{uuid.uuid4().hex[:8]}"
    aside.mkdir(parents=True)
    try:
        _write(mapping, base, aside, progress or (lambda name, rows: None))
        try:
            aside.rename(path)
        except OSError:
            if not (path / "manifest.json").is_file():
                raise  # else another process was quicker, with the same
        for old in root.iterdir():
            if old != path and not old.name.startswith("aside-"):
                shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def asks_a_database(mapping: SourceMapping) -> bool:
    """Whether any of its tables is a query."""
    every = [*tables(mapping).values(), *(j for t in tables(mapping).values() for j in t.join)]
    return any(table.url is not None for table in [*every, mapping.calendar] if table is not None)


def _outdated(mapping: SourceMapping, path: Path) -> bool:
    manifest = path / "manifest.json"
    if not manifest.is_file() or not asks_a_database(mapping):
        return False
    return time.time() - manifest.stat().st_mtime > ASKED_AGAIN


def rows_of(path: Path, table: str, store: Sequence[int | None]) -> pl.DataFrame:
    """The staged rows of a table that belong to one of the store codes (None: to no store)."""
    wanted = [code for code in store if code is not None]
    kept = pl.col("store").is_in(wanted)
    if None in store:
        kept = kept | pl.col("store").is_null()
    rows = pl.scan_parquet(path / table / "*.parquet").filter(kept)
    if table != "sales":
        return rows.collect()
    # Most stores have nothing to say of any row: three columns of text less to hold.
    told = pl.any_horizontal(pl.col(c).is_not_null() for c in TOLD)
    if rows.filter(told).select(pl.len()).collect().item():
        return rows.collect()
    return rows.drop(TOLD).collect().with_columns(pl.lit(None, pl.String).alias(c) for c in TOLD)


def stores_of(series: pl.DataFrame) -> list[str]:
    """The stores of a stage's series, sorted."""
    return sorted(series.filter("real")["store_id"].drop_nulls().unique())


def lookups(mapping: SourceMapping, base: Path) -> Lookups:
    """The small tables: what is joined, and the calendar's columns that dates are looked up by.

    Raises:
        SourceError: one that cannot be read.
    """
    joins = {
        name: [(tuple(join.on), _joined(join, base)) for join in table.join]
        for name, table in tables(mapping).items()
    }
    days = {}
    if mapping.calendar is not None:
        named = {t.date.calendar for t in tables(mapping).values() if t.date.calendar}
        if named:
            text = whole(mapping.calendar, base, [*mapping.calendar.date.names, *sorted(named)])
            days = dict(calendar_days(text, mapping.calendar, sorted(named)).days)
    return Lookups(joins, days)


def _joined(join: Join, base: Path) -> pl.DataFrame:
    return joined(join, base)


def _write(mapping: SourceMapping, base: Path, path: Path, progress: Progress) -> None:
    found = lookups(mapping, base)
    series = _Series()
    days: Counter[date] = Counter()
    files = []
    names: dict[str, int] = {}
    for name, table in tables(mapping).items():
        extras = dict.fromkeys(_extras(mapping), pl.Float64)
        runs = _Runs(path / name, {**_SALES, **extras} if name == "sales" else {})
        for origin in origins(table, base):
            read, kept = 0, 0
            for batch in _batches(origin, table, mapping, found):
                number = names.setdefault(batch.file, len(names))
                made = _rows(batch, name, table, mapping, found, series)
                if name == "sales":
                    days.update(_counted(made))
                    series.vouched(made)
                if name == "prices":
                    series.priced(made)
                runs.add(made.with_columns(pl.lit(number, pl.UInt32).alias("file")))
                read, kept = read + batch.lines, kept + made.height
                progress(batch.file, read)
            kinds = column_kinds(origin)
            files.append(FileRead(name, origin.name, read, kept, (*kinds,), (*kinds.values(),)))
        runs.close()
    stores = series.write(path)
    if not stores:
        raise SourceError(
            files[0].name, None, "no row names a store", "Correct `sales.store_id`, or leave it out"
        )
    for mark in _PARTING:
        if wrong := next((store for store in stores if mark in store), None):
            raise SourceError(
                files[0].name,
                None,
                f"store {wrong!r} has {mark!r} in its name, which parts the names of partitions",
                f"Call it otherwise under `sales.store_id`: values: {{{wrong!r}: another name}}",
            )
    manifest = Manifest(
        tuple(files),
        {str(day): n for day, n in sorted(days.items())},
        tuple(stores),
        mapping.covariates,
        tuple(names),
        uuid.uuid4().hex[:8] if asks_a_database(mapping) else "",
    )
    (path / "manifest.json").write_text(json.dumps(asdict(manifest)))


def _batches(
    origin: Origin, table: Facts, mapping: SourceMapping, found: Lookups
) -> Iterator[Batch]:
    columns = columns_of(table)
    own = header(origin)
    brought = {
        c for keys, joined in found.joins.get(_name(table, mapping), ()) for c in joined.columns
    }
    needed = [c for c in columns if c not in brought or c in own]
    numeric: list[str] = []
    if table is mapping.sales and mapping.sales.wide is not None:
        wide = list(wide_columns(mapping.sales, own))
        if not wide:
            raise SourceError(
                origin.name,
                None,
                f"no column fits wide.columns {mapping.sales.wide.columns!r}",
                f"Correct the expression; there are {', '.join(own[:6])}, ...",
            )
        signals = [c for of in wide_covariates(mapping.sales, own).values() for c in of.values()]
        numeric = wide
        needed = list(dict.fromkeys([*needed, *wide, *signals]))
    for spec in ("units", "sell_price"):
        column = getattr(table, spec, None)
        numeric += list(column.names) if column is not None else []
    return batches(origin, needed, [n for n in numeric if n in own])


def _name(table: Facts, mapping: SourceMapping) -> str:
    return next(name for name, one in tables(mapping).items() if one is table)


def _rows(
    batch: Batch, name: str, table: Facts, mapping: SourceMapping, found: Lookups, series: _Series
) -> pl.DataFrame:
    if name == "sales":
        return sales_rows(batch.rows, batch.unfit, batch.file, mapping, found, series.coded)
    made = fact_rows(batch.rows, batch.file, table, name, mapping, found).drop("source_file")
    made = series.by_store(made)
    if batch.unfit.is_empty():
        return made
    lost = batch.unfit.select(
        pl.col(LINE).alias("source_row"),
        refused=pl.lit("unreadable_line"),
        defect="defect",
        raw_text="text",
    )
    return pl.concat([made, lost], how="diagonal_relaxed")


def _counted(made: pl.DataFrame) -> dict[date, int]:
    sound = made.filter(pl.col("date").is_not_null() & pl.col("units").is_not_null())
    return dict(sound.group_by("date").len().iter_rows())


_SALES: Mapping[str, type[pl.DataType]] = {
    "date": pl.Date,
    "units": pl.Float64,
    "source_row": pl.Int64,
    "closed": pl.Boolean,
    "refused": pl.String,
    "defect": pl.String,
    "raw_text": pl.String,
}


def _extras(mapping: SourceMapping) -> list[str]:
    known = (*sales_schema(mapping),)
    return [name for name in known if name == "sell_price" or name.startswith("x_")]


class _Series:
    """A number for each series and each store, in the order in which they appear.

    A series is `real` once a row of it has a day and was not refused: a line of units under the
    header, or of a sum at the end, opens no store and no item. What only prices name is kept
    beside: it is on sale in their store, or in all of them, though it has sold nothing.
    """

    def __init__(self) -> None:
        self._real: set[int] = set()
        self._priced = pl.DataFrame(schema={"item_id": pl.String, "store": pl.UInt32})
        self._known = pl.DataFrame(
            schema={**dict.fromkeys(IDS, pl.String), "series": pl.UInt32, "store": pl.UInt32}
        )
        self._stores: dict[str, int] = {}

    def coded(self, ids: pl.DataFrame) -> pl.DataFrame:
        """`series` and `store` of each row of the five attributes."""
        found = ids.select(IDS).unique(maintain_order=True)
        new = found.join(self._known, on=IDS, how="anti", nulls_equal=True, maintain_order="left")
        if new.height:
            first = self._known.height
            numbers = pl.int_range(first, first + new.height, dtype=pl.UInt32)
            stores = self._codes(new["store_id"]).alias("store")
            new = new.with_columns(numbers.alias("series"), stores)
            self._known = pl.concat([self._known, new])
        return ids.join(
            self._known, on=IDS, how="left", nulls_equal=True, maintain_order="left"
        ).select("series", "store")

    def vouched(self, rows: pl.DataFrame) -> None:
        """Take note of the series of sound rows."""
        sound = pl.col("date").is_not_null()
        if "refused" in rows.columns:
            sound = sound & pl.col("refused").is_null()
        seen = rows.select(pl.col("series").filter(sound).unique().drop_nulls())
        self._real.update(seen.to_series())

    def priced(self, rows: pl.DataFrame) -> None:
        """Take note of what sound prices of a store name."""
        if "item_id" not in rows.columns:
            return
        sound = pl.col("date").is_not_null() & (pl.col("sell_price") > 0)
        named = pl.col("item_id").is_not_null()
        pairs = rows.lazy().filter(sound, named).select("item_id", "store").unique()
        self._priced = pl.concat([self._priced, pairs.collect()]).unique(maintain_order=True)

    def by_store(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of another table with `store` in place of store_id; null where they name none."""
        if "store_id" not in rows.columns:
            return rows.with_columns(pl.lit(None, pl.UInt32).alias("store"))
        return rows.with_columns(self._codes(rows["store_id"]).alias("store")).drop("store_id")

    def _codes(self, stores: pl.Series) -> pl.Series:
        for store in stores.unique(maintain_order=True).drop_nulls():
            self._stores.setdefault(store, len(self._stores))
        return stores.replace_strict(self._stores, default=None, return_dtype=pl.UInt32)

    def write(self, path: Path) -> list[str]:
        """Keep them; the stores with sales. Where no row at all is sound, each store is one."""
        real = pl.col("series").is_in(list(self._real)) if self._real else pl.lit(True)
        known = self._known.with_columns(real=real)
        known.write_parquet(path / "series.parquet")
        names = {code: store for store, code in self._stores.items()}
        stores = pl.col("store").replace_strict(names, default=None, return_dtype=pl.String)
        self._priced.select("item_id", store_id=stores).write_parquet(path / "priced.parquet")
        (path / "stores.json").write_text(json.dumps(self._stores))
        return stores_of(known)


class _Runs:
    """Rows in sorted files of at most about `RUN` rows; `schema` adds columns that no batch had."""

    def __init__(self, path: Path, schema: Mapping[str, type[pl.DataType]]) -> None:
        path.mkdir(parents=True)
        self._path, self._schema = path, schema
        self._held: list[pl.DataFrame] = []
        self._rows, self._count = 0, 0

    def add(self, rows: pl.DataFrame) -> None:
        self._held.append(rows)
        self._rows += rows.height
        if self._rows >= RUN:
            self._flush()

    def close(self) -> None:
        if self._held:
            self._flush()

    def _flush(self) -> None:
        rows = _sorted(pl.concat(self._held, how="diagonal_relaxed"))
        absent = {n: t for n, t in self._schema.items() if n not in rows.columns}
        rows.with_columns(pl.lit(None, t).alias(n) for n, t in absent.items()).write_parquet(
            self._path / f"run-{self._count:05d}.parquet",
            compression="zstd",
            compression_level=1,
            row_group_size=GROUP,
            statistics=True,
        )
        self._held, self._rows, self._count = [], 0, self._count + 1


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """By store, series and day, lines in their order; what is sorted already is left alone."""
    keys = [pl.col("store").cast(pl.Int64).fill_null(-1)]
    if "series" in rows.columns:
        keys.append(pl.col("series").cast(pl.Int64).fill_null(-1))
    keys.append(pl.col("date").cast(pl.Int32).cast(pl.Int64).fill_null(-(1 << 20)))
    number = keys[0]
    for key in keys[1:]:  # stores and series in 21 bits each, days in 21
        number = number * (1 << 21) + key
    order = rows.select(number.alias("k"))["k"]
    return rows if order.is_sorted() else rows[order.arg_sort()]
