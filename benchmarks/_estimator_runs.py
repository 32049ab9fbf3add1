"""Nights, backfills and retrains on generated data, for `estimator`: real runs, one ledger.

`python -m benchmarks._estimator_runs NIGHTS SEED`: the installation comes from the environment.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecast_assets.batch import Cycle, Stage

KNOWN_DAYS = 60  # nights begin this many days before the data ends
BACKFILL_DAYS, RETRAIN_EVERY = (2, 4, 8, 16, 32), 6


def nights(cycle: Cycle, count: int, rng: random.Random) -> Iterator[tuple[date, list[Stage]]]:
    """The runs of `count` nights from the cycle's cutoff on, with odd jobs of many sizes."""
    from dataclasses import replace

    for night in range(count):
        cutoff = cycle.cutoff + timedelta(days=night)
        tonight = replace(cycle, cutoff=cutoff)
        stages = [*tonight.refreshing(), *tonight.forecasting()]
        stages += _predicted_again(cutoff, cycle.stores, rng) if night % 2 else ()
        stages += () if night % 2 else _landed_again(cycle, rng)
        if night % RETRAIN_EVERY == 0:
            stages.append(_retrain(cycle.groups, rng))
        yield cutoff, stages


def _landed_again(cycle: Cycle, rng: random.Random) -> Iterator[Stage]:
    """Some months of some stores, from raw rows to features."""
    from forecast_assets.batch import Stage

    upto, months = rng.choice(cycle.stores), rng.choice((1, 2, 4, 6))
    last = cycle.cutoff.replace(day=1)
    first = (last - timedelta(days=30 * (months - 1))).replace(day=1)
    keys = f"{first}|{cycle.stores[0]}", f"{last}|{upto}"
    yield Stage("land again", ("raw_sales", "cleaned_sales", "quarantined_sales"), *keys)
    yield Stage("features again", ("feature_sales",), *keys)


def _predicted_again(last: date, stores: Sequence[str], rng: random.Random) -> Iterator[Stage]:
    """Some cutoffs of some stores."""
    from forecast_assets.batch import Stage

    first = last - timedelta(days=rng.choice(BACKFILL_DAYS) - 1)
    upto = rng.choice(stores)
    for asset in ("prediction_floor", "prediction_daily"):
        yield Stage("backfill", (asset,), f"{first}|{stores[0]}", f"{last}|{upto}")


def _retrain(groups: Sequence[str], rng: random.Random) -> Stage:
    from forecast_assets.batch import Stage

    first = rng.randrange(len(groups))
    return Stage(
        "retrain", ("forecasters",), groups[first], groups[rng.randrange(first, len(groups))]
    )


def main(count: int, seed: int) -> None:
    """Land and train once, then run the nights."""
    from dataclasses import replace

    import dagster as dg

    from resources import Settings
    from resources.wiring import data_span, source_of

    settings = Settings.from_environment()
    last = data_span(settings).last
    settings = replace(settings, as_of=last - timedelta(days=KNOWN_DAYS))
    settings.adopt()
    from forecast_assets.batch import Cycle, register_stores, run_stages
    from forecast_assets.definitions import build_defs
    from forecast_assets.partitions import SEGMENT_GROUPS
    from forecast_core.rungs.gbm import TRAINING_DAYS

    span, groups = data_span(settings), tuple(SEGMENT_GROUPS.get_partition_keys())
    with dg.DagsterInstance.get() as instance:
        stores = register_stores(instance, source_of(settings).stores())
        cycle = Cycle(
            span.first, span.last, span.as_of, stores, groups, TRAINING_DAYS, settings.horizon
        )
        # Backfills look back before the first night: train at its eve, not after it.
        eve = replace(cycle, cutoff=cycle.cutoff - timedelta(days=max(BACKFILL_DAYS)))
        first = (eve.cutoff, [*eve.landing(), *eve.training()])
        for as_of, stages in [first, *nights(cycle, count, random.Random(seed))]:
            defs = build_defs(replace(settings, as_of=as_of))
            for _ in run_stages(defs, instance, stages):
                pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
