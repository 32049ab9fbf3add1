"""A first mapping from a look at the files: what each column seems to be, and how sure that is.

Belongs here: guessing from names and samples, and writing the guess down with its reasons. Does
not: reading files (`resources.source_files`), or deciding anything for good: it is a proposal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from forecast_core.frequency import WEEKDAYS
from forecast_core.mapping_guess_wide import FORMATS, Look, WideGuess, wide_of

_NAMES: Mapping[str, str] = {
    "date": r"^(date|day|ds|dt|datum|week|week_?(id|start|end|date|no|number)?|sales?_?date|"
    r"order_?date|transaction_?date|period|timestamp)$",
    "units": r"^(units?(_?sold|_?sales)?|qty|quantity|sales|sold|num_?orders|demand|y|volume|"
    r"move|logmove|weekly_?sales|item_?cnt(_?day)?|target|turnover|revenue|amount)$",
    "item_id": r"^(item(_?id|_?nbr|_?code)?|sku(_?id)?|product(_?id|_?code)?|meal_?id|"
    r"article(_?id)?|upc|brand|material|unique_?id|dept)$",
    "store_id": r"^(store(_?id|_?nbr|_?code)?|shop(_?id)?|cent(er|re)(_?id)?|outlet(_?id)?|"
    r"location(_?id)?|site|branch|warehouse)$",
    "sell_price": r"^(sell_?price|price|checkout_?price|unit_?price|sales_?price)$",
    "dept_id": r"^(dept(_?id|_?code)?|department|category|family|product_?group|subcategory)$",
    "cat_id": r"^(cat(_?id)?|cuisine|division|segment|class|product_?type)$",
    "state_id": r"^(state(_?id)?|region(_?(id|code))?|country|city(_?(id|code))?|area|"
    r"store_?type)$",
    "closed": r"^(closed|is_?closed)$",
    "open": r"^(open|is_?open)$",
}
_REVENUE = re.compile(r"sales$|revenue|turnover|amount", re.I)
_LOG = re.compile(r"^log", re.I)
_KNOWN = re.compile(
    r"promo|feat|display|deal|markdown|holiday|discount|emailer|homepage|onpromotion|event|"
    r"base_?price|school",
    re.I,
)
_AFTER = re.compile(r"customer|profit|margin|transactions|visits", re.I)  # known only afterwards


@dataclass
class Guess:
    """A proposed mapping and, by place in it, why (`note`) and how sure (`sure`, 0 to 1)."""

    content: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, tuple[float, str]] = field(default_factory=dict)


def guess(looks: Sequence[Look]) -> Guess:
    """A mapping of the files: the one with dates and the most rows is the sales.

    Raises:
        ValueError: no file has a date beside something that could be sales.
    """
    found = Guess({"version": 1})
    facts = [look for look in looks if date_column(look) or wide_of(look)]
    candidates = [(score, look) for look in facts if (score := _sales_score(look))]
    if not candidates:
        raise ValueError(
            "none of the files has a date column beside a column of units or sales; "
            "write the mapping by hand (docs/own_data.md shows one)"
        )
    sales = max(candidates, key=lambda one: one[0])[1]
    wide = wide_of(sales)
    others = [look for look in looks if look is not sales]
    calendar = next((o for o in others if _is_calendar(o, sales)), None) if others else None
    table: dict[str, Any] = {"files": sales.name, **_written(sales)}
    names = dict.fromkeys(sales.rows.columns, sales)
    for other in others:
        if other is calendar or date_column(other) or _keyed(other, calendar):
            continue
        shared = [c for c in other.rows.columns if c in sales.rows.columns]
        if shared:
            table.setdefault("join", []).append(
                {"files": other.name, **_written(other), "on": shared[:1]}
            )
            found.notes[f"sales.join.{len(table['join']) - 1}"] = (
                0.9,
                f"{shared[0]} stands in both files",
            )
            names |= {c: other for c in other.rows.columns if c not in names}
    _date(found, table, sales, calendar, wide)
    taken = _attributes(found, table, names, wide)
    if wide is not None:
        table["wide"] = wide.content
        found.notes["sales.wide"] = (0.9, wide.reason)
    else:
        taken.append(_units(found, table, sales))
        _covariates(found, table, sales, taken)
    found.content["sales"] = table
    if calendar is not None:
        _calendar(found, calendar)
    _further(found, [o for o in others if o is not calendar], sales, calendar)
    _frequency(found, sales, wide is not None)
    _policy(found, sales, wide is not None)
    return found


def date_column(look: Look) -> tuple[str, str | None] | None:
    """(column, format) of a date; format None for whole numbers in a column named like one."""
    named = [c for c in look.rows.columns if re.match(_NAMES["date"], c, re.I)]
    for column in [*named, *(c for c in look.rows.columns if c not in named)]:
        values = look.rows[column].drop_nulls()
        if values.is_empty():
            continue
        for form in FORMATS:
            parsed = values.str.to_date(form, strict=False)
            if parsed.null_count() <= 0.05 * len(values) and parsed.dt.year().min() >= 1900:  # type: ignore[operator]
                return column, form
    for column in named:
        if _numbers(look.rows[column]).null_count() == look.rows[column].null_count():
            return column, None
    return None


def _numbers(values: pl.Series) -> pl.Series:
    return values.str.strip_chars().cast(pl.Float64, strict=False)


def _written(look: Look) -> dict[str, Any]:
    how = {"separator": look.separator, "decimal": look.decimal, "encoding": look.encoding}
    plain = {"separator": ",", "decimal": ".", "encoding": "utf-8"}
    given = {key: value for key, value in how.items() if value != plain[key]}
    return {"csv": given} if given else {}


def _match(names: Sequence[str], what: str) -> str | None:
    """The column whose name says it is `what`; the pattern's earlier words win."""
    hits = [name for name in names if re.match(_NAMES[what], name, re.I)]
    return hits[0] if hits else None


def _sales_score(look: Look) -> float:
    named = _match(look.rows.columns, "units") is not None
    keys = sum(_match(look.rows.columns, what) is not None for what in ("item_id", "store_id"))
    return (10.0 if wide_of(look) else 0.0) + 5.0 * named + keys


def _is_calendar(look: Look, sales: Look) -> bool:
    dated = date_column(look)
    if dated is None or dated[1] is None or not look.rows[dated[0]].is_unique().all():
        return False
    names = [c.lower() for c in look.rows.columns]
    return any(re.search(r"event|holiday|^d$|wm_yr_wk|wday", c) for c in names)


def _keyed(look: Look, calendar: Look | None) -> str | None:
    """A column whose values a calendar's column has: a week by its number."""
    if calendar is None:
        return None
    for column in look.rows.columns:
        if column in calendar.rows.columns and column not in ("item_id", "store_id"):
            held = set(calendar.rows[column].drop_nulls())
            if set(look.rows[column].drop_nulls()) & held:
                return column
    return None


def _date(
    found: Guess, table: dict[str, Any], sales: Look, calendar: Look | None, wide: WideGuess | None
) -> None:
    if wide is not None and wide.content["of"] == "days":
        named = calendar.rows if calendar else pl.DataFrame()
        column = next((c for c in named.columns if wide.sample in set(named[c])), None)
        table["date"] = {"column": "day"}
        if column is not None:
            table["date"]["calendar"] = column
            found.notes["sales.date"] = (0.95, f"{wide.sample} is looked up in column {column}")
        elif wide.format:
            table["date"]["format"] = wide.format
        return
    dated = date_column(sales)
    assert dated is not None
    column, form = dated
    if form is None:
        table["date"] = {"column": column, "epoch": date(2000, 1, 3)}
        found.notes["sales.date"] = (
            0.3,
            "whole numbers: set `epoch` to the day of number 0 (the true one, if the seasons are "
            "to be right)",
        )
    elif form == "%Y-%m-%d":
        table["date"] = column
        found.notes["sales.date"] = (0.95, "every sampled value is such a date")
    else:
        table["date"] = {"column": column, "format": form}
        found.notes["sales.date"] = (
            0.6 if form in ("%d/%m/%Y", "%m/%d/%Y") else 0.9,
            "every sampled value is written so",
        )


def _attributes(
    found: Guess, table: dict[str, Any], names: Mapping[str, Look], wide: WideGuess | None
) -> list[str]:
    taken: list[str] = []
    for what in ("item_id", "store_id", "dept_id", "cat_id", "state_id"):
        if what == "item_id" and wide is not None and wide.content["of"] == "items":
            continue
        free = [c for c in names if c not in taken and not (wide and re.fullmatch(wide.any, c))]
        column = _match(free, what)
        if column is None:
            if what in ("item_id", "store_id"):
                found.notes[f"sales.{what}"] = (0.7, "no such column: all is one")
            continue
        if what in ("dept_id", "cat_id", "state_id") and names[column].rows[column].n_unique() < 1:
            continue
        table[what] = column
        taken.append(column)
        found.notes[f"sales.{what}"] = (0.9, "by its name")
    for what in ("open", "closed"):
        column = _match([c for c in names if c not in taken], what)
        if column is not None:
            table[what] = column
            taken.append(column)
            found.notes[f"sales.{what}"] = (0.9, "by its name")
            break
    return taken


def _units(found: Guess, table: dict[str, Any], sales: Look) -> str:
    columns = [c for c in sales.rows.columns if c != date_column(sales)[0]]  # type: ignore[index]
    column = _match(columns, "units")
    if column is None:
        numeric = [
            c for c in columns if _numbers(sales.rows[c]).null_count() < 0.2 * sales.rows.height
        ]
        column = numeric[-1] if numeric else columns[-1]
        found.notes["sales.units"] = (0.3, "the last column of numbers")
    else:
        found.notes["sales.units"] = (0.9, "by its name")
    table["units"] = column
    values = _numbers(sales.rows[column]).drop_nulls()
    if _LOG.match(column):
        found.content["scale"] = "log"
        found.notes["scale"] = (0.8, f"{column} is a logarithm by its name")
    elif _REVENUE.search(column) and not values.is_empty() and bool((values % 1 != 0).any()):
        found.content["unit"] = "revenue"
        found.notes["unit"] = (0.7, f"{column} has fractions and is named like money")
    return column


def _covariates(found: Guess, table: dict[str, Any], sales: Look, taken: Sequence[str]) -> None:
    dated = date_column(sales)
    column = _match([c for c in sales.rows.columns if c not in taken], "sell_price")
    if column is not None:
        table["sell_price"] = column
        found.notes["sales.sell_price"] = (0.8, "by its name")
    used = {*taken, column, dated[0] if dated else None}
    known = {
        _small(c): c
        for c in sales.rows.columns
        if c not in used and _KNOWN.search(c) and not _AFTER.search(c)
    }
    if known:
        table["covariates"] = known
        found.notes["sales.covariates"] = (0.6, "named like what is planned ahead")


def _calendar(found: Guess, look: Look) -> None:
    dated = date_column(look)
    assert dated is not None
    content: dict[str, Any] = {"files": look.name, **_written(look)}
    content["date"] = (
        dated[0] if dated[1] == "%Y-%m-%d" else {"column": dated[0], "format": dated[1]}
    )
    for name in ("event_name_1", "event_type_1", "event_name_2", "event_type_2"):
        if name in look.rows.columns:
            content[name] = name
    if "event_name_1" not in content:
        column = next((c for c in look.rows.columns if re.search("event|holiday", c, re.I)), None)
        if column is not None:
            content["event_name_1"] = column
    flags = [c for c in look.rows.columns if c.startswith("snap_")]
    if flags:
        content["flags"] = flags
    found.content["calendar"] = content
    found.notes["calendar"] = (0.9, "a line a day, with events or names of days")


def _further(found: Guess, others: Sequence[Look], sales: Look, calendar: Look | None) -> None:
    """Prices in a table of their own, and what else is known by day."""
    known = []
    for look in others:
        dated, keyed = date_column(look), _keyed(look, calendar)
        if not dated and not keyed:
            continue
        when: Any = dated[0] if dated else ""
        if keyed and (dated is None or dated[1] is None):
            when = {"column": keyed, "calendar": keyed}
        elif dated and dated[1] not in (None, "%Y-%m-%d"):
            when = {"column": dated[0], "format": dated[1]}
        content: dict[str, Any] = {"files": look.name, **_written(look), "date": when}
        for what in ("item_id", "store_id"):
            column = _match([c for c in look.rows.columns if dated is None or c != dated[0]], what)
            if column is not None:
                content[what] = column
        price = _match(look.rows.columns, "sell_price")
        if price is not None and "prices" not in found.content:
            content["sell_price"] = price
            found.content["prices"] = content
            found.notes["prices"] = (0.9, f"it has {price}")
            continue
        used = {dated[0] if dated else None, *content.values()}
        named = {
            _small(c): c
            for c in look.rows.columns
            if isinstance(c, str) and c not in used and not _AFTER.search(c)
        }
        if named:
            content["covariates"] = named
            known.append(content)
            found.notes[f"known.{len(known) - 1}"] = (0.5, "what else it tells by day")
    if known:
        found.content["known"] = known


def _frequency(found: Guess, sales: Look, wide: bool) -> None:
    dated = date_column(sales)
    if dated is None:
        return
    column, form = dated
    if form is None:
        if re.search("week", column, re.I):
            found.content["frequency"] = "weekly"
            found.notes["frequency"] = (0.9, f"{column} counts weeks")
        return
    days = sales.rows[column].str.to_date(form, strict=False).drop_nulls().unique()
    weekdays = days.dt.weekday().unique()
    if len(days) >= 2 and len(weekdays) == 1:
        found.content["frequency"] = "weekly"
        found.content["week_start"] = WEEKDAYS[int(weekdays[0]) - 1]
        found.notes["frequency"] = (0.95, f"every date is a {WEEKDAYS[int(weekdays[0]) - 1]}")


def _policy(found: Guess, sales: Look, wide: bool) -> None:
    table = found.content["sales"]
    policy: dict[str, str] = {}
    if not wide:
        values = _numbers(sales.rows[table["units"]]).drop_nulls()
        if bool((values < 0).any()) and "scale" not in found.content:
            policy["negatives"] = "net"
            found.notes["policy.negatives"] = (0.6, "there are negative values: returns?")
        if not bool((values == 0).any()) and "scale" not in found.content:
            policy["gaps"] = "zero"
            found.notes["policy.gaps"] = (0.7, "no zero is written down: no row means no sale")
    if policy:
        found.content["policy"] = policy


def _small(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()).strip("_")
    return plain if plain[:1].isalpha() else f"c_{plain}"


def as_yaml(found: Guess) -> str:
    """The guess as a commented mapping file."""
    import yaml

    lines = [
        "# yaml-language-server: $schema=./source_mapping.schema.json",
        "# Proposed by `forecast source init`; each guess says how sure it is. Correct it, then:",
        "# forecast source check THIS_FILE",
    ]
    for key, value in found.content.items():
        _write(lines, key, value, key, 0, found.notes, yaml)
    absent = [place for place in found.notes if not _has(found.content, place)]
    lines += [f"# {p}: {found.notes[p][1]} (sure: {found.notes[p][0]:.0%})" for p in absent]
    return "\n".join(lines) + "\n"


def _write(
    lines: list[str],
    key: str,
    value: Any,
    place: str,
    depth: int,
    notes: Mapping[str, Any],
    yaml: Any,
) -> None:
    note = f"  # {notes[place][1]} (sure: {notes[place][0]:.0%})" if place in notes else ""
    pad = "  " * depth
    if isinstance(value, dict) and depth < 1:
        lines.append(f"{pad}{key}:{note}")
        for name, inner in value.items():
            _write(lines, name, inner, f"{place}.{name}", depth + 1, notes, yaml)
        return
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
    lines.append(f"{pad}{key}: {text.removesuffix('...').strip()}{note}")


def _has(content: Any, place: str) -> bool:
    for part in place.split("."):
        if isinstance(content, list):
            if int(part) >= len(content):
                return False
            content = content[int(part)]
        elif part not in content:
            return False
        else:
            content = content[part]
    return True
