"""Which of the files is what: the sales, a calendar, and the rest.

Belongs here: putting files of one layout together and choosing among them. Does not: their columns
(`forecast_core.source.guess`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from forecast_core.source.guess_names import KNOWN, fit, match, plain
from forecast_core.source.guess_values import Dated, Look, dated
from forecast_core.source.guess_wide import WideGuess, wide_of


@dataclass
class Guess:
    """A proposed mapping and, by place in it, why (`note`) and how sure (`sure`, 0 to 1)."""

    content: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """The looks by their parts: sales, calendar, and the others."""

    sales: Look
    calendar: Look | None
    others: tuple[Look, ...]
    wide: WideGuess | None
    when: Dated | None  # of the sales; None where days are columns

    @property
    def value_columns(self) -> list[str]:
        """The columns of a wide table that hold values."""
        if self.wide is None:
            return []
        return [c for c in self.sales.rows.columns if re.fullmatch(self.wide.any, c)]


def together(looks: Sequence[Look]) -> list[Look]:
    """Files with the very same columns are one table."""
    found: dict[tuple[str | None, ...], Look] = {}
    for look in looks:
        key = (look.query, *look.rows.columns)
        held = found.get(key)
        found[key] = (
            look
            if held is None
            else replace(
                held,
                rows=pl.concat([held.rows, look.rows]),
                others=(*held.others, look.name),
                sizes=(*(held.sizes or (held.rows.height,)), look.rows.height),
            )
        )
    return list(found.values())


def sorted_out(looks: Sequence[Look]) -> Files:
    rated = [(_sales_score(look), at, look) for at, look in enumerate(looks)]
    score, _, sales = max(rated, key=lambda one: (one[0], -one[1]))
    if score <= 0:
        raise ValueError(
            "; ".join(map(_no_sales, looks))
            + ". Give the files that hold sales, or write the mapping by hand (docs/own_data.md)"
        )
    others = [look for look in looks if look is not sales]
    calendar = next((look for look in others if _is_calendar(look)), None)
    wide = wide_of(sales)
    when = None if wide is not None and wide.content["of"] == "days" else dated(sales)
    rest = tuple(look for look in others if look is not calendar)
    return Files(sales, calendar, rest, wide, when)


def _no_sales(look: Look) -> str:
    """Why a file cannot be the sales."""
    if dated(look) is not None:
        return f"{look.name} has days, but no column of numbers that could be units or sales"
    first = {c: look.rows[c].drop_nulls() for c in look.rows.columns[:6]}
    shown = ", ".join(f"{c} ({v[0]!r})" if len(v) else c for c, v in first.items())
    months = [c for c, v in first.items() if len(v) and v.str.contains(r"^\d{4}-\d{1,2}$").all()]
    if months:
        return f"{look.name}: {months[0]} names months, and only days and weeks are forecast"
    return f"{look.name} has no column that reads as a date: {shown}"


def _sales_score(look: Look) -> float:
    """How much a file looks like sales; nothing without days and numbers."""
    wide = wide_of(look)
    if wide is not None:
        return 10.0 * wide.sure + 0.01
    when = dated(look)
    if when is None:
        return 0.0
    keys = sum(match(look.rows.columns, what) is not None for what in ("item_id", "store_id"))
    named = match([c for c in look.rows.columns if c not in when.columns], "units")
    numbers = [
        c
        for c in look.rows.columns
        if c not in when.columns and fit(c, "sell_price") < 0 and look.numeric(c)
        and fit(c, "item_id") < 0 and fit(c, "store_id") < 0 and not KNOWN.search(plain(c))
    ]  # fmt: skip
    return 5.0 * (named is not None) + keys if named or numbers else 0.0


def _is_calendar(look: Look) -> bool:
    when = dated(look)
    if when is None or when.format is None or not when.days(look).is_unique().all():
        return False
    if match(look.rows.columns, "item_id") or match(look.rows.columns, "store_id"):
        return False
    said = " ".join([plain(look.name.rpartition("/")[2]), *map(plain, look.rows.columns)])
    words = ("event", "holiday", "calendar", "wm_yr_wk", "wday", "feiertag", "fiesta")
    return any(word in said for word in words) or "d" in look.rows.columns
