"""From the official M5 layout (three wide or weekly tables) to the long raw tables.

Belongs here: pure transforms of frames that somebody else has read, and the checks that need
the content. Does not: finding, opening or decoding files (`resources.sources`), and judging
single values (`forecast_core.source.clean`): a value that is no number stays, as null with its text
in `defect`, and loses nothing of the cells beside it.

Layout: M5 Forecasting, "M5 Participants Guide": `sales_train_*` has a row per item and store and
a column per day (d_1, d_2, ...), `sell_prices` a row per item, store and week (wm_yr_wk), and
`calendar` a row per day that ties the three together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.schema import TABLES
from forecast_core.source.error import SourceError

IDS = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
EVENTS = ("event_name_1", "event_type_1", "event_name_2", "event_type_2")


@dataclass(frozen=True)
class Origin:
    """Where a frame was read from: the file's name, and the line of the frame's first row."""

    file: str
    first_row: int

    def error(self, at: int | None, problem: str, remedy: str) -> SourceError:
        """A `SourceError` for the frame's row number `at` (None: the whole file)."""
        return SourceError(self.file, None if at is None else at + self.first_row, problem, remedy)

    def require(self, frame: pl.DataFrame, columns: Iterable[str]) -> None:
        """Refuse a frame without rows or without one of `columns`.

        Raises:
            SourceError: the first missing column, or that there are no rows.
        """
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            shown = ", ".join(frame.columns[:8]) + (", ..." if frame.width > 8 else "")
            raise self.error(
                None,
                f"column {missing[0]!r} is missing (it has {shown})",
                "Name the columns as the official M5 files do",
            )
        if frame.is_empty():
            raise self.error(None, "it holds no rows", "Put the whole file there")


@dataclass(frozen=True)
class Calendar:
    """The days in three views: `table` (raw_calendar), `days` (d -> date), `weeks`.

    `weeks` has wm_yr_wk (Int32), first and last (Date, both included).
    """

    table: pl.DataFrame
    days: dict[str, date]
    weeks: pl.DataFrame


@dataclass(frozen=True)
class Wide:
    """Sales as they came, narrowed: a row per item and store, a column per day.

    `ids` holds `IDS` and source_row (Int64); `units` the day columns in date order, integers of
    the least width that holds them (Float64 where a column has fractions), null where the cell
    was empty or no number; `defects` the text of the latter by source_row and date.
    """

    ids: pl.DataFrame
    units: pl.DataFrame
    days: tuple[date, ...]
    defects: pl.DataFrame

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores with a row, sorted."""
        return tuple(self.ids["store_id"].unique().sort())


def parse_calendar(raw: pl.DataFrame, origin: Origin) -> Calendar:
    """Check and type the calendar: days ascending without a hole, each with its d and week.

    Raises:
        SourceError: a missing column, a bad date, a gap or repeat in the days, a bad week.
    """
    origin.require(raw, ("date", "wm_yr_wk", "d", *EVENTS))
    text = raw.cast(pl.String)
    parsed = text.select(
        pl.col("date").str.to_date("%Y-%m-%d", strict=False),
        pl.col("wm_yr_wk").cast(pl.Int32, strict=False),
        "d",
    )
    for name, wanted in (
        ("date", "a date written as YYYY-MM-DD"),
        ("wm_yr_wk", "a whole number"),
        ("d", "a day such as d_1"),
    ):
        at = _first(parsed[name].is_null())
        if at is not None:
            raise origin.error(at, f"{name} {text[name][at]!r} is not {wanted}", "Correct the line")
    at = _first(parsed["date"].diff().fill_null(timedelta(days=1)) != timedelta(days=1))
    if at is not None:
        raise origin.error(
            at,
            f"{parsed['date'][at]} does not follow {parsed['date'][at - 1]} by a day",
            "Give every day once, in order",
        )
    at = _first(~parsed["d"].is_first_distinct())
    if at is not None:
        raise origin.error(at, f"{parsed['d'][at]!r} is given twice", "Give every day once")
    snaps = [name for name in text.columns if name.startswith("snap_")]
    table = text.select(
        parsed["date"], *EVENTS, *(pl.col(s).cast(pl.Int8, strict=False) for s in snaps)
    )
    for name in snaps:
        at = _first(~table[name].is_in([0, 1]).fill_null(value=False))
        if at is not None:
            raise origin.error(at, f"{name} {text[name][at]!r} is not 0 or 1", "Correct the line")
    weeks = parsed.group_by("wm_yr_wk", maintain_order=True).agg(
        first=pl.col("date").min(), last=pl.col("date").max()
    )
    return Calendar(table, dict(zip(parsed["d"], parsed["date"], strict=True)), weeks)


def parse_sales(raw: pl.DataFrame, calendar: Calendar, origin: Origin) -> Wide:
    """Narrow the wide table; day columns may be numbers or text, in any order.

    Blank lines carry nothing and are passed over; a line's number counts them.

    Raises:
        SourceError: a missing column, no day columns, a day that the calendar lacks, or a row
            without a store (it would belong to no partition).
    """
    origin.require(raw, IDS)
    names = [name for name in raw.columns if name.startswith("d_")]
    if not names:
        raise origin.error(None, "it has no day columns", "Name them d_1, d_2, ...")
    unknown = [name for name in names if name not in calendar.days]
    if unknown:
        raise origin.error(
            None,
            f"day {unknown[0]!r} is not in the calendar",
            "Take the calendar of the same release",
        )
    names.sort(key=calendar.days.__getitem__)
    ids = raw.select(
        *(pl.col(name).cast(pl.String) for name in IDS),
        source_row=pl.int_range(pl.len(), dtype=pl.Int64) + origin.first_row,
    )
    raw, ids = _without_blanks(raw, ids, names)
    at = _first(ids["store_id"].is_null())
    if at is not None:
        raise SourceError(
            origin.file, ids["source_row"][at], "store_id is empty", "Name the store of the row"
        )
    columns, defects = [], []
    for name in names:
        column, defect = _narrow(raw[name], ids["source_row"], calendar.days[name])
        columns.append(column)
        if defect is not None:
            defects.append(defect)
    empty = pl.DataFrame(schema={"source_row": pl.Int64, "date": pl.Date, "defect": pl.String})
    return Wide(
        ids,
        pl.DataFrame(columns),
        tuple(calendar.days[name] for name in names),
        pl.concat([empty, *defects]),
    )


def long_sales(wide: Wide, store_id: str, first: date, last: date) -> pl.DataFrame:
    """One store's rows of `first`..`last` as raw_sales, sorted by item, line and date.

    Days outside the file give no rows; an item that stands twice keeps both its lines.
    """
    chosen = [
        name
        for name, day in zip(wide.units.columns, wide.days, strict=True)
        if first <= day <= last
    ]
    days = np.array([day for day in wide.days if first <= day <= last], dtype="datetime64[D]")
    mine = (
        wide.ids.with_row_index("at")
        .filter(pl.col("store_id") == store_id)
        .sort("item_id", "source_row")
    )
    if not chosen or mine.is_empty():
        return TABLES["raw_sales"].schema.to_frame()
    units = wide.units.select(chosen)[mine["at"]].to_numpy()
    lines = pl.Series(np.repeat(np.arange(mine.height, dtype=np.uint32), len(chosen)))
    frame = mine.drop("at")[lines].with_columns(
        pl.Series("date", np.tile(days, mine.height)),
        # A null became NaN on the way through numpy; no true NaN gets here (see `_narrow`).
        units=pl.Series(units.ravel()).cast(pl.Float64).fill_nan(None),
        defect=pl.lit(None, pl.String),
    )
    if not wide.defects.is_empty():
        frame = frame.drop("defect").join(
            wide.defects, on=["source_row", "date"], how="left", maintain_order="left"
        )
    return TABLES["raw_sales"].conform(frame)


def parse_prices(raw: pl.DataFrame, calendar: Calendar, origin: Origin) -> pl.DataFrame:
    """Type the weekly prices; a price that is no number becomes null with its text in `defect`.

    Returns store_id and item_id (Categorical), wm_yr_wk (Int32), sell_price (Float64),
    source_row (UInt32), defect (String).

    Raises:
        SourceError: a missing column, a row without a store, a week that the calendar lacks.
    """
    origin.require(raw, ("store_id", "item_id", "wm_yr_wk", "sell_price"))
    prices, text = _as_number(raw["sell_price"])
    frame = raw.select(
        pl.col("store_id", "item_id").cast(pl.Categorical),
        pl.col("wm_yr_wk").cast(pl.Int32, strict=False),
        sell_price=prices,
        source_row=pl.int_range(pl.len(), dtype=pl.UInt32) + origin.first_row,
        defect=text,
    )
    blank = pl.all_horizontal(
        pl.col("store_id", "item_id", "sell_price", "defect").is_null(),
        pl.Series(raw["wm_yr_wk"].is_null()),
    )
    known = pl.col("wm_yr_wk").is_in(calendar.weeks["wm_yr_wk"].implode())
    for bad, column, problem, remedy in (
        (pl.col("store_id").is_null(), "store_id", "is empty", "Name the store of the row"),
        (
            ~known.fill_null(value=False),
            "wm_yr_wk",
            "is not a week of the calendar",
            "Take the calendar of the same release",
        ),
    ):
        at = _first(frame.select((bad & ~blank).alias("bad"))["bad"])
        if at is not None:
            value = raw[column][at]
            raise origin.error(at, f"{column} {value!r} {problem}", remedy)
    return frame.filter(~blank)


def price_spans(weekly: pl.DataFrame, weeks: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """One store's weekly prices as raw_prices: from `date` to `until`, both included.

    `weekly` has store_id, item_id, wm_yr_wk, sell_price, source_row, defect. A week is cut at
    `first`, at `last` and at month ends, so that each month of a store stands alone.
    """
    spans = weekly.join(week_pieces(weeks, first, last), on="wm_yr_wk")
    spans = spans.select(list(TABLES["raw_prices"].columns))
    return TABLES["raw_prices"].conform(spans).sort("item_id", "date", "source_row")


def week_pieces(weeks: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    """Cut weeks (wm_yr_wk, first, last) at month ends and to the window.

    Returns wm_yr_wk, date, until: up to two rows a week, none for weeks outside.
    """
    start = pl.max_horizontal(pl.col("first"), pl.lit(first))
    stop = pl.min_horizontal(pl.col("last"), pl.lit(last))
    month_end = start.dt.month_end()
    whole = weeks.lazy().filter(start <= stop)
    pieces = [
        whole.select("wm_yr_wk", date=start, until=pl.min_horizontal(stop, month_end)),
        whole.filter(stop > month_end).select(
            "wm_yr_wk", date=month_end.dt.offset_by("1d"), until=stop
        ),
    ]
    return pl.concat(pieces).sort("date").collect()


def _first(bad: pl.Series) -> int | None:
    """Position of the first true value, or None."""
    return bad.arg_max() if bad.any() else None


def _without_blanks(
    raw: pl.DataFrame, ids: pl.DataFrame, names: Sequence[str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both frames without the rows in which every cell is empty."""
    suspects = ids.select(pl.all_horizontal(pl.col(IDS).is_null()).alias("empty"))["empty"]
    if not suspects.any():
        return raw, ids
    empty = suspects & raw.select(pl.all_horizontal(pl.col(names).is_null()).alias("e"))["e"]
    return raw.filter(~empty), ids.filter(~empty)


def _as_number(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(numbers as Float64, text): what is no finite number is null, with its text beside."""
    if values.dtype.is_integer():
        return values.cast(pl.Float64), pl.repeat(None, len(values), dtype=pl.String, eager=True)
    text = values.cast(pl.String)
    number = (text.str.strip_chars() if values.dtype == pl.String else values).cast(
        pl.Float64, strict=False
    )
    finite = number.is_finite().fill_null(value=False)
    return number.set(~finite, None), text.set(finite, None)


def _narrow(
    values: pl.Series, source_row: pl.Series, day: date
) -> tuple[pl.Series, pl.DataFrame | None]:
    """A day's column in its least type, and the texts that were no number, if any."""
    if values.dtype.is_integer():
        return values.shrink_dtype(), None
    number, text = _as_number(values)
    whole = number.cast(pl.Int64, strict=False)
    if (whole.cast(pl.Float64) == number).all():
        number = whole.shrink_dtype()
    if text.null_count() == len(text):
        return number.alias(values.name), None
    defects = pl.DataFrame(
        {"source_row": source_row, "date": pl.repeat(day, len(text), eager=True), "defect": text}
    )
    return number.alias(values.name), defects.filter(pl.col("defect").is_not_null())
