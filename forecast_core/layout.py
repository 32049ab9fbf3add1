"""Long frames laid out as matrices: a row a series or node, a column a day.

Belongs here: finding the place of each row of a long frame, fast when it is in table order.
Does not: what the rows of the matrix mean (`hierarchy`).
"""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


class HierarchyError(ValueError):
    """Series, attributes or levels that do not form a hierarchy: says which, and the remedy."""


def lay_out(
    frame: pl.DataFrame, index: pl.DataFrame, value: str, first: date, last: date, day: str
) -> Floats:
    """One row a row of `index`, by its columns; one column a day."""
    n_days = (last - first).days + 1
    inside = pl.col(day).is_between(first, last)
    frame = frame.select(*index.columns, day, value)
    if not frame.select(inside.fill_null(False).all()).item():
        frame = frame.filter(inside)
    starts = run_starts(frame.select(index.columns))
    column = frame[day].to_physical().to_numpy() - np.int32((first - date(1970, 1, 1)).days)
    values = frame[value].cast(pl.Float64).to_numpy()
    shape = (index.height, n_days)
    if _is_grid(frame, index, starts, column, shape):
        return values.reshape(shape).copy()
    cell = rows_of(frame, index, starts) * n_days + column
    seen = np.zeros(index.height * n_days, dtype=np.bool_)
    seen[cell] = True
    if int(np.count_nonzero(seen)) < len(cell):
        at = int(pl.Series(cell).is_duplicated().arg_max() or 0)
        name = "/".join(map(str, frame.select(*index.columns, day).row(at)))
        raise HierarchyError(f"{name} stands more than once; drop the duplicates first")
    out = np.full(shape, np.nan)
    out.reshape(-1)[cell] = values
    return out


def _is_grid(
    frame: pl.DataFrame,
    index: pl.DataFrame,
    starts: pl.Series,
    column: npt.NDArray[np.int32],
    shape: tuple[int, int],
) -> bool:
    """Whether the rows are the matrix already: every key of `index` in turn, all its days."""
    if frame.height != shape[0] * shape[1] or int(starts.sum()) != shape[0]:
        return False
    return (
        starts.gather_every(shape[1]).all()
        and frame.select(index.columns).gather_every(shape[1]).equals(index)
        and bool((column.reshape(shape) == np.arange(shape[1], dtype=np.int32)).all())
    )


def rows_of(frame: pl.DataFrame, index: pl.DataFrame, starts: pl.Series) -> Codes:
    """The row of `index` that each row of `frame` names; `starts` of its runs by those columns."""
    key = index.columns
    runs = frame.filter(starts).select(key)
    found = runs.join(index.with_row_index("_row"), on=key, how="left", maintain_order="left")
    if found["_row"].null_count():
        lost = found.filter(pl.col("_row").is_null()).select(key).unique(maintain_order=True)
        raise HierarchyError(
            f"{'/'.join(map(str, lost.row(0)))} is in no hierarchy node "
            f"({lost.height} such series); "
            "add its attributes to the hierarchy or quarantine its rows"
        )
    run = np.cumsum(starts.to_numpy()) - 1
    return np.asarray(found["_row"].to_numpy().astype(np.int64)[run])


def run_starts(frame: pl.DataFrame) -> pl.Series:
    """Where a row differs from the one before it.

    Tables are sorted by series, so looking at the starts of runs alone saves nearly all rows.
    """
    changed = frame.select(
        pl.any_horizontal(pl.col(c).ne_missing(pl.col(c).shift()) for c in frame.columns)
    ).to_series()
    if len(changed):
        changed[0] = True
    return changed
