"""How often the data speaks: a row a day, or a row a week.

Belongs here: the one notion of a period, its season, and counting in periods. Does not: what a
forecaster does with either.

A week stands on its first day, so the machinery of days serves it: windows of whole weeks hold as
many rows of weekly data as they have weeks, and what is asked for is a horizon of `step` times as
many days, of which only whole periods are published (`only`). Where neighbouring rows must be
neighbouring days (scores, reconciliation), weekly data passes through *compacted*: week number n
since the epoch is written as day n since the epoch, and is *spread* back afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, get_args

import polars as pl

Name = Literal["daily", "weekly"]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Frequency:
    """A period of `step` days. Weekly data has its dates on weekday `anchor` (0 is Monday).

    `season` is how many periods make the cycle that a seasonal forecaster repeats (the week of
    days, the year of weeks), `year` how many make a year. `floor_season` is the cycle that the
    cheapest rung can see within a few weeks: the week of days, none of weeks.
    """

    name: Name = "daily"
    anchor: int = 0

    def __post_init__(self) -> None:
        if self.name not in get_args(Name) or not 0 <= self.anchor < 7:
            raise ValueError(
                f"frequency {self.name!r} on weekday {self.anchor}: use daily, or weekly with a "
                "weekday from 0 (Monday) to 6"
            )

    @property
    def weekly(self) -> bool:
        """Whether a period is a week."""
        return self.name == "weekly"

    @property
    def step(self) -> int:
        """Days in a period."""
        return 7 if self.weekly else 1

    @property
    def season(self) -> int:
        """Periods in the season: 7 days or 52 weeks."""
        return 52 if self.weekly else 7

    @property
    def year(self) -> int:
        """Periods in a year: 364 days (whole weeks) or 52 weeks."""
        return 52 if self.weekly else 364

    @property
    def floor_season(self) -> int:
        """Periods in the cycle that the floor repeats."""
        return 1 if self.weekly else 7

    @property
    def horizon(self) -> int:
        """Periods ahead when nobody says otherwise: four weeks of days, eight weeks."""
        return 8 if self.weekly else 28

    @property
    def unit(self) -> str:
        """What a period is called."""
        return "week" if self.weekly else "day"

    def start(self, day: date) -> date:
        """The date that the period of `day` is known by: itself, or its week's first day."""
        return day - timedelta(days=(day.weekday() - self.anchor) % 7) if self.weekly else day

    def starts(self, days: pl.Expr) -> pl.Expr:
        """`start`, of a column."""
        if not self.weekly:
            return days
        since = (days.dt.weekday().cast(pl.Int64) - 1 - self.anchor) % 7
        return days.dt.offset_by(pl.format("-{}d", since))

    def after(self, day: date, periods: int) -> date:
        """The period `periods` after (before, if negative) that of `day`."""
        return self.start(day) + timedelta(days=self.step * periods)

    def ahead(self, cutoff: date, periods: int) -> list[date]:
        """The periods after `cutoff`, nearest first."""
        return [self.after(cutoff, k) for k in range(1, periods + 1)]

    def periods(self, first: date, last: date) -> list[date]:
        """The dates of the periods that begin within `first`..`last`."""
        begin = self.start(first)
        begin = begin if begin >= first else begin + timedelta(days=self.step)
        return [begin + timedelta(days=k) for k in range(0, (last - begin).days + 1, self.step)]

    def only(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Forecast rows (`ds, cutoff`) of whole periods after the cutoff.

        A forecaster that counts in days answers for each of them; weekly data stands on the first
        day of its weeks, and the others are nobody's.
        """
        if not self.weekly:
            return rows
        return rows.filter((pl.col("ds") - pl.col("cutoff")).dt.total_days() % self.step == 0)

    def between(self, first: date, last: date) -> int:
        """Periods from `first` to `last`, both included."""
        return (self.start(last) - self.start(first)).days // self.step + 1

    def numbered_day(self, day: date) -> date:
        """The period's number since the epoch, written as a date; a day is itself."""
        if not self.weekly:
            return day
        return _EPOCH + timedelta(days=(self.start(day) - self._zero).days // 7)

    def dated_day(self, number: date) -> date:
        """The inverse of `numbered_day`."""
        return self._zero + 7 * (number - _EPOCH) if self.weekly else number

    def numbered(self, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """The frame with those date columns as numbered periods."""
        if not self.weekly:
            return frame
        since = pl.col(*columns).cast(pl.Int32) - (self._zero - _EPOCH).days
        return frame.with_columns(since.floordiv(7).cast(pl.Date))

    def dated(self, frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
        """The inverse of `numbered`."""
        if not self.weekly:
            return frame
        days = pl.col(*columns).cast(pl.Int32) * 7 + (self._zero - _EPOCH).days
        return frame.with_columns(days.cast(pl.Date))

    @property
    def _zero(self) -> date:
        """The week number zero: that of the epoch, a Thursday."""
        return self.start(_EPOCH)


DAILY = Frequency()


def weekly(weekday: Weekday = "monday") -> Frequency:
    """Weekly data whose dates fall on that weekday."""
    return Frequency("weekly", WEEKDAYS.index(weekday))
