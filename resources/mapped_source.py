"""Sales as a mapping says, a store at a time: the `Source` of anyone's own tables.

Belongs here: the protocol's answers from the staged runs. Does not: staging
(`resources.source_stage`) or how spans of prices are laid out (`forecast_core.source.known_ahead`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cached_property, lru_cache
from pathlib import Path

import polars as pl

from forecast_core.frequency import Frequency
from forecast_core.hierarchy import Level
from forecast_core.prices import month_pieces
from forecast_core.rungs import cold_start
from forecast_core.schema import TABLES
from forecast_core.source.error import SourceError
from forecast_core.source.item_stores import item_stores
from forecast_core.source.known_ahead import AHEAD_DAYS, KnownAhead, price_rows
from forecast_core.source.mapping import IDS, MappingError, Policy, SourceMapping
from forecast_core.source.span import body
from resources.policies import PolicyError, load_policy
from resources.source_calendar import calendar_of
from resources.source_files import attributes
from resources.source_fixes import NO_DATE, Overlay, overlay, read_fixes, was
from resources.source_stage import (
    Manifest,
    Progress,
    asks_a_database,
    rows_of,
    staged,
    stores_of,
    tables,
)

_BESIDE = ("sell_price", "closed", "price_defect")  # of the sales table, and no part of a sale
_DATELESS = pl.lit("unparseable_date")
LANDED = "landed.json"  # what `resources.landed` remembers, beside the staged runs


def read_mapping(path: Path) -> SourceMapping:
    """A mapping file.

    Raises:
        MappingError: no such file, no YAML, or what is wrong in it, by its place.
    """
    if not path.is_file():
        raise MappingError(
            f"{path}: there is no such mapping; `forecast source init FILES...` writes one"
        )
    try:
        return load_policy(path, SourceMapping.parse)
    except PolicyError as error:
        raise MappingError(str(error)) from error


class MappedSource:
    """The tables that a mapping names. They are staged when first asked for, and again when one
    of them changed; `root` is where."""

    def __init__(
        self, path: Path, root: Path, progress: Progress | None = None, fresh: bool = False
    ) -> None:
        self.path, self.root = path, root
        self.name = path.stem
        self.mapping = read_mapping(path)
        self._progress, self._fresh = progress, fresh
        # The store asked for last: its rows, and those that only plan ahead.
        self._kept: tuple[str, pl.DataFrame, pl.DataFrame] | None = None

    @property
    def frequency(self) -> Frequency:
        """How often the data speaks."""
        return self.mapping.how_often

    @property
    def policy(self) -> Policy:
        """What becomes of gaps, returns and duplicates."""
        return self.mapping.policy

    @cached_property
    def stage(self) -> Path:
        """The folder of the staged runs.

        Raises:
            SourceError: a file that cannot be used as it stands.
        """
        return staged(self.mapping, self.path.parent, self.root, self._progress, self._fresh)

    def ask_again(self) -> None:
        """Have a database asked anew when the stage is asked for; files tell by themselves."""
        self._fresh = self._fresh or asks_a_database(self.mapping)

    @cached_property
    def manifest(self) -> Manifest:
        """What was read."""
        return Manifest.read(self.stage)

    @cached_property
    def corrected(self) -> Overlay | None:
        """What the mapping's corrections make of single rows; the files are not read for them."""
        if not self.mapping.fixes:
            return None
        fixes = read_fixes([self.path.parent / name for name in self.mapping.fixes])
        staged = pl.scan_parquet(self.stage / "sales" / "*.parquet")
        series = pl.read_parquet(self.stage / "series.parquet")
        return overlay(fixes, staged, self.manifest.names, series, self._codes)

    @property
    def reading(self) -> str:
        """Another name for other files, another mapping of them, or other corrections."""
        fixes = [(self.path.parent / name).read_bytes() for name in self.mapping.fixes]
        more = hashlib.sha256(b"\0".join(fixes)).hexdigest()[:8] if fixes else ""
        return self.stage.name + self.manifest.asked + more

    @cached_property
    def _codes(self) -> dict[str, int]:
        held: dict[str, int] = json.loads((self.stage / "stores.json").read_text())
        return held

    @property
    def _series(self) -> pl.DataFrame:
        """The five attributes, with `series` and `store` by number, and whether it is `real`."""
        if self.corrected is not None:
            return self.corrected.series
        return pl.read_parquet(self.stage / "series.parquet")

    def stores(self) -> tuple[str, ...]:
        """Every store, sorted."""
        if self.corrected is None:
            return self.manifest.stores
        return tuple(stores_of(self.corrected.series))

    @lru_cache(maxsize=1)  # noqa: B019  # as many as there are sources
    def span(self) -> tuple[date, date]:
        """The first and the last day with sales; days far from all others are mistakes.

        Where the files hold changes only, what was landed before counts too.

        Raises:
            SourceError: no row has a day and units.
        """
        found = self._delivered
        landed = self.root / LANDED
        if self.adds and landed.is_file():
            held = [date.fromisoformat(day) for day in json.loads(landed.read_text())["span"]]
            return min(held[0], found[0]), max(held[1], found[1])
        return found

    @cached_property
    def _delivered(self) -> tuple[date, date]:
        counted = Counter({date.fromisoformat(d): rows for d, rows in self.manifest.days.items()})
        if self.corrected is not None:
            counted.update(self.corrected.rows["date"].to_list())
        wanted = self.mapping.first, self.mapping.last
        found = body(counted, *wanted)
        if found is None:
            raise SourceError(
                self.manifest.files[0].name,
                None,
                "no row has both a date that can be read and units",
                f"Correct sales.date and sales.units in {self.path}",
            )
        return found

    @property
    def adds(self) -> bool:
        """Whether its rows come on top of what was landed before."""
        return self.mapping.delivery == "changes"

    @property
    def levels(self) -> tuple[Level, ...] | None:
        """The levels that the mapping declares."""
        declared = self.mapping.hierarchy
        return None if declared is None else declared.levels

    def attributes(self) -> tuple[pl.DataFrame, ...]:
        """The tables of the declared hierarchy, each item or store once.

        Raises:
            SourceError: a table that cannot be read, lacks a column, or has a key twice.
        """
        declared = self.mapping.hierarchy
        tables = declared.attributes if declared is not None else ()
        return tuple(attributes(table, self.path.parent) for table in tables)

    @lru_cache(maxsize=1)  # noqa: B019  # as many as there are sources
    def series(self) -> pl.DataFrame:
        """Every item-store that a sale or a price of the store names: the five attributes.

        An item that only a price of no store names, or a list of what is on sale, is on sale in
        every open store.
        """
        told = pl.read_parquet(self.stage / "priced.parquet")
        priced = told.filter(pl.col("store_id").is_in(self.stores()))
        sold = self._series.filter("real").select(IDS)
        named = pl.concat([priced, sold], how="diagonal")
        everywhere = [told.filter(pl.col("store_id").is_null()).select("item_id"), *self._listed]
        only = pl.concat(everywhere).unique().join(named, on="item_id", how="anti")
        if only.height:
            named = pl.concat([named, only.join(self._open(), how="cross")], how="diagonal")
        return item_stores(named)

    @property
    def _listed(self) -> list[pl.DataFrame]:
        """(item_id) of each table that lists what is on sale."""
        declared = self.mapping.hierarchy
        tables = [t for t in declared.attributes if t.on_sale] if declared is not None else []
        return [attributes(t, self.path.parent).select("item_id").drop_nulls() for t in tables]

    def _open(self) -> pl.DataFrame:
        """(store_id) of the stores that still sell: of the others no newcomer is expected."""
        codes = {self._codes[store]: store for store in self.stores()}
        sales = pl.scan_parquet(self.stage / "sales" / "*.parquet").filter(pl.col("units") > 0)
        last = sales.group_by("store").agg(pl.col("date").max()).collect()
        since = self.span()[1] - timedelta(days=cold_start.DAYS)
        selling = last.filter(pl.col("store").is_in(list(codes)), pl.col("date") > since)
        return selling.select(
            store_id=pl.col("store").replace_strict(codes, return_dtype=pl.String)
        )

    @property
    def plans(self) -> bool:
        """Whether a price says that an item is on sale before anything of it is sold."""
        return self.mapping.prices is not None

    def sales(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_sales of one store, with source_file, refused and raw_text beside the declared.

        A row must belong to a day and a store to be filed: one without is filed under the first
        of either, with what is wrong with it.
        """
        rows, _ = self._held(store_id)
        rows = rows.drop([c for c in rows.columns if c in _BESIDE or c.startswith("x_")])
        begin, end = self.span()
        whole = first <= begin and end <= last
        return rows if whole else rows.filter(pl.col("date").is_between(first, last))

    def prices(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_prices of one store with the covariates known ahead, cut at month ends.

        Without prices every unit is worth 1, from an item's first sale on.
        """
        spans = self._spans(store_id)
        return month_pieces(spans, first, last).sort("item_id", "date", "source_row")

    def passed_over(self) -> pl.DataFrame:
        """Rows of the other tables that say nothing of any sale: source_file, source_row, rule,
        defect. Prices that cannot be read are told by cleaning."""
        codes = {code: store for store, code in self._codes.items()}
        strange = self._strangers
        names = pl.Series(self.manifest.names, dtype=pl.String)
        found = []
        for table in tables(self.mapping):
            if table == "sales":
                continue
            rows = pl.scan_parquet(self.stage / table / "*.parquet")
            odd = pl.col("store").is_in(strange)
            if table != "prices":
                odd = odd | pl.col("date").is_null()
            kept = rows.filter(odd).select("file", "source_row", "store", "defect").collect()
            stranger = pl.col("store").is_in(strange)
            said = pl.format("{} has no sales", pl.col("store").replace_strict(codes, default=None))
            found.append(
                kept.select(
                    names[kept["file"]].alias("source_file"),
                    "source_row",
                    rule=pl.when(stranger).then(pl.lit("unknown_store")).otherwise(_DATELESS),
                    defect=pl.when(stranger).then(said).otherwise("defect"),
                )
            )
        empty = {"source_file": pl.String, "source_row": pl.Int64, "rule": pl.String}
        return pl.concat([pl.DataFrame(schema={**empty, "defect": pl.String}), *found])

    def inventory(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_inventory: a mapping names no stock."""
        return TABLES["raw_inventory"].schema.to_frame()

    def calendar(self) -> pl.DataFrame:
        """raw_calendar: the mapping's, or the bare days of the span and a year more."""
        return calendar_of(self.mapping, self.path.parent, *self.span())

    def planned(self, store_id: str) -> int:
        """Rows of the sales past the last of them, that tell a price, a covariate or a closure."""
        return self._held(store_id)[1].height

    def _held(self, store_id: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """`_read`, once for as long as the same store is asked for; never two stores in memory."""
        if self._kept is None or self._kept[0] != store_id:
            self._kept = None
            self._spans.cache_clear()
            self._kept = store_id, *self._read(store_id)
        return self._kept[1:]

    @property
    def _strangers(self) -> list[int]:
        """Codes of names that are no store: none of their rows is a sale."""
        stores = self.stores()
        return [code for store, code in self._codes.items() if store not in stores]

    def _code(self, store_id: str) -> int:
        if store_id not in self.stores():
            raise SourceError(
                str(self.path),
                None,
                f"there is no store {store_id!r}",
                f"Ask for one of {', '.join(self.stores()[:10])}",
            )
        return self._codes[store_id]

    def _read(self, store_id: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """All rows of a store as raw_sales and what else the sales table tells; and of those past
        the last sale, without units, what they plan."""
        first, last = self.span()
        strays = [None, *self._strangers] if store_id == self.stores()[0] else []
        codes = [self._code(store_id), *strays]
        rows = self._over(rows_of(self.stage, "sales", codes), codes)
        series = _one_place(self._series, rows)
        rank = series["item_id"].rank("dense").fill_null(0).alias("rank")
        rows = _in_order(rows, rank[rows["series"]])
        files = pl.Series(self.manifest.names, dtype=pl.String)
        rows = rows.with_columns(
            *(series[name][rows["series"]].alias(name) for name in IDS),
            files[rows["file"]].alias("source_file"),
        ).with_columns(store_id=pl.when(~_among("store", strays)).then("store_id"))
        rows, plans = self._apart(rows.drop("series", "store", "file"), last)
        early, late = pl.col("date") < first, pl.col("date") > last
        words = pl.when(late).then(pl.lit("future_date")).when(early).then(pl.lit("early_date"))
        note = words.otherwise(None)
        said = pl.format("{} is outside {} to {}", "date", pl.lit(first), pl.lit(last))
        astray = (early | late).fill_null(False)
        absent = pl.any_horizontal(pl.col("date", "store_id").is_null())
        if rows.select((astray | absent).any()).item():
            # What it was is kept where it is filed as something else.
            at = rows.select(astray).to_series().arg_true()
            texts = rows["raw_text"].scatter(at, was(rows[at]))
            # A key that is missing stays missing in `defect`; the row is filed all the same.
            dateless = pl.when(pl.col("date").is_null()).then(pl.lit(NO_DATE))
            lacking = dateless.otherwise(pl.lit("it names no store"))
            rows = rows.with_columns(
                raw_text=texts,
                refused=pl.coalesce("refused", note, pl.when(absent).then(pl.lit("missing_key"))),
                defect=pl.coalesce(
                    "defect", pl.when(astray).then(said), pl.when(absent).then(lacking)
                ),
                date=pl.when(late)
                .then(pl.lit(last))
                .otherwise(pl.when(early).then(pl.lit(first)).otherwise("date"))
                .fill_null(self._delivered[0]),
                store_id=pl.col("store_id").fill_null(store_id),
            )
        extras = [c for c in rows.columns if c not in TABLES["raw_sales"].columns]
        columns = [*TABLES["raw_sales"].columns, *extras]
        return rows.select(columns), plans.select(columns)

    def _apart(self, rows: pl.DataFrame, last: date) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(sales, plans): a plan has no units yet, and tells something of a day ahead."""
        beside = [c for c in rows.columns if c.startswith("x_") or c in ("sell_price", "closed")]
        unsold = rows["units"].is_null() & rows["refused"].is_null()
        if not beside or not unsold.any():
            return rows, rows.clear()
        told = pl.any_horizontal(pl.col(beside).is_not_null()) & (pl.col("date") > last)
        plan = unsold & rows.select(told.fill_null(False)).to_series()
        # Of a wide table a cell that holds nothing is no row.
        sold = ~unsold if self.mapping.sales.wide is not None else ~plan
        return rows.filter(sold), rows.filter(plan)

    def _over(self, rows: pl.DataFrame, codes: Sequence[int | None]) -> pl.DataFrame:
        """Staged rows of a store with the corrected ones in their place."""
        if self.corrected is None:
            return rows
        lines = self.corrected.gone["source_row"].unique()
        suspects = rows.filter(pl.col("source_row").is_in(lines.implode()))
        numbered = self._series.select("series", *IDS)
        ids = suspects.join(numbered, on="series", how="left", maintain_order="left")
        suspects = suspects.with_columns(was(ids))
        like = ["file", "source_row", "was"]
        left = suspects.join(self.corrected.gone, on=like, how="anti").drop("was")
        others = rows.filter(~pl.col("source_row").is_in(lines.implode()).fill_null(False))
        mine = self.corrected.rows.filter(
            pl.col("store").is_in([c for c in codes if c is not None])
        )
        return pl.concat([others, left, mine.select(rows.columns)], how="vertical_relaxed")

    @lru_cache(maxsize=1)  # noqa: B019  # as many as there are sources
    def _spans(self, store_id: str) -> pl.DataFrame:
        first, last = self.span()
        code = self._code(store_id)
        sales = pl.concat(self._held(store_id))
        given = None
        if self.mapping.prices is not None:
            given = rows_of(self.stage, "prices", [code, None])
            files = pl.Series(self.manifest.names, dtype=pl.String)
            given = given.with_columns(files[given["file"]].alias("source_file"))
        known = [
            rows_of(self.stage, f"known_{at}", [code, None])
            for at in range(len(self.mapping.known))
        ]
        return price_rows(
            KnownAhead(
                sales=sales,
                prices=given,
                exact=self.mapping.prices is not None
                and self.mapping.prices.date.calendar is not None,
                known=known,
                covariates=self.mapping.covariates,
                policy=self.mapping.policy,
                frequency=self.frequency,
            ),
            store_id,
            first,
            last,
        )


def _among(column: str, codes: Sequence[int | None]) -> pl.Expr:
    known = [code for code in codes if code is not None]
    return pl.col(column).is_in(known).fill_null(False)


def _one_place(series: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """`series` (a row a number) with one department, category and state for each item of a store:
    those of its last sale. An item that was moved takes its history along."""
    held = series.filter(pl.col("series").is_in(rows["series"].unique().implode()))
    again = held.filter(pl.struct("item_id", "store_id").is_duplicated()).drop_nulls(
        ["item_id", "store_id"]
    )
    if again.is_empty():
        return series
    last = rows.group_by("series").agg(pl.col("date").max())
    placed = again.join(last, on="series").sort("date", "series", nulls_last=False)
    others = ["dept_id", "cat_id", "state_id"]
    newest = placed.group_by("item_id", "store_id").agg(pl.col(others).drop_nulls().last())
    moved = again.select("series", "item_id", "store_id").join(newest, on=["item_id", "store_id"])
    return series.update(moved.select("series", *others), on="series")


def _in_order(rows: pl.DataFrame, rank: pl.Series) -> pl.DataFrame:
    """By item and day, then as the files had them; one number a row sorts quickest."""
    day = rows["date"].to_physical().cast(pl.Int64).fill_null(-(1 << 20))
    key = rank.cast(pl.Int64) * (1 << 22) + day
    steps = key.diff().slice(1)
    if (steps > 0).all():
        return rows
    order = key.arg_sort()
    if not (key[order].diff() == 0).any():
        return rows[order]
    by = rows.select("file", "source_row").with_columns(key.alias("key"))
    return rows[by.select(pl.arg_sort_by("key", "file", "source_row")).to_series()]


__all__ = ["AHEAD_DAYS", "MappedSource", "read_mapping"]
