"""Reconciliation through the graph: it adds up, says how it was made, and keeps its factor."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from resources.lake import Lake

CUTOFF = "2025-06-29"
SHIPPED = Path(__file__).resolve().parents[2] / "policies" / "reconciliation.yaml"
DECLARED = [[], ["abc"], ["store_id", "abc"], ["demand_class"]]  # any column of demand_segments
BUILT_IN = yaml.safe_load(SHIPPED.read_text())["levels"]
POLICIES: dict[str, dict[str, Any]] = {
    "wls_struct": {"method": "wls_struct"},
    "wls_var": {"method": "wls_var"},
    "declared": {"method": "wls_var", "levels": DECLARED},
}


@pytest.fixture(scope="module")
def nights(
    finished: tuple[Any, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """By policy: what two nights of one cutoff said of themselves, with their rows."""
    folder = tmp_path_factory.mktemp("reconciled")
    copy = finished[0].copied(folder / "copy")
    paths = []
    for name, changes in POLICIES.items():
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(yaml.safe_load(SHIPPED.read_text()) | changes))
    scenario = str(Path(__file__).with_name("_again_scenario.py"))
    done = copy.program(
        "python", scenario, "prediction_reconciled", CUTOFF, CUTOFF, "reconciliation_policy", "2",
        *map(str, paths), OUT=str(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    told: dict[str, list[dict[str, Any]]] = {}
    for night in json.loads(done.stdout.splitlines()[-1]):
        night["rows"] = pl.read_parquet(night["rows"]).filter(cutoff=pl.date(2025, 6, 29))
        told.setdefault(night["policy"], []).append(night)
    return told


@pytest.fixture(scope="module")
def leaves(finished: tuple[Any, str]) -> pl.DataFrame:
    table = Lake(finished[0].root / "data" / "dev" / "demo" / "lake").table("demand_segments")
    segments = table.read().frame.filter(as_of=pl.date(2025, 6, 29)).collect()
    return segments.with_columns(node=pl.concat_str("item_id", "store_id", separator="/"))


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_the_leaves_add_up_to_every_node(nights: Any, leaves: pl.DataFrame, name: str) -> None:
    rows = nights[name][0]["rows"]
    levels = POLICIES[name].get("levels", BUILT_IN)
    names = {"/".join(level) or "Total" for level in levels}
    assert set(rows["level"]) == names | {"item_id/store_id"}
    own = rows.filter(level="item_id/store_id").join(leaves, on="node")
    assert own["node"].n_unique() == leaves.height and (own["mean"] >= 0).all()
    for level in levels:
        node = pl.concat_str(*level, separator="/") if level else pl.lit("Total")
        sums = own.with_columns(node=node).group_by("node", "ds").agg(total=pl.col("mean").sum())
        both = rows.filter(level="/".join(level) or "Total").join(sums, on=["node", "ds"])
        assert both.height == sums.height == rows.filter(level="/".join(level) or "Total").height
        assert (both["mean"] - both["total"]).abs().max() < 1e-7


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_it_says_how_it_was_made_and_keeps_its_factor(nights: Any, name: str) -> None:
    first, second = nights[name]
    said = [night["metadata"] for night in (first, second)]
    assert {of["reconciliation/method"] for of in said} == {POLICIES[name]["method"]}
    assert [of["reconciliation/factor"] for of in said] == ["made", "kept"]
    assert all(of["reconciliation/residual_before_projection"] <= 1e-10 for of in said)
    assert all(of["reconciliation/units_moved"] > 0 < of["reconciliation/cpu_s"] for of in said)
    assert any(key.startswith("cost/") for key in said[0])
    assert first["rows"].equals(second["rows"])


def test_a_method_moves_what_bottom_up_sums(nights: Any, finished: tuple[Any, str]) -> None:
    lake = Lake(finished[0].root / "data" / "dev" / "demo" / "lake")
    plain = lake.table("prediction_reconciled").read().frame.filter(cutoff=pl.date(2025, 6, 29))
    both = nights["wls_var"][0]["rows"].join(
        plain.collect(), on=["level", "node", "ds"], suffix="_plain"
    )
    assert both.height == plain.collect().height
    assert (both["mean"] - both["mean_plain"]).abs().max() > 1e-3
