"""What was used, what a unit of it costs, and the charges that follow.

Belongs here: usage, the dated price card, pricing, and the typed cost record of a materialization.
Does not: measuring (`resources.meter`), storing (`resources.ledger`), the shape of an export
(`focus`). No clock: the day that rates a charge is an argument.

Amounts are `Decimal`: quantities have 9 decimals, unit prices at most 9, their product is exact.
Units: seconds, GiB (2**30 bytes), GiB-months of the calendar month at hand.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

from pydantic import BaseModel, ConfigDict

from forecast_core.cost.allocate import EXACT, QUANTUM, allocate
from forecast_core.cost.price_card import TIERS, PriceCard, PriceCardError, Rates

__all__ = [
    "TIERS",
    "Charge",
    "CostRecord",
    "PriceCard",
    "PriceCardError",
    "Rates",
    "TierIO",
    "Usage",
    "allocate",
    "early_deletion_charge",
    "price",
    "storage_charge",
]

GIB = 2**30
DEFAULT_TIER = "hot"


@dataclass(frozen=True)
class TierIO:
    """Bytes and files moved to and from one storage tier."""

    bytes_read: int = 0
    files_read: int = 0
    bytes_written: int = 0
    files_written: int = 0

    def __add__(self, other: TierIO) -> TierIO:
        return TierIO(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(TierIO)))


@dataclass(frozen=True)
class Usage:
    """What a step used. Additive, but for the peak, where a sum is the larger of the two.

    `cpu_s`: CPU-seconds of the process and its children. `rss_gib_s`: resident memory integrated
    over `wall_s`. `gpu_s`: seconds that GPUs were held. Bytes and files are totals; `tiers` says
    which part of them touched a tier other than hot. `bytes_transferred` left the region.
    """

    cpu_s: float = 0.0
    rss_gib_s: float = 0.0
    peak_rss_gib: float = 0.0
    wall_s: float = 0.0
    gpu_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    files_read: int = 0
    files_written: int = 0
    bytes_transferred: int = 0
    tiers: Mapping[str, TierIO] = field(default_factory=dict)

    def __add__(self, other: Usage) -> Usage:
        tiers = {
            tier: self.tiers.get(tier, TierIO()) + other.tiers.get(tier, TierIO())
            for tier in {**self.tiers, **other.tiers}
        }
        totals = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(Usage)
            if f.name not in ("peak_rss_gib", "tiers")
        }
        peak = max(self.peak_rss_gib, other.peak_rss_gib)
        return Usage(**totals, peak_rss_gib=peak, tiers=tiers)

    def by_tier(self) -> dict[str, TierIO]:
        """All I/O by tier: what `tiers` does not name was hot."""
        named = sum(self.tiers.values(), TierIO())
        hot = TierIO(
            self.bytes_read - named.bytes_read,
            self.files_read - named.files_read,
            self.bytes_written - named.bytes_written,
            self.files_written - named.files_written,
        )
        return {**self.tiers, DEFAULT_TIER: self.tiers.get(DEFAULT_TIER, TierIO()) + hot}


@dataclass(frozen=True)
class Charge:
    """One line of the price list, used: `quantity` of `sku` at `unit_price`."""

    sku: str
    quantity: Decimal
    unit_price: Decimal

    @property
    def cost(self) -> Decimal:
        """quantity x unit price, exact."""
        return EXACT.multiply(self.quantity, self.unit_price)


def quantity(value: float) -> Decimal:
    """A measured amount with 9 decimals; what is below zero by noise is zero."""
    return max(Decimal(repr(float(value))), Decimal(0)).quantize(
        QUANTUM, rounding=ROUND_HALF_EVEN, context=EXACT
    )


def price(usage: Usage, rates: Rates) -> list[Charge]:
    """The charges of `usage`: one a price-list line with a quantity, CPU first and always there.

    A line whose rate is zero is charged at zero rather than left out, so that the past can be
    rated again under a card that prices it.
    """
    used = {"vcpu_s": usage.cpu_s, "gib_s": usage.rss_gib_s, "gpu_s": usage.gpu_s}
    for tier, io in usage.by_tier().items():
        used[f"read_request/{tier}"] = io.files_read
        used[f"write_request/{tier}"] = io.files_written
        used[f"retrieval_gib/{tier}"] = io.bytes_read / GIB
    used["transfer_gib"] = usage.bytes_transferred / GIB
    charges = [Charge(sku, quantity(amount), rates.of(sku)) for sku, amount in used.items()]
    return [charge for charge in charges if charge.quantity > 0 or charge.sku == "vcpu_s"]


def billable_bytes(sizes: Iterable[int], tier: str, rates: Rates) -> int:
    """Bytes that storage is paid for: a file below the tier's minimum is paid as if it had it."""
    least = rates.minimum_bytes.get(tier, 0)
    return sum(max(size, least) for size in sizes)


def storage_charge(sizes: Iterable[int], tier: str, day: date, rates: Rates) -> Charge:
    """One day of files of `sizes` bytes in `tier`, in GiB-months of that day's month."""
    days = calendar.monthrange(day.year, day.month)[1]
    gib_months = quantity(billable_bytes(sizes, tier, rates) / GIB / days)
    return Charge(f"gib_month/{tier}", gib_months, rates.of(f"gib_month/{tier}"))


def early_deletion_charge(size: int, tier: str, age_days: int, day: date, rates: Rates) -> Charge:
    """What a file that leaves `tier` on `day` at `age_days` still owes of the minimum duration."""
    days = calendar.monthrange(day.year, day.month)[1]
    owed = max(rates.minimum_days.get(tier, 0) - age_days, 0)
    gib_months = quantity(billable_bytes([size], tier, rates) / GIB * owed / days)
    return Charge(f"gib_month/{tier}", gib_months, rates.of(f"gib_month/{tier}"))


class CostRecord(BaseModel):
    """What one materialization cost: written to and parsed from its metadata by this model.

    For a run over many partitions each holds its own share by rows; the shares of `money` sum to
    the step's money exactly. `peak_rss_gib` and `wall_s` are the step's, not a share.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    step_key: str
    attempt: int
    part: int = 0
    partition: str | None = None
    money: Decimal
    currency: str
    price_card: str
    cpu_s: float
    rss_gib_s: float
    peak_rss_gib: float
    wall_s: float
    gpu_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    rows: int = 0
    share: float = 1.0
    estimated: bool = False

    def metadata(self) -> dict[str, object]:
        """The record under `cost`, and beside it the figures that a trend line is drawn of."""
        return {
            "cost": self.model_dump(mode="json"),
            "cost/money": float(self.money),
            "cost/cpu_s": self.cpu_s,
            "cost/peak_gib": self.peak_rss_gib,
            "cost/bytes_read": self.bytes_read,
            "cost/bytes_written": self.bytes_written,
        }

    @classmethod
    def parse(cls, metadata: Mapping[str, object]) -> CostRecord | None:
        """The record in a materialization's metadata (plain values); None where there is none.

        Raises:
            ValueError: there is one, and it is not ours.
        """
        found = metadata.get("cost")
        return None if found is None else cls.model_validate(found)
