"""What the Dagster UI shows of an asset: group, owner, description, payer, columns of its table."""

import pytest

from forecast_assets.layers import layer_assets
from forecast_core.schema import TABLES

SPECS = {spec.key.path[-1]: spec for asset in layer_assets() for spec in asset.specs}


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_asset_says_what_it_is_and_who_answers_for_it(name: str) -> None:
    spec = SPECS[name]
    assert spec.group_name and spec.owners and spec.description
    assert spec.metadata["cost/pipeline"]


@pytest.mark.parametrize("name", sorted(set(SPECS) & set(TABLES)))
def test_a_table_shows_its_columns_and_key(name: str) -> None:
    table, shown = TABLES[name], SPECS[name].metadata["dagster/column_schema"]
    assert [column.name for column in shown.columns] == list(table.columns)
    keys = {column.name for column in shown.columns if not column.constraints.nullable}
    assert keys == set(table.key) & set(table.columns)
