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
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from benchmarks._real_ledgers import Ledger, lived
from forecast_core.admission.policy import PIPELINES, Policy
from forecast_core.capacity.fit import fit
from forecast_core.capacity.outcomes import Band, Job, draw
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.storage import growing
from forecast_core.cost.price_card import PriceCard
from forecast_core.rungs.origin_features import STRIDE_DAYS

POLICIES = Path(__file__).parents[1] / "policies"
WEEK = 7
WARM_UP = 14


def the_work(ledger: Ledger) -> dict[str, dict[str, Any]]:
    """What each day ran, as the plan writes it: one work a run, with the pipeline that paid."""
    work: dict[str, dict[str, Any]] = {}
    for number, (title, assets) in enumerate(ledger.daily.items()):
        own = ledger.steps.filter(pl.col("x_asset").is_in(assets))
        paid = own.group_by("x_pipeline").agg(pl.col("money").sum()).sort("money")
        rungs = own["x_forecaster"].drop_nulls().unique().to_list()
        pipeline = paid["x_pipeline"][-1] if paid.height else "monitoring"
        work[title] = {
            "stages": list(own["x_asset"].unique().sort()) or list(assets),
            "pipeline": pipeline if pipeline in PIPELINES else "monitoring",
            "rungs": [rungs[0] if len(rungs) == 1 else "asked"],
            "at": f"{1 + number:02d}:00",
            "covers": "prediction_floor" in assets,
        }
        if work[title]["pipeline"] == "monitoring":
            work[title] |= {"watches": True, "deadline": "23:59"}
        if "feature_sales" in assets:  # the origin days of the month so far, and the cutoff itself
            kept = 1 / STRIDE_DAYS
            work[title]["rows"] = {"feature_sales": {"each": 1 - kept, "by_day": kept}}
    return work


def the_plan(ledger: Ledger, first: date, history_days: int) -> Plan:
    """The rhythm of `_real_ledgers` as a plan whose assumptions are known exactly."""
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    for name, assumption in mapping["assumptions"].items():
        value = assumption["mid"] if name.startswith(("mix", "retrain", "hot", "warm")) else 0.0
        assumption |= {"low": value, "mid": value, "high": value}
    mapping["base"] |= {"series": ledger.series, "stores": 1, "history_days": history_days}
    changed = {"work": the_work(ledger), "levers": {}, "correlations": []}
    return Plan.parse(mapping | changed | {"first": first, "months": 1})


def _rhythm(ledger: Ledger) -> pl.DataFrame:
    """The settlements of the daily work alone, from the second day on: the first is a cold start
    beside landing and training, which a plan counts by themselves."""
    runs = [run for run, title in ledger.runs.items() if title in ledger.daily]
    later = pl.col("date") > min(ledger.stored)
    return ledger.steps.filter(pl.col("x_run_id").is_in(runs) & later)


def _actual(ledger: Ledger, steps: pl.DataFrame, first: date) -> dict[str, float]:
    """Work -> money of the week from `first`; a run's overhead goes to its work."""
    week = steps.filter(pl.col("date").is_between(first, first + timedelta(days=WEEK - 1)))
    found = dict.fromkeys(ledger.daily, 0.0)
    for run, money in week.select("x_run_id", pl.col("money").cast(pl.Float64)).iter_rows():
        found[ledger.runs[run]] += money
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
        actual = _actual(ledger, steps, first)
        said = {
            name: (Band.of(d.of_work(name) for d in drawn), money) for name, money in actual.items()
        }
        said["total"] = (
            Band.of(sum(d.of_work(w) for w in ledger.daily) for d in drawn), sum(actual.values())
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
    for room, times in ((mapping["host"], 4), *((s, 1) for s in mapping["stages"].values())):
        room |= {"runs": 50 * times, "cpu": 50 * times, "memory_gib": 500 * times}
    return mapping


def binomial_p(inside: int, of: int, share: float = 0.8) -> float:
    """Two-sided exact test: how unlikely so few or many bands that hold, were the share true."""
    chance = [math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(of + 1)]
    return min(1.0, sum(p for p in chance if p <= chance[inside] * (1 + 1e-9)))


def _off(pairs: Sequence[tuple[Band, float]]) -> float:
    """By what share the sum of what was said is above (or below) the sum of what was."""
    return sum(band.mid for band, _ in pairs) / sum(actual for _, actual in pairs) - 1


def _each(pairs: Sequence[tuple[Band, float]]) -> float:
    """By what share one period's figure is missed, on average."""
    return sum(abs(band.mid / actual - 1) for band, actual in pairs) / len(pairs)


def run(quick: bool, seed: int = 0) -> dict[str, float | int | str]:
    """Nine weeks of a small demo, four of a cut of M5 where M5_DIR names it (quick: three of the
    demo). `stage_error_pct_STAGE` is above 0 where the twin said too much."""
    began, cpu = time.perf_counter(), time.process_time()
    ledgers = [lived("demo", 21 if quick else 63, series=40 if quick else 120)]
    if not quick and os.environ.get("M5_DIR"):
        ledgers.append(lived("m5", 28))
    draws = 40 if quick else 200
    periods = [said for ledger in ledgers for said in weeks(ledger, draws)]

    stages = [
        (band, actual)
        for said in periods
        for name, (band, actual) in said.items()
        if name not in ("total", "storage")
    ]
    totals = [said["total"] for said in periods]
    stored = [said["storage"] for said in periods]
    names = sorted({name for said in periods for name in said} - {"total", "storage"})
    by_stage = {name: _off([said[name] for said in periods if name in said]) for name in names}
    bands = [*stages, *totals]
    inside = sum(band.low <= actual <= band.high for band, actual in bands)
    held = sum(band.low <= actual <= band.high for band, actual in totals)
    return {
        "periods": len(periods),
        "runs": sum(ledger.steps["x_run_id"].n_unique() for ledger in ledgers),
        "sources": "+".join(ledger.source for ledger in ledgers),
        "cost_error_pct": 100 * abs(_off(totals)),
        "cost_error_week_pct": 100 * _each(totals),
        "stage_error_pct": 100 * sum(map(abs, by_stage.values())) / len(by_stage),
        "stage_error_worst_pct": 100 * max(map(abs, by_stage.values())),
        **{
            f"stage_error_pct_{name.replace(' ', '_')}": 100 * error
            for name, error in by_stage.items()
        },
        "stage_error_week_pct": 100 * _each(stages),
        "storage_error_pct": 100 * _each(stored),
        "bands": len(bands),
        "band80_coverage_pct": 100 * inside / len(bands),
        "p_value": binomial_p(inside, len(bands)),
        "total_bands": len(totals),
        "total_coverage_pct": 100 * held / len(totals),
        "total_p_value": binomial_p(held, len(totals)),
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }
