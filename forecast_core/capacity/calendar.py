"""Days and months of a plan.

Belongs here: arithmetic of dates. Does not: any clock.
"""

from __future__ import annotations

from datetime import date

EPOCH = date(1970, 1, 1).toordinal()
DAY = 86_400.0


def add_months(day: date, months: int) -> date:
    """The same day `months` later; held to the month's last day."""
    month = day.month - 1 + months
    year, month = day.year + month // 12, month % 12 + 1
    for last in (day.day, 30, 29, 28):
        try:
            return date(year, month, last)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")


def midnight(day: date, offset_s: float = 0.0) -> float:
    """Seconds since the epoch at the start of `day`, in a zone `offset_s` east of UTC."""
    return (day.toordinal() - EPOCH) * DAY - offset_s


def month_of(seconds: float, offset_s: float = 0.0) -> str:
    """The month of a moment as YYYY-MM."""
    return date.fromordinal(int((seconds + offset_s) // DAY) + EPOCH).isoformat()[:7]
