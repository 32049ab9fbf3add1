"""Where sales, prices and the calendar come from, read a store at a time.

Belongs here: the `Source` protocol, finding and decoding files, and naming the file in what goes
wrong. Does not: what the content means (`forecast_core.source.m5`), generated data
(`forecast_core.generate`), or judging rows (`forecast_core.source.clean`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import polars as pl

from forecast_core import generate
from forecast_core.frequency import DAILY, Frequency
from forecast_core.generate import DemoSpec
from forecast_core.hierarchy import Level
from forecast_core.schema import TABLES
from forecast_core.source import m5
from forecast_core.source.clean import PLAIN
from forecast_core.source.error import SourceError
from forecast_core.source.mapping import Csv, Policy
from resources.mapped_source import MappedSource
from resources.source_text import text_header

SOURCES = ("demo", "m5")
_SALES = ("sales_train_evaluation", "sales_train_validation")
_SUFFIXES = (".parquet", ".csv.gz", ".csv")
Types = Mapping[str, type[pl.DataType]]


class Source(Protocol):
    """Daily item-store sales with prices and a calendar.

    Every method may raise `SourceError`; frames follow `forecast_core.schema.TABLES`.
    """

    @property
    def name(self) -> str:
        """The name by which the configuration chooses it."""

    @property
    def frequency(self) -> Frequency:
        """How often it speaks; the dates of weekly data are the first days of its weeks."""

    @property
    def policy(self) -> Policy:
        """What becomes of gaps, returns and duplicates."""

    @property
    def adds(self) -> bool:
        """Whether its rows come on top of what was landed, rather than in its place."""

    @property
    def plans(self) -> bool:
        """Whether a price says that an item is on sale before anything of it is sold."""

    @property
    def levels(self) -> tuple[Level, ...] | None:
        """The levels that forecasts add up in, coarse to fine; None: as the policy says."""

    def attributes(self) -> Sequence[pl.DataFrame]:
        """What is known of items or stores besides: their names (ours) and the attributes."""

    def series(self) -> pl.DataFrame | None:
        """The attributes of every series, where rows may be missing; None where none can be."""

    def stores(self) -> tuple[str, ...]:
        """Every store, sorted."""

    def span(self) -> tuple[date, date]:
        """The first and the last day with sales."""

    def sales(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_sales of one store; days outside the span give no rows."""

    def prices(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_prices of one store, cut to the window and at month ends; may pass the span."""

    def inventory(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_inventory of one store; no rows where the source tells no stock."""

    def calendar(self) -> pl.DataFrame:
        """raw_calendar, whole; reaches past the last day with sales where the source knows."""


class DemoSource:
    """Generated data: no file, any size."""

    name = "demo"
    frequency = DAILY
    policy = PLAIN
    adds = False
    plans = True
    levels = None

    def __init__(self, spec: DemoSpec) -> None:
        self.spec = spec
        # Asked month by month, a store is generated once.
        self._history = lru_cache(maxsize=1)(self._generate)

    def stores(self) -> tuple[str, ...]:
        """Every store, sorted."""
        return self.spec.store_ids

    def span(self) -> tuple[date, date]:
        """The first and the last day with sales."""
        return self.spec.first, self.spec.last

    def sales(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_sales of one store."""
        return self._history(store_id).sales(first, last)

    def prices(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_prices of one store, known `spec.ahead` days past the span."""
        return self._history(store_id).prices(first, last)

    def calendar(self) -> pl.DataFrame:
        """raw_calendar to `spec.ahead` days past the span."""
        return generate.raw_calendar(self.spec)

    def series(self) -> None:
        """No row is missing."""

    def attributes(self) -> tuple[pl.DataFrame, ...]:
        """None besides the five."""
        return ()

    def inventory(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_inventory of one store."""
        return self._history(store_id).inventory(first, last)

    def truth(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """Expected and actual demand behind the sales (see `StoreHistory.truth`)."""
        return self._history(store_id).truth(first, last)

    def _generate(self, store_id: str) -> generate.StoreHistory:
        _known("the generated data", store_id, self.stores())
        return generate.history(self.spec, store_id)


class M5Source:
    """The official M5 layout in a folder; each file as CSV, CSV.gz or Parquet.

    Sales are `sales_train_evaluation`, or `sales_train_validation` where that is absent. The files
    are read once and kept narrow (about 100 MB of sales and 200 MB of prices for all of M5);
    only the store asked for is unpivoted.
    """

    name = "m5"
    frequency = DAILY
    policy = PLAIN
    adds = False
    plans = True
    levels = None

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def stores(self) -> tuple[str, ...]:
        """Every store, sorted."""
        return self._wide.stores

    def span(self) -> tuple[date, date]:
        """The first and the last day with sales, by the header alone."""
        days = sorted(self._calendar.days[d] for d in self._header if d in self._calendar.days)
        return (days[0], days[-1]) if days else (self._wide.days[0], self._wide.days[-1])

    def series(self) -> None:
        """No row is missing."""

    def attributes(self) -> tuple[pl.DataFrame, ...]:
        """None besides the five."""
        return ()

    def series_order(self) -> pl.DataFrame:
        """`item_id, store_id` of every series, in the order of the sales file."""
        return self._wide.ids.select("item_id", "store_id")

    def sales(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_sales of one store; a cell that is no number is null with its text in `defect`."""
        _known(str(self._sales_file), store_id, self.stores())
        return m5.long_sales(self._wide, store_id, first, last)

    def prices(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """raw_prices of one store.

        Raises:
            SourceError: no price of the store at all; a price file cut between two lines looks so.
        """
        _known(str(self._sales_file), store_id, self.stores())
        weekly = self._weekly_prices.filter(pl.col("store_id") == store_id)
        if weekly.is_empty():
            raise SourceError(
                str(_find(self.folder, "sell_prices")),
                None,
                f"it has no price of store {store_id}, which has sales",
                "Fetch or copy it again, whole, or leave the store out of the sales",
            )
        return m5.price_spans(weekly, self._calendar.weeks, first, last)

    def inventory(self, store_id: str, first: date, last: date) -> pl.DataFrame:
        """No rows: M5 says what was sold, not what was on the shelf."""
        return TABLES["raw_inventory"].schema.to_frame()

    def calendar(self) -> pl.DataFrame:
        """raw_calendar with its snap_<state_id> flags."""
        return self._calendar.table

    @cached_property
    def _sales_file(self) -> Path:
        return _find(self.folder, *_SALES)

    @cached_property
    def _header(self) -> list[str]:
        file = self._sales_file
        if file.suffix == ".parquet":
            with _decoding(file):
                return pl.scan_parquet(file).collect_schema().names()
        return text_header(file, Csv())

    @cached_property
    def _calendar(self) -> m5.Calendar:
        file = _find(self.folder, "calendar")
        return m5.parse_calendar(_read(file), _origin(file))

    @cached_property
    def _wide(self) -> m5.Wide:
        file = self._sales_file
        return m5.parse_sales(_read_sales(file), self._calendar, _origin(file))

    @cached_property
    def _weekly_prices(self) -> pl.DataFrame:
        file = _find(self.folder, "sell_prices")
        return m5.parse_prices(_read_prices(file), self._calendar, _origin(file))


def build_source(
    name: str,
    *,
    m5_dir: Path,
    stage: Path | None = None,
    series: int = DemoSpec.series,
    stores: int = DemoSpec.stores,
    days: int = DemoSpec.days,
    seed: int = DemoSpec.seed,
) -> Source:
    """The source of that name: "demo" (series, stores, days, seed), "m5" (m5_dir), or the path of
    a mapping file, whose tables are staged in the folder `stage`.

    Raises:
        ValueError: an unknown name, a demo of an impossible size, a mapping that cannot be used.
    """
    if name == "demo":
        return DemoSource(DemoSpec(series=series, stores=stores, days=days, seed=seed))
    if name == "m5":
        return M5Source(m5_dir)
    if Path(name).suffix in (".yaml", ".yml"):
        if stage is None:
            raise ValueError(f"source {name!r}: say in which folder its tables are to be staged")
        return MappedSource(Path(name), stage)
    raise ValueError(
        f"source {name!r} is unknown; use one of {', '.join(SOURCES)}, or the path of a mapping "
        "(.yaml), which `forecast source init FILES...` writes"
    )


def _known(file: str, store_id: str, stores: tuple[str, ...]) -> None:
    if store_id not in stores:
        raise SourceError(
            file, None, f"there is no store {store_id!r}", f"Ask for one of {', '.join(stores)}"
        )


def _find(folder: Path, *stems: str) -> Path:
    """The first file there is, of the stems and suffixes in order of preference."""
    for stem in stems:
        for suffix in _SUFFIXES:
            if (file := folder / f"{stem}{suffix}").is_file():
                return file
    names = " or ".join(stems)
    raise SourceError(
        str(folder / stems[0]),
        None,
        f"no file of this name with {', '.join(_SUFFIXES)} is there",
        f"Put {names} of the official M5 files into the folder, or point M5_DIR at theirs",
    )


def _origin(file: Path) -> m5.Origin:
    """Lines of text count from one and the header is the first; a Parquet file has rows only."""
    return m5.Origin(str(file), 1 if file.suffix == ".parquet" else 2)


def _read_sales(file: Path) -> pl.DataFrame:
    """Day columns as Int16 where every cell fits."""
    if file.suffix == ".parquet":
        return _read(file)
    return _read_typed(file, {d: pl.Int16 for d in _header(file) if d.startswith("d_")})


def _read_prices(file: Path) -> pl.DataFrame:
    if file.suffix == ".parquet":
        return _read(file)
    types: Types = {"wm_yr_wk": pl.Int32, "sell_price": pl.Float64}
    return _read_typed(file, {name: types[name] for name in _header(file) if name in types})


def _read_typed(file: Path, types: Types) -> pl.DataFrame:
    """The CSV with those columns as numbers; all of it as text where a cell is no such number."""
    try:
        return _read(file, types)
    except pl.exceptions.ComputeError:
        return _read(file)


def _read(file: Path, types: Types | None = None) -> pl.DataFrame:
    """The whole file; of a CSV, columns without a type in `types` are text.

    Raises:
        SourceError: it cannot be decoded, or ends in the middle.
        ComputeError: a cell does not fit `types` (only where they are given).
    """
    with _decoding(file, passing=pl.exceptions.ComputeError if types else None):
        if file.suffix == ".parquet":
            return pl.read_parquet(file)
        text = dict.fromkeys(_header(file), pl.String)
        frame = pl.read_csv(file, schema_overrides={**text, **(types or {})}, infer_schema=False)
    _whole(file, frame)
    return frame


def _header(file: Path) -> list[str]:
    with _decoding(file):
        return pl.read_csv(file, n_rows=0, infer_schema=False).columns


@contextmanager
def _decoding(file: Path, passing: type[Exception] | None = None) -> Iterator[None]:
    """Turn what a reader raises into an error that names the file; `passing` goes through."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if passing is not None and isinstance(error, passing):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            str(file), None, f"it cannot be read ({reason})", "Fetch or copy it again, whole"
        ) from error


def _whole(file: Path, frame: pl.DataFrame) -> None:
    """Refuse a CSV whose last line is cut: a reader would fill it up with nulls.

    A gzip file has a checksum of its own. A cut between two lines shows only by what is missing
    then: days of the calendar, prices of a store.
    """
    if file.suffix != ".csv" or frame.is_empty():
        return
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - (1 << 20)))
        tail = stream.read().decode("utf-8", errors="replace").splitlines()
    if tail and tail[-1] and len(next(csv.reader([tail[-1]]))) < frame.width:
        raise SourceError(
            str(file),
            frame.height + 1,
            "the last line has fewer cells than the header: the file is cut off",
            "Fetch or copy it again, whole",
        )
