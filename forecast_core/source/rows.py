"""From a batch of somebody's rows to ours, by their mapping: typed, long, each with its origin.

Belongs here: reading dates, numbers and flags, joining, unpivoting, and saying why a row cannot be
used. Does not: opening files (`resources.source_files`), sorting rows by store (`resources.
source_stage`), or the rules for rows that can be read (`forecast_core.source.clean`).

A row that cannot be read is handed on all the same, with the rule in `refused`, the reason in
`defect` and its text in `raw_text`: rows out = rows in. In a wide table a row is a cell, and an
empty cell is none, but for those of a line without any value that still tells a covariate: a line
that plans ahead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from forecast_core.source.error import SourceError
from forecast_core.source.mapping import (
    ALL,
    COVARIATE,
    IDS,
    Column,
    Facts,
    Prices,
    Sales,
    SourceMapping,
)
from forecast_core.source.values import (
    FILE,
    LINE,
    Lookups,
    read_closed,
    read_dates,
    read_ids,
    read_number,
    read_signal,
    read_text,
    unscaled,
)

_OURS = (LINE, FILE)
_NEITHER = " says neither yes nor no"
ORIGIN: Mapping[str, type[pl.DataType]] = {
    "source_row": pl.Int64,
    "source_file": pl.String,
    "refused": pl.String,
    "defect": pl.String,
    "raw_text": pl.String,
}


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
    found = {name: re.fullmatch(sales.wide.columns, name) for name in header if name not in _OURS}
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
    rows = _named(rows, file, sales)
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
    rows = _named(rows, file, facts)
    rows = _joined(rows, lookups.joins.get(name, ()))
    first, last, bad = read_dates(rows, facts.date, mapping, lookups, facts.csv)
    out = {"date": first, "until": last}
    for key in ("item_id", "store_id"):
        spec = getattr(facts, key)
        if spec is not None:
            out[key] = read_text(rows, spec)
    defect = bad
    if isinstance(facts, Prices):
        out["sell_price"], wrong = read_number(rows, facts.sell_price, facts.csv)
        defect = wrong.zip_with(wrong.is_not_null(), bad)
    out |= _signals(rows, facts)
    if (closed := read_closed(rows, facts)) is not None:
        out["closed"] = _plain_flag(closed, rows, file)
    refused = defect.set(defect.is_not_null(), "unparseable_price")
    out |= {"source_row": rows[LINE], "defect": defect, "refused": refused}
    return pl.DataFrame([series.alias(key) for key, series in out.items()]).with_columns(
        source_file=pl.lit(file), raw_text=pl.lit(None, pl.String)
    )


def _plain_flag(closed: tuple[pl.Series, pl.Series], rows: pl.DataFrame, file: str) -> pl.Series:
    """The flag of a table in which a row is no sale, so that none can be set aside.

    Raises:
        SourceError: a word that says neither yes nor no, with its line.
    """
    shut, strange = closed
    if strange.is_not_null().any():
        at = strange.is_not_null().arg_max() or 0
        word = str(strange[at])
        raise SourceError(
            file,
            int(rows[LINE][at]),
            f"{word!r}{_NEITHER}",
            f"Say what it means: `closed` or `open`: {{column: ..., values: {{{word}: yes}}}}",
        )
    return shut


def _own_covariates(sales: Sales) -> list[str]:
    wide = list(sales.wide.covariates) if sales.wide else []
    return [COVARIATE + name for name in (*sales.covariates, *wide)]


def _specs(facts: Facts) -> list[Column]:
    names = ("item_id", "store_id", "dept_id", "cat_id", "state_id", "units", "sell_price")
    given = [getattr(facts, name, None) for name in (*names, "closed", "open")]
    return [spec for spec in (*given, *facts.covariates.values()) if spec is not None]


def _named(rows: pl.DataFrame, file: str, facts: Facts) -> pl.DataFrame:
    """With the file's own name beside, where the mapping reads something from it."""
    if all(spec.file is None for spec in _specs(facts)):
        return rows
    return rows.with_columns(pl.lit(re.split(r"[/\\:]", file)[-1]).alias(FILE))


def _joined(
    rows: pl.DataFrame, joins: Sequence[tuple[Sequence[str], pl.DataFrame]]
) -> pl.DataFrame:
    for keys, table in joins:
        rows = rows.with_columns(pl.col(list(keys)).cast(pl.String).str.strip_chars())
        taken = [c for c in table.columns if c in keys or c not in rows.columns]
        rows = rows.join(table.select(taken), on=list(keys), how="left", maintain_order="left")
    return rows


def _signals(rows: pl.DataFrame, facts: Facts) -> dict[str, pl.Series]:
    """The covariates that a table has in columns of their own."""
    named = facts.covariates.items()
    return {COVARIATE + name: read_signal(rows, spec, facts.csv) for name, spec in named}


def _long(rows: pl.DataFrame, mapping: SourceMapping, lookups: Lookups) -> pl.DataFrame:
    sales = mapping.sales
    day, _, bad_day = read_dates(rows, sales.date, mapping, lookups, sales.csv)
    assert sales.units is not None
    units, bad_units = read_number(rows, sales.units, sales.csv)
    out = {"date": day, **read_ids(rows, sales), "units": unscaled(units, mapping)}
    if sales.sell_price is not None:
        # A price that cannot be read costs the sale nothing: it has no price then.
        out["sell_price"], unread = read_number(rows, sales.sell_price, sales.csv)
        if unread.is_not_null().any():
            out["price_defect"] = unread + " is no number"
    out |= _signals(rows, sales)
    if (closed := read_closed(rows, sales)) is not None:
        out["closed"], strange = closed
        bad_units = pl.select(pl.coalesce(bad_units, strange + _NEITHER)).to_series()
    out["source_row"] = rows[LINE]
    made = pl.DataFrame([series.alias(name) for name, series in out.items()])
    shown = [name for name in rows.columns if name not in _OURS]
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
    days, _, bad = read_dates(keys, asked, mapping, lookups, sales.csv)
    if bad.is_not_null().any():
        at = bad.is_not_null().arg_max() or 0
        raise SourceError(
            "sales",
            1,
            f"column {list(named)[at]!r}: {bad[at]}",
            "Correct `wide.columns` or the date",
        )
    ids = pl.DataFrame([series.alias(name) for name, series in read_ids(rows, sales).items()])
    given = (ids if code is None else code(ids)).with_columns(rows[LINE].alias("source_row"))
    if ids.select(pl.any_horizontal(pl.all().is_null()).any()).item():
        keyless = pl.any_horizontal(pl.all().is_null()).alias("_keyless")
        given = given.with_columns(ids.select(keyless).to_series())
    return _unpivoted(rows, given, list(named), mapping, texts=ids, date=days)


def _wide_items(rows: pl.DataFrame, mapping: SourceMapping, lookups: Lookups) -> pl.DataFrame:
    sales = mapping.sales
    named = wide_columns(sales, rows.columns)
    day, _, bad = read_dates(rows, sales.date, mapping, lookups, sales.csv)
    given = {"date": day, "source_row": rows[LINE], **read_ids(rows, sales)}
    given |= _signals(rows, sales)
    if (closed := read_closed(rows, sales)) is not None:
        given["closed"] = _plain_flag(closed, rows, "sales")
    given.pop("item_id")
    ids = pl.DataFrame([series.alias(name) for name, series in given.items()])
    items = pl.Series(list(named.values()), dtype=pl.String)
    extra = {
        COVARIATE + name: [
            read_signal(rows, Column(column=of[item]), sales.csv)
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
            parsed[name], text = read_number(wide, Column(column=name), csv)
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
    if known is not None and matrices:
        known = known | _planned(known, matrices)
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
    values = {"units": unscaled(pl.Series(units.ravel()[cells]).fill_nan(None), mapping)}
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


def _planned(known: np.ndarray, matrices: Mapping[str, Sequence[pl.Series]]) -> np.ndarray:
    """The cells that tell a covariate, of lines that hold no value at all."""
    told = np.zeros(known.shape, np.bool_)
    for of in matrices.values():
        told |= np.stack([series.is_not_null().to_numpy() for series in of], axis=1)
    cells: np.ndarray = told & ~known.any(axis=1, keepdims=True)
    return cells


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
    dateless = out["date"][numbers].is_null()
    marks = pl.DataFrame({"day": day, "value": value, "dateless": dateless}).select(**_said())
    raw = text.select(pl.concat_str(pl.all().fill_null(""), separator=sales.csv.separator))
    found = {"raw_text": raw.to_series(), "refused": marks["refused"], "defect": marks["defect"]}
    blank = pl.Series([None], dtype=pl.String).new_from_index(0, out.height)
    return out.with_columns(
        blank.scatter(numbers, series).alias(name) for name, series in found.items()
    )


def _said() -> dict[str, pl.Expr]:
    """`refused` and `defect` of rows by what is wrong with their day and their value, and whether
    they have no day."""
    value = pl.col("value").is_not_null()
    neither = value & pl.col("dateless")
    named = (
        pl.when(neither)
        .then(pl.lit("heading"))
        .when(pl.col("day").is_not_null())
        .then(pl.lit("unparseable_date"))
        .when(value)
        .then(pl.lit("unparseable_value"))
    )
    no_day = pl.coalesce("day", pl.lit("it has no date"))
    what = pl.format("{}, and {} is no number: a line of units or a heading?", no_day, "value")
    defect = pl.when(neither).then(what).otherwise(pl.coalesce("day", "value"))
    return {"refused": named, "defect": defect}
