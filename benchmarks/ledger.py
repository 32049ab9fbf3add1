"""The ledger beside the operating system's own account of the same process tree.

`wait4` gives the CPU of the whole tree from outside; the ledger gives what was charged, workload
and overhead, each measured on its own. The residual is what nobody measured (the interpreter's
last moments); it is shown and never booked. Metering's own cost is measured twice: by the meter
itself, and as the median over pairs of runs with and without it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL = {
    "FORECAST_DEMO_SERIES": "60",
    "FORECAST_DEMO_STORES": "2",
    "FORECAST_DEMO_DAYS": "200",
}
PAIRS, QUICK_PAIRS = 40, 3


@dataclass(frozen=True)
class Outside:
    """What the operating system says of a finished process tree."""

    cpu_s: float
    wall_s: float


def run(quick: bool) -> dict[str, float | int | str]:
    """The demo (and M5, where M5_DIR names it) in the ledger and outside; overhead by pairs."""
    figures: dict[str, float | int | str] = {"scale": "60 series" if quick else "demo"}
    figures |= _compared(["demo"], SMALL if quick else {})
    m5_dir = os.environ.get("M5_DIR")
    if m5_dir and not quick:
        arguments = ["m5", "--m5-dir", m5_dir, "--cutoff", "2016-04-24", "--out", "m5.parquet"]
        figures |= {f"m5_{key}": value for key, value in _compared(arguments, {}).items()}
    return figures | (_overhead(QUICK_PAIRS, SMALL) if quick else _overhead(PAIRS, {}))


def _compared(arguments: list[str], scale: dict[str, str]) -> dict[str, float | int | str]:
    from forecast_core.cost.report import summary
    from resources.ledger import Ledger

    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        env = installation(Path(folder), scale)
        outside = timed([_program("forecast"), *arguments], env, Path(folder))
        ledger = Ledger(f"sqlite:///{folder}/data/dev/ledger.db")
        steps, total = ledger.settlements(), summary(ledger.charges())
        booked = {name: _cpu(steps, name) for name in ("workload", "overhead")}
        attempts = steps.filter("x_final").select("x_run_id", "x_step_key", "x_attempt")
        meter_cpu_s = float(steps["meter_cpu_s"].sum())
    in_ledger = sum(booked.values())
    residual = 100 * (outside.cpu_s - in_ledger) / outside.cpu_s
    return {
        "steps": attempts.drop_nulls().n_unique(),
        "os_cpu_s": outside.cpu_s,
        "ledger_cpu_s": in_ledger,
        "workload_cpu_s": booked["workload"],
        "overhead_cpu_s": booked["overhead"],
        "ledger_vs_os_pct": abs(residual),
        "residual_pct": residual,
        "unattributed_pct": total.unattributed_pct,
        "estimated_pct": total.estimated_pct,
        "sum_of_classes_minus_total": float(
            total.total - total.workload - total.idle - total.overhead
        ),
        "metering_self_pct": 100 * meter_cpu_s / outside.cpu_s,
        "wall_s": outside.wall_s,
    }


def _cpu(steps: object, cost_class: str) -> float:
    import polars as pl

    assert isinstance(steps, pl.DataFrame)
    return float(steps.filter(pl.col("x_cost_class") == cost_class)["cpu_s"].sum())


def _overhead(pairs: int, scale: dict[str, str]) -> dict[str, float | int | str]:
    """Metered rounds against unmetered ones of the same work in the same process, in pairs."""
    with tempfile.TemporaryDirectory(prefix="ledger") as folder:
        env = installation(Path(folder), scale)
        command = [sys.executable, "-m", "benchmarks._metered_run", str(pairs)]
        done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    taken = json.loads(done.stdout.splitlines()[-1])
    shares = sorted(100 * (pair["on"] / pair["off"] - 1) for pair in taken)
    low, confidence = median_interval(pairs)
    return {
        "pairs": pairs,
        "metering_overhead_pct": statistics.median(shares),
        "metering_overhead_low_pct": shares[low],
        "metering_overhead_high_pct": shares[-1 - low],
        "metering_overhead_confidence_pct": 100 * confidence,
        "unmetered_round_cpu_s": statistics.median(pair["off"] for pair in taken),
    }


def median_interval(count: int, wanted: float = 0.95) -> tuple[int, float]:
    """Which of `count` sorted draws bounds their median from below, the same from above being the
    other bound, and with what confidence: the narrowest that holds `wanted`, or the widest there
    is. Whatever the distribution: that fewer than k of n lie below the median is binomial."""
    below, chosen = 0.0, (0, 1 - 2 * 0.5**count)
    for rank in range(count // 2):
        below += math.comb(count, rank) * 0.5**count
        if 1 - 2 * below < wanted:
            break
        chosen = (rank, 1 - 2 * below)
    return chosen


def installation(folder: Path, scale: dict[str, str]) -> dict[str, str]:
    home = folder / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FORECAST_")}
    env = {
        **kept,
        **scale,
        "DAGSTER_HOME": str(home),
        "FORECAST_DATA": str(folder / "data"),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONPATH": str(ROOT),
    }
    command = [_program("dagster"), "instance", "migrate"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    return env


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def timed(command: list[str], env: dict[str, str], folder: Path) -> Outside:
    """Run a command and take the kernel's account of it and of all it waited for."""
    began = time.monotonic()
    log = folder / "run.log" if folder != ROOT else None
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        lines = log.read_text().splitlines() if log else []
        # Libraries that are torn down after a failure print pages about it.
        said = "\n".join([line for line in lines if "leaked" not in line][-30:])
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {said}")
    return Outside(used.ru_utime + used.ru_stime, time.monotonic() - began)
