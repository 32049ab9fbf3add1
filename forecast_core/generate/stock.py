"""Stock keeping in a generated store: what was on the shelf, hence what could be sold.

Belongs here: a plain reorder-point policy run day by day over all items at once. Does not: the
demand that meets it (`forecast_core.generate`).

The buyer knows only past sales, not promotions to come, and a few deliveries never arrive; so
stock-outs happen where they do in life: in promotions, after launches, in supply failures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_LEAD_DAYS = np.array([2, 3, 5, 7, 10, 14])
_REVIEW_DAYS = np.array([1, 2, 7])  # a buyer looks at an item every so many days
_LOST = 0.03  # share of orders that never arrive
_SMOOTHING = 0.05  # weight of a day's sales in the buyer's idea of the mean
_SAFETY = 1.9  # standard deviations of demand over the time to cover
_COVER_DAYS = 10.0  # an order lasts so long beyond the reorder point


@dataclass(frozen=True)
class Stock:
    """Pieces by item and day, shape (items, days): sold; on hand and on order at the close.

    `lead_days`: days from an order to its arrival, by item.
    """

    sold: FloatArray
    on_hand: FloatArray
    on_order: FloatArray
    lead_days: npt.NDArray[np.int64]


def keep_stock(
    random: np.random.Generator,
    expected: FloatArray,
    demand: FloatArray,
    selling: npt.NDArray[np.bool_],
) -> Stock:
    """Run the policy: arrivals in the morning, sales, then a look at what to order.

    `selling`: whether the item is in the range that day; stock arrives with its launch and is
    not ordered again once it is out of range.
    """
    count, days = demand.shape
    lead = random.choice(_LEAD_DAYS, count)
    review = random.choice(_REVIEW_DAYS, count)
    lost = random.random((days, count)) < _LOST
    pack = np.where(expected.max(axis=1, initial=0.0) > 4, 6.0, 1.0)
    mean = _first_weeks(expected, selling)
    launched = np.argmax(selling, axis=1)
    cover = lead + review

    sold, on_hand, on_order = (np.zeros((days, count)) for _ in range(3))
    # Row d holds what arrives d days after the last look, wrapped around.
    coming = np.zeros((int(_LEAD_DAYS.max()) + 1, count))
    every = np.arange(count)
    shelf, ordered = np.zeros(count), np.zeros(count)
    wanted_by_day, in_range = demand.T.copy(), selling.T.copy()
    for day in range(days):
        spread = _SAFETY * np.sqrt(np.maximum(mean * cover, 0.5))
        reorder = mean * cover + spread
        arriving = coming[day % len(coming)]
        shelf += arriving
        ordered -= arriving
        arriving[:] = 0.0
        shelf += np.where(
            in_range[day] & (launched == day), np.ceil(reorder + mean * _COVER_DAYS), 0.0
        )
        wanted = wanted_by_day[day]
        taken = np.minimum(wanted, shelf)
        shelf -= taken
        seen = in_range[day] & (shelf > 0)  # an empty shelf says nothing about demand
        mean += np.where(seen, _SMOOTHING * (taken - mean), 0.0)
        short = in_range[day] & (day % review == 0) & (shelf + ordered <= reorder)
        amount = np.where(short, reorder + mean * _COVER_DAYS - shelf - ordered, 0.0)
        amount = np.ceil(amount / pack) * pack * ~lost[day]
        coming[(day + lead) % len(coming), every] += amount
        ordered += amount
        sold[day], on_hand[day], on_order[day] = taken, shelf, ordered
    return Stock(
        sold=np.ascontiguousarray(sold.T),
        on_hand=np.ascontiguousarray(on_hand.T),
        on_order=np.ascontiguousarray(on_order.T),
        lead_days=lead,
    )


def _first_weeks(expected: FloatArray, selling: npt.NDArray[np.bool_]) -> FloatArray:
    """The buyer's plan: mean demand of an item's first 28 days in range."""
    early = selling & (np.cumsum(selling, axis=1) <= 28)
    return np.asarray((expected * early).sum(axis=1) / np.maximum(early.sum(axis=1), 1))
