"""Cutting deferrable work into chunks, since nothing that runs is ever stopped for something else.

Belongs here: which keys (stores, categories, item buckets) go into which piece. Does not: how many
pieces run at once; that is the class's `fan_out`, which `decide` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b


def pieces(
    seconds: Mapping[str, float], max_chunk_s: float, most: int | None = None
) -> tuple[tuple[str, ...], ...]:
    """Cut keys with their seconds of work into pieces of at most `max_chunk_s`, in few pieces.

    The longest key goes first into the piece that has most room left; equal input gives equal
    pieces. A key that is longer than a chunk stands alone (cut it finer, by item bucket). With
    `most`, no more pieces than that are made, and they may then be longer than a chunk.
    """
    filled: list[tuple[float, list[str]]] = []
    for key, cost in sorted(seconds.items(), key=lambda pair: (-pair[1], pair[0])):
        fitting = [i for i, (taken, _) in enumerate(filled) if taken + cost <= max_chunk_s]
        if not fitting and most is not None and len(filled) >= most:
            fitting = list(range(len(filled)))
        if fitting:
            best = min(fitting, key=lambda i: (filled[i][0], i))
            filled[best] = (filled[best][0] + cost, [*filled[best][1], key])
        else:
            filled.append((cost, [key]))
    return tuple(tuple(sorted(keys)) for _, keys in filled)


def bucket_of(item_id: str, buckets: int) -> int:
    """The bucket of an item, 0 to `buckets` - 1: the same on every machine and in every year."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8).digest()) % buckets
