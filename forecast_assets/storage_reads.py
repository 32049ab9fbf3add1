"""Who reads which table, how far back and how often: what assets declare for the planner.

Belongs here: the declaration of each reader, as metadata of its asset (`storage/reads`), and
reading it back from the graph. Does not: what follows from it (`forecast_core.placement`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from forecast_core.placement import Reader
from forecast_core.rungs import gbm, origin_features, statistical

READS = "storage/reads"
NIGHT, WEEK = 1, 7

# By asset: what a run of it reads of each table. Windows are days of age.
DECLARED: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cleaned_sales": (
        {"table": "raw_sales", "to_age": 31, "every_days": NIGHT},
        {"table": "raw_prices", "to_age": 31, "every_days": NIGHT},
    ),
    "feature_sales": (
        {"table": "cleaned_sales", "to_age": origin_features.HISTORY_DAYS, "every_days": NIGHT},
    ),
    "demand_segments": ({"table": "cleaned_sales", "to_age": 365, "every_days": 30},),
    "forecasters": (
        {"table": "feature_sales", "to_age": gbm.TRAINING_DAYS, "every_days": WEEK},
        {"table": "cleaned_sales", "to_age": gbm.TRAINING_DAYS, "every_days": WEEK},
    ),
    "prediction_floor": ({"table": "cleaned_sales", "to_age": 28, "every_days": NIGHT},),
    "prediction_daily": (
        {"table": "cleaned_sales", "to_age": statistical.HISTORY_DAYS, "every_days": NIGHT},
        {"table": "feature_sales", "to_age": 31, "every_days": NIGHT},
        {"table": "prediction_floor", "to_age": 1, "every_days": NIGHT},
    ),
    "prediction_reconciled": ({"table": "prediction_daily", "to_age": 1, "every_days": NIGHT},),
    "eval_accuracy": (
        {"table": "prediction_daily", "to_age": 29, "every_days": NIGHT},
        {"table": "cleaned_sales", "to_age": 29, "every_days": NIGHT},
    ),
    "monitor_drift": (
        {"table": "cleaned_sales", "to_age": 63, "every_days": NIGHT},
        {"table": "feature_sales", "to_age": 63, "every_days": NIGHT},
        {"table": "prediction_daily", "to_age": 35, "every_days": NIGHT},
    ),
    "monitor_accuracy": (
        {"table": "cleaned_sales", "to_age": 28, "every_days": NIGHT},
        {"table": "prediction_daily", "to_age": 57, "every_days": NIGHT},
        {"table": "prediction_floor", "to_age": 57, "every_days": NIGHT},
    ),
}


def declared(asset: str) -> dict[str, Any]:
    """The metadata that an asset declares its reads by; none for one that reads no table."""
    reads = DECLARED.get(asset)
    return {READS: [dict(read) for read in reads]} if reads else {}


@dataclass(frozen=True)
class GraphFacts:
    """What storage has to know of the whole graph, which a single run does not see: who reads
    which table, and which pipeline pays for it."""

    readers: tuple[Reader, ...] = ()
    pipelines: Mapping[str, str] = field(default_factory=dict)
    upstream: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, assets: Iterable[dg.AssetsDefinition]) -> "GraphFacts":
        """From the metadata of every asset."""
        specs = [spec for asset in assets for spec in asset.specs]
        named = [(spec.key.path[-1], spec.metadata) for spec in specs]
        pipelines = {name: str(found.get("cost/pipeline", "platform")) for name, found in named}
        upstream = {
            spec.key.path[-1]: tuple(sorted(dep.asset_key.path[-1] for dep in spec.deps))
            for spec in specs
        }
        return cls(tuple(readers(named)), pipelines, upstream)


def readers(metadata: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Reader]:
    """The readers that a graph declares: from (asset, its metadata).

    Raises:
        ValueError: a declaration that cannot be, with the asset and the window.
    """
    found = []
    for asset, entries in metadata:
        listed = entries.get(READS) or ()
        value = listed.value if isinstance(listed, dg.MetadataValue) else listed
        found += [Reader(name=asset, **read) for read in value]
    return found
