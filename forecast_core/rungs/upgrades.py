"""Upgrades of a batch: whoever gains most for its cost first, until budget or time is used up.

Belongs here: what an upgrade is expected to gain and to cost, their order, and stopping. Does not:
forecasting, nor the bounds (`forecast_core.segments`). The clocks are handed in: the core has none.

Everyone has the floor's forecast before the first upgrade begins, so what is left out here is
served all the same, and says why it was not upgraded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Generic, NamedTuple, TypeVar

import polars as pl

from forecast_core.segments import Expected, Rung, UpgradeBounds

T = TypeVar("T")
Gains = Mapping[tuple[str, str], float]  # (segment, rung) -> share of the floor's error avoided


class Upgrade(NamedTuple):
    """A segment group of one store at one cutoff, to be lifted from the floor to its rung.

    `gain`: error avoided, as the share of the floor's times the revenue it is made on. `cpu_s`:
    CPU-seconds, as expected.
    """

    cutoff: date
    store_id: str
    group: str
    rung: Rung
    gain: float
    cpu_s: float


@dataclass(frozen=True)
class Done(Generic[T]):
    """An upgrade that was made, and what came of it."""

    upgrade: Upgrade
    result: T


@dataclass(frozen=True)
class Left:
    """An upgrade that was not made; `reason` stands on each of its forecasts."""

    upgrade: Upgrade
    reason: str


@dataclass(frozen=True)
class Clock:
    """CPU-seconds and seconds so far, from any zero."""

    cpu: Callable[[], float]
    wall: Callable[[], float]


def ordered(upgrades: Iterable[Upgrade]) -> list[Upgrade]:
    """The most gain for a CPU-second first; equals by their names."""
    return sorted(upgrades, key=lambda one: (-one.gain / max(one.cpu_s, 1e-9), one[:3]))


def spend(
    upgrades: Iterable[Upgrade],
    bounds: UpgradeBounds,
    make: Callable[[Upgrade], T],
    clock: Clock,
) -> Iterator[Done[T] | Left]:
    """Make upgrades in their order while each fits into what is left; a verdict on every one.

    One that does not fit is passed over, and a cheaper one after it may. What was expected is held
    against what the first ones took: from then on an upgrade is expected to cost as much more.
    """
    cpu_began, wall_began = clock.cpu(), clock.wall()
    expected = 0.0
    for one in ordered(upgrades):
        cpu_s, seconds = clock.cpu() - cpu_began, clock.wall() - wall_began
        reason = _refused(one, bounds, (cpu_s, seconds), expected)
        if reason is not None:
            yield Left(one, f"not upgraded to {one.rung}: {reason}")
            continue
        expected += one.cpu_s
        yield Done(one, make(one))


def _refused(
    one: Upgrade, bounds: UpgradeBounds, spent: tuple[float, float], expected: float
) -> str | None:
    cpu_s, seconds = spent
    needs = one.cpu_s * (cpu_s / expected if expected else 1.0)
    if bounds.cpu_s is not None and cpu_s + needs > bounds.cpu_s:
        return (
            f"{cpu_s:.1f} of the batch's {bounds.cpu_s:g} CPU-s went to groups that gain more "
            f"for theirs, and it needs {needs:.1f}"
        )
    takes = one.cpu_s * (seconds / expected if expected else 1.0)
    if bounds.minutes is not None and seconds + takes > 60 * bounds.minutes:
        return (
            f"the batch has {bounds.minutes:g} minutes for upgrades, groups that gain more "
            f"took {seconds / 60:.1f}"
        )
    return None


def candidate(
    cutoff: date,
    store_id: str,
    group: str,
    rung: Rung,
    members: pl.DataFrame,
    expected: Expected,
    gains: Gains,
) -> Upgrade:
    """What it would gain and cost to serve the members (`demand_segments` rows) by the rung.

    Args:
        gains: as measured by backtests; a segment that is not in it gains what is `expected`.
    """
    revenue = members.group_by("segment").agg(pl.col("revenue").sum())
    gain = sum(
        worth * gains.get((segment, rung), expected.gain) for segment, worth in revenue.iter_rows()
    )
    cpu_s = members.height * expected.cpu_ms / 1000
    return Upgrade(cutoff, store_id, group, rung, gain, cpu_s)


def measured_gains(backtests: pl.DataFrame) -> Gains:
    """(segment, rung) -> share of the floor's WRMSSE avoided, the mean of its windows.

    Args:
        backtests: `eval_backtest` rows; none where nothing was tried yet.
    """
    tried = backtests.filter(pl.col("scope") == "segment", pl.col("fva_wrmsse").is_finite())
    mean = tried.group_by("name", "forecaster").agg(pl.col("fva_wrmsse").mean())
    return {(segment, rung): gain for segment, rung, gain in mean.iter_rows()}
