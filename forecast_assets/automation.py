"""Backfills of stale partitions that are worth their cost: a condition of our own.

Belongs here: asking Dagster what is stale, and handing the choice back as a subset. Does not: the
rules (`forecast_core.storage.staleness`) or quotes (`resources.backfill_quotes`).

The condition runs in the code location (`use_user_code_server`): it reads the lake and the ledger.
One evaluation asks for one backfill, in which neighbouring partitions are one run.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from forecast_core.schema import TABLES
from forecast_core.storage.staleness import Chosen, Known, Refresh, choose, why_stale
from forecast_core.storage.tiers import next_month

# What an evaluation is told of stale partitions: (asset, key -> why) -> what could be refreshed.
Appraise = Callable[[str, Mapping[str, str]], Sequence[Refresh]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaleAndWorthwhile(dg.AutomationCondition[dg.AssetKey]):
    """True for the partitions that are stale or missing and whose refresh is worth its cost."""

    promise: timedelta
    money_cap: float
    partition_cap: int
    appraise: Appraise = field(compare=False, repr=False)

    @property
    def name(self) -> str:
        """As the UI shows it."""
        return "stale_and_worthwhile"

    def evaluate(self, context: dg.AutomationContext[Any]) -> dg.AutomationResult[Any]:
        """The chosen partitions; what waits is logged with its reason."""
        now = context.evaluation_time.astimezone(UTC)
        asset = context.key.path[-1]
        stale = {
            known.key: reason
            for known in _known(context)
            if (reason := why_stale(known, self.promise, now)) is not None
        }
        chosen = self.chosen(asset, stale)
        for key, reason in chosen.waiting.items():
            _log.info("%s %s waits: %s", asset, key, reason)
        keys = {refresh.key for refresh in chosen.now}
        subset = context.candidate_subset.compute_intersection_with_partition_keys(keys)
        return dg.AutomationResult(context, subset)

    def chosen(self, asset: str, stale: Mapping[str, str]) -> Chosen:
        """What is refreshed of the stale partitions."""
        return choose(
            self.appraise(asset, stale),
            money_cap=self.money_cap,
            partition_cap=self.partition_cap,
            months=TABLES[asset].cut in ("month_store", "month"),
        )


def _known(context: dg.AutomationContext[Any]) -> list[Known]:
    """When every candidate partition and the newest of its sources were made."""
    instance, graph = context.asset_graph_view.instance, context.asset_graph
    keys = context.candidate_subset.expensively_compute_partition_keys()
    made, sources = times(instance, context.key), sources_of(instance, graph, context.key)
    return [Known(key, made.get(key), sources.get(key)) for key in sorted(keys)]


def sources_of(instance: dg.DagsterInstance, graph: Any, asset: dg.AssetKey) -> dict[str, datetime]:
    """When the newest source of each partition was made: those of its key, and of the months
    before it that it looks back on.

    A parent cut otherwise is left out: a new calendar is no reason to make years again.
    """
    found: dict[str, datetime] = {}
    node = graph.get(asset)
    for parent in node.parent_keys:
        if graph.get(parent).partitions_def != node.partitions_def:
            continue
        back = _months_back(node.partition_mappings.get(parent))
        for key, at in times(instance, parent).items():
            for later in _reached(key, back):
                found[later] = max(at, found.get(later, at))
    return found


def _months_back(mapping: dg.PartitionMapping | None) -> int:
    """How many months before its own a partition reads of a parent."""
    if not isinstance(mapping, dg.MultiPartitionMapping):
        return 0
    month = mapping.downstream_mappings_by_upstream_dimension.get("month")
    window = month.partition_mapping if month is not None else None
    return -(window.start_offset or 0) if isinstance(window, dg.TimeWindowPartitionMapping) else 0


def _reached(key: str, back: int) -> Iterator[str]:
    """The keys of the month and of those that look back on it."""
    yield key
    text, bar, store = key.partition("|")
    if back:
        month = date.fromisoformat(text)
        for _ in range(back):
            month = next_month(month)
            yield f"{month}{bar}{store}"


def times(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, datetime]:
    """When each partition of an asset was last made."""
    found: dict[str, datetime] = {}
    cursor = None
    while True:
        page = instance.fetch_materializations(asset, limit=1000, cursor=cursor)
        for record in page.records:
            if record.partition_key is not None:
                at = datetime.fromtimestamp(record.timestamp, UTC)
                found[record.partition_key] = max(at, found.get(record.partition_key, at))
        if not page.has_more:
            return found
        cursor = page.cursor
