"""The estimator's own error on real runs: each estimated from those before it, then made.

Nights, backfills of many sizes and retrains of some groups are run one after the other on one
ledger; the replay asks, before each run, what it would cost. `recurring` runs are of a
configuration (asset, forecaster, group, size) that has run before.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

SCALE = {"FORECAST_DEMO_SERIES": "90", "FORECAST_DEMO_STORES": "3", "FORECAST_DEMO_DAYS": "300"}
NIGHTS, QUICK_NIGHTS = 18, 2
WARM_UP, QUICK_WARM_UP = 20, 8
LEVEL = 0.95


def run(quick: bool, seed: int = 0) -> dict[str, float | int | str]:
    """Make the runs, then replay them."""
    import polars as pl

    from benchmarks.ledger import ROOT, installation, timed
    from forecast_core.cost.estimate import error_of, observations, replay
    from resources.ledger import Ledger

    nights = QUICK_NIGHTS if quick else NIGHTS
    with tempfile.TemporaryDirectory(prefix="estimator") as folder:
        env = installation(Path(folder), SCALE)
        command = [sys.executable, "-m", "benchmarks._estimator_runs", str(nights), str(seed)]
        made = timed(command, env, ROOT)
        steps = Ledger(f"sqlite:///{folder}/data/dev/ledger.db").settlements()
    history = observations(steps)
    replayed = replay(history, warm_up=QUICK_WARM_UP if quick else WARM_UP, level=LEVEL)
    error = error_of(replayed, LEVEL)
    ratio = (pl.col("actual") / pl.col("expected")).log().abs()
    return {
        "runs_made": history["run_id"].n_unique(),
        "runs": error.runs,
        "recurring": error.recurring,
        "new": error.runs - error.recurring,
        "mape_recurring_pct": error.mape_recurring_pct,
        "mape_new_pct": error.mape_new_pct,
        "coverage_pct": error.coverage_pct,
        "coverage_level_pct": 100 * LEVEL,
        "coverage_binomial_p": error.coverage_p,
        "coverage_rejected_at_5_pct": int(error.coverage_p < 0.05),
        "median_error_pct": 100 * float(replayed.select(ratio.median()).item()),
        "bound_over_expected": float(
            replayed.select((pl.col("upper") / pl.col("expected")).median()).item()
        ),
        "money": float(replayed["actual"].sum()),
        "cpu_s": made.cpu_s,
        "wall_s": made.wall_s,
        "seed": seed,
    }
