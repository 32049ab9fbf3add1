"""The hierarchy of series: which item-stores add up to which nodes.

Belongs here: a declared list of levels over series attributes, the nodes it makes, and sums
over them. Does not: forecasts and their reconciliation (`reconcile`), and scores (`accuracy`).

A level is a tuple of attribute columns; its nodes are the distinct values, joined by "/". The
empty tuple is the total. A level that another level refines is summed from that one, so a
history passes over its series twice rather than twelve times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.layout import HierarchyError as HierarchyError
from forecast_core.layout import lay_out, rows_of, run_starts

if TYPE_CHECKING:
    from scipy import sparse

Level = tuple[str, ...]
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

M5_LEVELS: tuple[Level, ...] = (
    (),
    ("state_id",),
    ("store_id",),
    ("cat_id",),
    ("dept_id",),
    ("state_id", "cat_id"),
    ("state_id", "dept_id"),
    ("store_id", "cat_id"),
    ("store_id", "dept_id"),
    ("item_id",),
    ("item_id", "state_id"),
    ("item_id", "store_id"),
)
M5_NESTING: Mapping[str, str] = {
    "item_id": "dept_id",
    "dept_id": "cat_id",
    "store_id": "state_id",
}


def level_name(level: Level) -> str:
    """`Total` for the empty level, else its columns joined by "/"."""
    return "/".join(level) or "Total"


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Series (rows of every matrix here, in this order) and the nodes that they add up to.

    Attributes:
        series: one row a series, with the key and every column that a level names.
        levels: coarse to fine; the last has exactly one node a series.
        codes: for each level, the node of each series, counted from 0 within the level.
        names: for each level, its node names, sorted.
    """

    series: pl.DataFrame
    levels: tuple[Level, ...]
    codes: tuple[Codes, ...]
    names: tuple[tuple[str, ...], ...]

    @classmethod
    def of(
        cls,
        series: pl.DataFrame,
        levels: Sequence[Level] = M5_LEVELS,
        nesting: Mapping[str, str] = M5_NESTING,
    ) -> Hierarchy:
        """Build it from one row a series; rows keep their order.

        Args:
            series: the attribute columns; others are dropped.
            levels: the declared levels, the last naming each series.
            nesting: child column -> parent column, each child value having one parent value.
                Entries whose columns are not both there are ignored.

        Raises:
            HierarchyError: no series, an unknown column, a null attribute (a series in no
                node), a series twice, a child with two parents, a cyclic nesting, or two nodes
                of one name.
        """
        levels = tuple(tuple(level) for level in levels)
        wanted = _wanted(series, levels)
        frame = series.select(wanted)
        _refuse_nulls(frame, levels)
        _refuse_cycles(nesting)
        _refuse_two_parents(frame, nesting)
        coded = [_code(frame, level) for level in levels]
        bottom_codes, bottom_names = coded[-1]
        if len(bottom_names) != len(bottom_codes):
            twice = int(np.bincount(bottom_codes).argmax())
            raise HierarchyError(
                f"{bottom_names[twice]!r} stands in more than one row; the last level "
                f"({level_name(levels[-1])}) must name each series once: drop the duplicates"
            )
        return cls(frame, levels, tuple(c for c, _ in coded), tuple(n for _, n in coded))

    @classmethod
    def of_history(
        cls,
        history: pl.DataFrame,
        levels: Sequence[Level] = M5_LEVELS,
        nesting: Mapping[str, str] = M5_NESTING,
    ) -> Hierarchy:
        """Build it from many rows a series, all of the same attributes; series keep their order."""
        rows = history.select(_wanted(history, tuple(tuple(level) for level in levels)))
        once = rows.filter(run_starts(rows)).unique(maintain_order=True)
        return cls.of(once, levels, nesting)

    @property
    def key(self) -> Level:
        """The columns that name a series: those of the last level."""
        return self.levels[-1]

    @property
    def n_series(self) -> int:
        """Number of bottom series."""
        return self.series.height

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of nodes of each level."""
        return tuple(len(names) for names in self.names)

    @cached_property
    def spans(self) -> tuple[slice, ...]:
        """Rows of each level in the stacked matrix of nodes."""
        ends = np.cumsum((0, *self.sizes)).tolist()
        return tuple(slice(a, b) for a, b in pairwise(ends))

    @cached_property
    def bottom(self) -> Codes:
        """The row of each series in the stacked matrix of nodes."""
        return self.codes[-1] + (self.n_nodes - self.n_series)

    @property
    def n_nodes(self) -> int:
        """Number of nodes of all levels, the bottom included."""
        return sum(self.sizes)

    @cached_property
    def nodes(self) -> pl.DataFrame:
        """`level, node` of every row of the stacked matrix."""
        return pl.DataFrame(
            {
                "level": np.repeat([level_name(level) for level in self.levels], self.sizes),
                "node": [name for names in self.names for name in names],
            },
            schema={"level": pl.String, "node": pl.String},
        )

    @cached_property
    def listing(self) -> tuple[Codes, pl.DataFrame]:
        """The rows of the stacked matrix by level and node name, and those names: table order."""
        order = self.nodes.with_row_index("row").sort("level", "node")
        return order["row"].to_numpy().astype(np.int64), order.select("level", "node")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of levels, series and their order: what a cached factor belongs to."""
        digest = hashlib.sha256(repr((self.levels, self.series.columns)).encode())
        for column in self.series.iter_columns():
            digest.update("\x1f".join(column.cast(pl.String).to_list()).encode())
            digest.update(b"\x1e")
        return digest.hexdigest()

    @cached_property
    def plan(self) -> tuple[tuple[int | None, Codes], ...]:
        """For each level: the level to sum it from (None: the series), and the node of each row.

        The source is the smallest level that refines it, each of whose nodes lies in one node.
        """
        return tuple(self._source(target) for target in range(len(self.levels)))

    def _source(self, target: int) -> tuple[int | None, Codes]:
        order = sorted(range(len(self.levels)), key=lambda k: self.sizes[k])
        for source in order:
            if self.sizes[source] <= self.sizes[target] or self.sizes[source] == self.n_series:
                continue
            parent = np.empty(self.sizes[source], dtype=np.int64)
            parent[self.codes[source]] = self.codes[target]
            if np.array_equal(parent[self.codes[source]], self.codes[target]):
                return source, parent
        return None, self.codes[target]

    def aggregate(self, matrix: npt.ArrayLike) -> Floats:
        """Sum the series into every node.

        Args:
            matrix: [n_series, n_days].

        Returns:
            [n_nodes, n_days], levels in their order, the series themselves last.

        Raises:
            HierarchyError: the matrix has another number of rows than there are series.
        """
        values = self._checked(matrix)
        out = np.empty((self.n_nodes, values.shape[1]))
        out[self.bottom] = values
        return self._filled(out, values)

    def aggregate_above(self, matrix: npt.ArrayLike) -> Floats:
        """`aggregate` without the last level: [n_nodes - n_series, n_days]."""
        values = self._checked(matrix)
        return self._filled(np.empty((self.n_nodes - self.n_series, values.shape[1])), values)

    def _checked(self, matrix: npt.ArrayLike) -> Floats:
        values = np.ascontiguousarray(matrix, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] != self.n_series:
            raise HierarchyError(
                f"a matrix of shape {values.shape} does not fit {self.n_series} series; "
                "one row a series, one column a day"
            )
        return values

    def _filled(self, out: Floats, values: Floats) -> Floats:
        """Fill the levels above the last, fine before coarse."""
        for level in sorted(range(len(self.levels) - 1), key=lambda k: -self.sizes[k]):
            source, _ = self.plan[level]
            below = values if source is None else out[self.spans[source]]
            out[self.spans[level]] = self._adders[level] @ below
        return out

    @cached_property
    def _adders(self) -> tuple[sparse.csr_array[Any], ...]:
        """For each level, the matrix of ones that sums its source into it."""
        return tuple(
            _ones(parent, np.arange(len(parent)), (size, len(parent)))
            for (_, parent), size in zip(self.plan, self.sizes, strict=True)
        )

    def spread(self, nodes: Floats) -> Floats:
        """The transpose of `aggregate`: each series gets the sum over the nodes it lies in.

        Args:
            nodes: [n_nodes, n_days], or without the rows of the last level where those are zero.

        Returns:
            [n_series, n_days], equal to `S.T @ nodes`.
        """
        held = [nodes[span] for span in self.spans]
        out = held[-1][self.codes[-1]] if len(nodes) == self.n_nodes else None
        for level in sorted(range(len(self.levels) - 1), key=lambda k: self.sizes[k]):
            source, parent = self.plan[level]
            if source is not None:
                held[source] = held[source] + held[level][parent]
            elif out is None:
                out = held[level][parent]
            else:
                out += held[level][parent]
        return np.zeros((self.n_series, nodes.shape[1])) if out is None else out

    @cached_property
    def summing(self) -> sparse.csr_array[Any]:
        """The summing matrix S, [n_nodes, n_series], of ones: `aggregate(y) == S @ y`."""

        starts = [span.start for span in self.spans]
        rows = np.concatenate([c + s for c, s in zip(self.codes, starts, strict=True)])
        columns = np.tile(np.arange(self.n_series), len(self.levels))
        return _ones(rows, columns, (self.n_nodes, self.n_series))

    def take(self, rows: Codes) -> tuple[Hierarchy, Codes]:
        """The hierarchy of some series alone, and where each of its nodes stands in this one."""
        codes, names, where = [], [], []
        for level, span in zip(range(len(self.levels)), self.spans, strict=True):
            kept, code = np.unique(self.codes[level][rows], return_inverse=True)
            codes.append(code.astype(np.int64))
            names.append(tuple(self.names[level][node] for node in kept))
            where.append(kept + span.start)
        part = Hierarchy(self.series[rows], self.levels, tuple(codes), tuple(names))
        return part, np.concatenate(where)

    def coarse(self, most: int) -> Hierarchy:
        """The series under those coarse levels that have at most `most` nodes between them.

        Coarse levels are taken first; the first that no longer fits ends it.
        """
        kept: list[int] = []
        for level in sorted(range(len(self.levels) - 1), key=lambda k: self.sizes[k]):
            if sum(self.sizes[k] for k in kept) + self.sizes[level] > most:
                break
            kept.append(level)
        chosen = [*sorted(kept), len(self.levels) - 1]
        return Hierarchy(
            self.series,
            tuple(self.levels[k] for k in chosen),
            tuple(self.codes[k] for k in chosen),
            tuple(self.names[k] for k in chosen),
        )

    def rows_of(self, frame: pl.DataFrame) -> Codes:
        """The series row of each row of `frame`, by the key columns.

        Raises:
            HierarchyError: a row whose series is not in the hierarchy.
        """
        asked = frame.select(self.key)
        return rows_of(asked, self.series.select(self.key), run_starts(asked))

    def matrix(
        self, frame: pl.DataFrame, value: str, first: date, last: date, day: str = "date"
    ) -> Floats:
        """Lay a long frame out as [n_series, n_days]: NaN where there is no row.

        Args:
            frame: the key columns, `day` and `value`; rows outside first..last are ignored.

        Raises:
            HierarchyError: a series that is not in the hierarchy, or a series-day twice.
        """
        return lay_out(frame, self.series.select(self.key), value, first, last, day)

    def node_matrix(
        self, frame: pl.DataFrame, value: str, first: date, last: date, day: str = "ds"
    ) -> Floats:
        """Lay rows of `level, node, day, value` out as [n_nodes, n_days], like `matrix`."""
        order, names = self.listing
        out = np.empty((self.n_nodes, (last - first).days + 1))
        out[order] = lay_out(frame, names, value, first, last, day)
        return out


def _ones(rows: Codes, columns: Codes, shape: tuple[int, int]) -> sparse.csr_array[Any]:
    from scipy import sparse

    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _wanted(series: pl.DataFrame, levels: tuple[Level, ...]) -> list[str]:
    if not levels or not levels[-1]:
        raise HierarchyError("declare at least one level, the last naming each series")
    if series.is_empty():
        raise HierarchyError("a hierarchy of no series; give one row a series")
    named = {column for level in levels for column in level}
    if unknown := sorted(named - set(series.columns)):
        raise HierarchyError(
            f"a level names the column {unknown[0]!r}; the series have {series.columns}"
        )
    return [column for column in series.columns if column in named]


def _refuse_nulls(frame: pl.DataFrame, levels: tuple[Level, ...]) -> None:
    for column in frame.columns:
        missing = frame[column].is_null()
        if missing.any():
            row = int(missing.arg_max() or 0)
            name = "/".join(str(value) for value in frame.select(levels[-1]).row(row))
            raise HierarchyError(
                f"series {name} (row {row}) has no {column}, so it is in no node of a level; "
                "fill the attribute or quarantine its rows"
            )


def _refuse_cycles(nesting: Mapping[str, str]) -> None:
    for start in nesting:
        path = [start]
        while (parent := nesting.get(path[-1])) is not None:
            path.append(parent)
            if path.count(parent) > 1:
                raise HierarchyError(
                    f"the nesting is cyclic ({' -> '.join(path)}); a column cannot be above itself"
                )


def _refuse_two_parents(frame: pl.DataFrame, nesting: Mapping[str, str]) -> None:
    for child, parent in nesting.items():
        if not {child, parent} <= set(frame.columns):
            continue
        many = frame.group_by(child).agg(pl.col(parent).unique().sort()).sort(child)
        many = many.filter(pl.col(parent).list.len() > 1)
        if many.height:
            value, parents = many.row(0)
            raise HierarchyError(
                f"{child} {value!r} lies in {len(parents)} values of {parent} "
                f"({', '.join(map(str, parents[:3]))}); give it one, or leave {child!r} out of "
                "the nesting"
            )


def _code(frame: pl.DataFrame, level: Level) -> tuple[Codes, tuple[str, ...]]:
    """The node of each series at a level, and the node names in sorted order."""
    if not level:
        return np.zeros(frame.height, dtype=np.int64), ("Total",)
    parts = [pl.col(column).cast(pl.String) for column in level]
    joined = frame.select(node=pl.concat_str(parts, separator="/"))["node"]
    names = joined.unique().sort()
    if len(level) > 1 and len(names) < frame.select(level).unique().height:
        raise HierarchyError(
            f"two nodes of {level_name(level)} have one name; rename values that hold a '/'"
        )
    index = pl.DataFrame({"node": names}).with_row_index("code")
    found = joined.to_frame().join(index, on="node", how="left", maintain_order="left")
    return found["code"].to_numpy().astype(np.int64), tuple(names.to_list())
