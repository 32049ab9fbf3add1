"""A first mapping from a look at the files: what each column seems to be, and how sure that is.

Belongs here: putting together what names and values say, with reasons. Does not: reading files
(`resources.source_look`), the words (`guess_names`), the look of values
(`guess_values`), or deciding anything for good: it is a proposal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import polars as pl

from forecast_core.source.guess_files import Files, Guess, sorted_out, together
from forecast_core.source.guess_habits import frequency, policy
from forecast_core.source.guess_keys import store_in_name, telling_column
from forecast_core.source.guess_names import (
    AFTER,
    COUNTS,
    HIERARCHY,
    KNOWN,
    LOGARITHM,
    MONEY,
    covariate_name,
    fit,
    match,
    plain,
)
from forecast_core.source.guess_values import AMBIGUOUS, Dated, Look, dated

_UNKNOWN_EPOCH = date(2000, 1, 3)
_ONE = {"item_id": "all is one item", "store_id": "all is one store"}


def guess(looks: Sequence[Look]) -> Guess:
    """A mapping of the files: the one with dates and the most to say of sales is the sales.

    Raises:
        ValueError: no file has a date beside something that could be sales.
    """
    files = sorted_out(together(looks))
    found = Guess({"version": 1})
    sales = files.sales
    table: dict[str, Any] = {**sales.place}
    if sales.others:
        found.notes["sales.files"] = (0.9, f"{len(sales.others) + 1} files with the same columns")
    names = dict.fromkeys(sales.rows.columns, sales)
    for other in files.others:
        key = None if dated(other) else _join_key(other, sales)
        if key is None:
            continue
        table.setdefault("join", []).append({**other.place, "on": key})
        place = f"sales.join.{len(table['join']) - 1}"
        found.notes[place] = (0.9, f"{key[0]} stands in both files, once a line in this one")
        names |= {c: other for c in other.rows.columns if c not in names}
    _date(found, table, files)
    taken = _attributes(found, table, names, files)
    if files.wide is not None:
        table["wide"] = files.wide.content
        found.notes["sales.wide"] = (files.wide.sure, files.wide.reason)
    else:
        taken.append(_units(found, table, files, taken))
        _signals(found, table, files, taken)
    found.content["sales"] = table
    if files.calendar is not None:
        _calendar(found, files.calendar)
    _further(found, files)
    frequency(found, files)
    policy(found, files)
    return found


def _join_key(other: Look, sales: Look) -> list[str] | None:
    """The column by which each row of the sales finds one line of another table."""
    shared = [c for c in other.rows.columns if c in sales.rows.columns]
    for column in shared:
        if other.rows[column].drop_nulls().is_unique().all():
            return [column]
    if len(shared) > 1 and not other.rows.select(shared).is_duplicated().any():
        return shared
    return None


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


def _date(found: Guess, table: dict[str, Any], files: Files) -> None:
    wide, when = files.wide, files.when
    if wide is not None and when is None:
        rows = files.calendar.rows if files.calendar else pl.DataFrame()
        column = next((c for c in rows.columns if wide.sample in set(rows[c])), None)
        table["date"] = {"column": "day"}
        if column is not None:
            table["date"]["calendar"] = column
            found.notes["sales.date"] = (0.95, f"{wide.sample} is looked up in column {column}")
        elif wide.format:
            table["date"]["format"] = wide.format
        elif wide.numbered is not None:
            wide.content["columns"] = (
                wide.content["columns"].replace("(", "").replace("\\d", "(\\d")
            )
            table["date"] |= {"epoch": _UNKNOWN_EPOCH, "epoch_number": 1}
            found.notes["sales.date"] = (0.3, "set `epoch` to the day of number 1")
        return
    assert when is not None
    if when.format is None:
        keyed = _keyed(files.sales.rows.select(when.columns).pipe(_bare), files.calendar)
        if keyed is not None:
            table["date"] = {"column": keyed, "calendar": keyed}
            found.notes["sales.date"] = (0.9, "looked up in the calendar")
            return
        table["date"] = {**when.spec, "epoch": _UNKNOWN_EPOCH}
        found.notes["sales.date"] = (
            0.3,
            "whole numbers: set `epoch` to the day of number 0 (the true one, if the seasons are "
            "to be right)",
        )
        return
    table["date"] = when.spec
    if when.format in AMBIGUOUS and not _beyond_twelve(files.sales, when):
        found.notes["sales.date"] = (0.5, "day and month might be the other way round")
    else:
        found.notes["sales.date"] = (0.95, "every sampled value is such a date")


def _bare(rows: pl.DataFrame) -> Look:
    return Look("", rows)


def _beyond_twelve(look: Look, when: Dated) -> bool:
    """Whether some number of the dates can only be a day."""
    parts = look.rows[when.columns[0]].drop_nulls().str.split("/")
    first = parts.list.get(0, null_on_oob=True).cast(pl.Int32, strict=False)
    second = parts.list.get(1, null_on_oob=True).cast(pl.Int32, strict=False)
    return bool((first > 12).any() or (second > 12).any())


def _attributes(
    found: Guess, table: dict[str, Any], names: Mapping[str, Look], files: Files
) -> list[str]:
    """Whose columns say item, store, their groups and closures; those that were taken."""
    when = files.when.columns if files.when else ()
    values = set(files.value_columns)
    free = [c for c in names if c not in when and c not in values]
    taken: list[str] = []

    def take(what: str, column: str | None, sure: float = 0.9, why: str = "by its name") -> None:
        if column is not None and column not in taken:
            table[what] = column
            taken.append(column)
            found.notes[f"sales.{what}"] = (sure, why)

    items_wide = files.wide is not None and files.wide.content["of"] == "items"
    if not items_wide:
        own = [c for c in free if c in files.sales.rows.columns]
        take("item_id", match(own, "item_id"))
    take("store_id", match([c for c in free if c in files.sales.rows.columns], "store_id"))
    if files.wide is None and files.when is not None:
        _told_apart(found, table, files, free, taken)
    if "store_id" not in table:
        region = match([c for c in files.sales.rows.columns if c in free], "state_id")
        take("store_id", region, 0.6, "the nearest to a store that there is")
    groups = [c for c in free if c not in taken and HIERARCHY.fullmatch(plain(c))]
    held = [c for c in groups if names[c].rows[c].n_unique() >= 1]
    # The finer of two groups is the department, whatever they are called.
    held.sort(key=lambda c: (-names[c].rows[c].n_unique(), free.index(c)))
    for what, column in zip(("dept_id", "cat_id"), held, strict=False):
        finer = "" if len(held) < 2 else ("; the finer" if what == "dept_id" else "; the coarser")
        take(what, column, 0.8 if finer else 0.9, f"by its name{finer}")
    take("state_id", match([c for c in free if c not in taken], "state_id"))
    for what in ("item_id", "store_id"):
        if what not in table and not (what == "item_id" and items_wide):
            found.notes[f"sales.{what}"] = (0.7, f"no column is named like it: {_ONE[what]}")
    for what in ("open", "closed"):
        flag = match([c for c in free if c not in taken], what)
        if flag is not None:
            take(what, flag)
            break
    return taken


def _told_apart(
    found: Guess, table: dict[str, Any], files: Files, free: Sequence[str], taken: list[str]
) -> None:
    """Items by a column that makes rows of a day differ, stores by the names of the files."""
    look, when = files.sales, files.when
    assert when is not None
    named = [table[what] for what in ("item_id", "store_id") if what in table]
    rest = [c for c in free if c in look.rows.columns and c not in taken]
    by_file = store_in_name(look, when, named) if "store_id" not in table else None
    if by_file is not None:
        table["store_id"] = {"file": by_file}
        found.notes["sales.store_id"] = (0.7, "the files say the same days, a store each")
    for what in ("item_id", "store_id"):
        column = telling_column(look, when, named, rest) if what not in table else None
        if column is not None and by_file is None:
            table[what] = column
            taken.append(column)
            found.notes[f"sales.{what}"] = (0.5, "with the day it names a row")
            return


def _units(found: Guess, table: dict[str, Any], files: Files, taken: Sequence[str]) -> str:
    look, when = files.sales, files.when
    used = {*taken, *(when.columns if when else ())}
    columns = [c for c in look.rows.columns if c not in used]
    named = match([c for c in columns if look.numeric(c)], "units")
    if named is None:
        numeric = [c for c in columns if look.numeric(c) and not KNOWN.search(plain(c))]
        unpriced = [c for c in numeric if fit(c, "sell_price") < 0] or numeric or columns
        column = unpriced[-1]
        found.notes["sales.units"] = (0.3, "the last column of numbers")
    else:
        column = named
        found.notes["sales.units"] = (0.9, "by its name")
    table["units"] = column
    said = plain(column)
    values = look.numbers(column).drop_nulls()
    if LOGARITHM.match(said):
        found.content["scale"] = "log"
        found.notes["scale"] = (0.8, f"{column} is a logarithm by its name")
    elif MONEY.search(said) and not COUNTS.search(said) and bool((values % 1 != 0).any()):
        found.content["unit"] = "revenue"
        found.notes["unit"] = (0.7, f"{column} has fractions and is named like money")
    return column


def _signals(found: Guess, table: dict[str, Any], files: Files, taken: Sequence[str]) -> None:
    """Price and what is planned ahead, in the sales themselves."""
    look, when = files.sales, files.when
    used = {*taken, *(when.columns if when else ())}
    rest = [c for c in look.rows.columns if c not in used]
    column = match([c for c in rest if look.numeric(c)], "sell_price")
    if column is not None:
        table["sell_price"] = column
        found.notes["sales.sell_price"] = (0.8, "by its name")
    said = [
        c for c in rest if c != column and KNOWN.search(plain(c)) and not AFTER.search(plain(c))
    ]
    if said:
        table["covariates"] = {covariate_name(c): c for c in said}
        found.notes["sales.covariates"] = (0.6, "named like what is planned ahead")


def _calendar(found: Guess, look: Look) -> None:
    when = dated(look)
    assert when is not None
    content: dict[str, Any] = {**look.place, "date": when.spec}
    for name in ("event_name_1", "event_type_1", "event_name_2", "event_type_2"):
        if name in look.rows.columns:
            content[name] = name
    if "event_name_1" not in content:
        words = [c for c in look.rows.columns if c not in when.columns and not look.numeric(c)]
        for said in ("event|holiday|feiertag|fiesta", "description|desc", "name"):
            column = next((c for c in words if re.search(said, plain(c))), None)
            if column is not None:
                content["event_name_1"] = column
                break
    flags = [c for c in look.rows.columns if c.startswith("snap_")]
    if flags:
        content["flags"] = flags
    found.content["calendar"] = content
    found.notes["calendar"] = (0.9, "a line a day, with events or names of days")


def _further(found: Guess, files: Files) -> None:
    """Prices in a table of their own, and what else is known by day."""
    known: list[dict[str, Any]] = []
    until = _last(files.when, files.sales)
    for look in files.others:
        when, keyed = dated(look), _keyed(look, files.calendar)
        if when is None and not keyed:
            continue
        spec: Any = when.spec if when else ""
        if keyed and (when is None or when.format is None):
            spec = {"column": keyed, "calendar": keyed}
        content: dict[str, Any] = {**look.place, "date": spec}
        free = [c for c in look.rows.columns if when is None or c not in when.columns]
        for what in ("item_id", "store_id"):
            column = match(free, what)
            if column is not None:
                content[what] = column
                free.remove(column)
        price = match(free, "sell_price")
        if price is not None and "prices" not in found.content:
            content["sell_price"] = price
            found.content["prices"] = content
            found.notes["prices"] = (0.9, f"it has {price}")
            if "sell_price" in found.content["sales"]:
                del found.content["sales"]["sell_price"]
            continue
        named = [c for c in free if c != keyed and not AFTER.search(plain(c))]
        planned = [c for c in named if KNOWN.search(plain(c))]
        latest = _last(when, look)
        if not planned and latest is not None and until is not None and latest <= until:
            note = f"{look.name} ends with the sales: it is not known ahead, and left out"
            found.notes[f"known ({look.name})"] = (0.7, note)
            continue
        chosen = planned or [c for c in named if look.numeric(c)]
        if chosen:
            content["covariates"] = {covariate_name(c): c for c in chosen}
            known.append(content)
            found.notes[f"known.{len(known) - 1}"] = (0.5, "what else it tells by day")
    if known:
        found.content["known"] = known


def _last(when: Dated | None, look: Look) -> date | None:
    found = when.days(look).max() if when is not None else None
    return found if isinstance(found, date) else None
