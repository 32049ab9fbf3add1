"""A source mapping: whose columns are which of ours, and what to do where data falls short.

Belongs here: the typed, versioned form of a mapping file, and naming what is wrong with one. Does
not: opening a file (`resources.source_files`), or turning rows (`forecast_core.source.rows`).

Our names are M5's: item_id, dept_id, cat_id, store_id, state_id, date, units, sell_price. Only a
date and units are needed: one store, one department, one item are assumed where a mapping names
none, and every unit is worth 1 where there are no prices.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from forecast_core.frequency import WEEKDAYS, Frequency, Name, Weekday
from forecast_core.schema import TABLES

IDS = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
_CLASSIFIED = frozenset(TABLES["demand_segments"].columns)  # what an item-store is called by us
ALL = "all"  # what an attribute is called that the data does not have
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-")  # where a number should be
COVARIATE = "x_"  # how a covariate's column begins in our tables
Format = Literal["csv", "parquet", "delta", "sql"]


class MappingError(ValueError):
    """A mapping that cannot be used; every fault is named with its place in the file."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _column(given: Any) -> Any:
    """`sku` and `[brand, sku]` are short for their long forms."""
    if isinstance(given, str):
        return {"column": given}
    return {"columns": given} if isinstance(given, list | tuple) else given


class Column(_Part):
    """Where a value comes from: a column, several joined by `-`, a constant, or the file's name.

    `file` is a regular expression whose group is the value, as in `sales_(.+)[.]csv`. `values`
    renames: what stands in the file -> what it is called here (a renamed store keeps its history).
    """

    column: str | None = None
    columns: tuple[str, ...] = ()
    constant: str | None = None
    file: str | None = None
    values: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_origin(self) -> Column:
        given = [self.column, self.columns or None, self.constant, self.file]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give one of `column`, `columns`, `constant` and `file`")
        return self

    @field_validator("file")
    @classmethod
    def _one_group(cls, pattern: str | None) -> str | None:
        return None if pattern is None else _with_group(pattern)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.column,) if self.column is not None else self.columns


class DateColumn(_Part):
    """How a date is written.

    `columns` joins several by `-` (a year and a week). `format` is strftime's (several: each is
    tried in turn); a week (`%G-W%V`) is its Monday. `epoch` makes the value a whole number of
    periods since that date (which is number `epoch_number`); `calendar` looks the value up in that
    column of the calendar: one that names several days, as a week does, covers them all.
    """

    column: str | None = None
    columns: tuple[str, ...] = ()
    format: tuple[str, ...] = ("%Y-%m-%d",)
    epoch: date | None = None
    epoch_number: int = 0
    calendar: str | None = None

    @field_validator("format", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_way(self) -> DateColumn:
        if (self.column is None) == (not self.columns):
            raise ValueError("give one of `column` and `columns`")
        if self.epoch is not None and self.calendar is not None:
            raise ValueError("give `epoch` or `calendar`, not both")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return (self.column,) if self.column is not None else self.columns

    @property
    def label(self) -> str:
        """What to call it."""
        return "-".join(self.names)


ColumnSpec = Annotated[Column, BeforeValidator(_column)]
DateSpec = Annotated[DateColumn, BeforeValidator(_column)]


class Csv(_Part):
    """How text files are written. Numbers may carry a currency sign and blanks around them.

    `skip`: lines before the header (a report's title). `nulls`: words that stand for a missing
    value. Unless given, `MISSING` are those of numbers, dates, flags and events, and a name is
    missing only where its cell is empty: an item may be called None, and a region NA.
    """

    separator: str = Field(default=",", min_length=1, max_length=1)
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    encoding: str = "utf-8"
    skip: int = Field(default=0, ge=0, le=1000)
    nulls: tuple[str, ...] | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """What stands for a number, a date or a flag that is not there."""
        return MISSING if self.nulls is None else self.nulls

    @property
    def nameless(self) -> tuple[str, ...]:
        """What stands for a name that is not there."""
        return ("",) if self.nulls is None else self.nulls

    @model_validator(mode="after")
    def _apart(self) -> Csv:
        if self.thousands == self.decimal:
            raise ValueError(f"thousands and decimal are both {self.decimal!r}")
        return self


class Table(_Part):
    """Files (paths or globs, relative to the mapping), or a query of a database.

    `format` is read off the suffix: .csv .tsv .txt (also .gz, .zip), .parquet, a Delta folder.
    `url` is SQLAlchemy's; `${NAME}` in it is taken from the environment.
    """

    files: tuple[str, ...] = ()
    url: str | None = None
    query: str | None = None
    format: Format | None = None
    csv: Csv = Csv()

    @field_validator("files", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_origin(self) -> Table:
        if bool(self.files) == bool(self.url):
            raise ValueError("give `files`, or `url` with `query`")
        if bool(self.url) != bool(self.query):
            raise ValueError("`url` and `query` go together")
        return self


class Join(Table):
    """A table whose columns join those of another row by row: `on` is ours -> its key column.

    It must fit in memory and have each key once. Rows without a match get nulls.
    """

    on: Mapping[str, str] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _spelt(cls, given: Any) -> Any:
        """YAML 1.1 takes a bare `on` for true."""
        if isinstance(given, dict) and True in given:
            return {"on" if key is True else key: value for key, value in given.items()}
        return given

    @field_validator("on", mode="before")
    @classmethod
    def _same(cls, given: Any) -> Any:
        given = [given] if isinstance(given, str) else given
        return {name: name for name in given} if isinstance(given, list | tuple) else given


class Wide(_Part):
    """Many value columns a line. `columns` is a regular expression of their names.

    `of: days`: each is a day; its first group is read as a date by `date`.
    `of: items`: each is an item; the first group is its item_id. `covariates` names regular
    expressions whose first group is an item too (`promo: "PROMO_(.+)"`).
    """

    of: Literal["days", "items"]
    columns: str
    covariates: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        return _with_group(pattern)

    @field_validator("covariates")
    @classmethod
    def _each(cls, patterns: Mapping[str, str]) -> Mapping[str, str]:
        return {name: _with_group(pattern) for name, pattern in patterns.items()}


class Attributes(Join):
    """A table that says more of items, stores or both: `columns` is our name -> its column.

    `on` is among our five names. Whoever has no line in it is `unassigned`. `on_sale`: a list of
    items, each on sale in every open store, though no sale and no price may name it yet.
    """

    columns: Mapping[str, str] = Field(min_length=1)
    on_sale: bool = False

    @model_validator(mode="after")
    def _known_names(self) -> Attributes:
        if strange := sorted(set(self.on) - set(IDS)):
            raise ValueError(f"on: {strange[0]!r} is none of {', '.join(IDS)}")
        if self.on_sale and "item_id" not in self.on:
            raise ValueError("on_sale: only of a table of items; say `on: {item_id: its column}`")
        for name in self.columns:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"columns: {name!r}: use small letters, digits and _")
            if name in _CLASSIFIED:
                raise ValueError(f"columns: {name!r} is a column of ours; give it another name")
        return self


class Levels(_Part):
    """The hierarchy that forecasts add up in, where it is not the built-in one.

    `levels` are lists of attributes, coarse to fine, `[]` being the total; item-stores always
    stand below them. An attribute is one of our five names, or of a table of `attributes`.
    """

    levels: tuple[tuple[str, ...], ...] = Field(min_length=1)
    attributes: tuple[Attributes, ...] = ()

    @model_validator(mode="after")
    def _declared(self) -> Levels:
        told = [name for table in self.attributes for name in table.columns]
        if twice := sorted({name for name in told if told.count(name) > 1}):
            raise ValueError(f"attributes: {twice[0]!r} is named by two tables; keep one")
        for level in self.levels:
            for name in level:
                if name not in (*IDS, *told):
                    raise ValueError(
                        f"levels: {name!r} is no attribute; there are {', '.join((*IDS, *told))}"
                    )
        return self


class Facts(Table):
    """A table with a date: what `sales`, `prices` and `known` have in common."""

    date: DateSpec
    join: tuple[Join, ...] = ()
    item_id: ColumnSpec | None = None
    store_id: ColumnSpec | None = None
    covariates: Mapping[str, ColumnSpec] = Field(default_factory=dict)
    closed: ColumnSpec | None = None  # a flag: true, 1, yes
    open: ColumnSpec | None = None

    @model_validator(mode="after")
    def _one_flag(self) -> Facts:
        if self.closed is not None and self.open is not None:
            raise ValueError("give `closed` or `open`, not both")
        bad = [name for name in self.covariates if not re.fullmatch(r"[a-z][a-z0-9_]*", name)]
        if bad:
            raise ValueError(f"covariate {bad[0]!r}: use small letters, digits and _")
        return self


class Sales(Facts):
    """The sales themselves; `units` is their column, unless the table is wide."""

    units: ColumnSpec | None = None
    dept_id: ColumnSpec | None = None
    cat_id: ColumnSpec | None = None
    state_id: ColumnSpec | None = None
    sell_price: ColumnSpec | None = None
    wide: Wide | None = None

    @model_validator(mode="after")
    def _has_units(self) -> Sales:
        if (self.units is None) == (self.wide is None):
            raise ValueError("give `units`, or `wide` where units stand in many columns")
        if self.wide is not None and self.wide.of == "items" and self.item_id is not None:
            raise ValueError("a column an item gives the item_id: leave `item_id` out")
        return self


class Prices(Facts):
    """Prices in a table of their own; a price without `store_id` holds in every store."""

    sell_price: ColumnSpec


class Calendar(Table):
    """A line a day: events, and any other columns that a date is looked up by.

    `flags` (snap_<state_id> and the like) become columns of raw_calendar as they are.
    """

    date: DateSpec
    event_name_1: ColumnSpec | None = None
    event_type_1: ColumnSpec | None = None
    event_name_2: ColumnSpec | None = None
    event_type_2: ColumnSpec | None = None
    flags: tuple[str, ...] = ()


class Policy(_Part):
    """What happens to rows that are no plain sale.

    gaps: a day on sale without a row is a sale of nothing (`zero`), unknown (`missing`), or a day
        on which the store was shut (`closed`).
    negatives: `quarantine`; `net` adds returns to the day's sales (never below zero); `clip` makes
        them zero; `separate` takes them out under the rule `return`.
    duplicates: of rows with one key keep the `first` (the rest is quarantined) or the `last` (the
        same), or `sum` them.
    leading_zeros: days before an item's first sale are `keep`-ed or `drop`-ped.
    """

    gaps: Literal["zero", "missing", "closed"] = "missing"
    negatives: Literal["quarantine", "net", "clip", "separate"] = "quarantine"
    duplicates: Literal["first", "last", "sum"] = "first"
    leading_zeros: Literal["keep", "drop"] = "keep"


class SourceMapping(_Part):
    """A whole mapping. `SourceMapping.parse(content)` is the way in.

    delivery: the files hold all there is (`whole`), or what is new and corrected since the last
        load (`changes`): rows then replace those of the same date, item and store, and the rest
        stays.
    fixes: corrections of single rows, as `forecast source quarantine --out` lays them out.
    """

    version: Literal[1] = 1
    frequency: Name = "daily"
    week_start: Weekday = "monday"  # the weekday of weekly dates; others are moved back to it
    unit: Literal["units", "revenue"] = "units"
    delivery: Literal["whole", "changes"] = "whole"
    scale: Literal["linear", "log", "log1p"] = "linear"  # of the target as it stands in the file
    sales: Sales
    prices: Prices | None = None
    known: tuple[Facts, ...] = ()
    calendar: Calendar | None = None
    policy: Policy = Policy()
    hierarchy: Levels | None = None
    fixes: tuple[str, ...] = ()
    first: date | None = None
    last: date | None = None

    @field_validator("fixes", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _whole(self) -> SourceMapping:
        facts: dict[str, Facts | None] = {"sales": self.sales, "prices": self.prices}
        facts |= {f"known.{at}": table for at, table in enumerate(self.known)}
        for name, table in facts.items():
            if table is not None and table.date.calendar and self.calendar is None:
                raise ValueError(f"{name}.date.calendar: there is no `calendar` to look it up in")
        if self.prices is not None and self.sales.sell_price is not None:
            raise ValueError("prices stand in `sales.sell_price` or in `prices`, not in both")
        if self.first and self.last and self.last < self.first:
            raise ValueError("last: it lies before `first`")
        return self

    @property
    def how_often(self) -> Frequency:
        """The frequency as a value."""
        anchor = WEEKDAYS.index(self.week_start) if self.frequency == "weekly" else 0
        return Frequency(self.frequency, anchor)

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates of all tables, sorted, each beginning with `x_`."""
        tables = [self.sales, *([self.prices] if self.prices else []), *self.known]
        names = {name for table in tables for name in table.covariates}
        names |= set(self.sales.wide.covariates) if self.sales.wide else set()
        return tuple(sorted(COVARIATE + name for name in names))

    @classmethod
    def parse(cls, content: Any) -> SourceMapping:
        """Check a mapping as YAML gives it.

        Raises:
            MappingError: naming every key that is wrong, and what it should be.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise MappingError("; ".join(map(_fault, error.errors()))) from None


def _fault(fault: Any) -> str:
    place = ".".join(map(str, fault["loc"])) or "mapping"
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(fault["loc"][-1]), _KEYS, 1, 0.6)
        hint = f"; did you mean {close[0]!r}?" if close else "; remove it"
        return f"{place}: there is no such key{hint}"
    if fault["type"] == "missing":
        return f"{place}: it is missing; add it"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')}"


def _with_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{pattern!r} needs one group, as in 'sales_(.+)'")
    return pattern


_MODELS = (
    SourceMapping, Sales, Prices, Facts, Calendar, Policy, Wide, Csv, Join, DateColumn, Levels,
    Attributes,
)  # fmt: skip
_KEYS = sorted({name for model in _MODELS for name in model.model_fields})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping file, its short forms included, for editors."""
    schema = SourceMapping.model_json_schema()
    definitions = schema["$defs"]
    word = {"type": "string"}
    words = {"type": "array", "items": word}
    for model in (schema, *definitions.values()):
        for name, short in _SHORT.items():
            if name in model.get("properties", {}):
                whole = model["properties"][name]
                model["properties"][name] = {"anyOf": [word, *([words] if short else []), whole]}
    dates = definitions["DateColumn"]["properties"]
    dates["format"] = {"anyOf": [word, dates["format"]]}
    for name in ("Column", "DateColumn"):
        short_forms = [word, words] if name == "Column" else [word]
        definitions[name] = {"anyOf": [*short_forms, definitions[name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


# Keys that may be one text where several are meant; True: or a list where pairs are.
_SHORT = {"files": False, "fixes": False, "on": True}
