"""How each layer is cut into partitions: defined once, here.

Belongs here: the partition definitions and the mappings between them. Does not: which asset
uses which (the asset says so) and how a key becomes days and stores (`resources.partition_keys`).

Month x store rather than day x store: a partition costs about 1.5 ms of CPU in events, even in
batches, so 650 month keys cost a second where 19,410 day keys would cost half a minute per asset.
"""

from datetime import date, timedelta

import dagster as dg

from forecast_core.segments import SegmentPolicy
from resources import Settings
from resources.policies import load_policy
from resources.wiring import data_span

_SETTINGS = Settings.from_environment()
_SPAN = data_span(_SETTINGS)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


STORES = dg.DynamicPartitionsDefinition(name=f"stores_{_SETTINGS.dataset}")
MONTHS = dg.MonthlyPartitionsDefinition(
    start_date=_SPAN.first.replace(day=1).isoformat(),
    end_date=_next_month(_SPAN.last + timedelta(_SPAN.days(_SETTINGS.horizon))).isoformat(),
)
# A forecast is made at the end of a period: of a day, or of a week known by its first day.
CUTOFF_DAYS: dg.TimeWindowPartitionsDefinition = (
    dg.WeeklyPartitionsDefinition(
        start_date=_SPAN.first.isoformat(),
        end_date=(_SPAN.last + timedelta(days=7)).isoformat(),
        day_offset=(_SPAN.frequency.anchor + 1) % 7,  # Dagster's weeks begin with a Sunday
    )
    if _SPAN.frequency.weekly
    else dg.DailyPartitionsDefinition(
        start_date=_SPAN.first.isoformat(), end_date=(_SPAN.last + timedelta(days=1)).isoformat()
    )
)
# Beside the groups, one fit that serves them all: the shapes that forecasts are aligned to.
ALIGNMENT = "alignment"
SPREAD = "spread"  # and how far demand scatters around the forecasts
SEGMENT_GROUPS = dg.StaticPartitionsDefinition(
    [*load_policy(_SETTINGS.segment_policy, SegmentPolicy.parse).groups, ALIGNMENT, SPREAD]
)

MONTH_STORE = dg.MultiPartitionsDefinition({"month": MONTHS, "store": STORES})
CUTOFF_STORE = dg.MultiPartitionsDefinition({"cutoff": CUTOFF_DAYS, "store": STORES})

FREQUENCY = _SPAN.frequency
HORIZON = timedelta(days=_SPAN.days(_SETTINGS.horizon))

# A range of partitions is one run: one process, one set of imports, one plan.
RANGE_IS_ONE_RUN = dg.BackfillPolicy.single_run()

# A cutoff day needs the month it falls in; the body reads back as far as it needs.
CUTOFF_TO_MONTH_STORE = dg.MultiPartitionMapping(
    {
        "month": dg.DimensionPartitionMapping("cutoff", dg.TimeWindowPartitionMapping()),
        "store": dg.DimensionPartitionMapping("store", dg.IdentityPartitionMapping()),
    }
)


def months_back(months: int) -> dg.MultiPartitionMapping:
    """Month x store on itself, with `months` months of history before it."""
    return dg.MultiPartitionMapping(
        {
            "month": dg.DimensionPartitionMapping(
                "month",
                dg.TimeWindowPartitionMapping(
                    start_offset=-months, allow_nonexistent_upstream_partitions=True
                ),
            ),
            "store": dg.DimensionPartitionMapping("store", dg.IdentityPartitionMapping()),
        }
    )


# A cutoff day of all stores: the same day of each store.
STORES_OF_CUTOFF = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="cutoff")
MONTH_OF_CUTOFF = dg.TimeWindowPartitionMapping()
MONTH_OF_CUTOFF_STORE = dg.AllPartitionMapping()
# Read by window through a `TableView`; the lineage is the whole table.
ANY_PARTITION = dg.AllPartitionMapping()
MONTHS_OF_STORES = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="month")
