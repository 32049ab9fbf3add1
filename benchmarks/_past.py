"""The past of some M5 stores, as backtests read it, without the lake.

Belongs here: cleaned sales and features by store, in memory. Does not: running or scoring rungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl
import yaml

from benchmarks._m5 import FIRST_DAY, folder
from forecast_core import alignment
from forecast_core.evaluation.backtest import Past
from forecast_core.rungs import gbm, origin_features
from forecast_core.segments import SegmentPolicy
from forecast_core.source.clean import clean
from resources import PROJECT_ROOT
from resources.sources import M5Source


def day(number: int) -> date:
    """The date of M5's d_`number`."""
    return FIRST_DAY + timedelta(days=number - 1)


def policy() -> SegmentPolicy:
    """The policy in the repository."""
    text = (PROJECT_ROOT / "policies" / "segments.yaml").read_text()
    return SegmentPolicy.parse(yaml.safe_load(text))


def sales_of(
    stores: Sequence[str], last: date, aligned: bool = True, items: int | None = None
) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Cleaned sales by store up to `last`, as far back as anything looks; and the calendar.

    `aligned`: as far back as the alignment looks, which is furthest; `items`: the first so many
    items of each store only.
    """
    source = M5Source(folder())
    back = gbm.TRAINING_DAYS + origin_features.HISTORY_DAYS + 150
    since = last - timedelta(days=max(back, alignment.HISTORY_DAYS if aligned else 0))
    found = {}
    for store in stores:
        raw = source.sales(store, since, last), source.prices(store, since, last)
        if items is not None:
            kept = raw[0]["item_id"].unique().sort()
            named = pl.col("item_id").is_in(kept.gather_every(max(len(kept) // items, 1)).to_list())
            raw = raw[0].filter(named), raw[1].filter(named)
        found[store] = clean(*raw).kept
    return found, source.calendar()


def features_of(
    sales: dict[str, pl.DataFrame], first: date, last: date, named: Sequence[date] = ()
) -> dict[str, pl.DataFrame]:
    """Features of every stored origin of `first`..`last`, and of those named."""
    origins = origin_features.origin_days(first, last, named)
    since = min(origins) - timedelta(days=origin_features.HISTORY_DAYS)
    return {
        store: origin_features.build(rows.filter(pl.col("date").is_between(since, last)), origins)
        for store, rows in sales.items()
    }


def past_of(
    sales: dict[str, pl.DataFrame], calendar: pl.DataFrame, windows: Sequence[date]
) -> Past:
    """A past with features to train for the first window and to forecast at all of them."""
    first = min(windows) - timedelta(days=gbm.TRAINING_DAYS)
    return Past.of_frames(sales, features_of(sales, first, max(windows), windows), calendar)
