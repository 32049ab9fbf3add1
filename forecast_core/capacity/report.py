"""A plan's outcome as a record people read (Markdown) and machines compare (plain values).

Belongs here: wording and rounding. Does not: figures (`outcomes`), files (`forecast_assets`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from forecast_core.capacity.outcomes import Band, Outcome
from forecast_core.capacity.plan import Plan


def plain(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON values; keys of pairs are joined by a slash."""

    def bands(found: Mapping[Any, Band]) -> dict[str, list[float]]:
        return {_key(key): [band.low, band.mid, band.high] for key, band in found.items()}

    return {
        "draws": outcome.draws,
        "months": list(outcome.months),
        "money": bands(outcome.money),
        "total": [outcome.total.low, outcome.total.mid, outcome.total.high],
        "pipelines": bands(outcome.pipelines),
        "work": bands(outcome.work),
        "tally": {_key(key): list(pair) for key, pair in outcome.tally.items()},
        "hours": bands(outcome.hours),
        "stored_gib": bands(outcome.stored_gib),
        "delay_p95_min": bands(outcome.delay_p95_min),
        "p_every_item": dict(outcome.p_every_item),
        "p_every_item_always": outcome.p_every_item_always,
        "p_over_budget": outcome.p_over_budget,
        "watched_min": outcome.watched_min,
        "kept": [outcome.kept.low, outcome.kept.mid, outcome.kept.high],
        "overshoot_max": outcome.overshoot_max,
        "runs": [outcome.runs.low, outcome.runs.mid, outcome.runs.high],
        "breaks": [list(entry) for entry in outcome.breaks],
        "rejected": dict(outcome.rejected),
        "notes": list(outcome.notes),
    }


def _key(key: Any) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def markdown(plan: Plan, version: int, outcome: Outcome, today: date) -> str:
    """The record of one version of a plan."""
    lines = [
        f"# Capacity plan {plan.name}, version {version}",
        "",
        f"{plan.first} to {plan.last}, environment {plan.environment}, owner {plan.owner};"
        f" drawn {outcome.draws} times on {today}; money in {plan.currency}."
        " Bands are the 10th, 50th and 90th percentile.",
        "",
        f"- money: {_band(outcome.total)}",
        f"- every item forecast by the deadline, every night:"
        f" {100 * outcome.p_every_item_always:.1f} % of the futures",
        f"- a budget runs short in {100 * outcome.p_over_budget:.1f} % of the futures;"
        f" worst overshoot {outcome.overshoot_max:.2f} %",
        f"- monitoring done in time: at least {outcome.watched_min:.2f} %",
        f"- forecast skill kept: {_band(outcome.kept)} %",
        "",
        *_months(outcome),
        *_pipelines(outcome),
        *_delays(outcome),
        *_breaks(outcome),
        *_assumptions(plan, today),
    ]
    if outcome.notes:
        lines += ["## Not measured", "", *(f"- {note}" for note in outcome.notes), ""]
    return "\n".join(lines)


def _band(band: Band) -> str:
    return f"{band.mid:,.2f} ({band.low:,.2f} to {band.high:,.2f})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = "|".join("---" for _ in heads)
    return [
        "| " + " | ".join(heads) + " |",
        f"|{rule}|",
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
    ]


def _months(outcome: Outcome) -> list[str]:
    zero = Band(0.0, 0.0, 0.0)
    rows = [
        [
            month,
            _band(outcome.money[month]),
            *(f"{outcome.hours.get((month, name), zero).mid:,.1f}"
              for name in ("cpu_h", "gib_h", "gpu_h")),
            *(f"{outcome.stored_gib.get((month, tier), zero).mid:,.2f}"
              for tier in ("hot", "warm", "cold")),
            f"{100 * outcome.p_every_item.get(month, 1.0):.1f}",
        ]
        for month in outcome.months
    ]  # fmt: skip
    heads = ("month", "money", "CPU h", "GiB h", "GPU h", "hot GiB", "warm GiB", "cold GiB",
             "every item, %")  # fmt: skip
    return ["## By month", "", *_table(heads, rows)]


def _pipelines(outcome: Outcome) -> list[str]:
    names = sorted({name for _, name in outcome.pipelines})
    rows = [
        [
            name,
            *(
                f"{outcome.pipelines[month, name].mid:,.3f}"
                if (month, name) in outcome.pipelines
                else "0"
                for month in outcome.months
            ),
        ]
        for name in names
    ]
    return ["## Money by pipeline and month (median)", "",
            *_table(("pipeline", *outcome.months), rows)]  # fmt: skip


def _delays(outcome: Outcome) -> list[str]:
    rows = [[name, _band(band)] for name, band in outcome.delay_p95_min.items()]
    return ["## Queue delay, 95th percentile, minutes", "", *_table(("class", "minutes"), rows)]


def _breaks(outcome: Outcome) -> list[str]:
    if not outcome.breaks and not outcome.rejected:
        return ["## What breaks", "", "Nothing: no quota or budget runs short in any draw.", ""]
    rows = [[month, name, f"{100 * share:.0f}"] for month, name, share in outcome.breaks]
    lines = ["## What breaks, earliest first", "",
             *_table(("first month", "what", "% of futures"), rows)]  # fmt: skip
    return lines + [f"- rejected: {reason}" for reason in outcome.rejected] + [""]


def _assumptions(plan: Plan, today: date) -> list[str]:
    rows = [
        [
            name, f"{a.low:g}", f"{a.mid:g}", f"{a.high:g}", a.owner,
            f"{a.revisit}{' **overdue**' if a.revisit < today else ''}", a.source,
        ]
        for name, a in plan.assumptions.items()
    ]  # fmt: skip
    heads = ("assumption", "low", "mid", "high", "owner", "revisit", "source")
    return ["## Assumptions", "", *_table(heads, rows)]
