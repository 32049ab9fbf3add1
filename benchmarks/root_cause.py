"""The cause named first, and among the first three, on planted causes over the asset graph.

Belongs here: scoring `forecast_core.incidents.root_cause`. Does not: drawing the cases
(`planted_causes`).
"""

from __future__ import annotations

from decimal import Decimal

import polars as pl

from forecast_core.incidents import planted_causes
from forecast_core.incidents.root_cause import explain


def run(quick: bool, seed: int = 10_000) -> dict[str, float | int | str]:
    """Shares of 1; `bridge_error` is the largest |sum of parts - change|, in money."""
    cases = 60 if quick else 600
    first = third = payer = 0
    error = Decimal(0)
    for i in range(cases):
        case = planted_causes.draw(seed + i)
        bridge = explain(case.before, case.after, planted_causes.UPSTREAM)
        ranked = [(c.asset, c.factor) for c in bridge.causes]
        truth = (case.asset, case.factor)
        first += ranked[0] == truth
        third += truth in ranked[:3]
        payer += _dearest(case) == case.asset
        error = max(error, abs(sum(bridge.parts.values(), Decimal(0)) - bridge.change))
    return {
        "seed": seed,
        "cases": cases,
        "top1": first / cases,
        "top3": third / cases,
        "payer_top1": payer / cases,  # blaming the asset whose own bill rose most
        "bridge_error": float(error),
    }


def _dearest(case: planted_causes.Case) -> str:
    """The asset whose own bill rose most: what a cost report by asset would name."""
    bills = [
        frame.group_by("asset").agg(pl.col("cost").sum()) for frame in (case.before, case.after)
    ]
    rise = pl.col("cost_right") - pl.col("cost")
    return str(bills[0].join(bills[1], on="asset").sort(rise, "asset")["asset"][-1])
