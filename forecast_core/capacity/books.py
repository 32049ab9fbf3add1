"""The money books of the twin, kept as the live escrow keeps them.

Belongs here: what is gone in the current period of each budget node. Does not: what is held (the
runs that hold it), limits and floors (`forecast_core.admission.desk`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from forecast_core.admission.policy import Policy


@dataclass
class Books:
    """Money gone in the current period of each node, as the live escrow counts it."""

    policy: Policy
    environment: str
    spent: dict[str, dict[str, int]] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    ends: float = -math.inf

    def turn(self, now: float) -> None:
        """Open the periods that hold `now`; what belonged to earlier ones is forgotten."""
        if now < self.ends:
            return
        self.ends = math.inf
        for name, budget in self.policy.budgets.items():
            opened, ends = self.policy.period(budget.period, now)
            if self.opened.get(name) != opened:
                self.opened[name] = opened
                self.spent.pop(name, None)
            self.ends = min(self.ends, ends)

    def settle(self, pipeline: str, work_class: str, admitted: float, money: int) -> None:
        """Book what a run that was admitted then has cost."""
        for node in self.policy.path(self.environment, pipeline, work_class):
            if admitted >= self.opened[node]:
                classes = self.spent.setdefault(node, {})
                classes[work_class] = classes.get(work_class, 0) + money

    def over(self) -> dict[str, float]:
        """Node -> share of its limit that is spent beyond it."""
        found = {}
        for node, classes in self.spent.items():
            limit = self.policy.budgets[node].limit
            gone = sum(classes.values())
            if gone > limit > 0:
                found[node] = gone / limit - 1
        return found
