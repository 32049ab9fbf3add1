"""What a partition covers: a closed window of days, crossed with stores.

Belongs here: the value object that storage, orchestration and the domain use to say
"these days of these stores". Does not: Dagster's partition keys (`resources.partition_keys`
decodes them) and the physical layout (`resources.lake`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True)
class Cells:
    """Days `first`..`last`, both included, of `stores` (None: every store, or no store dimension).

    Raises:
        ValueError: the window is empty or no store is named.
    """

    first: date
    last: date
    stores: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.last < self.first:
            raise ValueError(f"an empty window: {self.first} is after {self.last}")
        if self.stores is not None and not self.stores:
            raise ValueError("a window of no stores; use None for every store")

    @property
    def days(self) -> int:
        """Number of days in the window."""
        return (self.last - self.first).days + 1

    def only(self, store_id: str) -> Cells:
        """The same days of one store."""
        return Cells(self.first, self.last, (store_id,))

    def back(self, days: int) -> Cells:
        """The window grown backwards by `days`: the history that a feature needs."""
        return Cells(self.first - timedelta(days=days), self.last, self.stores)
