"""What can go wrong, as code: five stresses, each with its parameters and where they come from.

Belongs here: a stress, the five of the catalogue, and several at once. Does not: what happens under
it (`twin`), nor how it is scored (`proof`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Extra:
    """More runs of a planned work: `times` its usual number, `at_s` seconds after midnight."""

    name: str
    work: str
    times: float
    at_s: float
    origin: str = "manual"


@dataclass(frozen=True)
class Stress:
    """A disturbance on days `first` to `last` of the plan (None: to its end).

    By pipeline: `rows` and `wall` multiply volume and duration, `delay_s` shifts arrivals,
    `failures` adds to the share of runs that fail. `money` multiplies every charge.
    """

    name: str
    source: str
    rows: Mapping[str, float] = field(default_factory=dict)
    wall: Mapping[str, float] = field(default_factory=dict)
    delay_s: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, float] = field(default_factory=dict)
    extra: tuple[Extra, ...] = ()
    money: float = 1.0
    first: int = 0
    last: int | None = None

    def on(self, day: int) -> bool:
        """Is it that day?"""
        return day >= self.first and (self.last is None or day <= self.last)


CALM = Stress("calm", "no disturbance")

SEASONAL_SPIKE = Stress(
    "seasonal spike",
    "US retail: November and December carry 19-20 % of yearly sales (National Retail Federation),"
    " and peak weeks sell 1.5-2x a usual one; M5's busiest day is 1.5x its mean. Assortments widen"
    " by a third; every job shares the machine with the season's other loads.",
    rows={"ingest": 2.0, "features": 1.5, "inference": 1.33, "training": 1.33, "monitoring": 1.33},
    wall={p: 1.5 for p in ("ingest", "features", "inference", "reconciliation", "training")},
)
LARGE_PROMOTION = Stress(
    "large promotion",
    "A chain-wide event reprices about a third of the items (M5: SNAP days and events change prices"
    " of up to 30 % of a store's items in a week): price rows double, those items' features are"
    " rebuilt and they are forecast again at noon.",
    rows={"ingest": 2.0, "features": 1.33},
    extra=(
        Extra("promotion", "features", 0.33, 2.6 * 3600, "sensor"),
        Extra("promotion", "upgrade", 0.33, 3.1 * 3600, "sensor"),
        Extra("promotion", "experiments", 2.0, 2.0 * 3600),
    ),
)
SUPPLY_DISRUPTION = Stress(
    "supply disruption",
    "Late and changed data: point-of-sale feeds arrive hours late and past days are restated. A"
    " feed 2.5 h late, and a week of days landed again, are an operator's bad night.",
    delay_s={"ingest": 2.5 * 3600, "features": 1.0 * 3600},
    extra=(Extra("restated", "land", 7.0, 3.5 * 3600, "backfill"),),
    failures={"ingest": 0.10},
)
EMERGENCY_RETRAINING = Stress(
    "emergency retraining",
    "Drift on every segment at once (a pandemic spring): all forecasters retrain in the middle of"
    " the night, twice, and backtests are asked for beside them.",
    extra=(
        Extra("drift", "train", 2.0, 1.5 * 3600, "sensor"),
        Extra("drift", "backtests", 3.0, 2.0 * 3600, "manual"),
    ),
)
UPSTREAM_FAILURE = Stress(
    "reprocessing after upstream failure",
    "An upstream fault is found at night: a month of history is landed and featured again, while a"
    " quarter of the runs that read it fail once (fault rates of 10-25 % during incidents).",
    failures={"ingest": 0.25, "features": 0.25, "inference": 0.05},
    extra=(
        Extra("replay", "land", 30.0, 0.5 * 3600, "backfill"),
        Extra("replay", "features", 30.0, 1.0 * 3600, "backfill"),
    ),
)
CATALOGUE = (
    SEASONAL_SPIKE,
    LARGE_PROMOTION,
    SUPPLY_DISRUPTION,
    EMERGENCY_RETRAINING,
    UPSTREAM_FAILURE,
)


def together(*stresses: Stress) -> Stress:
    """All of them at once: factors multiply, delays and failures add up."""

    def product(name: str) -> dict[str, float]:
        joined: dict[str, float] = {}
        for stress in stresses:
            for pipeline, factor in getattr(stress, name).items():
                joined[pipeline] = joined.get(pipeline, 1.0) * factor
        return joined

    def total(name: str) -> dict[str, float]:
        joined: dict[str, float] = {}
        for stress in stresses:
            for pipeline, amount in getattr(stress, name).items():
                joined[pipeline] = joined.get(pipeline, 0.0) + amount
        return joined

    money = 1.0
    for stress in stresses:
        money *= stress.money
    return Stress(
        "all at once",
        "; ".join(stress.name for stress in stresses),
        product("rows"),
        product("wall"),
        total("delay_s"),
        total("failures"),
        tuple(extra for stress in stresses for extra in stress.extra),
        money,
    )


ALL_AT_ONCE = together(*CATALOGUE)


EVERY = (CALM, *CATALOGUE, ALL_AT_ONCE)


def named(name: str) -> Stress:
    """The stress of that name (spaces or dashes).

    Raises:
        LookupError: there is none; the message lists those there are.
    """
    wanted = name.replace("-", " ")
    for stress in EVERY:
        if stress.name == wanted:
            return stress
    known = ", ".join(s.name.replace(" ", "-") for s in (*CATALOGUE, ALL_AT_ONCE))
    raise LookupError(f"no stress {name!r}; there are {known}")
