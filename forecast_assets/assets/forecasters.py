"""Forecasters: one for each segment group, trained on what was known at the as-of day.

Belongs here: gathering examples store by store and keeping the fitted text. Does not: how a
rung is fitted (`forecast_assets.ladder`).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.ladder import Training, fit_or_below
from forecast_assets.partitions import (
    ALIGNMENT,
    ANY_PARTITION,
    RANGE_IS_ONE_RUN,
    SEGMENT_GROUPS,
    SPREAD,
)
from forecast_assets.past import past_of
from forecast_core import alignment, calibration
from forecast_core.calibration import Spreads
from forecast_core.cells import Cells
from forecast_core.cost.settlement import Share
from forecast_core.evaluation.backtest import Past
from forecast_core.rungs.gbm import LEVELS, Fitted
from forecast_core.schema import TABLES
from forecast_core.segments import Group, SegmentPolicy, served
from resources import DataSpan, Settings
from resources.lake import Lake
from resources.meter import Meter, metered
from resources.meter_share import Laps
from resources.table_view import TableView

TOTALS = ["date", "store_id", "state_id", "dept_id", "units"]


@dg.asset(
    pool="training",
    partitions_def=SEGMENT_GROUPS,
    backfill_policy=RANGE_IS_ONE_RUN,
    ins={
        name: dg.AssetIn(partition_mapping=ANY_PARTITION)
        for name in ("feature_sales", "cleaned_sales", "demand_segments")
    },
    io_manager_key="warm_io_manager",
    kinds={"lightgbm", "deltalake"},
)
@metered
def forecasters(
    context: dg.AssetExecutionContext,
    feature_sales: TableView,
    cleaned_sales: TableView,
    demand_segments: TableView,
    raw_calendar: pl.DataFrame,
    span: dg.ResourceParam[DataSpan],
    settings: dg.ResourceParam[Settings],
    segment_policy: dg.ResourceParam[SegmentPolicy],
    lake: dg.ResourceParam[Lake],
    meter: dg.ResourceParam[Meter],
) -> dg.Output[pl.DataFrame]:
    """A fitted forecaster for each segment group, as text: the rung its policy gives it.

    What of it is served beside the floor is what it earned on held-back weeks, see `served`.
    """
    cutoff = span.as_of
    segments = demand_segments.latest(cutoff)
    laps = Laps(meter, context, "fit_seconds")
    past = past_of(cleaned_sales, feature_sales, raw_calendar, span.frequency.step)

    days = span.days(settings.horizon)

    def fit(name: str, members: pl.DataFrame) -> tuple[str, Fitted]:
        if name == ALIGNMENT:
            if span.frequency.weekly:  # a shape is of weekdays
                return name, Fitted(alignment.Shapes((), (), {}, {}).to_bytes(), {"stores": 0.0})
            return name, _shapes(cleaned_sales, raw_calendar, segments, cutoff, settings.horizon)
        if name == SPREAD:
            return name, _spread(past, segments, cutoff, days, segment_policy)
        group = segment_policy.group(name)
        before = _before(lake, group, cutoff)
        asked = Training(group, cutoff, days, past, cleaned_sales, settings, before)
        return fit_or_below(asked, members, context.log.warning)

    rows = []
    for name in context.partition_keys:
        for_all = name in (ALIGNMENT, SPREAD)
        members = segments if for_all else served(segments, name)
        rung, one = fit(name, members)
        version = f"{cutoff:%Y%m%d}-{hashlib.sha256(one.artefact).hexdigest()[:8]}"
        laps.lap(Share(rung, version, name, series=members.height))
        context.log.info(f"{name}: {members.height} item-stores, {one.drivers}")
        rows.append(
            {
                "segment_group": name,
                "trained_to": cutoff,
                "version": version,
                "rung": rung,
                "artefact": one.artefact,
                "drivers": json.dumps(one.drivers),
            }
        )
    earned = _earned(rows, segment_policy)
    for group, why in earned.items():
        context.log.info(f"{group}: {why}")
    return dg.Output(
        pl.DataFrame(rows, schema=TABLES["forecasters"].schema),
        metadata={"served": dg.MetadataValue.json(earned)} if earned else {},
    )


def _before(lake: Lake, group: Group, cutoff: date) -> bytes | None:
    """What the group's rung had learnt by an earlier day; read past the graph: it is this table."""
    kept = TableView(lake.table("forecasters"), lambda _: None)
    last = kept.latest(cutoff - timedelta(days=1), by=["segment_group"])
    own = last.filter(segment_group=group.name, rung=group.rung)["artefact"]
    return own[0] if len(own) else None


def _spread(
    past: Past, segments: pl.DataFrame, cutoff: date, horizon: int, policy: SegmentPolicy
) -> Fitted:
    """What each rung earned over the floor on the last weeks of some stores, and how demand
    scatters around what is served of it."""
    trial = calibration.trial(past, segments.select(LEVELS), cutoff, horizon, policy)
    drivers = {**trial.drivers, "pairs": float(trial.pairs.height)}
    return Fitted(calibration.held_back(trial.pairs).to_bytes(), drivers)


def _earned(rows: Sequence[Mapping[str, Any]], policy: SegmentPolicy) -> dict[str, str]:
    """Segment group -> how much of its rung is served, and why not all of it."""
    spreads = [row["artefact"] for row in rows if row["segment_group"] == SPREAD]
    if not spreads:
        return {}
    weights = Spreads.from_bytes(spreads[0]).weights
    return {
        group.name: weights.of(group.name, group.rung).said(group.rung) or f"{group.rung} alone"
        for group in policy.content.groups
        if group.enabled and group.rung != "floor"
    }


def _shapes(
    cleaned_sales: TableView,
    calendar: pl.DataFrame,
    segments: pl.DataFrame,
    cutoff: date,
    horizon: int,
) -> Fitted:
    """What store-departments showed, to which forecasts are aligned."""
    totals = [
        alignment.node_totals(
            cleaned_sales.frame(
                Cells(cutoff, cutoff, (store_id,)).back(alignment.HISTORY_DAYS), TOTALS
            )
        )
        for store_id in segments["store_id"].unique().sort()
    ]
    shapes = alignment.learn(pl.concat(totals), calendar, cutoff, horizon)
    return Fitted(shapes.to_bytes(), {"stores": float(len(totals))})
