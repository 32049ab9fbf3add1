"""Small stresses lived for real on a Dagster instance, and what the twin said of them before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from benchmarks._real_ledgers import Ledger, lived
from benchmarks.twin_calibration import the_plan
from forecast_core.admission.policy import Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.fit import fit
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.stress import CALM, Extra, Stress
from forecast_core.capacity.twin import Twin

POLICIES = Path(__file__).parents[2] / "policies"
SERIES = 60
LAND, PRICES, FEATURES = "land and clean sales", "land prices", "build features"
TRAIN, UPGRADE = "train forecasters", "upgrade by segment"
NIGHTLY = {PRICES: 1, LAND: 1}  # as in production, a night lands its month again


def more(name: str, times: Mapping[str, int]) -> Stress:
    """Works that come so many more times in a night."""
    extra = (Extra("stress", work, float(n), 3 * 3600.0) for work, n in times.items())
    return Stress(name, "made for this test", extra=tuple(extra))


@dataclass(frozen=True)
class Case:
    """A stress as the twin is told it, and the same as it is lived: `again` beside NIGHTLY."""

    stress: Stress
    series: int = SERIES
    lived: Mapping[str, Any] = field(default_factory=dict)

    @property
    def again(self) -> dict[str, int]:
        """Title -> how often it is run each day beside the rhythm of a calm one."""
        found = dict(NIGHTLY)
        for extra in self.stress.extra:
            found[extra.work] = found.get(extra.work, 0) + round(extra.times)
        return found


SPIKE = Stress("assortment doubles", "made for this test", rows={
    pipeline: 2.0 for pipeline in ("ingest", "features", "inference", "monitoring")
})  # fmt: skip
CASES = (
    Case(SPIKE, series=2 * SERIES),
    Case(more("promotion", {PRICES: 1, FEATURES: 1, UPGRADE: 1})),
    Case(more("supply disruption", {PRICES: 2, LAND: 4}), lived={"restated": True}),
    Case(more("emergency retraining", {TRAIN: 2})),
    Case(more("reprocessing after upstream failure", {PRICES: 3, LAND: 3, FEATURES: 3})),
)


@cache
def calm() -> Ledger:
    """Six calm days, lived once for all cases."""
    return lived("demo", 6, series=SERIES, again=NIGHTLY)


def _measured(ledger: Ledger) -> pl.DataFrame:
    """Steps, not what a process does between them; of the cold first day the training alone."""
    later = pl.col("date") > min(ledger.stored)
    return ledger.steps.filter(
        pl.col("x_asset").is_not_null(), later | (pl.col("x_asset") == "forecasters")
    )


def _a_day(ledger: Ledger) -> float:
    """CPU-seconds of a day's work."""
    later = _measured(ledger).filter(pl.col("date") > min(ledger.stored))
    return float(later["cpu_s"].sum()) / (len(ledger.stored) - 1)


def _plan(ledger: Ledger) -> Plan:
    """The lived rhythm, and a training that nothing but a stress asks for."""
    plan = the_plan(ledger, max(ledger.stored), len(ledger.stored))
    train = {"stages": ["forecasters"], "pipeline": "training", "every": "retrain", "at": "20:00"}
    return plan.changed(work=json.loads(plan.text)["work"] | {TRAIN: train})


def foretold(stress: Stress) -> float:
    """CPU-seconds of such a day as the twin says from the calm ones; everyone is forecast in it."""
    plan = _plan(calm())
    policy = Policy.parse(yaml.safe_load((POLICIES / "admission.yaml").read_text()))
    rates = fit(_measured(calm()), calm().series)
    arrivals = Arrivals(plan, plan.mids(), rates, policy, 1, stress=stress)
    record = Twin(arrivals, 1, capped=False).run()
    assert record.share(record.covered) == 1.0
    return 3600 * sum(hours for (_, name), hours in record.used.items() if name == "cpu_h")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.stress.name for case in CASES])
def test_a_stress_lived_for_real_is_what_the_twin_foretold(case: Case) -> None:
    stressed = lived("demo", 3, series=case.series, again=case.again, **case.lived)
    assert stressed.series == pytest.approx(case.series / SERIES * calm().series, rel=0.1)
    before, said, found = foretold(CALM), foretold(case.stress), _a_day(stressed)
    print(
        f"{case.stress.name}: calm {_a_day(calm()):.2f} CPU-s a day (twin {before:.2f}),"
        f" stressed {found:.2f} (twin {said:.2f})"
    )
    assert said == pytest.approx(found, rel=0.25)
    assert said > 1.1 * before  # it is a stress at all
