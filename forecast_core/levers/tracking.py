"""What a lever in force really saved and cost, from the books: realised beside predicted.

Belongs here: comparing the days after a decision was applied with as many before. Does not: the
decision's states or trust (`decisions`), or reading the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from forecast_core.levers.decisions import Decision

PERIOD_DAYS = 28


@dataclass(frozen=True)
class Tracked:
    """One decision: predicted and, once a whole period has passed, realised; else `pending`.

    Money of `PERIOD_DAYS`; loss in the currency of the value, null where no accuracy was known on
    both sides.
    """

    decision_id: str
    saving_expected: float
    loss_expected: float
    saving: float | None = None
    loss: float | None = None
    pending: str | None = None


def tracked(
    decisions: Iterable[Decision],
    costs: pl.DataFrame,
    errors: pl.DataFrame,
    value: Mapping[str, float],
    today: date,
) -> list[Tracked]:
    """Every decision that is in force and not reviewed yet.

    Args:
        costs: `group, day, cost` (money) from the ledger, days as the ledger counts them.
        errors: `group, day, error`, on the same days.
        value: group -> what an error of 1 costs in a period.
    """
    return [_one(d, costs, errors, value, today) for d in decisions if d.state == "applied"]


def _one(
    decision: Decision,
    costs: pl.DataFrame,
    errors: pl.DataFrame,
    value: Mapping[str, float],
    today: date,
) -> Tracked:
    applied = next(e.at.date() for e in reversed(decision.history) if e.action == "applied")
    groups = sorted({str(option["group"]) for option in decision.options})
    expected = (decision.decision_id, decision.saving_expected, decision.loss_expected)
    due = applied + timedelta(days=PERIOD_DAYS)
    if today < due:
        return Tracked(*expected, pending=f"a period has passed on {due}")
    before, after = (
        _within(costs, groups, first) for first in (applied - timedelta(days=PERIOD_DAYS), applied)
    )
    if before.is_empty():
        return Tracked(*expected, pending="the ledger knows no cost from before it was applied")
    saving = float(before["cost"].sum()) - float(after["cost"].sum())
    return Tracked(*expected, saving=saving, loss=_loss(errors, groups, value, applied))


def _within(frame: pl.DataFrame, groups: list[str], first: date) -> pl.DataFrame:
    last = first + timedelta(days=PERIOD_DAYS - 1)
    return frame.filter(pl.col("group").is_in(groups), pl.col("day").is_between(first, last))


def _loss(
    errors: pl.DataFrame, groups: list[str], value: Mapping[str, float], applied: date
) -> float | None:
    total, known = 0.0, False
    for group in groups:
        before, after = (
            _within(errors, [group], first)["error"].mean()
            for first in (applied - timedelta(days=PERIOD_DAYS), applied)
        )
        if isinstance(before, float) and isinstance(after, float):
            total, known = total + (after - before) * value.get(group, 0.0), True
    return total if known else None


def review_of(one: Tracked) -> dict[str, Any] | None:
    """The details of a `reviewed` event; None while a figure is missing."""
    if one.saving is None or one.loss is None:
        return None
    return {"by": "platform", "saving_realised": one.saving, "loss_realised": one.loss}
