"""From a batch of somebody's rows to ours, by their mapping: typed, long, each with its origin.

Belongs here: reading dates, numbers and flags, joining, unpivoting, and saying why a row cannot be
used. Does not: opening files (`resources.source_files`), sorting rows by store (`resources.
source_stage`), or the rules for rows that can be read (`forecast_core.clean`).

A row that cannot be read is handed on all the same, with the rule in `refused`, the reason in
`defect` and its text in `raw_text`: rows out = rows in. In a wide table a row is a cell, and an
empty cell is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import polars as pl

from forecast_core.mapping import (
    ALL,
    COVARIATE,
    IDS,
    Calendar,
    Column,
    Csv,
    DateColumn,
    Facts,
    Prices,
    Sales,
    SourceMapping,
)
from forecast_core.source_error import SourceError

LINE = "\x00line"
ORIGIN: Mapping[str, type[pl.DataType]] = {
    "source_row": pl.Int64,
    "source_file": pl.String,
    "refused": pl.String,
    "defect": pl.String,
    "raw_text": pl.String,
}
_TRUE = ("1", "1.0", "true", "t", "yes", "y", "x", "on", "closed", "shut")
_FALSE = ("", "0", "0.0", "false", "f", "no", "n", "none", "off", "open")
_BLANKS = " \t\u00a0\u202f$€£¥"


@dataclass(frozen=True)
class Lookups:
    """What a row's values are looked up in.

    `joins`: tables by the table that they join, keys under the names they join to. `days`: calendar
    column -> frame (key String, first Date, last Date).
    """

    joins: Mapping[str, Sequence[tuple[Sequence[str], pl.DataFrame]]] = field(default_factory=dict)
    days: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def columns_of(facts: Facts) -> list[str]:
    """The columns that a table must have of its own: those named and not brought by a join."""
    named = [name for spec in _specs(facts) for name in spec.names]
    wide = facts.wide if isinstance(facts, Sales) else None
    if wide is None or wide.of == "items":
        named += facts.date.names
    keys = [ours for join in facts.join for ours in join.on]
    return list(dict.fromkeys([*named, *keys]))


def wide_columns(sales: Sales, header: Sequence[str]) -> dict[str, str]:
    """Value column -> what its name says (a day or an item), in the file's order."""
    assert sales.wide is not None
    found = {name: re.fullmatch(sales.wide.columns, name) for name in header if name != LINE}
    return {name: match[1] for name, match in found.items() if match}


def wide_covariates(sales: Sales, header: Sequence[str]) -> dict[str, dict[str, str]]:
    """Covariate -> item -> its column."""
    assert sales.wide is not None
    return {
        name: {m[1]: column for column in header if (m := re.fullmatch(pattern, column))}
        for name, pattern in sales.wide.covariates.items()
    }


def sales_schema(mapping: SourceMapping) -> dict[str, type[pl.DataType]]:
    """The columns of `sales_rows`."""
    priced = ["sell_price"] if mapping.sales.sell_price is not None else []
    extras = dict.fromkeys([*priced, *_own_covariates(mapping.sales)], pl.Float64)
    return {
        "date": pl.Date,
        **dict.fromkeys(IDS, pl.String),
        "units": pl.Float64,
        **extras,
        "closed": pl.Boolean,
        **ORIGIN,
    }


def sales_rows(
    rows: pl.DataFrame,
    unfit: pl.DataFrame,
    file: str,
    mapping: SourceMapping,
    lookups: Lookups,
    code: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """A batch of the sales table as `sales_schema` rows; see the module for what cannot be read.

    Args:
        rows: the file's columns and `LINE`.
        unfit: lines that have no columns: `LINE`, text, defect ("rule: reason").
        code: puts numbers in place of the five attributes, a row for a row; it sees each line of
            a table with a column a day once, not once a day.
    """
    sales = mapping.sales
    rows = _joined(rows, lookups.joins.get("sales", ()))
    if sales.wide is None:
        out = _long(rows, mapping, lookups)
    elif sales.wide.of == "days":
        out = _wide_days(rows, mapping, lookups, code)
        code = None
    else:
        out = _wide_items(rows, mapping, lookups)
    return _finished(out, unfit, file, sales_schema(mapping), code)


def _finished(
    out: pl.DataFrame,
    unfit: pl.DataFrame,
    file: str,
    schema: Mapping[str, type[pl.DataType]],
    code: Callable[[pl.DataFrame], pl.DataFrame] | None,
) -> pl.DataFrame:
    """Every column of the schema, the unfit lines at the end, attributes coded where asked for."""
    lost = unfit.select(
        pl.col(LINE).alias("source_row"),
        refused=pl.col("defect").str.extract(r"^(\w+): "),
        defect=pl.col("defect").str.replace(r"^\w+: ", ""),
        raw_text="text",
    )
    made = pl.concat([out, lost], how="diagonal") if lost.height else out
    if code is not None or "series" in made.columns:
        made = made.with_columns(code(made.select(IDS))).drop(IDS) if code is not None else made
        return made
    return made.with_columns(source_file=pl.lit(file)).select(
        (pl.col(name) if name in made.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    )


def fact_rows(
    rows: pl.DataFrame, file: str, facts: Facts, name: str, mapping: SourceMapping, lookups: Lookups
) -> pl.DataFrame:
    """A batch of `prices` or of a `known` table: date, until, the keys it has, its values.

    Columns: date, until (Date); item_id, store_id where mapped; sell_price of prices; covariates
    with their `x_`; closed; `ORIGIN`. A null or unreadable date leaves `date` null.
    """
    rows = _joined(rows, lookups.joins.get(name, ()))
    first, last, bad = _dates(rows, facts.date, mapping, lookups)
    out = {"date": first, "until": last}
    for key in ("item_id", "store_id"):
        spec = getattr(facts, key)
        if spec is not None:
            out[key] = _text(rows, spec)
    defect = bad
    if isinstance(facts, Prices):
        out["sell_price"], wrong = _number(rows, facts.sell_price, facts.csv)
        defect = wrong.zip_with(wrong.is_not_null(), bad)
    out |= {COVARIATE + c: _signal(rows, spec, facts.csv) for c, spec in facts.covariates.items()}
    if (closed := _closed(rows, facts)) is not None:
        out["closed"] = closed
    refused = defect.set(defect.is_not_null(), "unparseable_price")
    out |= {"source_row": rows[LINE], "defect": defect, "refused": refused}
    return pl.DataFrame([series.alias(key) for key, series in out.items()]).with_columns(
        source_file=pl.lit(file), raw_text=pl.lit(None, pl.String)
    )


def calendar_days(text: pl.DataFrame, calendar: Calendar, names: Sequence[str]) -> Lookups:
    """The calendar columns that dates are looked up by: value -> first and last of its days.

    Raises:
        SourceError: a day that cannot be read.
    """
    days = calendar_dates(text, calendar)
    found = {}
    for name in names:
        keyed = pl.DataFrame({"key": text[name].str.strip_chars(), "day": days}).drop_nulls()
        found[name] = keyed.group_by("key", maintain_order=True).agg(
            first=pl.col("day").min(), last=pl.col("day").max()
        )
    return Lookups(days=found)


def calendar_dates(text: pl.DataFrame, calendar: Calendar) -> pl.Series:
    """The days of a calendar's lines.

    Raises:
        SourceError: one that cannot be read, or stands twice, with its line.
    """
    days = _dates(text, calendar.date, None, Lookups())[0]
    for wrong, what in (
        (days.is_null(), "is no date"),
        (~days.is_first_distinct(), "stands twice"),
    ):
        if wrong.any():
            at = wrong.arg_max() or 0
            raise SourceError(
                text["file"][at],
                int(text[LINE][at]),
                f"{calendar.date.label} {_stamp(text, calendar.date)[at]!r} {what}",
                "Give every day once, as `calendar.date.format` says",
            )
    return days


def _own_covariates(sales: Sales) -> list[str]:
    wide = list(sales.wide.covariates) if sales.wide else []
    return [COVARIATE + name for name in (*sales.covariates, *wide)]


def _specs(facts: Facts) -> list[Column]:
    names = ("item_id", "store_id", "dept_id", "cat_id", "state_id", "units", "sell_price")
    given = [getattr(facts, name, None) for name in (*names, "closed", "open")]
    return [spec for spec in (*given, *facts.covariates.values()) if spec is not None]


def _joined(
    rows: pl.DataFrame, joins: Sequence[tuple[Sequence[str], pl.DataFrame]]
) -> pl.DataFrame:
    for keys, table in joins:
        rows = rows.with_columns(pl.col(list(keys)).cast(pl.String).str.strip_chars())
        taken = [c for c in table.columns if c in keys or c not in rows.columns]
        rows = rows.join(table.select(taken), on=list(keys), how="left", maintain_order="left")
    return rows


def _long(rows: pl.DataFrame, mapping: SourceMapping, lookups: Lookups) -> pl.DataFrame:
    sales = mapping.sales
    day, _, bad_day = _dates(rows, sales.date, mapping, lookups)
    assert sales.units is not None
    units, bad_units = _number(rows, sales.units, sales.csv)
    out = {"date": day, **_ids(rows, sales), "units": _scaled(units, mapping)}
    if sales.sell_price is not None:
        # A price that cannot be read costs the sale nothing: it has no price then.
        out["sell_price"], unread = _number(rows, sales.sell_price, sales.csv)
        if unread.is_not_null().any():
            out["price_defect"] = unread + " is no number"
    out |= {COVARIATE + c: _signal(rows, spec, sales.csv) for c, spec in sales.covariates.items()}
    if (closed := _closed(rows, sales)) is not None:
        out["closed"] = closed
    out["source_row"] = rows[LINE]
    made = pl.DataFrame([series.alias(name) for name, series in out.items()])
    shown = [name for name in rows.columns if name != LINE]
    return _marked(
        made, bad_day, bad_units, sales, lambda at: rows.select(shown)[at].cast(pl.String)
    )


def _wide_days(
    rows: pl.DataFrame,
    mapping: SourceMapping,
    lookups: Lookups,
    code: Callable[[pl.DataFrame], pl.DataFrame] | None,
) -> pl.DataFrame:
    sales = mapping.sales
    named = wide_columns(sales, rows.columns)
    keys = pl.DataFrame({"day": list(named.values())})
    asked = sales.date.model_copy(update={"column": "day", "columns": ()})
    days, _, bad = _dates(keys, asked, mapping, lookups)
    if bad.is_not_null().any():
        at = bad.is_not_null().arg_max() or 0
        raise SourceError(
            "sales",
            1,
            f"column {list(named)[at]!r}: {bad[at]}",
            "Correct `wide.columns` or the date",
        )
    ids = pl.DataFrame([series.alias(name) for name, series in _ids(rows, sales).items()])
    given = (ids if code is None else code(ids)).with_columns(rows[LINE].alias("source_row"))
    if ids.select(pl.any_horizontal(pl.all().is_null()).any()).item():
        keyless = pl.any_horizontal(pl.all().is_null()).alias("_keyless")
        given = given.with_columns(ids.select(keyless).to_series())
    return _unpivoted(rows, given, list(named), mapping, texts=ids, date=days)


def _wide_items(rows: pl.DataFrame, mapping: SourceMapping, lookups: Lookups) -> pl.DataFrame:
    sales = mapping.sales
    named = wide_columns(sales, rows.columns)
    day, _, bad = _dates(rows, sales.date, mapping, lookups)
    given = {"date": day, "source_row": rows[LINE], **_ids(rows, sales)}
    given |= {COVARIATE + c: _signal(rows, s, sales.csv) for c, s in sales.covariates.items()}
    if (closed := _closed(rows, sales)) is not None:
        given["closed"] = closed
    given.pop("item_id")
    ids = pl.DataFrame([series.alias(name) for name, series in given.items()])
    items = pl.Series(list(named.values()), dtype=pl.String)
    extra = {
        COVARIATE + name: [
            _signal(rows, Column(column=of[item]), sales.csv)
            if item in of
            else pl.Series([None] * rows.height, dtype=pl.Float64)
            for item in items
        ]
        for name, of in wide_covariates(sales, rows.columns).items()
    }
    out = _unpivoted(rows, ids, list(named), mapping, item_id=items, bad=bad, matrices=extra)
    if "dept_id" not in out.columns or sales.dept_id is None:
        # Items named by brand and number carry their department in front, as in B1_10.
        head = pl.col("item_id").str.extract(r"^(.+?)[_\-. ][^_\-. ]+$")
        out = out.with_columns(dept_id=head.fill_null(ALL))
    return out


def _unpivoted(
    rows: pl.DataFrame,
    ids: pl.DataFrame,
    names: list[str],
    mapping: SourceMapping,
    bad: pl.Series | None = None,
    matrices: Mapping[str, Sequence[pl.Series]] | None = None,
    texts: pl.DataFrame | None = None,
    **along: pl.Series,
) -> pl.DataFrame:
    """A row for each cell that holds something: `ids` down, `along` across."""
    if not names:
        raise SourceError("sales", 1, "no column fits `wide.columns`", "Correct the expression")
    wide, csv = rows.select(names), mapping.sales.csv
    words = [name for name, dtype in wide.schema.items() if dtype == pl.String]
    wrong: list[tuple[int, pl.Series]] = []
    if words:
        parsed = {}
        for name in words:
            parsed[name], text = _number(wide, Column(column=name), csv)
            if text.is_not_null().any():
                wrong.append((names.index(name), text))
        wide = wide.with_columns(series.alias(name) for name, series in parsed.items())
    if all(dtype.is_integer() for dtype in wide.dtypes) and not any(wide.null_count().row(0)):
        units, known = wide.to_numpy(order="c").astype(np.float64), None
    else:
        units = wide.cast(pl.Float64).fill_nan(np.inf).to_numpy(order="c")
        known = ~np.isnan(units)
        for across, text in wrong:
            known[:, across] |= text.is_not_null().to_numpy()
        if bad is not None:  # a line without a date is one row, whatever its cells hold
            lost = bad.is_not_null().to_numpy()
            known[lost] = np.arange(len(names)) == 0
    height, width = units.shape
    if known is None and bad is not None and bad.is_not_null().any():
        known = np.ones(units.shape, np.bool_)
        known[bad.is_not_null().to_numpy()] = np.arange(width) == 0
    cells = slice(None) if known is None else np.flatnonzero(known)
    down = np.repeat(np.arange(height, dtype=np.uint32), width)[cells]
    across_all = {
        name: pl.Series(np.tile(values.to_physical().to_numpy(), height)[cells]).cast(values.dtype)
        if values.dtype == pl.Date
        else values[pl.Series(np.tile(np.arange(width, dtype=np.uint32), height)[cells])]
        for name, values in along.items()
    }
    values = {"units": _scaled(pl.Series(units.ravel()[cells]).fill_nan(None), mapping)}
    for name, of in (matrices or {}).items():
        stacked = np.stack([series.to_numpy() for series in of], axis=1)
        values[name] = pl.Series(stacked.ravel()[cells]).fill_nan(None)
    out = ids[pl.Series(down)].with_columns(
        series.alias(name) for name, series in {**across_all, **values}.items()
    )
    if out.is_empty():
        return out
    bad_units = None
    if wrong:
        bad_units = _scattered(wrong, width, cells, out.height)
    bad_day = None if bad is None else bad[pl.Series(down)]

    def cell_text(at: pl.Series) -> pl.DataFrame:
        cells = out[at] if texts is None else texts[pl.Series(down)[at]]
        shown = [cells[c] for c in IDS if c in cells.columns]
        return pl.DataFrame([out["date"][at].cast(pl.String), *shown])

    return _marked(out, bad_day, bad_units, mapping.sales, cell_text, cells=True)


def _scattered(
    wrong: Sequence[tuple[int, pl.Series]], width: int, cells: np.ndarray | slice, height: int
) -> pl.Series:
    """What is no number, by the position of its cell among those that became rows."""
    texts = pl.concat(
        pl.DataFrame({"text": text}).with_row_index("down").drop_nulls().with_columns(across=across)
        for across, text in wrong
    )
    at = (texts["down"].cast(pl.Int64) * width + texts["across"]).to_numpy()
    if isinstance(cells, np.ndarray):
        there = np.isin(at, cells)
        at, texts = np.searchsorted(cells, at[there]), texts.filter(pl.Series(there))
    blank = pl.Series([None], dtype=pl.String).new_from_index(0, height)
    return blank.scatter(at, texts["text"])


def _marked(
    out: pl.DataFrame,
    bad_day: pl.Series | None,
    bad_units: pl.Series | None,
    sales: Sales,
    text_at: Callable[[pl.Series], pl.DataFrame],
    cells: bool = False,
) -> pl.DataFrame:
    """Rows with refused, defect and, where a rule looks likely to be broken, their raw text.

    `text_at` gives the texts of rows by their position; of a cell, all but its value.
    """
    keys = [c for c in ("date", *IDS, "_keyless") if c in out.columns]
    suspect = out.select(
        pl.any_horizontal(
            pl.col("units").is_null() | ~pl.col("units").is_finite() | (pl.col("units") < 0),
            *(pl.col(c) if c == "_keyless" else pl.col(c).is_null() for c in keys),
        ).fill_null(True)
    ).to_series()
    for bad in (bad_day, bad_units):
        suspect = suspect if bad is None else suspect | bad.is_not_null()
    out = out.drop("_keyless", strict=False)
    if not suspect.any():
        return out
    numbers = suspect.arg_true()
    nothing = pl.Series([None], dtype=pl.String).new_from_index(0, len(numbers))
    day = nothing if bad_day is None else bad_day[numbers]
    value = nothing if bad_units is None else bad_units[numbers]
    text = text_at(numbers)
    if cells:
        held = out["units"][numbers].cast(pl.String)
        text = text.with_columns(value.zip_with(value.is_not_null(), held).alias("value"))
    named = (
        pl.when(pl.col("day").is_not_null())
        .then(pl.lit("unparseable_date"))
        .when(pl.col("value").is_not_null())
        .then(pl.lit("unparseable_value"))
    )
    marks = pl.DataFrame({"day": day, "value": value}).select(
        refused=named, defect=pl.coalesce("day", "value")
    )
    raw = text.select(pl.concat_str(pl.all().fill_null(""), separator=sales.csv.separator))
    found = {"raw_text": raw.to_series(), "refused": marks["refused"], "defect": marks["defect"]}
    blank = pl.Series([None], dtype=pl.String).new_from_index(0, out.height)
    return out.with_columns(
        blank.scatter(numbers, series).alias(name) for name, series in found.items()
    )


def _ids(rows: pl.DataFrame, sales: Sales) -> dict[str, pl.Series]:
    """The five attributes; what the mapping does not name is `all`."""
    return {
        name: _text(rows, spec)
        if (spec := getattr(sales, name)) is not None
        else pl.repeat(ALL, rows.height, dtype=pl.String, eager=True)
        for name in IDS
    }


def _text(rows: pl.DataFrame, spec: Column) -> pl.Series:
    if spec.constant is not None:
        return pl.repeat(spec.constant, rows.height, dtype=pl.String, eager=True)
    parts = [_plain(rows[name]) for name in spec.names]
    joined = parts[0]
    if len(parts) > 1:
        frame = pl.DataFrame([part.alias(str(at)) for at, part in enumerate(parts)])
        joined = frame.select(pl.concat_str(pl.all(), separator="-")).to_series()
    return joined.replace(dict(spec.values)) if spec.values else joined


def _plain(values: pl.Series) -> pl.Series:
    """As text, without blanks around; a whole number read as 7.0 is 7."""
    if values.dtype.is_float():
        whole = values.cast(pl.Int64, strict=False)
        if (whole.cast(values.dtype) == values).fill_null(True).all():
            return whole.cast(pl.String)
    text = values.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def _number(rows: pl.DataFrame, spec: Column, csv: Csv) -> tuple[pl.Series, pl.Series]:
    """(Float64, text of what is no number)."""
    values = (
        rows[spec.names[0]]
        if spec.names
        else pl.repeat(spec.constant, rows.height, dtype=pl.String, eager=True)
    )
    nothing = pl.repeat(None, len(values), dtype=pl.String, eager=True)
    if values.dtype.is_numeric():
        return values.cast(pl.Float64), nothing
    text = values.cast(pl.String)
    bare = text.str.strip_chars(_BLANKS)
    if spec.values:
        bare = bare.replace(dict(spec.values))
    if csv.thousands:
        mark = re.escape(csv.thousands)
        grouped = bare.str.contains(rf"^-?\d{{1,3}}({mark}\d{{3}})+(\D|$)|^[^{mark}]*$")
        bare = bare.str.replace_all(csv.thousands, "", literal=True).set(
            ~grouped & (bare != ""), None
        )
    if csv.decimal == ",":
        bare = bare.set(bare.str.contains(".", literal=True), None)
        bare = bare.str.replace(",", ".", literal=True)
    number = bare.cast(pl.Float64, strict=False)
    missing = text.is_null() | text.str.strip_chars().is_in([*csv.nulls, ""])
    wrong = number.is_null() & ~missing
    return number, text.set(~wrong, None) if wrong.any() else nothing


def _signal(rows: pl.DataFrame, spec: Column, csv: Csv) -> pl.Series:
    """A covariate as a number: yes and no are 1 and 0, any other word is 1."""
    number, text = _number(rows, spec, csv)
    if text.is_not_null().any():
        word = text.str.to_lowercase().str.strip_chars()
        said = (~word.is_in(_FALSE)).cast(pl.Float64)
        number = number.zip_with(text.is_null(), said)
    return number


def _closed(rows: pl.DataFrame, facts: Facts) -> pl.Series | None:
    spec = facts.closed or facts.open
    if spec is None:
        return None
    text = _text(rows, spec).str.to_lowercase()
    if facts.closed is not None:
        return text.is_in(_TRUE).fill_null(False)
    return text.is_in([f for f in _FALSE if f not in ("", "open")]).fill_null(False)


def _dates(
    rows: pl.DataFrame, spec: DateColumn, mapping: SourceMapping | None, lookups: Lookups
) -> tuple[pl.Series, pl.Series, pl.Series]:
    """(first day, last day, what is wrong) of each row's date; nulls are only null."""
    values = _stamp(rows, spec)
    good: pl.Series
    text = values.cast(pl.String).str.strip_chars()
    last: pl.Series | None = None
    how = "a date written as " + " or ".join(spec.format)
    if spec.calendar is not None:
        how = f"in the column {spec.calendar} of the calendar"
        found = pl.DataFrame({"key": _plain(values)}).join(
            lookups.days[spec.calendar], on="key", how="left", maintain_order="left"
        )
        good, last = found["first"], found["last"]
    elif spec.epoch is not None:
        how = "a whole number of periods"
        step = mapping.how_often.step if mapping else 1
        number = _plain(values).cast(pl.Int32, strict=False)
        number = number.set((number.abs() > 100_000).fill_null(False), None)
        since = (spec.epoch - date(1970, 1, 1)).days
        good = ((number - spec.epoch_number) * step + since).cast(pl.Date)
    elif values.dtype.is_temporal():
        good = values.cast(pl.Date)
    else:
        tried = [_day(text, form) for form in spec.format]
        good = tried[0]
        for other in tried[1:]:
            good = good.zip_with(good.is_not_null(), other)
        good = good.set((good.dt.year() < 1900).fill_null(False), None)
    wrong = good.is_null() & text.is_not_null() & (text != "")
    bad = pl.repeat(None, len(text), dtype=pl.String, eager=True)
    if wrong.any():
        bad = (text + f" is not {how}").set(~wrong, None)
    if mapping is not None and mapping.how_often.weekly:
        good = pl.DataFrame({"d": good}).select(mapping.how_often.starts(pl.col("d"))).to_series()
    return good, good if last is None else last, bad


def _stamp(rows: pl.DataFrame, spec: DateColumn) -> pl.Series:
    """What stands for the date: a column, or several joined."""
    if len(spec.names) == 1:
        return rows[spec.names[0]]
    parts = pl.DataFrame([_plain(rows[name]).alias(str(at)) for at, name in enumerate(spec.names)])
    return parts.select(pl.concat_str(pl.all(), separator="-").alias("date")).to_series()


def _day(text: pl.Series, form: str) -> pl.Series:
    if "%V" in form and "%u" not in form:
        return (text + "-1").str.to_date(f"{form}-%u", strict=False)
    return text.str.to_date(form, strict=False)


def _scaled(units: pl.Series, mapping: SourceMapping) -> pl.Series:
    """The target as it sold: a log is undone, and rounded where it came from a whole number."""
    if mapping.scale == "linear":
        return units
    sold = units.exp() if mapping.scale == "log" else units.exp() - 1
    if mapping.unit != "units":
        return sold
    near = (sold - sold.round(0)).abs() < 1e-5 * sold.abs() + 1e-6
    return sold.zip_with(~near.fill_null(False), sold.round(0))
