"""Is the twin right? Its rolling forecasts of weeks it never saw, against real runs and charges.

Belongs here: the rolling refit, the forecast of each next week and the score of its bands. Does
not: the ledgers (`_real_ledgers`).

The runs and charges are the product's own, small cycles on the demo's data (and on M5's where
M5_DIR is set), one a simulated day; only their dates are simulated. Each week is forecast by the
twin from the days before it: the total, each stage's share and what is stored at its end.
"""

from __future__ import annotations

import math
import os
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks._real_ledgers import Ledger, live
from forecast_core.admission_policy import Policy
from forecast_core.capacity.fit import fit
from forecast_core.capacity.outcomes import Band, Job, draw
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.storage import growing
from forecast_core.price_card import PriceCard

POLICIES = Path(__file__).parents[1] / "policies"
WEEK = 7
WARM_UP = 14
WORK = {
    "classify": {"stages": ["demand_segments"], "pipeline": "features", "at": "01:00"},
    "features": {"stages": ["feature_sales"], "pipeline": "features", "at": "01:30"},
    "floor": {"stages": ["prediction_floor"], "pipeline": "inference", "rungs": ["floor"],
              "at": "02:30", "deadline": "06:00", "covers": True},
    "upgrade": {"stages": ["prediction_daily"], "pipeline": "inference", "rungs": ["governed"],
                "at": "03:00", "deadline": "06:00"},
    "publish": {"stages": ["prediction_reconciled", "eval_accuracy"], "pipeline": "monitoring",
                "at": "04:00", "deadline": "07:00", "watches": True},
}  # fmt: skip


def the_plan(ledger: Ledger, first: date, history_days: int) -> Plan:
    """The rhythm of `_real_ledgers` as a plan whose assumptions are known exactly."""
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    for name, assumption in mapping["assumptions"].items():
        value = assumption["mid"] if name.startswith(("mix", "retrain", "hot", "warm")) else 0.0
        assumption |= {"low": value, "mid": value, "high": value}
    mapping["base"] |= {"series": ledger.series, "stores": 1, "history_days": history_days}
    return Plan.parse(
        mapping | {"work": WORK, "levers": {}, "correlations": [], "first": first, "months": 1}
    )


def _rhythm(ledger: Ledger) -> pl.DataFrame:
    """The settlements of the daily work alone: training comes by itself, on known days."""
    stages = [stage for work in WORK.values() for stage in work["stages"]]
    runs = ledger.steps.filter(pl.col("x_asset").is_in(stages))["x_run_id"].unique().implode()
    return ledger.steps.filter(pl.col("x_run_id").is_in(runs))


def _actual(steps: pl.DataFrame, first: date) -> dict[str, float]:
    """Work -> money of the week from `first`; a run's overhead goes to its work."""
    week = steps.filter(pl.col("date").is_between(first, first + timedelta(days=WEEK - 1)))
    work_of = {stage: name for name, work in WORK.items() for stage in work["stages"]}
    by_run = {
        run: work_of[asset]
        for run, asset in week.select("x_run_id", "x_asset").iter_rows()
        if asset in work_of
    }
    found = dict.fromkeys(WORK, 0.0)
    for run, money in week.select("x_run_id", pl.col("money").cast(pl.Float64)).iter_rows():
        found[by_run[run]] += money
    return found


def weeks(ledger: Ledger, draws: int) -> list[dict[str, tuple[Band, float]]]:
    """Each week after the warm-up: what the twin said (band), and what it was."""
    steps = _rhythm(ledger)
    policy = Policy.parse(_ample())
    card = PriceCard.parse(yaml.safe_load((POLICIES / "price_card.yaml").read_text()))
    days = sorted(ledger.stored)
    found = []
    for start in range(WARM_UP, len(days) - WEEK + 1, WEEK):
        first = days[start]
        rates = fit(steps.filter(pl.col("date") < first), ledger.series)
        plan = the_plan(ledger, first, start)
        before, now = ledger.stored[days[start - WEEK - 1]], ledger.stored[days[start - 1]]
        stored = growing(before, now, WEEK * ledger.series)
        jobs = [
            Job(plan, policy, rates, card.on(first), stored, seed, WEEK, capped=False)
            for seed in range(draws)
        ]
        drawn = [draw(job) for job in jobs]
        actual = _actual(steps, first)
        said = {
            name: (Band.of(d.of_work(name) for d in drawn), money) for name, money in actual.items()
        }
        said["total"] = (
            Band.of(sum(d.of_work(w) for w in WORK) for d in drawn), sum(actual.values())
        )  # fmt: skip
        month = max(m for m, _ in drawn[0].stored_gib)
        size = sum(ledger.stored[days[start + WEEK - 1]].values()) / 2**30
        said["storage"] = (
            Band.of(sum(v for (m, _), v in d.stored_gib.items() if m == month) for d in drawn), size
        )  # fmt: skip
        found.append(said)
    return found


def _ample() -> dict[str, Any]:
    """The shipped policy with room and money enough, so that every run is at its own rung."""
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "admission.yaml").read_text())
    for room in (mapping["host"], *mapping["stages"].values()):
        room |= {"runs": 50, "cpu": 50, "memory_gib": 500}
    return mapping


def binomial_p(inside: int, of: int, share: float = 0.8) -> float:
    """Two-sided exact test: how unlikely so few or many bands that hold, were the share true."""
    chance = [math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(of + 1)]
    return min(1.0, sum(p for p in chance if p <= chance[inside] * (1 + 1e-9)))


def run(quick: bool, seed: int = 0) -> dict[str, float | int | str]:
    """12 weeks of a small demo, and 5 of M5 where M5_DIR names it (quick: 3 weeks of the demo)."""
    began, cpu = time.perf_counter(), time.process_time()
    ledgers = [live("demo", 22 if quick else 84, series=40 if quick else 120)]
    if not quick and os.environ.get("M5_DIR"):
        ledgers.append(live("m5", 35))
    draws = 40 if quick else 200
    periods = [said for ledger in ledgers for said in weeks(ledger, draws)]

    def errors(names: list[str]) -> list[float]:
        return [abs(said[n][0].mid - said[n][1]) / said[n][1] for said in periods for n in names]

    def bias(name: str) -> float:
        return sum(s[name][0].mid for s in periods) / sum(s[name][1] for s in periods) - 1

    bands = [said[name] for said in periods for name in (*WORK, "total")]
    inside = sum(band.low <= actual <= band.high for band, actual in bands)
    totals = [said["total"] for said in periods]
    held = sum(band.low <= actual <= band.high for band, actual in totals)
    return {
        "periods": len(periods),
        "runs": sum(ledger.steps["x_run_id"].n_unique() for ledger in ledgers),
        "sources": "+".join(ledger.source for ledger in ledgers),
        "cost_error_pct": 100 * abs(bias("total")),
        "cost_error_week_pct": 100 * sum(errors(["total"])) / len(periods),
        "stage_error_pct": 100 * sum(abs(bias(name)) for name in WORK) / len(WORK),
        "stage_error_worst_pct": 100 * max(abs(bias(name)) for name in WORK),
        "stage_error_week_pct": 100 * sum(errors(list(WORK))) / (len(WORK) * len(periods)),
        "storage_error_pct": 100 * sum(errors(["storage"])) / len(periods),
        "bands": len(bands),
        "band80_coverage_pct": 100 * inside / len(bands),
        "p_value": binomial_p(inside, len(bands)),
        "total_bands": len(totals),
        "total_coverage_pct": 100 * held / len(totals),
        "total_p_value": binomial_p(held, len(totals)),
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }
