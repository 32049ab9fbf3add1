"""The condition asks for stale, worthwhile partitions only, and for each of them once."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from forecast_assets.automation import StaleAndWorthwhile
from forecast_core.storage.staleness import Refresh

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2025-01-01", end_date="2025-05-01")
CUT = dg.MultiPartitionsDefinition(
    {"month": MONTHS, "store": dg.StaticPartitionsDefinition(["A", "B"])}
)


def appraise(asset: str, stale: Mapping[str, str]) -> list[Refresh]:
    """Store B is worth nothing."""
    found = []
    for key, reason in stale.items():
        day, _, store = key.partition("|")
        month = date.fromisoformat(day)
        found.append(Refresh(key, month, store, reason, 2.0 if store == "A" else 0.0, 1.0))
    return found


@dg.asset(partitions_def=CUT)
def cleaned_sales() -> None: ...


@dg.asset(
    partitions_def=CUT,
    deps=[cleaned_sales],
    automation_condition=StaleAndWorthwhile(timedelta(hours=1), 100.0, 100, appraise),
)
def feature_sales() -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def make(instance: dg.DagsterInstance, asset: str, *keys: str) -> None:
    for key in keys:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=key))


def asked(instance: dg.DagsterInstance, hours_later: float) -> set[str]:
    done = dg.evaluate_automation_conditions(
        [cleaned_sales, feature_sales],
        instance,
        evaluation_time=datetime.now(UTC) + timedelta(hours=hours_later),
    )
    return set(done.get_requested_partitions(dg.AssetKey("feature_sales")))


def test_missing_and_stale_partitions_are_asked_for_where_worthwhile(
    instance: dg.DagsterInstance,
) -> None:
    keys = [f"2025-0{m}-01|{s}" for m in (1, 2, 3) for s in "AB"]
    make(instance, "cleaned_sales", *keys)
    make(instance, "feature_sales", *keys[:4])
    assert asked(instance, 0.1) == {"2025-03-01|A"}, "missing is asked for at once"
    make(instance, "feature_sales", *keys)
    assert asked(instance, 5) == set()
    make(instance, "cleaned_sales", "2025-02-01|A", "2025-02-01|B")  # a late correction
    assert asked(instance, 0.5) == set(), "the promise still holds"
    assert asked(instance, 2) == {"2025-02-01|A"}, "B is not worth it"
    make(instance, "feature_sales", "2025-02-01|A")
    assert asked(instance, 3) == set()


def test_a_corrected_month_makes_the_months_that_look_back_on_it_stale_and_no_other(
    instance: dg.DagsterInstance,
) -> None:
    back = dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping(
                "month",
                dg.TimeWindowPartitionMapping(
                    start_offset=-1, allow_nonexistent_upstream_partitions=True
                ),
            ),
            "store": dg.DimensionPartitionMapping("store", dg.IdentityPartitionMapping()),
        }
    )

    @dg.asset(
        name="feature_sales",
        partitions_def=CUT,
        ins={"cleaned_sales": dg.AssetIn(partition_mapping=back)},
        automation_condition=StaleAndWorthwhile(timedelta(hours=1), 100.0, 100, appraise),
    )
    def looking_back(cleaned_sales: None) -> None: ...

    every = [f"2025-0{month}-01|A" for month in range(1, 5)]
    make(instance, "cleaned_sales", *every)
    make(instance, "feature_sales", *every)
    make(instance, "cleaned_sales", "2025-02-01|A")
    done = dg.evaluate_automation_conditions(
        [cleaned_sales, looking_back],
        instance,
        evaluation_time=datetime.now(UTC) + timedelta(hours=2),
    )
    assert set(done.get_requested_partitions(dg.AssetKey("feature_sales"))) == set(every[1:3])
