"""Telling a table with a column a day, or a column an item, from a long one.

Belongs here: families of numbered, dated or alike columns. Does not: the rest of a guess
(`forecast_core.source.guess`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from forecast_core.source.guess_names import AFTER, HIERARCHY, KNOWN, WORDS, fit, plain
from forecast_core.source.guess_values import FORMATS, WEEKS, Look, dated, parsed, repeated

_LEAST = 5  # columns of a family
_FEW = 3  # columns of a sheet with a column an item
_NEARLY_ALL = 0.8  # of the columns that say nothing else
_AGAIN = 0.2  # of its lines that may share their day and store
_SIGNAL = re.compile(r"promo|feat|display|price|deal", re.I)


@dataclass(frozen=True)
class WideGuess:
    """`content` of `sales.wide`; `sample`, one column's own part; `any`, all value columns.

    `numbered`: what stands before the number of a day or week, as in `W12`.
    """

    content: dict[str, Any]
    reason: str
    sample: str
    any: str
    format: str | None = None
    numbered: str | None = None
    sure: float = 0.9


def wide_of(look: Look) -> WideGuess | None:
    """What family of columns the table has, or None for a long one."""
    return _numbered(look) or _dated(look) or _tailed(look) or _headed(look) or _sheet(look)


def _numbered(look: Look) -> WideGuess | None:
    names = look.rows.columns
    heads = Counter(m[1] for n in names if (m := re.fullmatch(r"([A-Za-z]{1,5}[ _]?)\d+", n)))
    if not heads:
        return None
    head, count = heads.most_common(1)[0]
    if count < max(_LEAST, 0.6 * len(names)):
        return None
    pattern = rf"({re.escape(head)}\d+)"
    sample = next(n for n in names if re.fullmatch(pattern, n))
    content = {"of": "days", "columns": pattern}
    return WideGuess(content, f"{count} columns, a day each", sample, pattern, numbered=head)


def _dated(look: Look) -> WideGuess | None:
    names = look.rows.columns
    for form in (*WEEKS, *FORMATS):
        days = parsed(pl.Series(names, dtype=pl.String), form)
        count = len(names) - days.null_count()
        if count >= max(_LEAST, 0.5 * len(names)):
            sample = next(n for n, d in zip(names, days, strict=True) if d is not None)
            pattern = "(" + re.sub(r"\d+", r"\\d+", re.escape(sample)) + ")"
            if re.search("%b", form):
                pattern = "(" + re.sub(r"[A-Za-z]+", "[A-Za-z]+", re.sub(r"\d+", "0", sample)) + ")"
                pattern = pattern.replace("0", r"\d+")
            content = {"of": "days", "columns": pattern}
            return WideGuess(content, f"{count} columns, a date each", sample, pattern, form)
    return None


def _headed(look: Look) -> WideGuess | None:
    """QTY_<item>, with PROMO_<item> beside."""
    names = look.rows.columns
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


def _tailed(look: Look) -> WideGuess | None:
    """<item>_sold, with <item>_promo beside."""
    names = [n for n in look.rows.columns if _SIGNAL.search(n) or not _means(n)]
    tails = Counter(m[1] for n in names if (m := re.fullmatch(r".+([_. ][A-Za-z]+)", n)))
    families = {tail: count for tail, count in tails.items() if count >= _LEAST}
    values = [tail for tail in families if not _SIGNAL.search(tail)]
    if not values or sum(families.values()) < _NEARLY_ALL * len(names):
        return None
    tail = max(values, key=lambda one: families[one])
    if not all(look.numeric(n) for n in names if n.endswith(tail)):
        return None
    content: dict[str, Any] = {"of": "items", "columns": f"(.+){re.escape(tail)}"}
    signals = {t[1:].lower(): f"(.+){re.escape(t)}" for t in families if _SIGNAL.search(t)}
    if signals:
        content["covariates"] = signals
    every = "|".join(f".+{re.escape(t)}" for t in families)
    sample = next(n for n in names if n.endswith(tail)).removesuffix(tail)
    return WideGuess(content, f"{families[tail]} columns ...{tail}, an item each", sample, every)


def _sheet(look: Look) -> WideGuess | None:
    """A date, and a column of numbers for each item, under the item's own name."""
    when = dated(look)
    if when is None or when.format is None:
        return None
    meant = [name for name in look.rows.columns if name in when.columns or _means(name)]
    items = [name for name in look.rows.columns if name not in meant]
    if len(items) < _FEW or not all(look.numeric(name) for name in items):
        return None
    if any(fit(name, what) >= 0 for name in meant for what in ("units", "item_id")):
        return None
    shops = [name for name in meant if fit(name, "store_id") >= 0]
    if repeated(look, when, shops) > _AGAIN:
        return None  # several lines a day: an item a line
    pattern = f"((?!(?:{'|'.join(map(re.escape, meant))})$).+)"
    content = {"of": "items", "columns": pattern}
    return WideGuess(content, f"{len(items)} columns of numbers", items[0], pattern, sure=0.5)


def _means(name: str) -> bool:
    """Whether a name says something of its own, and is no item's."""
    known = (
        KNOWN.search(plain(name)) or AFTER.search(plain(name)) or HIERARCHY.fullmatch(plain(name))
    )
    return bool(known) or any(fit(name, what) >= 0 for what in WORDS)
