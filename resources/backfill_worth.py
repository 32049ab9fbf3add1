"""What a refresh is worth and what it costs, from the lake and the ledger of an installation.

Belongs here: gathering revenue, the last accuracy and the quote of each stale partition. Does not:
the choice (`forecast_core.storage.staleness`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import polars as pl

from forecast_core.schema import TABLES
from forecast_core.storage.placement import Reader
from forecast_core.storage.staleness import Refresh, worth_of
from resources import Settings
from resources.backfill_quotes import BackfillQuoter
from resources.lake import Lake
from resources.ledger import open_ledger
from resources.partition_keys import decode
from resources.price_card import load_price_card
from resources.wiring import mover_of

UNKNOWN_ERROR = 1.0  # before anything was scored a forecast is presumed to be all wrong
_log = logging.getLogger(__name__)


def quoter_of(settings: Settings, readers: Sequence[Reader]) -> BackfillQuoter:
    """Quotes of this installation."""
    rates = load_price_card(settings.price_card).on(datetime.now(UTC).date(), settings.environment)
    ledger = open_ledger(settings.ledger)
    return BackfillQuoter(ledger, mover_of(settings), rates, settings.environment, readers)


def appraise(
    settings: Settings, readers: Sequence[Reader], asset: str, stale: Mapping[str, str]
) -> list[Refresh]:
    """Each stale partition with its worth and its share of the quote; later than as-of: left out.

    The quote of all of them is logged: what would be spent if all were refreshed.
    """
    if not stale:
        return []
    quoter = quoter_of(settings, readers)
    mover = mover_of(settings)
    policy = mover.policy.backfill
    as_of = mover.lake.as_of or datetime.now(UTC).date()
    quote = quoter.quote(asset, sorted(stale))
    _log.info("stale: %s", quote.line())
    revenue, error = revenue_by_store(mover.lake), last_error(mover.lake)
    found = []
    for key, reason in stale.items():
        day, store = _place(asset, key)
        if day > as_of:
            continue
        earned = revenue.get(store, 0.0) if store else sum(revenue.values())
        age = (as_of - day).days
        worth = worth_of(earned, error, age, policy.loss_share, policy.half_life_days)
        found.append(Refresh(key, day, store, reason, worth, quote.money / len(stale)))
    return found


def revenue_by_store(lake: Lake) -> dict[str, float]:
    """Revenue of each store by the newest segments; empty before the first."""
    table = lake.table("demand_segments")
    if not table.exists():
        return {}
    rows = table.read(columns=["as_of", "store_id", "revenue"]).frame
    newest = rows.filter(pl.col("as_of") == pl.col("as_of").max())
    summed = newest.group_by("store_id").agg(pl.col("revenue").sum()).collect()
    return dict(summed.iter_rows())


def last_error(lake: Lake) -> float:
    """WAPE of what was last published and scored, over item-stores."""
    table = lake.table("eval_accuracy")
    if not table.exists():
        return UNKNOWN_ERROR
    rows = table.read(columns=["cutoff", "level", "forecaster", "wape"]).frame
    mine = rows.filter(pl.col("level") == "item_id/store_id", pl.col("forecaster") == "governed")
    newest = mine.filter(pl.col("cutoff") == pl.col("cutoff").max()).collect()
    found = newest["wape"].mean() if newest.height else None
    return float(found) if isinstance(found, float) else UNKNOWN_ERROR


def _place(asset: str, key: str) -> tuple[date, str | None]:
    cells = decode([key], TABLES[asset].cut).cells
    assert cells is not None, f"{asset} has no days in its partitions"
    return cells.first, cells.stores[0] if cells.stores else None
