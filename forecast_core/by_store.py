"""A table that passes through memory one store at a time.

Belongs here: the lazy value object that asset bodies take and return. Does not: reading
or writing (an IO manager supplies `load` and consumes `frames`).

The whole of M5 is 59 million item-store-days; one store is six. A body that maps over stores
never holds more than one, whatever range of partitions the run covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class ByStore:
    """Frames by store, computed when asked for and not kept."""

    stores: tuple[str, ...]
    load: Callable[[str], pl.DataFrame]

    def map(self, fn: Callable[..., pl.DataFrame], *others: ByStore) -> ByStore:
        """Apply `fn(frame, *other_frames)` to each store, lazily."""
        return ByStore(
            self.stores,
            lambda store_id: fn(self.load(store_id), *(other.load(store_id) for other in others)),
        )

    def frames(self) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield (store_id, frame), computing one store at a time."""
        for store_id in self.stores:
            yield store_id, self.load(store_id)

    def collect(self) -> pl.DataFrame:
        """All stores in one frame: only for results that are small by nature."""
        return pl.concat([frame for _, frame in self.frames()])
