"""A store as dense item x day matrices: the shape in which features and forecasts are fast.

Belongs here: laying long rows out and looking days up. Does not: what is computed from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Grid:
    """Items (rows, sorted) by days (columns, gapless from `first`); NaN where there was no row.

    `values[name]` is float32 [n_items, n_days] for every column laid out.
    """

    items: tuple[str, ...]
    first: date
    n_days: int
    values: dict[str, Floats]

    @classmethod
    def of(
        cls,
        rows: pl.DataFrame,
        columns: Sequence[str],
        first: date,
        last: date,
        items: Sequence[str] | None = None,
    ) -> Grid:
        """Lay out `rows` (`item_id, date` and `columns`) of one store.

        Rows outside `first`..`last`, or of an item not among `items`, are left out; an item
        without rows is a row of NaN. The last of two rows of one cell wins.
        """
        n_days = (last - first).days + 1
        names = sorted(rows["item_id"].unique().to_list() if items is None else set(items))
        order = pl.DataFrame({"item_id": names}, schema={"item_id": pl.String}).with_row_index("at")
        inside = rows.filter(pl.col("date").is_between(first, last)).join(order, on="item_id")
        row = inside["at"].to_numpy()
        day = (inside["date"] - first).dt.total_days().to_numpy()
        values = {}
        for column in columns:
            laid = np.full((len(names), n_days), np.nan, dtype=np.float32)
            laid[row, day] = inside[column].cast(pl.Float32).to_numpy()
            values[column] = laid
        return cls(tuple(names), first, n_days, values)

    def at(self, day: date) -> int:
        """Column of a day (may lie outside the grid)."""
        return (day - self.first).days

    def day(self, column: int) -> date:
        """Day of a column."""
        return self.first + timedelta(days=column)

    def filled(self, column: str) -> Floats:
        """A column with zero where there was no row: no sale is known there."""
        return np.nan_to_num(self.values[column], nan=0.0)
