"""What runs have cost so far, as admission asks for it.

Belongs here: the question, and its answer from the ledger. Does not: prices or holds (`escrow`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Protocol

from resources.ledger import Ledger

Recent = Mapping[tuple[date, str | None], Mapping[str, Decimal]]


class Spending(Protocol):
    """Whoever knows what a run has cost so far."""

    def of_run(self, run_id: str) -> Mapping[str, Decimal]:
        """Pipeline -> money billed to the run."""
        ...

    def recent(self, since: float) -> Recent:
        """(day, run or None) -> pipeline -> money charged on the UTC days from `since` on."""
        ...


@dataclass(frozen=True)
class LedgerSpending:
    """Spending as the ledger has it."""

    ledger: Ledger

    def of_run(self, run_id: str) -> Mapping[str, Decimal]:
        """Pipeline -> money billed to the run, corrections included."""
        frame = self.ledger.charges(run_id=run_id)
        costs: dict[str, Decimal] = defaultdict(Decimal)
        for pipeline, cost in frame.select("x_pipeline", "BilledCost").iter_rows():
            costs[pipeline or "unattributed"] += cost
        return costs

    def recent(self, since: float) -> Recent:
        """(day, run or None) -> pipeline -> money charged on the UTC days from `since` on."""
        first = datetime.fromtimestamp(since, UTC).date()
        totals = self.ledger.totals(("date", "x_run_id", "x_pipeline"), first=first)
        costs: dict[tuple[date, str | None], dict[str, Decimal]] = defaultdict(dict)
        for (day, run_id, pipeline), cost in totals.items():
            costs[day, run_id][pipeline or "unattributed"] = cost
        return costs
