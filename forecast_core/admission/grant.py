"""What a run at work may still use beyond its cheapest rung: the rest of its money and time.

Belongs here: the arithmetic of a hold, its deadline and what the rest of the run takes. Does not:
granting (`forecast_core.admission`), reading holds (`resources.gate`), or what it is used for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from forecast_core.admission.policy import units
from forecast_core.admission.values import Quote


@dataclass(frozen=True)
class Grant:
    """What is left of a grant for what a run need not do.

    Attributes:
        money: nanos beyond what the run takes at its cheapest rung; never below zero.
        held: nanos that the run holds in all.
        cpu_s_price: nanos that a CPU-second of the step costs.
        seconds: to the deadline, less what the cheapest rung still takes; None without one.
        deadline: epoch seconds.
    """

    money: int
    held: int
    cpu_s_price: float
    seconds: float | None = None
    deadline: float | None = None

    @property
    def cpu_s(self) -> float:
        """CPU-seconds that the money pays for."""
        return self.money / self.cpu_s_price if self.cpu_s_price > 0 else float("inf")

    @property
    def money_said(self) -> str:
        """The money in words."""
        return f"{self.cpu_s:.1f} CPU-s that the granted {units(self.held).normalize():f} leaves"

    @property
    def time_said(self) -> str:
        """The time in words; only where there is a deadline."""
        moment = datetime.fromtimestamp(self.deadline or 0.0, UTC)
        return f"deadline {moment:%Y-%m-%d %H:%M} UTC leaves {(self.seconds or 0.0) / 60:.1f}"


def left_of(
    held: int,
    cheapest: Quote,
    spent: int,
    cpu_s_price: float,
    now: float,
    begun: float,
    deadline: float | None,
) -> Grant:
    """What a run that holds `held` and has spent `spent` nanos may use beyond its cheapest rung.

    What is kept for that is what its quote says, until the run has spent or taken more.
    """
    money = max(0, held - max(spent, cheapest.money))
    if deadline is None:
        return Grant(money, held, cpu_s_price)
    rest = max(0.0, cheapest.wall_s - (now - begun))
    return Grant(money, held, cpu_s_price, max(0.0, deadline - now - rest), deadline)
