"""MinT equals the dense formula and a non-negative least-squares solver; the factor keeps."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from forecast_core.hierarchy import Hierarchy, HierarchyError
from forecast_core.reconcile import (
    Mint,
    as_rows,
    coherence_residual,
    reconcile,
    residual_variance,
    structural_variance,
)


def retail(items: int, stores: int, drop: float, rng: np.random.Generator) -> Hierarchy:
    """Items x stores with some pairs missing, in random order, at the twelve levels."""
    rows = [
        {
            "item_id": f"I{i:02}",
            "dept_id": f"D{i % 3}",
            "cat_id": f"C{i % 3 % 2}",
            "store_id": f"S{s}",
            "state_id": f"T{s % 2}",
        }
        for i in range(items)
        for s in range(stores)
    ]
    kept = [rows[k] for k in rng.permutation(len(rows)) if rng.random() >= drop] or rows[:1]
    return Hierarchy.of(pl.DataFrame(kept))


def textbook(hierarchy: Hierarchy, variance: np.ndarray, base: np.ndarray) -> np.ndarray:
    """S (S' W^-1 S)^-1 S' W^-1 y, dense."""
    s = hierarchy.summing.toarray()
    weighted = s.T / variance
    return s @ np.linalg.solve(weighted @ s, weighted @ base)


cases = given(
    items=st.integers(1, 9),
    stores=st.integers(1, 5),
    drop=st.floats(0, 0.5),
    structural=st.booleans(),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=40, deadline=None)
@cases
def test_the_projection_equals_the_dense_formula(items, stores, drop, structural, seed):
    rng = np.random.default_rng(seed)
    hierarchy = retail(items, stores, drop, rng)
    variance = (
        structural_variance(hierarchy)
        if structural
        else residual_variance(rng.normal(0, 1, (hierarchy.n_nodes, 12)))
    )
    base = rng.normal(5, 4, (hierarchy.n_nodes, 3))
    got = Mint.factor(hierarchy, variance).adjust(base)
    np.testing.assert_allclose(got, textbook(hierarchy, variance, base), atol=1e-8)
    assert coherence_residual(got, hierarchy) <= 1e-10


@settings(max_examples=15, deadline=None)
@cases
def test_rounds_end_at_the_non_negative_optimum(items, stores, drop, structural, seed):
    rng = np.random.default_rng(seed)
    hierarchy = retail(items, stores, drop, rng)
    variance = (
        structural_variance(hierarchy)
        if structural
        else rng.uniform(0.2, 3, hierarchy.n_nodes) * structural_variance(hierarchy)
    )
    base = rng.normal(0.5, 2, (hierarchy.n_nodes, 2))
    got = Mint.factor(hierarchy, variance).reconcile(base, rounds=400)
    root = np.sqrt(variance)
    for day in range(2):
        bottom, _ = nnls(hierarchy.summing.toarray() / root[:, None], base[:, day] / root)
        np.testing.assert_allclose(got[:, day], hierarchy.summing @ bottom, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(rounds=st.integers(0, 12), seed=st.integers(0, 2**16))
def test_what_is_published_is_coherent_and_not_negative(rounds, seed):
    rng = np.random.default_rng(seed)
    hierarchy = retail(8, 4, 0.2, rng)
    base = rng.normal(0, 5, (hierarchy.n_nodes, 4))
    got = Mint.factor(hierarchy, structural_variance(hierarchy)).reconcile(base, rounds)
    assert got.min() >= 0
    assert coherence_residual(got, hierarchy) == 0


def test_coherent_base_forecasts_stay_as_they_are():
    rng = np.random.default_rng(1)
    hierarchy = retail(8, 4, 0.2, rng)
    base = hierarchy.aggregate(rng.uniform(0, 3, (hierarchy.n_series, 5)))
    got = Mint.factor(hierarchy, structural_variance(hierarchy)).reconcile(base)
    np.testing.assert_allclose(got, base, atol=1e-10)


def test_a_factor_read_back_gives_the_same_night():
    rng = np.random.default_rng(2)
    hierarchy = retail(9, 5, 0.3, rng)
    factor = Mint.factor(hierarchy, structural_variance(hierarchy))
    again = Mint.from_bytes(hierarchy, factor.to_bytes())
    base = rng.normal(2, 3, (hierarchy.n_nodes, 6))
    np.testing.assert_array_equal(again.reconcile(base), factor.reconcile(base))


def test_a_factor_of_another_hierarchy_is_refused():
    rng = np.random.default_rng(2)
    one, other = retail(9, 5, 0.3, rng), retail(9, 5, 0.3, rng)
    data = Mint.factor(one, structural_variance(one)).to_bytes()
    with pytest.raises(HierarchyError, match="belongs to another hierarchy"):
        Mint.from_bytes(other, data)


def test_a_stored_pickle_is_not_read():
    hierarchy = retail(2, 2, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="allow_pickle"):
        Mint.from_bytes(hierarchy, np.array([{"a": 1}], dtype=object).dumps())


def test_levels_that_hang_together_still_factor_exactly():
    """Two fine crossing levels form one block far above the size that is inverted alone."""
    rng = np.random.default_rng(4)
    frame = pl.DataFrame(
        {
            "row": rng.integers(0, 90, 900).astype(str),
            "column": rng.integers(0, 80, 900).astype(str),
            "series": np.arange(900).astype(str),
        }
    )
    hierarchy = Hierarchy.of(frame, [(), ("row",), ("column",), ("series",)], {})
    variance = rng.uniform(0.5, 2, hierarchy.n_nodes)
    base = rng.normal(3, 2, (hierarchy.n_nodes, 2))
    got = Mint.factor(hierarchy, variance).adjust(base)
    np.testing.assert_allclose(got, textbook(hierarchy, variance, base), atol=1e-8)


def test_a_hierarchy_too_tangled_for_an_exact_factor_is_refused(monkeypatch):
    monkeypatch.setattr("forecast_core.reconcile.MAX_CORE", 10)
    monkeypatch.setattr("forecast_core.reconcile.MAX_BLOCK", 2)
    hierarchy = retail(9, 5, 0, np.random.default_rng(0))
    with pytest.raises(HierarchyError, match=r"more than 10 nodes .* hang together"):
        Mint.factor(hierarchy, structural_variance(hierarchy))


def test_bad_input_names_the_node():
    hierarchy = retail(2, 2, 0, np.random.default_rng(0))
    variance = structural_variance(hierarchy)
    base = np.ones((hierarchy.n_nodes, 2))
    base[3, 1] = np.nan
    with pytest.raises(HierarchyError, match="store_id S0 has no finite base forecast"):
        Mint.factor(hierarchy, variance).reconcile(base)
    with pytest.raises(HierarchyError, match=r"shape \(3, 2\)"):
        Mint.factor(hierarchy, variance).reconcile(base[:3])
    variance[0] = 0
    with pytest.raises(HierarchyError, match=r"variance of Total Total is 0\.0 \(1 such nodes\)"):
        Mint.factor(hierarchy, variance)
    with pytest.raises(HierarchyError, match="give one a node"):
        Mint.factor(hierarchy, variance[1:])


def test_residual_variance_is_the_sample_variance_of_what_is_known():
    rng = np.random.default_rng(0)
    residuals = rng.normal(1, 3, (4, 30))
    residuals[1, :7] = np.nan
    residuals[2] = 0.0
    residuals[3] = np.nan
    expected = np.nanvar(residuals[:2], axis=1, ddof=1)
    np.testing.assert_allclose(residual_variance(residuals), [*expected, 1e-6, 1e-6])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_spread_is_the_transpose_of_aggregate(seed):
    rng = np.random.default_rng(seed)
    hierarchy = retail(6, 4, 0.3, rng)
    nodes = rng.normal(0, 1, (hierarchy.n_nodes, 3))
    np.testing.assert_allclose(hierarchy.spread(nodes), hierarchy.summing.T @ nodes, atol=1e-12)


def test_rows_in_and_rows_out():
    rng = np.random.default_rng(3)
    hierarchy = retail(5, 3, 0.2, rng)
    factor = Mint.factor(hierarchy, structural_variance(hierarchy))
    base = rng.normal(3, 2, (hierarchy.n_nodes, 4))
    days = [date(2016, 4, 25) + timedelta(days=k) for k in range(4)]
    rows = as_rows(base, hierarchy, date(2016, 4, 24), days)
    got = reconcile(rows.sample(fraction=1, shuffle=True, seed=0), factor)
    assert got.equals(as_rows(factor.reconcile(base), hierarchy, date(2016, 4, 24), days))
    with pytest.raises(HierarchyError, match="has no finite base forecast"):
        reconcile(rows[:-1], factor)
    with pytest.raises(HierarchyError, match="Total/gone is in no hierarchy node"):
        reconcile(rows.with_columns(node=pl.lit("gone"), level=pl.lit("Total")), factor)
