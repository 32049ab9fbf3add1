"""A small stress lived for real on a Dagster instance, and what the twin said of it before."""

from pathlib import Path

import polars as pl
import pytest
import yaml

from benchmarks._real_ledgers import Ledger, lived
from benchmarks.twin_calibration import the_plan
from forecast_core.admission.policy import Policy
from forecast_core.capacity.arrivals import Arrivals
from forecast_core.capacity.fit import fit
from forecast_core.capacity.stress import Stress
from forecast_core.capacity.twin import Twin

POLICIES = Path(__file__).parents[2] / "policies"
SPIKE = Stress("assortment doubles", "made for this test", rows={
    pipeline: 2.0 for pipeline in ("features", "inference", "monitoring")
})  # fmt: skip


def _daily(ledger: Ledger) -> float:
    """CPU-seconds of a day's work: its steps, not what a process does between them."""
    own = _steps(ledger).filter(pl.col("date") > min(ledger.stored))
    return float(own["cpu_s"].sum()) / (len(ledger.stored) - 1)


def _steps(ledger: Ledger) -> pl.DataFrame:
    stages = [asset for assets in ledger.daily.values() for asset in assets]
    return ledger.steps.filter(pl.col("x_asset").is_in(stages))


@pytest.mark.slow
def test_a_spike_lived_for_real_is_what_the_twin_foretold() -> None:
    calm = lived("demo", 6, series=60)
    spike = lived("demo", 4, series=120)
    assert spike.series == pytest.approx(2 * calm.series, rel=0.1)
    plan = the_plan(calm, max(calm.stored), len(calm.stored))
    policy = Policy.parse(yaml.safe_load((POLICIES / "admission.yaml").read_text()))
    arrivals = Arrivals(plan, plan.mids(), fit(_steps(calm), calm.series), policy, 1, stress=SPIKE)
    record = Twin(arrivals, 1, capped=False).run()
    foretold = 3600 * sum(v for (_, name), v in record.used.items() if name == "cpu_h")
    assert record.share(record.covered) == 1.0
    assert foretold == pytest.approx(_daily(spike), rel=0.35)
    assert foretold > 1.1 * _daily(calm)
