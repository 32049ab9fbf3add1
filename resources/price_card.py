"""The price card on disk.

Belongs here: opening the card of an installation. Does not: what a card means
(`forecast_core.cost.price_card`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from forecast_core.cost.price_card import PriceCard
from resources.policies import load_policy


@lru_cache(maxsize=8)
def load_price_card(path: Path) -> PriceCard:
    """Read and check the card at `path`; a process reads a card once.

    Raises:
        PolicyError: no such file, no YAML, or a card with a gap, an overlap, a missing or negative
            rate or an unknown currency; the message names the file, the entry and the remedy.
    """
    return load_policy(path, PriceCard.parse)
