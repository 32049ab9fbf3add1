"""The floor: a forecast for every item in every store, at the price of a few additions.

Belongs here: the cheapest passes, which need no fitting and cannot fail. Does not: anything that
might refuse an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.rungs.frames import means
from forecast_core.rungs.grid import Grid

WEEKS = 4
UNSOLD = "nothing sold as far back as segments look: forecast as nothing"


def seasonal_mean(
    sales: pl.DataFrame, items: Sequence[str], cutoff: date, horizon: int, weeks: int = WEEKS
) -> pl.DataFrame:
    """Mean of the same weekday over the last `weeks` weeks; weeks=1 is the seasonal naive.

    Args:
        sales: rows of one store (item_id, date, units); days without a row are passed over, and
            an item with no known day is forecast at zero.
        items: who needs a forecast.

    Returns:
        (item_id, ds, mean): every item x horizon, items sorted.
    """
    first = cutoff - timedelta(days=7 * weeks - 1)
    grid = Grid.of(sales, ["units"], first, cutoff, items)
    by_week = grid.values["units"].reshape(len(grid.items), weeks, 7).astype(np.float64)
    known = np.isfinite(by_week)
    days = known.sum(axis=1)
    total = np.where(known, by_week, 0).sum(axis=1)
    week = np.divide(total, days, out=np.zeros_like(total), where=days > 0)
    repeats = -(-horizon // 7)
    return means(grid.items, cutoff, np.tile(week, repeats)[:, :horizon])
