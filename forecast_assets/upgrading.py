"""Upgrading a batch beyond the floor: what it knows of each store, and what it made within bounds.

Belongs here: what a store's groups are served by at a cutoff, and holding what was made for the
bodies that publish it. Does not: the order and the bounds (`forecast_core.rungs.upgrades`), or how
a rung forecasts (`forecast_assets.ladder`).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache

import polars as pl

from forecast_assets.ladder import LADDER, NOTHING_LEARNT, Asked, Serving
from forecast_assets.partitions import ALIGNMENT, SPREAD
from forecast_core import alignment
from forecast_core.calibration import Spreads
from forecast_core.combination import Weights
from forecast_core.cost.settlement import Share
from forecast_core.rungs import granted, upgrades
from forecast_core.rungs.upgrades import Clock, Gains, Purse, Room, Upgrade
from forecast_core.segments import Rung, SegmentPolicy, served
from resources.meter_share import Laps, cpu_clock
from resources.table_view import TableView

# What is upgraded at once is held until it is published; more places go one by one.
AT_ONCE = 64
Place = tuple[date, str]
Better = dict[Rung, pl.DataFrame]


@dataclass(frozen=True, eq=False)
class Known:
    """One store at one cutoff: its item-stores, who serves their groups, and who pays.

    `unearned`: group -> why the floor serves it although a forecaster was fitted.
    """

    segments: pl.DataFrame
    fitted: Mapping[str, tuple[Rung, bytes]]
    unearned: Mapping[str, str]
    shares: dict[str, Share]
    shapes: alignment.Shapes | None
    spreads: Spreads | None


@dataclass(eq=False)
class Night:
    """What all stores of a batch are upgraded with, under the rung that admission granted.

    `days` turns periods into days; `periods` is the horizon.
    """

    serving: Serving
    forecasters: TableView
    policy: SegmentPolicy
    rung: str | None
    days: Callable[[int], int]
    periods: int
    laps: Laps
    known: Callable[[date, str], Known] = field(init=False)

    def __post_init__(self) -> None:
        # A store is asked for by its upgrades and again by its publishing; a cutoff by every store.
        self._fitted = lru_cache(maxsize=2)(self._read)
        self.known = lru_cache(maxsize=AT_ONCE)(self._known)

    def _known(self, cutoff: date, store_id: str) -> Known:
        segments = self.serving.demand_segments.latest(cutoff, stores=store_id)
        latest, shapes, spreads = self._fitted(cutoff)
        fitted: dict[str, tuple[Rung, bytes]] = {}
        unearned: dict[str, str] = {}
        for row in latest.iter_rows(named=True):
            if row["rung"] not in LADDER or row["artefact"] == NOTHING_LEARNT:
                continue
            earned = weights_of(spreads).of(row["segment_group"], row["rung"])
            if earned.weight > 0:
                fitted[row["segment_group"]] = (row["rung"], row["artefact"])
            else:
                unearned[row["segment_group"]] = earned.said(row["rung"]) or ""
        shares = shares_of(segments, latest, store_id)
        known = Known(segments, fitted, unearned, shares, shapes, spreads)
        self.laps.lap(*known.shares.values())
        return known

    def _read(self, cutoff: date) -> tuple[pl.DataFrame, alignment.Shapes | None, Spreads | None]:
        rungs = {group.name: group.rung for group in self.policy.content.groups}
        every = self.forecasters.latest(cutoff, by=["segment_group"])
        latest = granted.within(granted.by_group(every, rungs), self.rung)
        others = dict(latest.select("rung", "artefact").iter_rows())
        shapes, spreads = others.get(ALIGNMENT), others.get(SPREAD)
        return (
            latest,
            alignment.Shapes.from_bytes(shapes) if shapes is not None else None,
            Spreads.from_bytes(spreads) if spreads is not None else None,
        )

    def candidates(self, cutoff: date, store_id: str, gains: Gains) -> list[Upgrade]:
        """An upgrade for each group of the store that has members and a forecaster that earns."""
        known = self.known(cutoff, store_id)
        found = []
        for group, (rung, _) in known.fitted.items():
            members = served(known.segments, group)
            if members.height:
                expected = self.policy.content.upgrades.of(rung)
                found.append(
                    upgrades.candidate(cutoff, store_id, group, rung, members, expected, gains)
                )
        return found

    def make(self, one: Upgrade) -> pl.DataFrame:
        """The forecasts (item_id, ds, mean) of an upgrade, paid by its group."""
        known = self.known(one.cutoff, one.store_id)
        rung, artefact = known.fitted[one.group]
        horizon = self.days(self.periods)
        reach = min(self.days(self.policy.group(one.group).horizon or self.periods), horizon)
        asked = Asked(self.serving, one.group, one.store_id, one.cutoff, reach, horizon)
        rows = LADDER[rung].forecast(asked, artefact, served(known.segments, one.group))
        self.laps.lap(known.shares[one.group])
        return rows.filter(pl.col("ds") <= one.cutoff + timedelta(days=reach))


def weights_of(spreads: Spreads | None) -> Weights:
    """What rungs earned on held-back weeks; where none were looked at they serve alone."""
    return Weights() if spreads is None else spreads.weights


def shares_of(segments: pl.DataFrame, forecasters: pl.DataFrame, store_id: str) -> dict[str, Share]:
    """Who pays for each segment group of a store: its forecaster and version, the floor without."""
    versions = {
        group: (rung, version)
        for group, rung, version in forecasters.select(
            "segment_group", "rung", "version"
        ).iter_rows()
        if rung in LADDER
    }
    return {
        group: Share(*versions.get(group, ("floor", None)), group, store_id, members)
        for group, members in segments.group_by("segment_group").len().iter_rows()
    }


@dataclass(eq=False)
class Batch:
    """The upgrades of all `places`. Where `room` ends somewhere they are made at once, in the
    order of their worth, and only what it allowed is held until it is published; else store by
    store.

    `more`: a larger room where granted money ends; None where there is none.
    """

    night: Night
    room: Room
    gains: Callable[[date], Gains]
    places: Sequence[Place]
    more: Callable[[], Room | None] = lambda: None
    _better: dict[Place, Better] = field(default_factory=dict)
    _left: dict[Place, dict[str, str]] = field(default_factory=dict)
    _begun: bool = False

    def __post_init__(self) -> None:
        clock = Clock(cpu_clock, time.monotonic)
        self._purse = Purse(self.room, clock, self.more)
        self._at_once = self.room.bounded and len(self.places) <= AT_ONCE

    def of(self, cutoff: date, store_id: str) -> tuple[Better, dict[str, str]]:
        """Rung -> forecasts of a store, and group -> why it was left on the floor."""
        if not self._at_once:
            self._make([(cutoff, store_id)])
        elif not self._begun:
            self._begun = True
            self._make(self.places)
        unearned = self.night.known(cutoff, store_id).unearned
        left = {**self._left.get((cutoff, store_id), {}), **unearned}
        return self._better.pop((cutoff, store_id), {}), left

    def _make(self, places: Sequence[Place]) -> None:
        night = self.night
        known = {day: self.gains(day) for day in {day for day, _ in places}}
        wanted = [one for day, store in places for one in night.candidates(day, store, known[day])]
        left = []
        for verdict in self._purse.spend(wanted, night.make):
            one = verdict.upgrade
            place = (one.cutoff, one.store_id)
            if isinstance(verdict, upgrades.Left):
                self._left.setdefault(place, {})[one.group] = verdict.reason
                left.append(verdict)
                continue
            better = self._better.setdefault(place, {})
            rows = verdict.result
            better[one.rung] = pl.concat([better.get(one.rung, rows.clear()), rows])
        if left:
            first = left[0]
            night.serving.warn(
                f"{len(left)} of {len(wanted)} groups of stores stay on the floor; "
                f"{first.upgrade.group} of {first.upgrade.store_id}: {first.reason}"
            )
