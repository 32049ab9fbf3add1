"""kill -9 of steps and of run workers at random: every attempt is charged, and exactly once.

Attempts are counted from Dagster's event log alone (starts and restarts of steps), charges from the
ledger alone (closing settlements). Killed reconcilers and two of them at once are part of it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
KILLS, QUICK_KILLS = 100, 10
RECONCILE = """
import os, dagster as dg
from datetime import timedelta
from pathlib import Path
from resources.ledger import Ledger
from resources.ledger_reconcile import reconcile
from resources.price_card import load_price_card
with dg.DagsterInstance.get() as instance:
    card = load_price_card(Path(os.environ["CRASH_CARD"]))
    print("ready", flush=True)
    reconcile(instance, Ledger(os.environ["CRASH_LEDGER"]), card, "dev", grace=timedelta(0))
"""


def run(quick: bool, seed: int = 0) -> dict[str, float | int | str]:
    """Kill, reconcile, count."""
    kills = QUICK_KILLS if quick else KILLS
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="crash") as folder:
        env = _installation(Path(folder))
        # How long a run takes here and now, so that kills fall anywhere in it.
        lengths = {mode: _undisturbed(mode, env) for mode in ("in_process", "multiprocess")}
        done: Counter[str] = Counter()
        while done["worker"] + done["step"] < kills:  # one that came too late killed nothing
            done[_kill_one(rng, env, done.total(), lengths)] += 1
        killed_reconcilers = sum(_kill_reconciler(rng, env) for _ in range(max(kills // 20, 1)))
        for pair in range(2):  # two at once, and then once more
            both = [_start(["-c", RECONCILE], env) for _ in range(2 - pair)]
            for process in both:
                process.communicate()
        figures = _count(env)
    return {
        "kills": done["worker"] + done["step"],
        "killed_workers": done["worker"],
        "killed_steps": done["step"],
        "too_late": done["too late"],
        "killed_reconcilers": killed_reconcilers,
        **figures,
        "seed": seed,
    }


def _installation(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    card = ROOT / "policies" / "price_card.yaml"
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "PYTHONPATH": str(ROOT),
        "CRASH_LEDGER": f"sqlite:///{folder / 'ledger.db'}",
        "CRASH_CARD": str(card),
    }
    migrate = [str(Path(sys.executable).with_name("dagster")), "instance", "migrate"]
    subprocess.run(migrate, env=env, check=True, capture_output=True)
    return env


def _start(arguments: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=env,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _undisturbed(mode: str, env: dict[str, str]) -> float:
    worker = _start(["-m", "benchmarks._crash_jobs", mode], env)
    assert worker.stdout is not None
    worker.stdout.readline()
    began = time.monotonic()
    worker.communicate()
    return time.monotonic() - began


def _kill_one(
    rng: random.Random, env: dict[str, str], index: int, lengths: dict[str, float]
) -> str:
    """Start a run and kill a part of it at random: 'worker', 'step', or 'too late'."""
    mode = "in_process" if index % 2 else "multiprocess"
    worker = _start(["-m", "benchmarks._crash_jobs", mode], env)
    assert worker.stdout is not None
    worker.stdout.readline()
    target = "step" if mode == "multiprocess" and rng.random() < 0.7 else "worker"
    time.sleep(rng.uniform(0.0, lengths[mode]))
    killed = _kill_step(rng, worker) if target == "step" else _kill(worker.pid)
    if target == "worker":
        _kill_family(worker)
    worker.communicate()
    _report_dead(env)
    return target if killed else "too late"


def _kill(pid: int) -> bool:
    try:
        alive = psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False
    return alive


def _kill_step(rng: random.Random, worker: subprocess.Popen[bytes]) -> bool:
    """Kill one step process: a grandchild, below the fork server."""
    try:
        children = psutil.Process(worker.pid).children(recursive=True)
        steps = [child for child in children if child.ppid() != worker.pid]
    except psutil.NoSuchProcess:
        return False
    return bool(steps) and _kill(rng.choice(steps).pid)


def _kill_family(worker: subprocess.Popen[bytes]) -> None:
    """The machine is gone: what the worker left running ends too."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == worker.pid and process.pid != worker.pid:
                process.kill()
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue


def _report_dead(env: dict[str, str]) -> None:
    """What run monitoring does: a run whose worker is gone has failed."""
    import dagster as dg

    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        open_runs = instance.get_runs(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
        )
        for dead in open_runs:
            instance.report_run_failed(dead)


def _kill_reconciler(rng: random.Random, env: dict[str, str]) -> int:
    process = _start(["-c", RECONCILE], env)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(rng.uniform(0.0, 0.4))
    killed = _kill(process.pid)
    process.communicate()
    return int(killed)


def _count(env: dict[str, str]) -> dict[str, float | int | str]:
    import dagster as dg

    from resources.ledger import Ledger

    starts = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
    retry = dg.DagsterEventType.STEP_UP_FOR_RETRY
    attempts: Counter[tuple[Any, ...]] = Counter()
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        for found in instance.get_runs():
            retries: Counter[str] = Counter()
            wanted = {*starts, retry}
            for record in instance.get_records_for_run(found.run_id, of_type=wanted).records:
                event = record.event_log_entry.dagster_event
                if event is None or event.step_key is None:
                    continue
                if event.event_type is retry:
                    retries[event.step_key] += 1
                else:
                    attempts[found.run_id, event.step_key, retries[event.step_key] + 1] += 1
    ledger = Ledger(env["CRASH_LEDGER"])
    steps = ledger.settlements().filter(~_is_overhead())
    closing = steps.filter("x_final")
    charged = Counter(closing.select("x_run_id", "x_step_key", "x_attempt").rows())
    in_charges = ledger.charges()["x_charge_set"].unique()
    return {
        "attempts": len(attempts),
        "charges": sum(charged.values()),
        "duplicates": sum(count - 1 for count in charged.values()),
        "missing": len(attempts.keys() - charged.keys()),
        "invented": len(charged.keys() - attempts.keys()),
        "settlements_without_charges": len(set(steps["x_charge_set"]) - set(in_charges)),
        "estimated": closing.filter("x_estimated").height,
        "money_difference": float(
            ledger.totals()[()] - Decimal(ledger.settlements()["money"].sum())
        ),
    }


def _is_overhead() -> Any:
    import polars as pl

    return pl.col("x_cost_class") != "workload"
