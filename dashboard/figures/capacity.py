"""Capacity: the last plan that was drawn, its bands, stress, and plan against actual.

Belongs here: reading plans and outcomes on record, as frames. Does not: drawing a future
(`forecast_core.capacity`): a page never waits for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from dashboard.live import Live
from dashboard.stores import NothingYet
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.variance import Variance
from resources.plan_store import OUTCOME, STRESS

COMMAND = "`forecast capacity plan`"


@dataclass(frozen=True)
class Record:
    """A plan as it is on record: its last version, and what was last drawn from it."""

    plan: Plan
    version: int
    drawn_at: datetime
    outcome: Mapping[str, Any]

    @property
    def currency(self) -> str:
        """Of all its money."""
        return self.plan.currency


def names(live: Live) -> list[str]:
    """Plans on record."""
    return live.of_ledger("plans", lambda: live.plans.names())


def record(live: Live, name: str) -> Record:
    """The last outcome of a plan; raises `NothingYet` where none was drawn."""
    return live.of_ledger(("plan", name), lambda: _record(live, name))


def _record(live: Live, name: str) -> Record:
    import json

    drawn, versions = live.plans.notes(name, OUTCOME), live.plans.versions(name)
    if not drawn or not versions:
        raise NothingYet(f"plan {name!r} was never drawn: {COMMAND} does")
    entry = drawn[-1]
    number = int(entry.details.get("version", versions[-1].number))
    text = next((v.text for v in versions if v.number == number), versions[-1].text)
    return Record(Plan.parse(json.loads(text)), number, entry.at, entry.details)


def money(found: Record) -> pl.DataFrame:
    """month (first day), low, mid, high, budget-free: the bands of all money."""
    return _bands(found.outcome["money"], ("month",))


def pipelines(found: Record) -> pl.DataFrame:
    """month, pipeline, low, mid, high."""
    return _bands(found.outcome["pipelines"], ("month", "pipeline"))


def stored(found: Record) -> pl.DataFrame:
    """month, tier, low, mid, high in GiB."""
    return _bands(found.outcome["stored_gib"], ("month", "tier"))


def delays(found: Record) -> pl.DataFrame:
    """class, low, mid, high: minutes of queue delay, 95th percentile."""
    return _bands(found.outcome["delay_p95_min"], ("class",))


def _bands(entries: Mapping[str, Any], keys: tuple[str, ...]) -> pl.DataFrame:
    rows = []
    for key, (low, mid, high) in entries.items():
        parts: list[Any] = key.split("/", len(keys) - 1)
        if keys[0] == "month":
            parts = [date.fromisoformat(f"{parts[0]}-01"), *parts[1:]]
        rows.append((*parts, low, mid, high))
    types = {k: pl.Date if k == "month" else pl.String for k in keys}
    bands = dict.fromkeys(("low", "mid", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**types, **bands}, orient="row").sort(keys)


def breaks(found: Record) -> pl.DataFrame:
    """month, what, share (percent of the futures): what runs short, earliest first."""
    rows = [(month, what, 100 * share) for month, what, share in found.outcome["breaks"]]
    schema: dict[str, Any] = {"month": pl.String, "what": pl.String, "share": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def assumptions(found: Record, today: date) -> pl.DataFrame:
    """Every assumption with its range, owner, source and when to ask again."""
    rows = [
        (name, a.low, a.mid, a.high, a.owner, a.source, a.revisit, a.revisit < today)
        for name, a in found.plan.assumptions.items()
    ]
    numbers = dict.fromkeys(("low", "mid", "high"), pl.Float64)
    schema: dict[str, Any] = {
        "assumption": pl.String,
        **numbers,
        "owner": pl.String,
        "source": pl.String,
        "revisit": pl.Date,
        "overdue": pl.Boolean,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def stress(live: Live, name: str) -> tuple[datetime, int, pl.DataFrame]:
    """When, over how many nights, and the figures of the last stress of a plan.

    Raises:
        NothingYet: it was never put under stress.
    """
    notes = live.of_ledger(("stress", name), lambda: live.plans.notes(name, STRESS))
    newest: dict[str, Any] = {}
    for note in notes:  # one stress may be run alone: each keeps its own newest figures
        newest |= {row["stress"]: (note, row) for row in note.details["rows"]}
    if not newest:
        raise NothingYet(f"plan {name!r} was never put under stress: `forecast capacity stress`")
    last = max((note for note, _ in newest.values()), key=lambda note: note.at)
    return last.at, int(last.details["nights"]), pl.DataFrame([row for _, row in newest.values()])


def against_actual(live: Live, found: Record) -> dict[str, Variance]:
    """Month -> planned and actual money with the parts of their difference."""
    from resources.capacity_records import variances

    def ask() -> dict[str, Variance]:
        return variances(live.settings, live.plans, found.plan, live.today, live.ledger)

    return live.of_ledger(("variance", found.plan.name, found.version), ask)


def parts(month: Variance) -> pl.DataFrame:
    """part, amount: planned, each part of the difference, actual."""
    rows = [("planned", month.planned), *month.parts.items(), ("actual", month.actual)]
    return pl.DataFrame(rows, schema={"part": pl.String, "amount": pl.Float64}, orient="row")


def budget(live: Live, environment: str) -> float | None:
    """The month's budget of a whole environment, by the policy in force."""
    for node in live.policy.budgets.values():
        whole = node.pipeline is None and node.work_class is None
        if whole and node.period == "month" and node.environment == environment:
            return node.limit / 1e9
    return None
