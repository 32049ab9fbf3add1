"""The whole of M5 through the graph: load, train, forecast, score, backtest; what it took.

The commands that a user types run in processes of their own; the kernel counts their CPU and their
peaks. `cpu_s` is the cycle alone, `cpu_s_with_backtest` also three earlier windows of every series,
whose mean is what changes are accepted on: the 28 days of `wrmsse` are a check.
Without `--quick` it is all ten stores; with it, a cut of two stores made in a temporary folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import polars as pl

from benchmarks import _m5

CUTOFF = date(2016, 4, 24)  # d_1913: the 28 days after it are the check
QUICK_STORES = ["CA_1", "TX_2"]


def run(quick: bool) -> dict[str, float | int | str]:
    """WRMSSE of the published forecast and of earlier windows, CPU-seconds, peak memory."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        folder = (
            _m5.cut(root / "m5", pl.col("store_id").is_in(QUICK_STORES)) if quick else _m5.folder()
        )
        used = timed_command(["m5", "--m5-dir", str(folder), "--cutoff", CUTOFF.isoformat(),
                              "--out", str(root / "forecast.parquet")], root)  # fmt: skip
        found = {**_made(root), **used}
        source = {"FORECAST_SOURCE": "m5", "M5_DIR": str(folder)}
        tried = timed_command(["backtest", "--no-levers", "--series", str(found["series"]),
                               "--cutoff", CUTOFF.isoformat()], root, source)  # fmt: skip
        return {
            **found,
            **_backtested(root),
            "backtest_cpu_s": tried["cpu_s"],
            "cpu_s_with_backtest": used["cpu_s"] + tried["cpu_s"],
            "backtest_peak_gb": tried["peak_gb"],
        }


def timed_command(
    arguments: list[str], root: Path, settings: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Run `forecast ...` in an installation under `root`: CPU-seconds, peak GiB, wall seconds.

    `settings`: variables beside those of the installation.

    Raises:
        RuntimeError: it failed, with the end of what it said.
    """
    environment = {**installation(root), **(settings or {})}
    program = str(Path(sys.executable).with_name("forecast"))
    began = time.monotonic()
    with (root / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            [program, *arguments], stdout=output, stderr=output, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        said = output.read()
    if status:
        raise RuntimeError(f"forecast {' '.join(arguments)} failed: {said[-3000:]}")
    print(said)
    return {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss / 2**20,
        "wall_s": time.monotonic() - began,
    }


def installation(root: Path) -> dict[str, str]:
    """The environment of a Dagster home and a data root of their own under `root`."""
    home = root / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parent.parent
    (home / "dagster.yaml").write_text((here / "dagster.yaml").read_text())
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FORECAST_")}
    return {
        **kept,
        "DAGSTER_HOME": str(home),
        "FORECAST_DATA": str(root / "data"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONWARNINGS": "ignore",
    }


def _made(root: Path) -> Mapping[str, float | int | str]:
    from resources.lake import Lake
    from resources.ledger import open_ledger

    lake = Lake(root / "data" / "dev" / "m5" / "lake")
    scores = lake.table("eval_accuracy").read().frame.collect().filter(level="Average")
    by = dict(scores.select("forecaster", "wrmsse").iter_rows())
    cleaned = lake.table("cleaned_sales").read().frame
    units, rows = cleaned.select(pl.col("units").sum(), pl.len()).collect().row(0)
    ledger = open_ledger(f"sqlite:///{root / 'data' / 'dev' / 'ledger.db'}")
    return {
        "wrmsse": by["governed"],
        "wrmsse_floor": by["floor"],
        "wrmsse_seasonal_naive": by["seasonal_naive"],
        "series": pl.read_parquet(root / "forecast.parquet").height,
        "units": units,
        "rows": rows,
        "ledger_cpu_s": ledger.settlements()["cpu_s"].sum(),
        "usd": float(ledger.totals()[()]),
    }


def _backtested(root: Path) -> Mapping[str, float | int | str]:
    from resources.lake import Lake

    tried = Lake(root / "data" / "dev" / "m5" / "lake").table("eval_backtest")
    if not tried.exists():  # admission put it off, and said why
        return {"backtest_windows": 0}
    scores = tried.read().frame.filter(scope="level", name="Average").collect()
    by = scores.group_by("forecaster").agg(pl.col("wrmsse").mean(), pl.col("cutoff").n_unique())
    mean = {f"backtest_wrmsse_{name}": value for name, value, _ in by.sort("forecaster").rows()}
    return {**mean, "backtest_windows": by["cutoff"].max()}
