"""Upgrades of a batch: whoever gains most for its cost first, until budget or time is used up.

Belongs here: what an upgrade is expected to gain and to cost, their order, and stopping. Does not:
forecasting, nor the bounds of the policy (`forecast_core.segments`) and of admission
(`forecast_core.admission.grant`), of which the smaller holds. The clocks are handed in: the core
has none.

Everyone has the floor's forecast before the first upgrade begins, so what is left out here is
served all the same, and says why it was not upgraded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Generic, NamedTuple, TypeVar

import polars as pl

from forecast_core.admission.grant import Grant
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


@dataclass(frozen=True)
class Room:
    """What upgrades may take, and who says so in words: the smaller of policy and grant."""

    cpu_s: float = math.inf
    seconds: float = math.inf
    cpu_by: str = ""
    time_by: str = ""
    of_grant: bool = False  # the CPU-seconds end where granted money does

    @classmethod
    def of(cls, bounds: UpgradeBounds, grant: Grant | None = None) -> Room:
        """What the policy allows of what admission granted; without a grant, what it allows."""
        cpu = math.inf if bounds.cpu_s is None else bounds.cpu_s
        seconds = math.inf if bounds.minutes is None else 60 * bounds.minutes
        cpu_by, time_by = f"batch's {cpu:g} CPU-s", f"batch has {seconds / 60:g}"
        granted = grant is not None and grant.cpu_s < cpu
        if grant is not None and granted:
            cpu, cpu_by = grant.cpu_s, grant.money_said
        if grant is not None and grant.seconds is not None and grant.seconds < seconds:
            seconds, time_by = grant.seconds, grant.time_said
        return cls(cpu, seconds, cpu_by, time_by, granted)

    @property
    def bounded(self) -> bool:
        """Whether there is anything to stop at."""
        return math.isfinite(self.cpu_s) or math.isfinite(self.seconds)


class Purse:
    """What a batch may take for upgrades and has taken, over as many calls as it is made in.

    What was expected is held against what the first upgrades took: from then on one is expected
    to cost as much more. Where granted money ends, `more` is asked once for a larger grant, as
    `room` after it.
    """

    def __init__(
        self, room: Room, clock: Clock, more: Callable[[], Room | None] = lambda: None
    ) -> None:
        self.room, self._clock, self._more = room, clock, more
        self.cpu_s = self.seconds = self._expected = 0.0

    def spend(
        self, upgrades: Iterable[Upgrade], make: Callable[[Upgrade], T]
    ) -> Iterator[Done[T] | Left]:
        """Make upgrades in their order while each fits into what is left; a verdict on every one.

        One that does not fit is passed over, and a cheaper one after it may.
        """
        for one in ordered(upgrades):
            reason = self._refused(one)
            if reason is not None and self.room.of_grant and self._grown():
                reason = self._refused(one)
            if reason is not None:
                yield Left(one, f"not upgraded to {one.rung}: {reason}")
                continue
            cpu, wall = self._clock.cpu(), self._clock.wall()
            made = make(one)
            self.cpu_s += self._clock.cpu() - cpu
            self.seconds += self._clock.wall() - wall
            self._expected += one.cpu_s
            yield Done(one, made)

    def _grown(self) -> bool:
        more, self._more = self._more(), lambda: None
        self.room = more or self.room
        return more is not None

    def _refused(self, one: Upgrade) -> str | None:
        pace = 1 / self._expected if self._expected else None
        needs = one.cpu_s * (self.cpu_s * pace if pace else 1.0)
        if self.cpu_s + needs > self.room.cpu_s:
            return (
                f"{self.cpu_s:.1f} of the {self.room.cpu_by} went to groups that gain more "
                f"for theirs, and it needs {needs:.1f}"
            )
        takes = one.cpu_s * (self.seconds * pace if pace else 1.0)
        if self.seconds + takes > self.room.seconds:
            return (
                f"the {self.room.time_by} minutes for upgrades, groups that gain more "
                f"took {self.seconds / 60:.1f}"
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
