"""Nodes and their sums equal a slow obvious loop; what is no hierarchy is refused by name."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.hierarchy import M5_LEVELS, Hierarchy, HierarchyError, level_name


def panel(items: int, stores: int, departments: int = 2, states: int = 2) -> pl.DataFrame:
    """Every item in every store, attributes nested as in M5."""
    return pl.DataFrame(
        [
            {
                "item_id": f"I{i}",
                "dept_id": f"D{i % departments}",
                "cat_id": f"C{i % departments % 2}",
                "store_id": f"S{s}",
                "state_id": f"T{s % states}",
            }
            for s in range(stores)
            for i in range(items)
        ]
    )


def obvious_sums(frame: pl.DataFrame, values: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """level, node -> sum, by looping over series and levels."""
    out: dict[tuple[str, str], np.ndarray] = {}
    for row, attributes in enumerate(frame.iter_rows(named=True)):
        for level in M5_LEVELS:
            node = "/".join(attributes[column] for column in level) or "Total"
            key = (level_name(level), node)
            out[key] = out.get(key, np.zeros(values.shape[1])) + values[row]
    return out


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(1, 7),
    stores=st.integers(1, 5),
    departments=st.integers(1, 4),
    states=st.integers(1, 3),
    drop=st.floats(0, 0.6),
    seed=st.integers(0, 2**16),
)
def test_every_node_is_the_sum_of_its_series(items, stores, departments, states, drop, seed):
    rng = np.random.default_rng(seed)
    frame = panel(items, stores, departments, states)
    frame = frame.filter(pl.Series(rng.random(frame.height) >= drop)).sample(
        fraction=1, shuffle=True, seed=seed
    )
    if frame.is_empty():
        return
    values = rng.poisson(2, (frame.height, 4)).astype(float)
    hierarchy = Hierarchy.of(frame)
    sums = hierarchy.aggregate(values)
    expected = obvious_sums(frame, values)
    assert hierarchy.n_nodes == len(expected)
    for row, key in enumerate(hierarchy.nodes.iter_rows()):
        np.testing.assert_array_equal(sums[row], expected[key])
    np.testing.assert_array_equal(hierarchy.summing @ values, sums)


def test_a_fortran_ordered_matrix_sums_the_same():
    hierarchy = Hierarchy.of(panel(5, 3))
    values = np.arange(60.0).reshape(15, 4)
    np.testing.assert_array_equal(
        hierarchy.aggregate(np.asfortranarray(values)), hierarchy.aggregate(values)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), keep=st.integers(1, 15))
def test_a_part_knows_where_its_nodes_stand_in_the_whole(seed, keep):
    rng = np.random.default_rng(seed)
    hierarchy = Hierarchy.of(panel(5, 3))
    rows = np.sort(rng.choice(15, keep, replace=False))
    part, where = hierarchy.take(rows)
    values = np.zeros((15, 2))
    values[rows] = rng.random((keep, 2))
    whole = np.zeros((hierarchy.n_nodes, 2))
    whole[where] = part.aggregate(values[rows])
    np.testing.assert_allclose(whole, hierarchy.aggregate(values), atol=1e-12)
    assert part.nodes.equals(hierarchy.nodes[where])


def test_a_declared_hierarchy_of_other_columns():
    frame = pl.DataFrame({"sensor": ["a", "b", "c"], "room": ["x", "x", "y"]})
    hierarchy = Hierarchy.of(frame, [(), ("room",), ("sensor",)], {"sensor": "room"})
    assert hierarchy.nodes["node"].to_list() == ["Total", "x", "y", "a", "b", "c"]
    np.testing.assert_array_equal(
        hierarchy.aggregate([[1.0], [2.0], [4.0]])[:, 0], [7, 3, 4, 1, 2, 4]
    )


def test_a_long_frame_is_laid_out_with_gaps_as_nan():
    hierarchy = Hierarchy.of(panel(2, 1))
    frame = pl.DataFrame(
        {
            "item_id": ["I1", "I0", "I1"],
            "store_id": ["S0"] * 3,
            "date": [date(2020, 1, 2), date(2020, 1, 1), date(2019, 12, 31)],
            "units": [3, 5, 99],
        }
    )
    laid = hierarchy.matrix(frame, "units", date(2020, 1, 1), date(2020, 1, 2))
    np.testing.assert_array_equal(laid, [[5, np.nan], [np.nan, 3]])


@settings(max_examples=60, deadline=None)
@given(
    keep=st.floats(0.3, 1),
    order=st.sampled_from(["grid", "by day", "shuffled"]),
    early=st.integers(0, 2),
    swap=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_order_of_rows_is_laid_out_alike(keep, order, early, swap, seed):
    rng = np.random.default_rng(seed)
    hierarchy = Hierarchy.of(panel(3, 2))
    days = [date(2020, 1, 1) + timedelta(days=k - early) for k in range(4 + early)]
    rows = hierarchy.series.select("item_id", "store_id").join(
        pl.DataFrame({"date": days}), how="cross", maintain_order="left_right"
    )
    rows = rows.with_columns(units=pl.Series(rng.random(rows.height)))
    rows = rows.filter(pl.Series(rng.random(rows.height) <= keep))
    if swap and rows.height > 1:
        rows = pl.concat([rows[1:2], rows[:1], rows[2:]])
    if order != "grid":
        rows = rows.sort("date") if order == "by day" else rows.sample(fraction=1, shuffle=True)
    expected = np.full((6, 4), np.nan)
    names = hierarchy.series.select("item_id", "store_id").rows()
    for item, store, day, units in rows.iter_rows():
        if day >= date(2020, 1, 1):
            expected[names.index((item, store)), (day - date(2020, 1, 1)).days] = units
    got = hierarchy.matrix(rows, "units", date(2020, 1, 1), date(2020, 1, 4))
    np.testing.assert_array_equal(got, expected)


def test_a_series_in_no_node_is_named():
    frame = panel(2, 1).with_columns(
        dept_id=pl.when(pl.col("item_id") != "I1").then(pl.col("dept_id"))
    )
    with pytest.raises(HierarchyError, match=r"series I1/S0 \(row 1\) has no dept_id"):
        Hierarchy.of(frame)


def test_rows_of_an_unknown_series_are_named_and_counted():
    hierarchy = Hierarchy.of(panel(2, 1))
    rows = pl.DataFrame({"item_id": ["I0", "new", "new"], "store_id": ["S0", "S0", "S0"]})
    with pytest.raises(HierarchyError, match=r"new/S0 is in no .*1 such series"):
        hierarchy.rows_of(rows)


def test_a_series_twice_is_refused():
    frame = panel(2, 1)
    with pytest.raises(HierarchyError, match=r"'I0/S0' stands in more than one row"):
        Hierarchy.of(pl.concat([frame, frame.head(1)]))


def test_a_series_day_twice_is_refused():
    hierarchy = Hierarchy.of(panel(1, 1))
    frame = pl.DataFrame(
        {"item_id": ["I0"] * 2, "store_id": ["S0"] * 2, "date": [date(2020, 1, 1)] * 2, "units": 1}
    )
    with pytest.raises(HierarchyError, match="I0/S0/2020-01-01 stands more than once"):
        hierarchy.matrix(frame, "units", date(2020, 1, 1), date(2020, 1, 1))


def test_a_child_with_two_parents_is_refused():
    frame = panel(2, 2, departments=1).with_columns(
        dept_id=pl.when((pl.col("item_id") == "I0") & (pl.col("store_id") == "S1"))
        .then(pl.lit("D9"))
        .otherwise(pl.col("dept_id"))
    )
    with pytest.raises(HierarchyError, match=r"item_id 'I0' lies in 2 values of dept_id"):
        Hierarchy.of(frame)


def test_a_cyclic_nesting_is_refused():
    nesting = {"item_id": "dept_id", "dept_id": "cat_id", "cat_id": "item_id"}
    with pytest.raises(HierarchyError, match="cyclic"):
        Hierarchy.of(panel(2, 1), nesting=nesting)


def test_two_nodes_of_one_name_are_refused():
    frame = pl.DataFrame({"item_id": ["a/b", "a"], "store_id": ["c", "b/c"]})
    with pytest.raises(HierarchyError, match="two nodes of item_id/store_id have one name"):
        Hierarchy.of(frame, [(), ("item_id", "store_id")])


@pytest.mark.parametrize(
    ("frame", "levels", "says"),
    [
        (panel(1, 1).clear(), M5_LEVELS, "no series"),
        (panel(1, 1).drop("cat_id"), M5_LEVELS, "names the column 'cat_id'"),
        (panel(1, 1), [], "at least one level"),
        (panel(1, 1), [()], "at least one level"),
    ],
)
def test_what_is_no_hierarchy_is_refused(frame, levels, says):
    with pytest.raises(HierarchyError, match=says):
        Hierarchy.of(frame, levels)


def test_the_fingerprint_follows_series_and_their_order():
    frame = panel(3, 2)
    assert Hierarchy.of(frame).fingerprint == Hierarchy.of(frame.clone()).fingerprint
    assert Hierarchy.of(frame).fingerprint != Hierarchy.of(frame.reverse()).fingerprint
