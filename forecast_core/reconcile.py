"""Coherent forecasts: every node is the sum of the item-stores under it.

Belongs here: bottom-up sums and least-squares reconciliation (MinT with a diagonal error
covariance) over a `Hierarchy`. Does not: making base forecasts, scoring them, or storing a factor.

MinT moves base forecasts of all nodes by the least, in units of their error variance W, that
makes them add up. With C = [I, -A] (a node minus the series under it), it is
y - W C' (C W C')^-1 C y (Wickramasuriya, Athanasopoulos and Hyndman, 2019). C W C' is as large as
there are nodes above the bottom, and of a fixed shape: all but a few coarse nodes fall apart into
small blocks (an item and its states). So it is factored exactly, once per variance, into
block inverses and one small Cholesky factor, and a night is sparse products alone.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from forecast_core.hierarchy import Codes, Floats, Hierarchy, HierarchyError
from forecast_core.schema import TABLES

if TYPE_CHECKING:
    from scipy import sparse

    Sparse = sparse.csr_array[Any]

MAX_BLOCK = 64  # nodes in a block of the factor that is inverted on its own
ROUNDS = 10  # within 1e-8 of the non-negative optimum on M5
MAX_CORE = 8000  # coarse nodes in the dense factor: half a GB


def bottom_up(prediction: pl.DataFrame, hierarchy: Hierarchy) -> pl.DataFrame:
    """Sum item-store forecasts into every node of the hierarchy.

    Args:
        prediction: one cutoff of `prediction_daily` rows: `item_id, store_id, cutoff, ds, mean`,
            every series on every day of the horizon.

    Returns:
        `prediction_reconciled` rows, n_nodes x horizon, sorted by level, node, day.

    Raises:
        HierarchyError: no rows, several cutoffs, a series in no node, a series-day twice or
            missing, a forecast that is no number.
    """
    matrix, cutoff, days = bottom_matrix(prediction, hierarchy)
    return as_rows(hierarchy.aggregate(matrix), hierarchy, cutoff, days)


def bottom_matrix(
    prediction: pl.DataFrame, hierarchy: Hierarchy
) -> tuple[Floats, date, list[date]]:
    """Item-store forecasts as [n_series, n_days], their cutoff and their days; as `bottom_up`."""
    cutoff, days = _window(prediction)
    matrix = hierarchy.matrix(prediction, "mean", days[0], days[-1], day="ds")
    _refuse_gaps(matrix, hierarchy, days)
    return matrix, cutoff, days


def as_rows(nodes: Floats, hierarchy: Hierarchy, cutoff: date, days: list[date]) -> pl.DataFrame:
    """Write a matrix [n_nodes, n_days] as `prediction_reconciled` rows, sorted."""
    order, names = hierarchy.listing
    # Repeating a node's row is a gather; the days are one block over and over.
    rows = pl.Series(np.repeat(np.arange(hierarchy.n_nodes, dtype=np.uint32), len(days)))
    block = pl.Series(days, dtype=pl.Date).to_physical().to_numpy()
    long = pl.DataFrame(
        {
            "level": names["level"].gather(rows),
            "node": names["node"].gather(rows),
            "ds": pl.Series(np.tile(block, hierarchy.n_nodes)).cast(pl.Date),
            "mean": nodes[order].reshape(-1),
        }
    )
    return TABLES["prediction_reconciled"].conform(long.with_columns(cutoff=pl.lit(cutoff)))


def reconcile(prediction: pl.DataFrame, factor: Mint, rounds: int = ROUNDS) -> pl.DataFrame:
    """Reconcile base forecasts of every node, rows in and rows out.

    Args:
        prediction: one cutoff of `level, node, cutoff, ds, mean`, every node on every day.
        rounds: as in `Mint.reconcile`.

    Returns:
        `prediction_reconciled` rows, sorted by level, node, day.

    Raises:
        HierarchyError: no rows, several cutoffs, an unknown node, a node-day twice, or a node
            without a finite forecast.
    """
    cutoff, days = _window(prediction)
    base = factor.hierarchy.node_matrix(prediction, "mean", days[0], days[-1])
    nodes = factor.reconcile(base, rounds)
    return as_rows(nodes, factor.hierarchy, cutoff, days)


def structural_variance(hierarchy: Hierarchy) -> Floats:
    """`wls_struct`: a node's error variance is the number of series under it, [n_nodes]."""
    return hierarchy.aggregate(np.ones((hierarchy.n_series, 1)))[:, 0]


def residual_variance(residuals: Floats, least: float = 1e-6) -> Floats:
    """`wls_var`: the variance of each node's past base-forecast errors, [n_nodes].

    Args:
        residuals: [n_nodes, days], at least two days, NaN where unknown.
        least: the smallest variance, in squared units; a node without errors (an item that
            did not sell) keeps this one and so its forecast.
    """
    known = np.isfinite(residuals)
    count = known.sum(axis=1)
    errors = np.where(known, residuals, 0.0)
    mean = errors.sum(axis=1) / np.maximum(count, 1)
    spread = np.einsum("ij,ij->i", errors, errors) - count * mean**2
    return np.asarray(np.maximum(spread / np.maximum(count - 1, 1), least))


@dataclass(frozen=True, eq=False)
class Mint:
    """A factored reconciliation: made once per error variance, used every night.

    Nodes above the bottom are split into `core` (coarse levels, one dense Cholesky factor) and
    `leaf` (the others, in blocks). Node numbers are rows of the hierarchy's stacked matrix.

    Attributes:
        variance: [n_nodes], W.
        core, leaf: node numbers.
        inverse: [leaf, leaf], the block inverse of C W C' among the leaves.
        border: [leaf, core], C W C' between the two; `inverse @ border` is applied as it stands.
        cholesky: [core, core], lower factor of the Schur complement of the leaves.
    """

    hierarchy: Hierarchy
    variance: Floats
    core: Codes
    leaf: Codes
    inverse: Sparse
    border: Sparse
    cholesky: Floats

    @classmethod
    def factor(cls, hierarchy: Hierarchy, variance: Floats) -> Mint:
        """Factor the reconciliation of a hierarchy under a diagonal error covariance.

        Args:
            variance: [n_nodes], positive: `structural_variance` or `residual_variance`.

        Raises:
            HierarchyError: a variance that is not positive and finite, or a hierarchy whose
                nodes do not fall apart and that has more than `MAX_CORE` coarse nodes.
        """
        variance = np.asarray(variance, dtype=np.float64)
        _refuse_variance(variance, hierarchy)
        gram = _gram(hierarchy, variance)
        core, leaf, block = _split(hierarchy, gram)
        inverse = _block_inverse(gram[leaf][:, leaf].tocsr(), block)
        border = gram[leaf][:, core].tocsr()
        schur = gram[core][:, core].toarray() - (border.T @ (inverse @ border)).toarray()
        cholesky = np.linalg.cholesky(schur)
        return cls(hierarchy, variance, core, leaf, inverse, border, cholesky)

    def adjust(self, base: Floats) -> Floats:
        """The projection alone: [n_nodes, days] in, [n_nodes, days] out.

        Every node is moved by its own share and none is summed from below, so
        `coherence_residual` of the result measures how exact the factor is.
        """
        above, series = self._moved(base)
        out = np.empty_like(base)
        out[: len(above)] = above
        out[self.hierarchy.bottom] = series
        return out

    def _moved(self, base: Floats) -> tuple[Floats, Floats]:
        """The projection of the nodes above the bottom, and of the series."""
        _refuse_base(base, self.hierarchy)
        n_above, bottom = self.hierarchy.n_nodes - self.hierarchy.n_series, self.hierarchy.bottom
        above, series = base[:n_above].copy(), base[bottom]
        weight_above, weight = self.variance[:n_above, None], self.variance[bottom, None]
        for _ in range(2):  # the second pass takes away what rounding left of the first gap
            multiplier = self._multiplier(above - self.hierarchy.aggregate_above(series))
            above -= weight_above * multiplier
            pulled = self.hierarchy.spread(multiplier)
            pulled *= weight
            series += pulled
        return above, series

    def reconcile(self, base: Floats, rounds: int = ROUNDS) -> Floats:
        """Coherent, non-negative forecasts of every node: [n_nodes, days] in and out.

        The bottom of the projection is made non-negative and summed up again.

        Args:
            base: base forecasts of every node, in the rows of `hierarchy.nodes`.
            rounds: 0 sets negative item-stores to zero, which lifts the nodes above them.
                More rounds give what was added back to the item-stores that can carry it
                (Dykstra's projections); they end at the non-negative least-squares optimum.

        Raises:
            HierarchyError: a base forecast is missing or no number.
        """
        _, series = self._moved(base)
        weight = self.variance[self.hierarchy.bottom, None]
        owed = np.zeros_like(series)
        for _ in range(rounds):
            clipped = np.maximum(series + owed, 0.0)
            owed += series - clipped
            gap = self.hierarchy.aggregate_above(series - clipped)
            series = clipped + weight * self.hierarchy.spread(self._multiplier(gap))
        return self.hierarchy.aggregate(np.maximum(series, 0.0))

    def _multiplier(self, gap: Floats) -> Floats:
        """(C W C')^-1 `gap`, [nodes above the bottom, days]."""
        from scipy.linalg import cho_solve

        inner = self.inverse @ gap[self.leaf]
        outer = cho_solve((self.cholesky, True), gap[self.core] - self.border.T @ inner)
        out = np.empty_like(gap)
        out[self.core] = outer
        out[self.leaf] = inner - self.inverse @ (self.border @ outer)
        return out

    def to_bytes(self) -> bytes:
        """The factor as an npz archive of plain arrays, with the hierarchy's fingerprint."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            fingerprint=np.frombuffer(bytes.fromhex(self.hierarchy.fingerprint), dtype=np.uint8),
            variance=self.variance,
            core=self.core,
            leaf=self.leaf,
            cholesky=self.cholesky,
            **_csr_arrays("inverse", self.inverse),
            **_csr_arrays("border", self.border),
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, hierarchy: Hierarchy, data: bytes) -> Mint:
        """Read a factor back; nothing is unpickled.

        Raises:
            HierarchyError: it was made for another hierarchy (or another order of series).
        """
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
        if arrays["fingerprint"].tobytes().hex() != hierarchy.fingerprint:
            raise HierarchyError(
                "the stored factor belongs to another hierarchy; factor it again from this one"
            )
        n_leaf, n_core = len(arrays["leaf"]), len(arrays["core"])
        return cls(
            hierarchy,
            arrays["variance"],
            arrays["core"],
            arrays["leaf"],
            _csr("inverse", arrays, (n_leaf, n_leaf)),
            _csr("border", arrays, (n_leaf, n_core)),
            arrays["cholesky"],
        )


def coherence_residual(nodes: Floats, hierarchy: Hierarchy) -> float:
    """The largest difference between a node and the sum of its series, in units."""
    return float(np.abs(nodes - hierarchy.aggregate(nodes[hierarchy.bottom])).max())


def _gram(hierarchy: Hierarchy, variance: Floats) -> Sparse:
    """C W C' = W_a + A W_b A', over the nodes above the bottom."""
    from scipy import sparse

    above = hierarchy.n_nodes - hierarchy.n_series
    sums = hierarchy.summing[:above]
    bottom = variance[hierarchy.bottom]
    weighted = sums @ sparse.diags_array(bottom)
    return sparse.csr_array(sparse.diags_array(variance[:above]) + weighted @ sums.T)


def _split(hierarchy: Hierarchy, gram: Sparse) -> tuple[Codes, Codes, Codes]:
    """Core nodes, leaf nodes, and the block of each leaf: the smallest core of whole levels."""
    from scipy.sparse.csgraph import connected_components

    above = range(len(hierarchy.levels) - 1)
    coarse_first = sorted(above, key=lambda k: hierarchy.sizes[k])
    for n_core in range(len(coarse_first) + 1):
        core = _nodes_of(hierarchy, coarse_first[:n_core])
        leaf = _nodes_of(hierarchy, coarse_first[n_core:])
        if len(core) > MAX_CORE:
            break
        _, block = connected_components(gram[leaf][:, leaf], directed=False)
        if not len(leaf) or np.bincount(block).max() <= MAX_BLOCK:
            return core, leaf, block.astype(np.int64)
    raise HierarchyError(
        f"more than {MAX_CORE} nodes above the bottom hang together across levels, too many for "
        "an exact factor; leave out a fine level that crosses the others, or sum bottom-up"
    )


def _nodes_of(hierarchy: Hierarchy, levels: list[int]) -> Codes:
    spans = [np.arange(hierarchy.spans[k].start, hierarchy.spans[k].stop) for k in sorted(levels)]
    return np.concatenate([np.empty(0, dtype=np.int64), *spans])


def _block_inverse(matrix: Sparse, block: Codes) -> Sparse:
    """Invert a block-diagonal matrix, all blocks of one size at a time."""
    from scipy import sparse

    n = len(block)
    order = np.argsort(block, kind="stable")
    size = np.bincount(block)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n) - np.repeat(np.cumsum(size) - size, size)
    entries = matrix.tocoo()
    rows, columns, values = [], [], []
    for k in np.unique(size):
        members = order[np.isin(block[order], np.nonzero(size == k)[0])].reshape(-1, k)
        number = np.full(len(size), -1)
        number[block[members[:, 0]]] = np.arange(len(members))
        here = size[block[entries.row]] == k
        row, column = entries.row[here], entries.col[here]
        dense = np.zeros((len(members), k, k))
        dense[number[block[row]], place[row], place[column]] = entries.data[here]
        values.append(np.linalg.inv(dense).reshape(-1))
        rows.append(np.repeat(members, k, axis=1).reshape(-1))
        columns.append(np.tile(members, (1, k)).reshape(-1))
    if not rows:
        return sparse.csr_array((n, n))
    cells = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array((np.concatenate(values), cells), shape=(n, n))


def _csr_arrays(name: str, matrix: Sparse) -> dict[str, Any]:
    return {
        f"{name}_data": matrix.data,
        f"{name}_indices": matrix.indices,
        f"{name}_indptr": matrix.indptr,
    }


def _csr(name: str, arrays: Mapping[str, Any], shape: tuple[int, int]) -> Sparse:
    from scipy import sparse

    parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    return sparse.csr_array(parts, shape=shape)


def _refuse_variance(variance: Floats, hierarchy: Hierarchy) -> None:
    if variance.shape != (hierarchy.n_nodes,):
        raise HierarchyError(
            f"{variance.shape} variances for {hierarchy.n_nodes} nodes; give one a node"
        )
    bad = ~(np.isfinite(variance) & (variance > 0))
    if bad.any():
        level, node = hierarchy.nodes.row(int(bad.argmax()))
        raise HierarchyError(
            f"the error variance of {level} {node} is {variance[bad.argmax()]} "
            f"({int(bad.sum())} such nodes); it must be positive: `residual_variance` sees to that"
        )


def _refuse_base(base: Floats, hierarchy: Hierarchy) -> None:
    if base.ndim != 2 or len(base) != hierarchy.n_nodes:
        raise HierarchyError(
            f"base forecasts of shape {base.shape} for {hierarchy.n_nodes} nodes; "
            "one row a node, one column a day"
        )
    bad = ~np.isfinite(base)
    if bad.any():
        row = int(bad.any(axis=1).argmax())
        level, node = hierarchy.nodes.row(row)
        raise HierarchyError(
            f"{level} {node} has no finite base forecast ({int(bad.any(axis=1).sum())} such "
            "nodes); forecast it or fill it with the sum of its series"
        )


def _window(prediction: pl.DataFrame) -> tuple[date, list[date]]:
    cutoffs = prediction["cutoff"].unique().to_list()
    if len(cutoffs) != 1:
        raise HierarchyError(
            f"{len(cutoffs)} cutoffs in one prediction frame; reconcile one cutoff at a time"
        )
    first, last = prediction["ds"].min(), prediction["ds"].max()
    assert isinstance(first, date) and isinstance(last, date)
    return cutoffs[0], [first + timedelta(days=k) for k in range((last - first).days + 1)]


def _refuse_gaps(matrix: Floats, hierarchy: Hierarchy, days: list[date]) -> None:
    holes = ~np.isfinite(matrix)
    if not holes.any():
        return
    row, column = (int(at[0]) for at in np.nonzero(holes))
    raise HierarchyError(
        f"{hierarchy.names[-1][hierarchy.codes[-1][row]]} has no finite forecast on "
        f"{days[column]} ({int(holes.sum())} such cells in {int(holes.any(axis=1).sum())} "
        "series); every series needs one a day: publish the floor for it"
    )
