"""A hierarchy from any attributes: tables of items and stores, levels by their columns."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from forecast_core.hierarchy import HierarchyError
from forecast_core.reconcile import bottom_up
from forecast_core.reconciliation_policy import Reconciliation
from forecast_core.segments import UNASSIGNED, with_attributes
from forecast_core.source.error import SourceError
from forecast_core.source.mapping import MappingError, SourceMapping
from resources.mapped_source import MappedSource

SHIPPED = Path(__file__).resolve().parents[2] / "policies" / "reconciliation.yaml"
HIERARCHY: dict[str, Any] = {
    "levels": [[], ["region"], ["brand"], ["region", "brand"], ["store_id"]],
    "attributes": [
        {"files": "stores.csv", "on": {"store_id": "shop"}, "columns": {"region": "area"}},
        {"files": "items.csv", "on": {"item_id": "sku"}, "columns": {"brand": "maker"}},
    ],
}
SEGMENTS = pl.DataFrame(
    [(item, store) for store in ("S1", "S2", "S3") for item in ("a", "b")],
    schema=["item_id", "store_id"],
    orient="row",
).with_columns(dept_id=pl.lit("d"), cat_id=pl.lit("c"), state_id=pl.lit("s"))


def source(folder: Path, hierarchy: dict[str, Any] | None = HIERARCHY) -> MappedSource:
    (folder / "stores.csv").write_text("shop,area\nS1,north\nS2,south\n")
    (folder / "items.csv").write_text("sku,maker,size\na,acme,1\nb,bolt,2\n")
    (folder / "sales.csv").write_text("day,sku,shop,sold\n2025-01-01,a,S1,1\n")
    content = {
        "sales": {
            "files": "sales.csv", "date": "day", "item_id": "sku", "store_id": "shop",
            "units": "sold",
        },
        "hierarchy": hierarchy,
    }  # fmt: skip
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    return MappedSource(folder / "mapping.yaml", folder / "staged")


def test_declared_levels_take_the_place_of_the_built_in_ones(tmp_path: Path) -> None:
    of = source(tmp_path)
    policy = Reconciliation.parse(yaml.safe_load(SHIPPED.read_text()))
    assert of.levels is not None
    declared = policy.of_levels(of.levels)
    hierarchy = declared.hierarchy(with_attributes(SEGMENTS, of.attributes()))
    names = dict(zip(("Total", "region", "brand"), hierarchy.names, strict=False))
    assert names["region"] == ("north", "south", UNASSIGNED)  # S3 has no line
    assert names["brand"] == ("acme", "bolt")
    days = pl.DataFrame({"ds": [date(2025, 1, 2), date(2025, 1, 3)]})
    leaves = SEGMENTS.join(days, how="cross").with_row_index("mean").with_columns(
        pl.col("mean").cast(pl.Float64), cutoff=pl.date(2025, 1, 1)
    )  # fmt: skip
    sums = bottom_up(leaves, hierarchy).group_by("level").agg(pl.col("mean").sum())
    assert sums.height == 6 and set(sums["mean"]) == {leaves["mean"].sum()}


def test_without_one_the_policy_has_its_say(tmp_path: Path) -> None:
    of = source(tmp_path, None)
    assert of.levels is None and of.attributes() == ()


def test_a_level_of_nothing_known_is_named(tmp_path: Path) -> None:
    def mapped(**changes: Any) -> SourceMapping:
        content = yaml.safe_load((tmp_path / "mapping.yaml").read_text())
        return SourceMapping.parse({**content, "hierarchy": {**HIERARCHY, **changes}})

    source(tmp_path)
    tables = HIERARCHY["attributes"]
    wrong = [
        ({"levels": [["colour"]]}, "'colour' is no attribute; there are item_id"),
        ({"attributes": [*tables, tables[0]]}, "'region' is named by two tables"),
        ({"attributes": [{**tables[0], "columns": {"abc": "area"}}]}, "'abc' is a column of ours"),
        ({"attributes": [{**tables[0], "on": {"brand": "shop"}}]}, "'brand' is none of"),
    ]
    for changes, said in wrong:
        with pytest.raises(MappingError, match=said):
            mapped(**changes)
    with pytest.raises(HierarchyError, match="region"):
        Reconciliation(version="1", levels=(("region",),)).hierarchy(SEGMENTS)


def test_a_table_that_says_two_things_of_a_store_is_refused_with_its_line(tmp_path: Path) -> None:
    of = source(tmp_path)
    (tmp_path / "stores.csv").write_text("shop,area\nS1,north\nS1,south\n")
    with pytest.raises(SourceError, match="'S1' stands twice"):
        of.attributes()
    (tmp_path / "stores.csv").write_text("shop,district\nS1,north\n")
    with pytest.raises(SourceError, match="column 'area' is missing"):
        of.attributes()
