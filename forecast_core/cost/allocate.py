"""Splitting a total over its owners so that the parts sum to it exactly.

Belongs here: the one allocation rule that every split of cost uses. Does not: which driver
weighs what (`resources.meter`, the reports).

Quantities are split, money follows: with an exact price each part costs price x its quantity, and
the parts of the money sum exactly because the parts of the quantity do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Context, Decimal
from typing import TypeVar

K = TypeVar("K")

QUANTUM = Decimal("1e-9")
# Wide enough that no product of a 9-decimal price with a 9-decimal quantity is ever rounded.
EXACT = Context(prec=60)


def allocate(
    total: Decimal, weights: Mapping[K, float], quantum: Decimal = QUANTUM
) -> dict[K, Decimal]:
    """Split `total` in proportion to `weights`, by largest remainder.

    Each part is a multiple of `quantum` (or of the last decimal of `total`, where that is finer)
    and differs from its exact share by less than one of them. Ties go to the smaller key, so the
    order of `weights` does not matter. All weights zero: equal shares. A zero weight beside others
    gets nothing.

    Raises:
        ValueError: no weights, or one that is negative or not finite (named).
    """
    if not weights:
        raise ValueError("nothing to allocate to: give at least one weight")
    scaled = _scaled(weights)
    whole = sum(scaled.values())
    if whole == 0:
        scaled = dict.fromkeys(scaled, 1)
        whole = len(scaled)
    exponent = min(_exponent(total), _exponent(quantum))
    units = int(EXACT.scaleb(total, -exponent))
    sign = -1 if units < 0 else 1
    parts = {key: divmod(abs(units) * weight, whole) for key, weight in scaled.items()}
    left = abs(units) - sum(quotient for quotient, _ in parts.values())
    by_remainder = sorted(parts, key=lambda key: (-parts[key][1], _order(key)))
    favoured = set(by_remainder[:left])
    return {
        key: EXACT.scaleb(Decimal(sign * (quotient + (key in favoured))), exponent)
        for key, (quotient, _) in parts.items()
    }


def _scaled(weights: Mapping[K, float]) -> dict[K, int]:
    """The weights as whole numbers in the same proportion, exactly."""
    ratios = {}
    for key, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"weight of {key!r} is {weight}; weights are finite and not negative")
        ratios[key] = weight.as_integer_ratio()
    # Denominators of floats are powers of two, so the largest is a multiple of each.
    base = max(denominator for _, denominator in ratios.values())
    return {key: top * (base // bottom) for key, (top, bottom) in ratios.items()}


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is no amount")
    return min(exponent, 0)


def _order(key: object) -> tuple[str, str]:
    return (type(key).__name__, repr(key))
