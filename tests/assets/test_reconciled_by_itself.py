"""Reconciliation follows a night's forecasts by itself, whatever months of sales are to come."""

import dagster as dg

from forecast_assets.layers import layer_assets

DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-01-05")
MONTHS = dg.StaticPartitionsDefinition(["this month", "a month to come"])


def test_a_night_is_reconciled_when_its_forecasts_are_there() -> None:
    key = dg.AssetKey("prediction_reconciled")
    real = next(spec for asset in layer_assets() for spec in asset.specs if spec.key == key)

    @dg.asset(partitions_def=MONTHS)
    def cleaned_sales() -> int:
        return 1

    @dg.asset(partitions_def=DAYS)
    def prediction_daily() -> int:
        return 1

    every = dg.AssetIn("cleaned_sales", partition_mapping=dg.AllPartitionMapping())

    @dg.asset(
        name="prediction_reconciled",
        partitions_def=DAYS,
        ins={"sales": every},
        deps=[prediction_daily],
        automation_condition=real.automation_condition,
    )
    def reconciled(sales: int) -> int:
        return sales

    defs = dg.Definitions([cleaned_sales, prediction_daily, reconciled])
    with dg.DagsterInstance.ephemeral() as instance:
        before = dg.evaluate_automation_conditions(defs, instance)
        for name, partition in (
            ("cleaned_sales", "this month"),
            ("prediction_daily", "2025-01-04"),
        ):
            made = dg.AssetMaterialization(name, partition=partition)
            instance.report_runless_asset_event(made)
        after = dg.evaluate_automation_conditions(defs, instance, cursor=before.cursor)
    assert not before.get_requested_partitions(key)
    assert after.get_requested_partitions(key) == {"2025-01-04"}
