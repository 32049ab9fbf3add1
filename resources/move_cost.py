"""Charging a move that no Dagster step makes: what it read, wrote and asked of a processor.

Belongs here: the settlement of one move by hand. Does not: steps (`resources.meter`).
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from forecast_core.cost.charges import TierIO, Usage
from forecast_core.cost.settlement import Owner, Settlement, ledger_rows
from resources import Settings
from resources.ledger import open_ledger
from resources.lifecycle import Moved
from resources.price_card import load_price_card

_last_cpu = time.process_time()


def usage_of(moved: Moved, cpu_s: float) -> Usage:
    """What a move used."""
    tiers = {
        tier: TierIO(bytes_read=got.bytes, files_read=got.files) for tier, got in moved.read.items()
    }
    for tier, sent in moved.written.items():
        written = TierIO(bytes_written=sent.bytes, files_written=sent.files)
        tiers[tier] = tiers.get(tier, TierIO()) + written
    return Usage(
        cpu_s=cpu_s,
        wall_s=cpu_s,
        bytes_read=sum(io.bytes_read for io in tiers.values()),
        bytes_written=sum(io.bytes_written for io in tiers.values()),
        files_read=sum(io.files_read for io in tiers.values()),
        files_written=sum(io.files_written for io in tiers.values()),
        tiers=tiers,
    )


def book(settings: Settings, moved: Moved) -> bool:
    """Charge a move to the ledger, once; CPU is that of this process since the last one."""
    global _last_cpu
    now, cpu = datetime.now(UTC), time.process_time()
    spent, _last_cpu = cpu - _last_cpu, cpu
    rates = load_price_card(settings.price_card).on(now.date(), settings.environment)
    part = moved.due.part
    owner = Owner(
        environment=settings.environment,
        pipeline="storage",
        asset=part.table,
        partition=f"{part.period}|{part.owner or ''}",
        store_id=part.owner if part.owner else None,
    )
    name = f"{settings.environment}:move:{part.table}:{moved.version}"
    began = now - timedelta(seconds=spent)
    settlement = Settlement(name, owner, began, now, usage_of(moved, spent), rows=moved.rows)
    return open_ledger(settings.ledger).record(*ledger_rows(settlement, rates))
