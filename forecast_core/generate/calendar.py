"""The generated calendar: events, SNAP days, shopping weeks, and how they move demand.

Belongs here: what every store of the demo shares by date. Does not: items, prices, demand
(`forecast_core.generate`).

Weeks run from Saturday to Friday, as in M5. SNAP days are the days of the month on which a state
pays food benefits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.schema import TABLES
from forecast_core.source.m5 import EVENTS

FloatArray = npt.NDArray[np.float64]

CATEGORIES = ("FOODS", "HOBBIES", "HOUSEHOLD")
SNAP_DAYS = {
    "CA": tuple(range(1, 11)),
    "TX": (1, 3, 5, 6, 7, 9, 11, 12, 13, 15),
    "WI": (2, 3, 5, 6, 8, 9, 11, 12, 14, 15),
}
CLOSED = (12, 25)  # month and day on which no store opens
_SNAP_LIFT = 0.18
# Log lift of demand by weekday, Monday first.
_WEEK = {
    "FOODS": (-0.12, -0.18, -0.18, -0.12, 0.02, 0.26, 0.24),
    "HOBBIES": (-0.10, -0.14, -0.12, -0.06, 0.06, 0.22, 0.10),
    "HOUSEHOLD": (-0.12, -0.18, -0.17, -0.12, 0.02, 0.28, 0.22),
}


@dataclass(frozen=True)
class Event:
    """A yearly event: on a fixed day, or the n-th weekday of a month (n = -1: its last)."""

    name: str
    kind: str
    month: int
    day: int = 0
    nth: int = 0
    weekday: int = 0  # Monday is 0
    run_up: int = 1  # days before the event on which the lift builds up
    lift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # log lift by CATEGORIES

    def on(self, year: int) -> date:
        """The event's date in `year`."""
        if not self.nth:
            return date(year, self.month, self.day)
        if self.nth > 0:
            start = date(year, self.month, 1)
            return start + timedelta((self.weekday - start.weekday()) % 7 + 7 * (self.nth - 1))
        end = date(year + self.month // 12, self.month % 12 + 1, 1) - timedelta(1)
        return end - timedelta((end.weekday() - self.weekday) % 7)


EVENTS_OF_A_YEAR = (
    Event("NewYear", "National", 1, day=1, lift=(-0.35, -0.25, -0.30)),
    Event("SuperBowl", "Sporting", 2, nth=1, weekday=6, run_up=2, lift=(0.30, -0.05, -0.05)),
    Event("ValentinesDay", "Cultural", 2, day=14, run_up=3, lift=(0.10, 0.20, 0.05)),
    Event("PresidentsDay", "National", 2, nth=3, weekday=0, lift=(0.06, 0.10, 0.15)),
    Event("StPatricksDay", "Cultural", 3, day=17, lift=(0.10, 0.0, 0.0)),
    Event("Mother's day", "Cultural", 5, nth=2, weekday=6, run_up=3, lift=(0.10, 0.15, 0.15)),
    Event("MemorialDay", "National", 5, nth=-1, weekday=0, run_up=3, lift=(0.28, 0.10, 0.12)),
    Event("Father's day", "Cultural", 6, nth=3, weekday=6, run_up=3, lift=(0.10, 0.22, 0.05)),
    Event("IndependenceDay", "National", 7, day=4, run_up=3, lift=(0.32, 0.10, 0.10)),
    Event("LaborDay", "National", 9, nth=1, weekday=0, run_up=3, lift=(0.25, 0.05, 0.15)),
    Event("ColumbusDay", "National", 10, nth=2, weekday=0, lift=(0.04, 0.0, 0.05)),
    Event("Halloween", "Cultural", 10, day=31, run_up=5, lift=(0.22, 0.30, 0.0)),
    Event("VeteransDay", "National", 11, day=11, lift=(0.04, 0.05, 0.05)),
    Event("Thanksgiving", "National", 11, nth=4, weekday=3, run_up=5, lift=(0.45, 0.20, 0.10)),
    Event("Christmas", "National", 12, day=25, run_up=14, lift=(0.30, 0.65, 0.20)),
)


def days_between(first: date, last: date) -> npt.NDArray[np.datetime64]:
    """The days `first`..`last`, both included."""
    return np.arange(np.datetime64(first), np.datetime64(last) + 1)


def raw_calendar(first: date, last: date) -> pl.DataFrame:
    """raw_calendar rows of `first`..`last`, with a snap_<state_id> flag (Int8) for each state."""
    days = days_between(first, last)
    names: dict[str, list[str | None]] = {name: [None] * len(days) for name in EVENTS}
    for event, at in _events(first, last):
        if 0 <= at < len(days):
            slot = 1 if names["event_name_1"][at] is None else 2
            names[f"event_name_{slot}"][at] = event.name
            names[f"event_type_{slot}"][at] = event.kind
    month_day = _month_day(days)[1]
    snaps = {f"snap_{s}": np.isin(month_day, d).astype(np.int8) for s, d in SNAP_DAYS.items()}
    texts = {name: pl.Series(values, dtype=pl.String) for name, values in names.items()}
    return TABLES["raw_calendar"].conform(pl.DataFrame({"date": days, **texts, **snaps}))


def shopping_weeks(first: date, last: date) -> pl.DataFrame:
    """Weeks that touch `first`..`last`: wm_yr_wk (a running number), first, last."""
    start = first - timedelta((first.weekday() - 5) % 7)
    begins = pl.date_range(start, last, "7d", eager=True).alias("first")
    return pl.DataFrame({"first": begins}).select(
        "first", last=pl.col("first").dt.offset_by("6d"), wm_yr_wk=pl.int_range(pl.len())
    )


def week_of_day(days: npt.NDArray[np.datetime64], weeks: pl.DataFrame) -> npt.NDArray[np.int64]:
    """The running number of each day's week."""
    start = weeks["first"].to_numpy().astype("datetime64[D]")
    return np.searchsorted(start, days, side="right").astype(np.int64) - 1


def is_open(days: npt.NDArray[np.datetime64]) -> npt.NDArray[np.bool_]:
    """Whether stores open, by day."""
    month, month_day = _month_day(days)
    closed: npt.NDArray[np.bool_] = (month == CLOSED[0]) & (month_day == CLOSED[1])
    return ~closed


def log_lift(first: date, last: date, state_id: str) -> FloatArray:
    """Log lift of demand by weekday, event and SNAP: shape (categories, days)."""
    days = days_between(first, last)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    lift = np.array([_WEEK[category] for category in CATEGORIES])[:, weekday]
    for event, at in _events(first, last):
        for before in range(event.run_up + 1):
            if 0 <= at - before < len(days):
                share = 1 - before / (event.run_up + 1)
                lift[:, at - before] += share * np.array(event.lift)
    lift[CATEGORIES.index("FOODS")] += _SNAP_LIFT * np.isin(
        _month_day(days)[1], SNAP_DAYS[state_id]
    )
    return lift


def _events(first: date, last: date) -> list[tuple[Event, int]]:
    """Events with their position relative to `first`; those just past `last` have a run-up."""
    years = range(first.year, last.year + 2)
    return [(event, (event.on(year) - first).days) for year in years for event in EVENTS_OF_A_YEAR]


def _month_day(
    days: npt.NDArray[np.datetime64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(month, day of the month) of each day."""
    months = days.astype("datetime64[M]")
    return months.astype(np.int64) % 12 + 1, (days - months).astype(np.int64) + 1
