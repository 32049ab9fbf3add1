"""From settings to the resources of the code location.

Belongs here: which object stands behind each resource key. Does not: what they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import lru_cache, partial
from typing import Any

import dagster as dg

from forecast_core.levers.decisions import in_force
from forecast_core.levers.effects import under
from forecast_core.reconciliation_policy import Reconciliation
from forecast_core.segments import SegmentPolicy
from forecast_core.storage.lifecycle import LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources import DataSpan, Settings, SettingsError
from resources.coordinator import escrow_of
from resources.decision_store import DecisionStore
from resources.delta_io import TieredDeltaIOManager
from resources.gate import Gate
from resources.lake import Lake
from resources.late_books import LateBooks
from resources.lifecycle import Mover
from resources.meter import Meter
from resources.policies import load_policy
from resources.price_card import load_price_card
from resources.s3 import ObjectClasses, is_s3, probe
from resources.sources import Source, build_source
from resources.storage_ledger import open_storage_ledger
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
    as_of = source.frequency.start(settings.as_of or last)
    return DataSpan(first, last, as_of, source.frequency)


def segment_policy_of(settings: Settings) -> SegmentPolicy:
    """The segment policy in force: its file, with the levers that were applied since."""
    policy = load_policy(settings.segment_policy, SegmentPolicy.parse)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return under(policy, in_force(DecisionStore(settings.ledger).all()), settings.horizon)


def reconciliation_of(settings: Settings) -> Reconciliation:
    """How forecasts are made to add up in this installation; a source may declare the levels."""
    policy = load_policy(settings.reconciliation_policy, Reconciliation.parse)
    levels = source_of(settings).levels
    return policy if levels is None else policy.of_levels(levels)


def lifecycle_policy_of(settings: Settings) -> LifecyclePolicy:
    """How storage is looked after in this installation."""
    return load_policy(settings.lifecycle_policy, LifecyclePolicy.parse)


def lake_of(settings: Settings) -> Lake:
    """The lake of this environment, its files recorded in the storage ledger.

    Raises:
        UnsafeStore: the bucket does not honour conditional puts.
    """
    policy = lifecycle_policy_of(settings)
    guard = None
    if is_s3(settings.lake_root):
        probed(settings.lake_root)
        card = load_price_card(settings.price_card)
        rates = card.on(date.today(), settings.environment)
        guard = partial(ObjectClasses(policy).check_readable, rates=rates)
    return Lake(
        settings.lake_root,
        policy.tiers,
        as_of=data_span(settings).as_of,
        books=LateBooks(settings.ledger, policy),
        guard=guard,
    )


@lru_cache(maxsize=4)
def probed(root: str) -> str:
    """A bucket's root, once it was shown to be safe for commits."""
    probe(root)
    return root


def mover_of(settings: Settings, lake: Lake | None = None) -> Mover:
    """Who moves the parts of the lake of this environment."""
    books = open_storage_ledger(settings.ledger)
    return Mover(lake or lake_of(settings), books, lifecycle_policy_of(settings))


def executor_of(settings: Settings, preloaded: Sequence[str]) -> dg.ExecutorDefinition:
    """Where steps run: processes of this machine that begin with the modules named, or a cluster.

    Raises:
        SettingsError: Ray is asked for and not installed.
        PolicyError: Ray is asked for, and the admission policy is refused.
    """
    if settings.executor == "local":
        # Preload imports only: polars or torch work in the fork server would not survive.
        fork = {"start_method": {"forkserver": {"preload_modules": list(preloaded)}}}
        return dg.multiprocess_executor.configured({"max_concurrent": 2, **fork})
    try:
        from resources.ray_steps import ray_executor
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"FORECAST_EXECUTOR=ray needs {error.name}: pip install 'governed-forecasts[ray]'"
        ) from None
    return ray_executor(settings)


def build_resources(settings: Settings) -> Mapping[str, Any]:
    """Resource key -> object, for `dg.Definitions`."""
    lake = lake_of(settings)
    meter = Meter(
        settings.ledger,
        settings.price_card,
        settings.environment,
        code_version=code_version(),
        config_version=lambda: config_version(settings, segment_policy_of(settings).version),
    )
    meter.gate = Gate(lambda: escrow_of(settings))
    return {
        "settings": settings,
        "span": data_span(settings),
        "source": source_of(settings),
        # Looked at for every run and tick: a lever may have been applied or taken back since.
        "segment_policy": dg.ResourceDefinition(lambda _: segment_policy_of(settings)),
        "reconciliation": dg.ResourceDefinition(lambda _: reconciliation_of(settings)),
        "lake": lake,
        "mover": dg.ResourceDefinition(lambda _: mover_of(settings, lake)),  # opened when asked
        "meter": meter,
        "escrow": dg.ResourceDefinition(lambda _: escrow_of(settings)),  # opened when a sensor asks
        **{f"{tier.value}_io_manager": TieredDeltaIOManager(lake, tier, meter) for tier in Tier},
    }
