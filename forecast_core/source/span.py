"""Which days of a source are its data, and which are slips of the pen.

Belongs here: telling the body of a series of days from days far off. Does not: what becomes of
rows outside it (they are quarantined).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from itertools import pairwise

APART = timedelta(days=60)
_STRAY = 0.01  # of all rows: fewer than that, behind such a gap, is a mistake


def body(
    days: Mapping[date, int], first: date | None = None, last: date | None = None
) -> tuple[date, date] | None:
    """First and last day of the data; None where there is none.

    Days are cut where nothing stands for more than `APART`; pieces at either end with less than a
    hundredth of the rows are no data. `first` and `last` are taken at their word.
    """
    kept = sorted(
        day for day in days if (first is None or day >= first) and (last is None or day <= last)
    )
    if not kept:
        return None
    pieces: list[list[date]] = [[kept[0]]]
    for before, day in pairwise(kept):
        if day - before > APART:
            pieces.append([])
        pieces[-1].append(day)
    least = _STRAY * sum(days[day] for day in kept)
    size = [sum(days[day] for day in piece) for piece in pieces]
    while len(pieces) > 1 and size[0] < least:
        del pieces[0], size[0]
    while len(pieces) > 1 and size[-1] < least:
        del pieces[-1], size[-1]
    return first or pieces[0][0], last or pieces[-1][-1]
