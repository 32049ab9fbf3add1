"""From what an attempt used to the rows that the ledger keeps.

Belongs here: owners, the settlement of a part of an attempt, its rows, and its split over
partitions. Does not: measuring (`resources.meter`), prices (`price_card`), the store.

Every id is derived from what it names, so recording the same thing twice is the same row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from forecast_core.cost.allocate import EXACT, allocate
from forecast_core.cost.charges import Charge, CostRecord, Usage, price
from forecast_core.cost.focus import STEP_COLUMNS
from forecast_core.cost.price_card import Rates

UNATTRIBUTED = "unattributed"
WORKLOAD, IDLE, OVERHEAD = "workload", "idle", "overhead"

_SERVICES = {
    "vcpu_s": "CPU",
    "gib_s": "Memory",
    "gpu_s": "GPU",
    "transfer_gib": "Transfer",
    "gib_month": "Storage",
    "read_request": "Read requests",
    "write_request": "Write requests",
    "retrieval_gib": "Retrieval",
}
UNITS = {
    "vcpu_s": "vCPU-Seconds",
    "gib_s": "GiB-Seconds",
    "gpu_s": "GPU-Seconds",
    "transfer_gib": "GiB",
    "gib_month": "GiB-Months",
    "read_request": "Requests",
    "write_request": "Requests",
    "retrieval_gib": "GiB",
}


@dataclass(frozen=True)
class Owner:
    """Who pays, and for how much served: every field is an `x_` column, None where it has none."""

    environment: str
    cost_class: str = WORKLOAD
    pipeline: str | None = UNATTRIBUTED
    forecaster: str | None = None
    forecaster_version: str | None = None
    segment_group: str | None = None
    store_id: str | None = None
    asset: str | None = None
    partition: str | None = None
    run_id: str | None = None
    step_key: str | None = None
    attempt: int | None = None
    cycle: str | None = None
    code_version: str | None = None
    config_version: str | None = None
    series: int | None = None
    rows: int | None = None

    def columns(self) -> dict[str, str | int | None]:
        """The owner as ledger columns."""
        return {f"x_{f.name}": getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Settlement:
    """A closed stretch of one attempt (or of overhead): what it used, from `start` to `end`.

    `part` counts the stretches of an attempt from 0 and `final` closes it. `charge_set` names it.
    """

    charge_set: str
    owner: Owner
    start: datetime
    end: datetime
    usage: Usage
    part: int = 0
    final: bool = True
    status: str = "success"
    estimated: bool = False
    rows: int = 0
    partitions: int = 0
    meter_cpu_s: float = 0.0


@dataclass(frozen=True)
class Share:
    """Whom a part of a step served; what is None stays as the asset says."""

    forecaster: str | None = None
    forecaster_version: str | None = None
    segment_group: str | None = None
    store_id: str | None = None
    series: int | None = None

    def of(self, owner: Owner) -> Owner:
        """The owner of this part."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(owner, **{name: value for name, value in known.items() if value is not None})

    def fits(self, owner: Owner) -> bool:
        """Whether it can be a part of what `owner` pays: the two name no different place."""
        return all(None in pair or len(set(pair)) == 1 for pair in self._places(owner))

    def is_local_to(self, owner: Owner) -> bool:
        """Whether it was measured in a place that `owner` names too."""
        return any(None not in pair and len(set(pair)) == 1 for pair in self._places(owner))

    def _places(self, owner: Owner) -> tuple[tuple[str | None, str | None], ...]:
        mine, theirs = self, owner
        return ((mine.store_id, theirs.store_id), (mine.segment_group, theirs.segment_group))


def by_share(owners: Mapping[Owner, float], shares: Mapping[Share, float]) -> dict[Owner, float]:
    """Owners crossed with the shares that a body reported.

    Where a driver was measured in the owner's own store or segment group it is the weight; else
    the weights multiply, as if every owner's part were made alike.
    """
    pairs = [(owner, share) for owner in owners for share in shares if share.fits(owner)]
    if not pairs:
        return dict(owners)
    local = any(share.is_local_to(owner) for owner, share in pairs)
    even = 0.0 if any(owners.values()) else 1.0  # nothing written: the driver alone decides
    crossed: dict[Owner, float] = {}
    for owner in owners:
        mine = [share for whose, share in pairs if whose is owner]
        rows = _whole_shares(owner.rows, {share: float(share.series or 0) for share in mine})
        for share in mine:
            part = replace(share.of(owner), rows=rows[share])
            weight = 1.0 if local else owners[owner] or even
            crossed[part] = crossed.get(part, 0.0) + weight * shares[share]
    return crossed


def _whole_shares(rows: int | None, weights: Mapping[Share, float]) -> dict[Share, int | None]:
    """Rows over the parts by the series that they served: whole numbers that sum to `rows`."""
    if rows is None or not weights:
        return dict.fromkeys(weights)
    parts = allocate(Decimal(rows), weights, Decimal(1))
    return {share: int(part) for share, part in parts.items()}


def common(owners: Sequence[Owner]) -> Owner:
    """What several owners have in common; what differs is None (nobody's, as a whole)."""
    first = owners[0]
    differing = [
        f.name
        for f in fields(Owner)
        if any(getattr(o, f.name) != getattr(first, f.name) for o in owners)
    ]
    nobody: dict[str, Any] = dict.fromkeys(differing)
    return replace(first, **nobody)


def charge_set_of(run_id: str, step_key: str, attempt: int, part: int) -> str:
    """The name of the settlement of that part of that attempt."""
    return f"{run_id}:{step_key}:{attempt}:{part}"


def owners_by(base: Owner, weights: Mapping[Owner, float]) -> dict[Owner, float]:
    """Those who share a settlement; `base` alone where nobody is named."""
    return dict(weights) if weights else {base: 1.0}


def ledger_rows(
    settlement: Settlement,
    rates: Rates,
    shares: Mapping[Owner, float] | None = None,
    method: str = "whole",
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """The settlement's row and the rows of its charges, split over `shares` by weight.

    Each price-list line is split by quantity, so the rows of a line sum to it exactly and each
    costs its price x its quantity. An owner whose share of a line is nothing gets no row.
    """
    charges = price(settlement.usage, rates)
    shared = owners_by(settlement.owner, shares or {})
    method = method if len(shared) > 1 else "whole"
    rows = [
        charge_row(settlement, rates, charge, owner, method)
        for line in charges
        for owner, charge in split(line, shared).items()
    ]
    money = sum((charge.cost for charge in charges), Decimal(0))
    return settlement_row(settlement, money, rates), rows


def split(line: Charge, weights: Mapping[Owner, float]) -> dict[Owner, Charge]:
    """One line over its owners; whoever gets nothing of something is left out."""
    parts = allocate(line.quantity, weights)
    return {
        owner: replace(line, quantity=amount)
        for owner, amount in parts.items()
        if amount or len(parts) == 1
    }


def charge_row(
    settlement: Settlement, rates: Rates, charge: Charge, owner: Owner, method: str
) -> dict[str, object]:
    """One charge as `focus.CHARGE_COLUMNS`."""
    return {
        "x_charge_id": charge_id(settlement.charge_set, charge.sku, owner),
        "x_charge_set": settlement.charge_set,
        "date": settlement.start.date(),
        "ChargePeriodStart": settlement.start,
        "ChargePeriodEnd": settlement.end,
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": describe(charge.sku, owner),
        "SkuId": charge.sku,
        "SkuPriceId": f"{charge.sku}@{rates.name}",
        "PricingQuantity": charge.quantity,
        "PricingUnit": unit_of(charge.sku),
        "ListUnitPrice": charge.unit_price,
        "BilledCost": charge.cost,
        "BillingCurrency": rates.currency,
        **owner.columns(),
        "x_method": method,
        "x_estimated": settlement.estimated,
        "x_status": settlement.status,
        "x_corrects": None,
        "x_price_card": rates.name,
    }


def settlement_row(settlement: Settlement, money: Decimal, rates: Rates) -> dict[str, object]:
    """The settlement as `focus.STEP_COLUMNS`."""
    usage, owner = settlement.usage, settlement.owner.columns()
    measured = ("cpu_s", "rss_gib_s", "peak_rss_gib", "wall_s", "gpu_s")
    moved = ("bytes_read", "bytes_written", "files_read", "files_written")
    return {
        "x_charge_set": settlement.charge_set,
        "date": settlement.start.date(),
        "ChargePeriodStart": settlement.start,
        "ChargePeriodEnd": settlement.end,
        **{name: owner[name] for name in owner if name in STEP_COLUMNS},
        "x_part": settlement.part,
        "x_final": settlement.final,
        "x_estimated": settlement.estimated,
        "x_status": settlement.status,
        **{name: getattr(usage, name) for name in (*measured, *moved)},
        "meter_cpu_s": settlement.meter_cpu_s,
        "rows": settlement.rows,
        "partitions": settlement.partitions,
        "money": money,
        "currency": rates.currency,
    }


def charge_id(charge_set: str, sku: str, owner: Owner) -> str:
    """A name for the charge that follows from what it is: 32 hexadecimal digits."""
    named = [charge_set, sku, *(str(getattr(owner, f.name)) for f in fields(owner))]
    return hashlib.sha256("\x1f".join(named).encode()).hexdigest()[:32]


def unit_of(sku: str) -> str:
    """The pricing unit of a price-list line."""
    return UNITS[sku.partition("/")[0]]


def describe(sku: str, owner: Owner) -> str:
    """One line for a human: what was used and by whom."""
    line, _, tier = sku.partition("/")
    what = f"{_SERVICES[line]} ({tier})" if tier else _SERVICES[line]
    who = owner.asset or owner.step_key or owner.cost_class
    return f"{what} for {who}" + (f" [{owner.partition}]" if owner.partition else "")


def records(
    settlement: Settlement, rates: Rates, rows_by_partition: Mapping[str, int]
) -> dict[str, CostRecord]:
    """The settlement's cost record of each partition, split by rows (evenly when there are none).

    The money of the records sums exactly to the settlement's.
    """
    weights = {key: float(rows) for key, rows in rows_by_partition.items()}
    money = dict.fromkeys(weights, Decimal(0))
    for line in price(settlement.usage, rates):
        for key, amount in allocate(line.quantity, weights).items():
            money[key] = EXACT.add(money[key], EXACT.multiply(amount, line.unit_price))
    total = sum(weights.values())
    return {
        key: _record(
            settlement,
            rates,
            partition=key or None,
            money=money[key],
            share=weight / total if total else 1 / len(weights),
            rows=rows_by_partition[key],
        )
        for key, weight in weights.items()
    }


def _record(
    settlement: Settlement,
    rates: Rates,
    *,
    partition: str | None,
    money: Decimal,
    share: float,
    rows: int,
) -> CostRecord:
    usage, owner = settlement.usage, settlement.owner
    return CostRecord(
        run_id=owner.run_id or "",
        step_key=owner.step_key or "",
        attempt=owner.attempt or 1,
        part=settlement.part,
        partition=partition,
        money=money,
        currency=rates.currency,
        price_card=rates.name,
        cpu_s=usage.cpu_s * share,
        rss_gib_s=usage.rss_gib_s * share,
        peak_rss_gib=usage.peak_rss_gib,
        wall_s=usage.wall_s,
        gpu_s=usage.gpu_s * share,
        bytes_read=round(usage.bytes_read * share),
        bytes_written=round(usage.bytes_written * share),
        rows=rows,
        share=share,
        estimated=settlement.estimated,
    )


def span_of(keys: Sequence[str]) -> str | None:
    """A list of partition keys in one column: the key itself, or 'first...last'."""
    named = sorted(key for key in keys if key)
    if not named:
        return None
    return named[0] if len(named) == 1 else f"{named[0]}...{named[-1]}"
