"""Rating the past again under another card, without touching it.

Belongs here: which corrections a new card asks for. Does not: writing them (`resources.ledger`).

A charge is corrected as a bookkeeper would: one row takes it back (its quantity negated at its own
price) and one charges it anew at the price of the card. So every row keeps cost = price x quantity
at a price that is not negative, the quantities still sum to what was used, and the amounts to what
the card says. Ids follow from the row that is replaced: the same correction is the same row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from forecast_core.cost.allocate import EXACT
from forecast_core.cost.focus import CORRECTION
from forecast_core.cost.price_card import PriceCard, PriceCardError

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Correction:
    """`takes_back` undoes a charge and `charges` it anew; they are written together or not."""

    takes_back: dict[str, Any]
    charges: dict[str, Any]

    @property
    def difference(self) -> Decimal:
        """By how much the total changes."""
        return EXACT.add(self.charges["BilledCost"], self.takes_back["BilledCost"])


def corrections(charges: pl.DataFrame, card: PriceCard) -> list[Correction]:
    """The corrections that bring `charges` (`CHARGE_COLUMNS`) to the prices of `card`.

    Give all rows of the days in question, earlier corrections included. Rows already at the
    card's price need none, so rating again twice is rating again once.

    Raises:
        PriceCardError: the card has another currency than the charges, or no rates for a day.
    """
    replaced = set(charges["x_corrects"].drop_nulls())
    found = []
    for row in charges.iter_rows(named=True):
        standing = row["PricingQuantity"] > 0 and row["x_charge_id"] not in replaced
        correction = _correction(row, card) if standing else None
        if correction is not None:
            found.append(correction)
    return found


def _correction(row: Row, card: PriceCard) -> Correction | None:
    if row["BillingCurrency"] != card.currency:
        raise PriceCardError(
            f"charge {row['x_charge_id']} is in {row['BillingCurrency']}, the card in"
            f" {card.currency}; amounts of two currencies have no sum: keep one ledger for each"
        )
    rates = card.on(row["date"], row["x_environment"])
    price = rates.of(row["SkuId"])
    if price == row["ListUnitPrice"]:
        return None
    replaces = {"ChargeClass": CORRECTION, "x_corrects": row["x_charge_id"]}
    back = {
        **row,
        **replaces,
        "x_charge_id": _id("takes back", row["x_charge_id"]),
        "PricingQuantity": -row["PricingQuantity"],
        "BilledCost": -row["BilledCost"],
    }
    anew = {
        **row,
        **replaces,
        "x_charge_id": _id("charges", row["x_charge_id"], rates.name, str(price)),
        "SkuPriceId": f"{row['SkuId']}@{rates.name}",
        "ListUnitPrice": price,
        "BilledCost": EXACT.multiply(price, row["PricingQuantity"]),
        "x_price_card": rates.name,
    }
    return Correction(back, anew)


def _id(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
