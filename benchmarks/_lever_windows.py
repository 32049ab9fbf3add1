"""Levers measured on windows of M5, and what plans by them lost on the next one.

Belongs here: backtests of every lever by department and value class, the plans, and their loss on
the window that no plan has seen. Does not: the drawn options of thousands of groups (`levers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from benchmarks import _past
from forecast_core import levers
from forecast_core.evaluation import backtest, frontier
from forecast_core.evaluation.contest import Setup, contest
from forecast_core.levers import Option, Plan, Unreachable
from forecast_core.rungs.gbm import LEVELS, GbmSpec
from forecast_core.segments import SegmentPolicy

AS_OF, HORIZON = 1941, 28  # the plans are judged on d_1914 to d_1941
STORES = ("CA_1", "TX_2")
USD_PER_CPU_S = 0.000011244  # the price card in the repository
SAVINGS = (0.1, 0.2, 0.3, 0.4)
CHOOSE: dict[str, Callable[[list[Option], float], Plan | Unreachable]] = {
    "milp": levers.best,
    "greedy": levers.greedy,
    "uniform": levers.uniform,
}


@dataclass(frozen=True)
class Judged:
    """One way of choosing at one saving: what it promised, and what the hold-out says.

    Shares: savings of today's cost in the hold-out, losses of its value-weighted error.
    """

    chooser: str
    wanted: float
    saved: float
    lost: float
    levers: int


def backtests(quick: bool) -> pl.DataFrame:
    """`levers.BACKTEST_COLUMNS` over windows of M5, a group a department and value class."""
    as_of = _past.day(AS_OF)
    windows = backtest.origins(as_of, HORIZON, 3 if quick else 6)
    stores, items = (STORES[:1], 250) if quick else (STORES, 900)
    sales, calendar = _past.sales_of(stores, as_of, aligned=False, items=items)
    series = pl.concat(rows.select(LEVELS).unique() for rows in sales.values())
    past = _past.past_of(sales, calendar, windows)
    setup = Setup(
        GbmSpec(threads=1, per_origin=2, rounds=60 if quick else 120, learning_rate=0.1),
        features=("full", "reduced", "minimal"),
        refit=True,
        trial_series=30 if quick else 200,
    )
    policy = _policy(sorted(series["dept_id"].unique()))
    held = contest(past, series, windows, HORIZON, policy, time.process_time, setup)
    return frontier.lever_backtests(past, held, policy, USD_PER_CPU_S)


def judged(rows: pl.DataFrame) -> list[Judged]:
    """Every chooser at every saving, measured on all folds but the last and judged on that one."""
    last = rows["fold"].max()
    options = levers.measure(rows.filter(pl.col("fold") < last))
    held = rows.filter(fold=last)
    now = held.filter(level=0).with_columns(missed=pl.col("error") * pl.col("value"))
    cost, missed = float(now["cost"].sum()), float(now["missed"].sum())
    today = rows.filter(pl.col("fold") < last, level=0).group_by("group").agg(pl.mean("cost"))
    found = []
    for share in SAVINGS:
        for name, choose in CHOOSE.items():
            plan = choose(options, share * float(today["cost"].sum()))
            if isinstance(plan, Unreachable):
                continue
            saved, lost = _realised(plan, held)
            found.append(Judged(name, share, saved / cost, lost / missed, len(plan.taken)))
    return found


def _realised(plan: Plan, held: pl.DataFrame) -> tuple[float, float]:
    taken = pl.DataFrame(
        [(o.group, o.lever, o.level) for o in plan.taken],
        schema={"group": pl.String, "lever": pl.String, "level": pl.Int64},
        orient="row",
    )
    base = held.filter(level=0).select("group", "cost", "error")
    pulled = held.join(taken, on=["group", "lever", "level"]).join(base, on="group", suffix="_now")
    saved = pulled.select((pl.col("cost_now") - pl.col("cost")).sum()).item()
    worse = (pl.col("error") - pl.col("error_now")) * pl.col("value")
    return float(saved), float(pulled.select(worse.sum()).item())


def _policy(departments: list[str]) -> SegmentPolicy:
    """Every department and value class a group of its own, all on the gbm."""
    shipped = _past.policy().content.model_dump()
    groups = [
        {"name": f"{dept}_{abc}".lower(), "rung": "gbm", "when": {"dept_id": [dept], "abc": [abc]}}
        for dept in departments
        for abc in ("A", "B", "C")
    ]
    rest = {"name": "rest", "rung": "floor"}
    return SegmentPolicy.parse({**shipped, "groups": [*groups, rest]})
