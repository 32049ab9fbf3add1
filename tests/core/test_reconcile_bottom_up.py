"""Bottom-up rows are coherent, complete and sorted; holes are refused by name."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.hierarchy import Hierarchy, HierarchyError
from forecast_core.reconcile import bottom_up
from forecast_core.schema import TABLES

CUTOFF = date(2016, 4, 24)
SERIES = pl.DataFrame(
    {
        "item_id": ["b", "a", "b", "a"],
        "dept_id": ["d2", "d1", "d2", "d1"],
        "cat_id": ["c", "c", "c", "c"],
        "store_id": ["s1", "s1", "s2", "s2"],
        "state_id": ["t", "t", "t", "t"],
    }
)


def prediction(days: int = 3) -> pl.DataFrame:
    ahead = pl.DataFrame({"ds": [CUTOFF + timedelta(days=k + 1) for k in range(days)]})
    rows = SERIES.select("item_id", "store_id").join(ahead, how="cross")
    return rows.with_columns(
        cutoff=pl.lit(CUTOFF), mean=pl.Series(np.arange(1.0, rows.height + 1))
    ).sample(fraction=1, shuffle=True, seed=1)


def test_every_node_every_day_is_the_sum_of_its_rows():
    rows = bottom_up(prediction(), Hierarchy.of(SERIES))
    assert rows.schema == TABLES["prediction_reconciled"].schema
    assert rows.height == Hierarchy.of(SERIES).n_nodes * 3
    assert rows.equals(rows.sort("level", "node", "ds"))
    joined = prediction().join(SERIES, on=["item_id", "store_id"])
    for columns in ([], ["dept_id"], ["item_id", "state_id"], ["store_id", "cat_id"]):
        expected = joined.group_by(*columns, "ds").agg(pl.col("mean").sum())
        node = pl.concat_str(columns, separator="/") if columns else pl.lit("Total")
        expected = expected.select(node.alias("node"), "ds", "mean").sort("node", "ds")
        got = rows.filter(level="/".join(columns) or "Total").select("node", "ds", "mean")
        assert got.equals(expected)


def test_a_missing_series_day_is_named_and_counted():
    holed = prediction().filter(~((pl.col("item_id") == "a") & (pl.col("store_id") == "s2")))
    with pytest.raises(HierarchyError, match=r"a/s2 has no finite.*2016-04-25 \(3 such cells in 1"):
        bottom_up(holed, Hierarchy.of(SERIES))


def test_a_forecast_that_is_no_number_is_refused():
    bad = prediction().with_columns(mean=pl.lit(float("nan")))
    with pytest.raises(HierarchyError, match="no finite forecast"):
        bottom_up(bad, Hierarchy.of(SERIES))


def test_one_cutoff_at_a_time():
    both = pl.concat([prediction(), prediction().with_columns(cutoff=pl.lit(date(2016, 4, 23)))])
    with pytest.raises(HierarchyError, match="2 cutoffs"):
        bottom_up(both, Hierarchy.of(SERIES))
    with pytest.raises(HierarchyError, match="0 cutoffs"):
        bottom_up(prediction().clear(), Hierarchy.of(SERIES))
