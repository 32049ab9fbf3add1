"""Reconciliation follows a night's forecasts by itself, the score their horizon's last sales;
months of sales to come hold up neither."""

from datetime import date, timedelta

import dagster as dg

from forecast_assets.layers import layer_assets
from forecast_assets.partitions import HORIZON

LAST = date(2025, 6, 30)
DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date=str(LAST + timedelta(days=1)))
MONTHS = dg.StaticPartitionsDefinition(["this month", "a month to come"])


def _graph(name: str) -> dg.Definitions:
    """The asset with its real condition behind sales and forecasts."""
    key = dg.AssetKey(name)
    real = next(spec for asset in layer_assets() for spec in asset.specs if spec.key == key)

    @dg.asset(partitions_def=MONTHS)
    def cleaned_sales() -> int:
        return 1

    @dg.asset(partitions_def=DAYS)
    def prediction_daily() -> int:
        return 1

    every = dg.AssetIn("cleaned_sales", partition_mapping=dg.AllPartitionMapping())

    @dg.asset(
        name=name,
        partitions_def=DAYS,
        ins={"sales": every},
        deps=[prediction_daily],
        automation_condition=real.automation_condition,
    )
    def follows(sales: int) -> int:
        return sales

    return dg.Definitions([cleaned_sales, prediction_daily, follows])


class _Night:
    """The graph on an instance of its own, looked at after each thing that was made."""

    def __init__(self, name: str, instance: dg.DagsterInstance) -> None:
        self.key, self.defs, self.instance = dg.AssetKey(name), _graph(name), instance
        self.cursor = dg.evaluate_automation_conditions(self.defs, instance).cursor

    def made(self, *partitions: tuple[str, str]) -> set[str]:
        """What is asked for once these were made."""
        for name, partition in partitions:
            made = dg.AssetMaterialization(name, partition=partition)
            self.instance.report_runless_asset_event(made)
        seen = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = seen.cursor
        return set(seen.get_requested_partitions(self.key))


def test_a_night_is_reconciled_when_its_forecasts_are_there() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        night = _Night("prediction_reconciled", instance)
        assert not night.made(("cleaned_sales", "this month"))
        assert night.made(("prediction_daily", str(LAST))) == {str(LAST)}


def test_a_cutoff_is_scored_when_its_whole_horizon_has_been_sold() -> None:
    complete, younger, older = (str(LAST - HORIZON + timedelta(days=k)) for k in (0, 1, -1))
    with dg.DagsterInstance.ephemeral() as instance:
        night = _Night("eval_accuracy", instance)
        made = [("prediction_daily", day) for day in (older, younger, str(LAST))]
        # A cutoff that was never forecast has nothing to score, the others are of another age.
        assert not night.made(*made, ("cleaned_sales", "this month"))
        assert night.made(("prediction_daily", complete)) == {complete}
        assert not night.made()  # asked for once
        assert night.made(("cleaned_sales", "this month")) == {complete}  # corrected sales
