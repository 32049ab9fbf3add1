"""What the platform believes of its runs while its estimates are wrong, corrected by what it sees.

Belongs here: the intraday refit of quotes. Does not: the truth (`arrivals`), the live estimator
(`forecast_core.cost.estimate`, whose refit every ten minutes this stands for).
"""

from __future__ import annotations

import math
from dataclasses import replace

from forecast_core.admission import Quote, Shape
from forecast_core.capacity.arrivals import Kind

REFIT_S = 600.0  # as live quotes are fitted again (`resources.measured_quotes`)


class Beliefs:
    """Quotes by kind, as planned at first and as measured once runs have ended."""

    def __init__(self, wrong: bool) -> None:
        """`wrong`: the planned quotes miss the truth, so there is something to learn."""
        self._wrong = wrong
        self._fitted_at = -math.inf
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}
        self._factor: dict[tuple[str, str], tuple[int, float]] = {}
        self._shapes: dict[tuple[int, int], tuple[Kind, Shape]] = {}

    def saw(self, name: str, rung: str, count: int, money: float, mean: float) -> None:
        """Runs ended: what they cost in all, and what one costs in truth on average."""
        if self._wrong and mean > 0:
            number, total = self._seen.get((name, rung), (0, 0.0))
            self._seen[name, rung] = (number + count, total + money / mean)

    def stopped(self, kind: Kind, rung: str, count: int, cap: float) -> None:
        """Runs were stopped at their cap: they cost more than that; taken to be twice as much."""
        if (kind.name, rung) not in self._seen:
            self.saw(kind.name, rung, count, 2 * count * cap, kind.truths[rung].money)
            self._fitted_at = -math.inf

    def refit(self, now: float) -> bool:
        """Fit again if it is time and something new was seen; has anything changed?"""
        if not self._wrong or now < self._fitted_at + REFIT_S or self._seen == self._factor:
            return False
        self._fitted_at = now
        self._factor = dict(self._seen)
        self._shapes.clear()
        return True

    def shape(self, kind: Kind, raised: int) -> Shape:
        """What admission is told of a run of this kind by now, after so many stops at its cap."""
        if not self._factor and not raised:
            return kind.shape
        key = (id(kind), raised)
        if key not in self._shapes:
            quotes = tuple(self._quote(kind, quote, raised) for quote in kind.shape.quotes)
            self._shapes[key] = (kind, replace(kind.shape, quotes=quotes))
        return self._shapes[key][1]

    def _quote(self, kind: Kind, quote: Quote, raised: int) -> Quote:
        """The quote as measured: the mean of what was seen, its tail, and room for few runs."""
        number, total = self._factor.get((kind.name, quote.rung), (0, 0.0))
        wall_s, charges = quote.wall_s, quote.charges
        if number:
            truth = kind.truths[quote.rung]
            level = total / number * (1 + 0.5 / math.sqrt(number))
            wall, money = kind.tail[quote.rung]
            wall_s = truth.wall_s * wall * level
            charges = tuple((p, math.ceil(truth.money * money * level)) for p, _ in charges)
        charges = tuple((p, amount << raised) for p, amount in charges)
        return replace(quote, charges=charges, wall_s=wall_s)
