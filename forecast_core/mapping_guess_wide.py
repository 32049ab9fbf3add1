"""Telling a table with a column a day, or a column an item, from a long one.

Belongs here: families of numbered or dated columns. Does not: the rest of a guess
(`forecast_core.mapping_guess`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

FORMATS = (
    "%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y%m%d",
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d-%b-%Y", "%d %b %Y",
)  # fmt: skip
_LEAST = 5  # columns of a family
_SIGNAL = re.compile(r"promo|feat|display|price|deal", re.I)


@dataclass(frozen=True)
class Look:
    """A file: its name, columns and a sample of its first rows, as text."""

    name: str
    rows: pl.DataFrame
    separator: str = ","
    decimal: str = "."
    encoding: str = "utf-8"


@dataclass(frozen=True)
class WideGuess:
    """`content` of `sales.wide`; `sample`, one column's own part; `any`, all value columns."""

    content: dict[str, Any]
    reason: str
    sample: str
    any: str
    format: str | None = None


def wide_of(look: Look) -> WideGuess | None:
    """What family of columns the table has, or None for a long one."""
    names = look.rows.columns
    numbered = [name for name in names if re.fullmatch(r"[A-Za-z]{1,4}_?\d+", name)]
    if len(numbered) >= max(_LEAST, 0.6 * len(names)):
        letters = re.match(r"[A-Za-z]+_?", numbered[0])
        assert letters is not None
        pattern = rf"({letters[0]}\d+)"
        return WideGuess(
            {"of": "days", "columns": pattern},
            f"{len(numbered)} columns, a day each",
            numbered[0],
            pattern,
        )
    for form in FORMATS:
        parsed = pl.Series(names, dtype=pl.String).str.to_date(form, strict=False)
        count = len(names) - parsed.null_count()
        if count >= max(_LEAST, 0.5 * len(names)):
            digit = next(n for n, d in zip(names, parsed, strict=True) if d is not None)
            pattern = "(" + re.sub(r"\d+", r"\\d+", re.escape(digit)) + ")"
            return WideGuess(
                {"of": "days", "columns": pattern},
                f"{count} columns, a date each",
                digit,
                pattern,
                form,
            )
    heads = Counter(m[1] for n in names if (m := re.fullmatch(r"([A-Za-z]+)_(.+)", n)))
    families = [head for head, count in heads.items() if count >= _LEAST]
    values = [head for head in families if not _SIGNAL.search(head)]
    if not values:
        return None
    head = max(values, key=lambda one: heads[one])
    if heads[head] < 0.3 * len(names):
        return None
    content: dict[str, Any] = {"of": "items", "columns": f"{head}_(.+)"}
    signals = {h.lower(): f"{h}_(.+)" for h in families if h != head and _SIGNAL.search(h)}
    if signals:
        content["covariates"] = signals
    every = "|".join(f"{h}_.+" for h in (head, *(h for h in families if h != head)))
    sample = next(n for n in names if n.startswith(head + "_")).removeprefix(head + "_")
    return WideGuess(content, f"{heads[head]} columns {head}_..., an item each", sample, every)
