"""Plan against actual: why a month cost what it did, in parts that sum to the difference.

Belongs here: the split into volume, mix, policy, rate and price. Does not: reading the ledger
(`resources.capacity_records`), reviews (`review`).

A work at a rung costs units x rate x price; units are series x runs. With U all units, s the share
of a work in them and p the share of a rung in the work:

* volume: more or fewer units, at the planned mix, rates and prices;
* mix: other works than planned;
* policy: other rungs within a work, which is admission's doing;
* rate: a unit takes more or less of the machine;
* price: what a unit of the machine costs.

Each step changes one factor and keeps those before it changed, so the parts sum exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PARTS = ("volume", "mix", "policy", "rate", "price")
Key = tuple[str, str]


@dataclass(frozen=True)
class Flow:
    """A work at a rung in a month: units (series x runs), money, and the price index it was at."""

    units: float
    money: float
    price: float = 1.0

    @property
    def rate(self) -> float:
        """Money of a unit at the price index 1; 0 without units."""
        return self.money / self.units / self.price if self.units else 0.0


@dataclass(frozen=True)
class Variance:
    """Planned and actual money, the parts of their difference, and each work's share of it."""

    planned: float
    actual: float
    parts: Mapping[str, float]
    by_work: Mapping[str, Mapping[str, float]]

    @property
    def residual_pct(self) -> float:
        """What the parts leave unexplained, percent of the actual (0 but for rounding)."""
        gap = self.actual - self.planned - sum(self.parts.values())
        return 100 * abs(gap) / abs(self.actual) if self.actual else 100 * abs(gap)


def variance(planned: Mapping[Key, Flow], actual: Mapping[Key, Flow]) -> Variance:
    """Split actual less planned money; both by (work, rung).

    A work or rung that was never planned has no planned rate: its actual one is taken, so that it
    counts as mix or policy and not as rate. Storage is a work like any other, its units being GiB.
    """
    keys = sorted(planned.keys() | actual.keys())
    works = sorted({work for work, _ in keys})
    zero = Flow(0.0, 0.0)
    before = {key: planned.get(key, zero) for key in keys}
    after = {key: actual.get(key, zero) for key in keys}
    units = {work: (_sum(before, work), _sum(after, work)) for work in works}
    total = (sum(u for u, _ in units.values()), sum(u for _, u in units.values()))
    by_work: dict[str, dict[str, float]] = {}
    for work in works:
        parts = dict.fromkeys(PARTS, 0.0)
        u0, u1 = units[work]
        grown = u0 * (total[1] / total[0]) if total[0] else u0
        for key in keys:
            if key[0] != work:
                continue
            then, now = before[key], after[key]
            if not then.units and then.money:  # money without a driver: all of it is volume
                parts["volume"] -= then.money
                then = zero
            if not now.units and now.money:
                parts["volume"] += now.money
                now = zero
            price0 = then.price if then.units else now.price
            r0 = then.rate if then.units else now.rate
            r1 = now.rate if now.units else r0
            price1 = now.price if now.units else price0
            p0 = then.units / u0 if u0 else (now.units / u1 if u1 else 0.0)
            p1 = now.units / u1 if u1 else p0
            parts["volume"] += (grown - u0) * p0 * r0 * price0
            parts["mix"] += (u1 - grown) * p0 * r0 * price0
            parts["policy"] += u1 * (p1 - p0) * r0 * price0
            parts["rate"] += u1 * p1 * (r1 - r0) * price0
            parts["price"] += u1 * p1 * r1 * (price1 - price0)
        by_work[work] = parts
    return Variance(
        sum(flow.money for flow in before.values()),
        sum(flow.money for flow in after.values()),
        {part: sum(parts[part] for parts in by_work.values()) for part in PARTS},
        by_work,
    )


def _sum(flows: Mapping[Key, Flow], work: str) -> float:
    return sum(flow.units for (name, _), flow in flows.items() if name == work)
