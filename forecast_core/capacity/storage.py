"""What is stored, by tier, as the plan's days pass: rows x bytes, moved by age, expired at the end.

Belongs here: bytes and their money under a draw. Does not: the tiers' age policy at work
(`forecast_core.storage.tiers`), measuring what is stored (`resources.ledger_history`).
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt

from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.plan import price_index
from forecast_core.cost.price_card import Rates as Prices

GIB = 2.0**30
TIERS = ("hot", "warm", "cold")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bytes:
    """Bytes that a day of one series takes in each tier, over all tables; where they come from.

    `now`: what each tier holds on the first day, where it was measured; growth is then counted from
    there instead of from nothing.
    """

    each: Mapping[str, float]
    source: str
    now: Mapping[str, float] | None = None


def measured(
    stored: Mapping[str, float], series: float, days: int, hot: float, warm: float
) -> Bytes:
    """Bytes a series and day from what is stored now by tier, under those ages.

    A tier that holds nothing yet takes what the next younger one has: no saving is promised that
    was not seen. What lies deeper than the plan's tiers is planned as the deepest of them.
    """
    deeper = sum(size for tier, size in stored.items() if tier not in TIERS)
    stored = {**stored, TIERS[-1]: stored.get(TIERS[-1], 0.0) + deeper}
    spans = dict(zip(TIERS, _spans(days, hot, warm), strict=True))
    each: dict[str, float] = {}
    before = 0.0
    for tier in TIERS:
        size = float(stored.get(tier, 0.0))
        known = size > 0 and spans[tier] > 0
        each[tier] = size / (series * spans[tier]) if known else before
        before = each[tier]
    return Bytes(each, "stored files of the lake")


def growing(before: Mapping[str, float], after: Mapping[str, float], row_days: float) -> Bytes:
    """Bytes a series and day from what was added between two measurements `row_days` apart.

    What is added lands young and is moved by age later: every tier takes what the whole took.
    """
    added = max(sum(after.values()) - sum(before.values()), 0.0) / max(row_days, 1.0)
    return Bytes(dict.fromkeys(TIERS, added), "growth of the lake's stored files", dict(after))


def _spans(days: int, hot: float, warm: float) -> tuple[float, float, float]:
    in_hot = min(float(days), hot)
    in_warm = min(max(days - hot, 0.0), max(warm - hot, 0.0))
    return in_hot, in_warm, max(days - warm, 0.0)


def by_day(arrivals: Arrivals, each: Bytes, days: int, retain_days: int) -> dict[str, Floats]:
    """Tier -> bytes at the end of each day of the plan."""
    past = arrivals.plan.base.history_days
    rows = np.array(
        [float(arrivals.plan.base.series)] * past + [arrivals.series(day) for day in range(days)]
    )
    total = np.concatenate([[0.0], np.cumsum(rows)])
    hot, warm = arrivals.values["hot_days"], arrivals.values["warm_days"]
    ends = np.arange(past + 1, past + days + 1)

    def within(young: float, old: float) -> Floats:
        """Series-days aged between `young` and `old` days at each end."""
        newest = np.clip(ends - round(young), 0, None)
        oldest = np.clip(ends - round(old), 0, None)
        found: Floats = total[newest] - total[oldest]
        return found

    edges = (0.0, hot, max(warm, hot), float(max(retain_days, warm)))
    found = {}
    for i, tier in enumerate(TIERS):
        sizes = within(edges[i], edges[i + 1]) * each.each[tier]
        if each.now is not None:
            start = sizes[0] - arrivals.plan.base.series * each.each[tier] * (i == 0)
            sizes = np.maximum(sizes - start + each.now.get(tier, 0.0), 0.0)
        found[tier] = sizes
    return found


def by_month(
    stored: Mapping[str, Floats], first: date, prices: Prices, change: float
) -> dict[str, tuple[float, float]]:
    """Month -> (GiB-months, money) of what is stored, each day its share of the month."""
    months: dict[str, tuple[float, float]] = {}
    for tier, sizes in stored.items():
        price = float(prices.of(f"gib_month/{tier}")) * price_index(change)
        for index, size in enumerate(sizes):
            day = date.fromordinal(first.toordinal() + index)
            share = float(size) / GIB / calendar.monthrange(day.year, day.month)[1]
            month = day.isoformat()[:7]
            gib_months, money = months.get(month, (0.0, 0.0))
            months[month] = (gib_months + share, money + share * price)
    return months
