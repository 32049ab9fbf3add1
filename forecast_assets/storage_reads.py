"""Who reads which table, as metadata of the graph.

Belongs here: putting each asset's declaration (`forecast_core.storage.declared_reads`) on it under
`storage/reads`, and reading it back. Does not: what follows from it
(`forecast_core.storage.placement`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from forecast_core.storage.declared_reads import DECLARED
from forecast_core.storage.placement import Reader

READS = "storage/reads"


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
