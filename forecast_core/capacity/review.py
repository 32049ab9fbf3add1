"""Reviews: when one is due, and what it says: what was assumed, what happened, what changes.

Belongs here: due dates and the Markdown record with its sign-off fields. Does not: the figures
(`variance`), keeping or signing records (`resources.capacity_records`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from forecast_core.capacity.plan import Plan
from forecast_core.capacity.variance import PARTS, Variance

GRACE = timedelta(days=14)


@dataclass(frozen=True)
class Due:
    """A review that is due on a day, and why."""

    on: date
    why: str


def due(plan: Plan, today: date) -> list[Due]:
    """Every review that should have begun by `today`: each quarter, and after declared changes."""
    found = []
    on = plan.first + timedelta(days=plan.review_days)
    while on <= today and on <= plan.last + timedelta(days=plan.review_days):
        found.append(Due(on, f"every {plan.review_days} days"))
        on += timedelta(days=plan.review_days)
    found += [
        Due(change.on, f"business change: {change.what} (declared by {change.owner})")
        for change in plan.business_changes
        if change.on <= today
    ]
    return sorted(found, key=lambda review: (review.on, review.why))


def missing(plan: Plan, written: Sequence[date], today: date) -> list[Due]:
    """The reviews that are past their grace and that no record written since then answers."""
    late = [review for review in due(plan, today) if review.on + GRACE < today]
    open_ones = []
    for review in late:
        if not any(review.on <= day for day in written):
            open_ones.append(review)
    return open_ones


def markdown(
    plan: Plan,
    version: int,
    today: date,
    months: Mapping[str, Variance],
    answers: Sequence[Due],
) -> str:
    """The record of a review, its last section left to be signed."""
    lines = [
        f"# Review of capacity plan {plan.name}, version {version}",
        "",
        f"Held on {today}. Owner: {plan.owner}.",
        "",
        "## Why now",
        "",
        *([f"- {review.on}: {review.why}" for review in answers] or ["- asked for by hand"]),
        "",
        "## What was assumed",
        "",
        "| assumption | low | mid | high | owner | revisit | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, a in plan.assumptions.items():
        flag = " **overdue**" if a.revisit < today else ""
        lines.append(
            f"| {name} | {a.low:g} | {a.mid:g} | {a.high:g} | {a.owner} | {a.revisit}{flag} |"
            f" {a.source} |"
        )
    lines += ["", "## What happened", ""]
    if not months:
        lines.append("No month of the plan has charges yet.")
    for month, found in months.items():
        off = found.actual - found.planned
        share = f" ({100 * off / found.planned:+.1f} %)" if found.planned else ""
        lines.append(
            f"- {month}: planned {found.planned:.4f}, actual {found.actual:.4f}"
            f" {plan.currency}{share}: "
            + ", ".join(f"{part} {found.parts[part]:+.4f}" for part in PARTS)
        )
    lines += ["", "## What changes", "", *_proposals(plan, months, today), ""]
    lines += [
        "## Sign-off",
        "",
        "- decided:",
        "- signed by (role):",
        "- on:",
        "",
        "Sign with `forecast capacity review --sign ROLE --decision TEXT`.",
        "",
    ]
    return "\n".join(lines)


def _proposals(plan: Plan, months: Mapping[str, Variance], today: date) -> list[str]:
    """What the figures ask for; a person decides."""
    found = [f"- revisit {line}" for line in plan.overdue(today)]
    for part, remedy in (
        ("rate", "refit the rates; a rise of the unit cost is an incident to be looked into"),
        ("volume", "revisit series_growth, store_openings and backfills"),
        ("mix", "revisit the rhythm of work and the mix of segments"),
        ("policy", "look at what admission degraded, and whether the budget is meant so"),
        ("price", "enter the new price card, revisit price_change"),
    ):
        planned = sum(v.planned for v in months.values())
        off = sum(v.parts[part] for v in months.values())
        if planned and abs(off) > 0.05 * planned:
            found.append(f"- {part} moved the cost by {100 * off / planned:+.1f} %: {remedy}")
    return found or ["- nothing: the plan stands"]
