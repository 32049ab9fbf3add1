"""A simulated year of 1.1 million runs through the real `decide`, and how time grows with series.

Belongs here: the large installation and the clock. Does not: what the twin should answer (tests).
"""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import yaml

from forecast_core.admission.policy import Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.record import Record
from forecast_core.capacity.twin import Twin

POLICIES = Path(__file__).parents[1] / "policies"
STORES = 510
LANES = 25  # times the shipped policy's room


def large_policy(times: int = LANES) -> Policy:
    """The shipped policy with `times` the room and money: a cluster in place of a machine."""
    mapping = yaml.safe_load((POLICIES / "admission.yaml").read_text())
    for room in (mapping["host"], *mapping["stages"].values()):
        for key in ("runs", "cpu", "memory_gib"):
            room[key] *= times
    for budget in mapping["budgets"].values():
        budget["limit"] *= times
        budget["floors"] = {k: v * times for k, v in budget.get("floors", {}).items()}
    return Policy.parse(mapping)


def large_plan(series: int, stores: int) -> Plan:
    """The shipped plan of a chain with so many item-stores; five runs a store and day."""
    mapping: dict[str, Any] = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
    mapping["base"] |= {"series": series, "stores": stores}
    for assumption in mapping["assumptions"].values():
        assumption |= {"low": assumption["mid"], "high": assumption["mid"]}
    mapping["assumptions"]["store_openings"] |= {"low": 0, "mid": 0, "high": 0}
    for name in ("backtests", "experiments"):
        mapping["work"][name]["per"] = "all"
    return Plan.parse(mapping)


def year(series: int, stores: int, days: int, seed: int) -> tuple[Record, float, float]:
    """One draw of so many days: its record, wall and CPU-seconds."""
    plan = large_plan(series, stores)
    arrivals = Arrivals(plan, plan.mids(), Rates(), large_policy(), seed)
    wall, cpu = time.perf_counter(), time.process_time()
    record = Twin(arrivals, days, seed=seed).run()
    return record, time.perf_counter() - wall, time.process_time() - cpu


def run(quick: bool, seed: int = 1) -> dict[str, float | int | str]:
    """A year of 10^7 series in 1.1 million runs, then a month of 10^5 to 10^7 series alike."""
    days = 30 if quick else 365
    record, seconds, cpu = year(10_000_000, STORES, days, seed)
    figures: dict[str, float | int | str] = {
        "days": days,
        "series": 10_000_000,
        "runs": record.runs,
        "passes": record.passes,
        "seconds": seconds,
        "cpu_s": cpu,
        "us_per_run": 1e6 * cpu / record.runs,
        "items_forecast_pct": 100 * record.share(record.covered),
    }
    for size in (100_000, 1_000_000, 10_000_000):
        _, _, month = year(size, STORES, 7 if quick else 30, seed)
        figures[f"cpu_s_month_{size}"] = month
    _, _, less = year(10_000_000, STORES // 4, 7 if quick else 30, seed)
    figures["cpu_s_quarter_of_runs"] = less
    figures["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return figures
