"""What tells one series from another where no column is named like it.

Belongs here: a column by which rows of one day differ, and stores that only the names of the files
tell. Does not: keys that a column's name gives away (`guess_names`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from forecast_core.source.guess_names import AFTER, KNOWN, fit, plain
from forecast_core.source.guess_values import Dated, Look, repeated

_MANY = 0.02  # of the rows that share their day: the key is incomplete
_NONE = 0.002
_STEADY = 0.2  # of the days on which the middle one of the values stands
_MEASURES = ("units", "sell_price", "date", "week", "year")
_MARKS = r"[_\-. ]+"  # between the words of a file's name


def telling_column(look: Look, when: Dated, keys: Sequence[str], free: Sequence[str]) -> str | None:
    """The one of the columns `free` that with the day and `keys` names a row; None if none does.

    A measure never stands on many days with the same value and on each but once; a key does.
    """
    if repeated(look, when, keys) <= _MANY:
        return None
    days = when.days(look).n_unique()
    for column in free:
        said = plain(column)
        if KNOWN.search(said) or AFTER.search(said) or any(fit(column, w) >= 0 for w in _MEASURES):
            continue
        counts = look.rows[column].drop_nulls().value_counts()["count"]
        if len(counts) < 2 or float(counts.median() or 0) < _STEADY * days:  # type: ignore[arg-type]
            continue
        if repeated(look, when, [*keys, column]) <= _NONE:
            return column
    return None


def store_in_name(look: Look, when: Dated, keys: Sequence[str]) -> str | None:
    """A pattern whose group is the store in the names of the files; None where they tell none.

    Files of one store each say the same days and items; those of one year each do not.
    """
    names = [re.split(r"[/\\]", name)[-1] for name in (look.name, *look.others)]
    if len(names) < 2 or repeated(look, when, keys) <= _MANY:
        return None
    starts = [sum(look.sizes[:at]) for at in range(len(look.sizes))]
    parts = [look.part(start, size) for start, size in zip(starts, look.sizes, strict=True)]
    if any(repeated(part, when, keys) > _MANY for part in parts):
        return None
    words = [re.split(f"({_MARKS})", name) for name in names]
    if len({len(each) for each in words}) != 1:
        return None
    differ = [at for at, each in enumerate(zip(*words, strict=True)) if len(set(each)) > 1]
    worded = [at for at in differ if not all(w[at].isdigit() for w in words)] or differ
    if len(worded) != 1:
        return None
    pattern = [re.escape(word) for word in words[0]]
    for at in differ:
        pattern[at] = "(.+)" if at == worded[0] else ".+"
    return "".join(pattern)
