"""From settings to the resources of the code location.

Belongs here: which object stands behind each resource key. Does not: what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import dagster as dg

from forecast_core.segments import SegmentPolicy
from forecast_core.tiers import Tier
from resources import DataSpan, Settings
from resources.coordinator import escrow_of
from resources.delta_io import TieredDeltaIOManager
from resources.gate import Gate
from resources.lake import Lake
from resources.meter import Meter
from resources.policies import load_policy
from resources.sources import Source, build_source
from resources.versions import code_version, config_version


@lru_cache(maxsize=4)
def source_of(settings: Settings) -> Source:
    """The configured source of sales, prices and calendar."""
    return build_source(
        settings.source,
        m5_dir=settings.m5_dir,
        stage=settings.stage,
        series=settings.demo_series,
        stores=settings.demo_stores,
        days=settings.demo_days,
        seed=settings.demo_seed,
    )


def data_span(settings: Settings) -> DataSpan:
    """First and last day of the configured source, and the as-of day (its last by default)."""
    source = source_of(settings)
    first, last = source.span()
    return DataSpan(first, last, settings.as_of or last, source.frequency)


def lake_of(settings: Settings) -> Lake:
    """The lake of this environment."""
    return Lake(settings.lake_root, as_of=data_span(settings).as_of)


def build_resources(settings: Settings) -> Mapping[str, Any]:
    """Resource key -> object, for `dg.Definitions`."""
    lake = lake_of(settings)
    meter = Meter(
        settings.ledger,
        settings.price_card,
        settings.environment,
        code_version=code_version(),
        config_version=config_version(settings),
    )
    meter.gate = Gate(lambda: escrow_of(settings))
    return {
        "settings": settings,
        "span": data_span(settings),
        "source": source_of(settings),
        "segment_policy": load_policy(settings.segment_policy, SegmentPolicy.parse),
        "lake": lake,
        "meter": meter,
        "escrow": dg.ResourceDefinition(lambda _: escrow_of(settings)),  # opened when a sensor asks
        **{f"{tier.value}_io_manager": TieredDeltaIOManager(lake, tier, meter) for tier in Tier},
    }
