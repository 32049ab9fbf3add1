"""Demand segments: what each item in each store is worth and how it sells.

Belongs here: measuring store by store and classifying all stores together. Does not: the
thresholds (`policies/segments.yaml`) or what they mean (`forecast_core.segments`).
"""

from datetime import date, timedelta

import dagster as dg
import polars as pl

from forecast_assets.partitions import MONTHS, MONTHS_OF_STORES
from forecast_core.cells import Cells
from forecast_core.schema import TABLES
from forecast_core.segments import (
    SegmentPolicy,
    classify,
    measure,
    moves,
    reclassified,
    with_attributes,
)
from forecast_core.source.item_stores import item_stores
from forecast_core.source.mapping import IDS
from resources import DataSpan
from resources.lake import Lake
from resources.meter import metered
from resources.partition_keys import decode
from resources.sources import Source
from resources.table_view import TableView

MEASURED = list(TABLES["cleaned_sales"].columns)


@dg.asset(
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.multi_run(),
    ins={"cleaned_sales": dg.AssetIn(partition_mapping=MONTHS_OF_STORES)},
    io_manager_key="hot_io_manager",
    kinds={"polars", "deltalake"},
)
@metered
def demand_segments(
    context: dg.AssetExecutionContext,
    cleaned_sales: TableView,
    span: dg.ResourceParam[DataSpan],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    lake: dg.ResourceParam[Lake],
    source: dg.ResourceParam[Source],
) -> dg.Output[pl.DataFrame]:
    """ABC x demand class x life stage of every item-store, as of the month's last known day."""
    month = decode(context.partition_keys, TABLES["demand_segments"].cut).cells
    assert month is not None
    as_of = min(month.last, span.as_of)
    window = Cells(as_of - timedelta(days=segment_policy.window_days - 1), as_of)
    stores = cleaned_sales.by_store(window, MEASURED)
    before = _before(lake, as_of)
    known = _known(source, before)
    measured = [
        measure(sales, as_of, segment_policy, known.filter(store_id=store))
        for store, sales in stores.frames()
    ]
    silent = known.filter(~pl.col("store_id").is_in(stores.stores))
    measured.append(measure(cleaned_sales.table.empty(), as_of, segment_policy, silent))
    segments = reclassified(classify(pl.concat(measured), as_of, segment_policy), before)
    segments = with_attributes(segments, source.attributes())
    moved = moves(segments)
    for group, to, count in moved.iter_rows():
        context.log.info(f"{count} item-stores went from {group} to {to}")
    groups = segments.group_by("segment_group", "rung").len("item_stores").sort("segment_group")
    return dg.Output(
        segments,
        metadata={
            "item_stores": segments.height,
            "nothing_sold": int((segments["demand_class"] == "none").sum()),
            "groups": dg.MetadataValue.json(groups.to_dicts()),
            "policy_version": segment_policy.version,
            "reclassified": int(moved["item_stores"].sum()),
            "moves": dg.MetadataValue.json(moved.to_dicts()),
        },
    )


def _known(source: Source, before: pl.DataFrame) -> pl.DataFrame:
    """Who is owed a forecast though no row of the window may name them.

    That is every item-store of a source whose rows may be missing. What was classified before
    stays where the source says nothing of it: a delivery of changes, or a store that is gone.
    """
    named = source.series()
    if named is None:
        return before.select(IDS).clear()
    told = source.stores()
    silent = before if source.adds else before.filter(~pl.col("store_id").is_in(told))
    return item_stores(silent, named)


def _before(lake: Lake, as_of: date) -> pl.DataFrame:
    """The newest classification before `as_of`; read past the graph: it is this very table."""
    table = lake.table("demand_segments")
    return TableView(table, lambda _: None).latest(as_of - timedelta(days=1))
