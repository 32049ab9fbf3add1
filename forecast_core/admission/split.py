"""Cutting deferrable work into chunks, since nothing that runs is ever stopped for something else.

Belongs here: which stores go into which piece, and where a range of months is cut. Does not: how
many pieces run at once; that is the class's `fan_out`, which `decide` keeps.

A store in a month is what tables are cut by and what is written whole, so it is the finest cut
there is: two runs that wrote items of one would overwrite each other's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def pieces(seconds: Mapping[str, float], max_chunk_s: float) -> tuple[tuple[str, ...], ...]:
    """Cut keys with their seconds of work into pieces of at most `max_chunk_s`, in few pieces.

    The longest key goes first into the piece that has most room left; equal input gives equal
    pieces. A key that is longer than a chunk stands alone (cut its months, `spans`).
    """
    filled: list[tuple[float, list[str]]] = []
    for key, cost in sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0])):
        fitting = [i for i, (taken, _) in enumerate(filled) if taken + cost <= max_chunk_s]
        if fitting:
            best = min(fitting, key=lambda i: (filled[i][0], i))
            filled[best] = (filled[best][0] + cost, [*filled[best][1], key])
        else:
            filled.append((cost, [key]))
    return tuple(tuple(sorted(keys)) for _, keys in filled)


def spans(months: Sequence[T], seconds: float, max_chunk_s: float) -> list[Sequence[T]]:
    """Cut a range whose work takes `seconds` into the fewest equal spans of at most a chunk.

    A span has one month at least, whatever it takes.
    """
    wanted = math.ceil(seconds / max_chunk_s) if seconds > max_chunk_s else 1
    size = max(1, math.floor(len(months) / wanted))
    return [months[start : start + size] for start in range(0, len(months), size)]
