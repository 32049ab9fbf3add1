"""A day on a small budget through a real Dagster daemon and webserver on loopback.

Belongs here: launching runs of every class as the UI does, and counting what happened from the
records of Dagster. Does not: the assets (`_admission_scenario_defs`), the servers.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks._dagster_servers import launch, servers, states

POLICY = Path(__file__).parents[1] / "policies" / "admission.yaml"
MODULE = "benchmarks._admission_scenario_defs"
ITEMS = 400
BOUND = 0.01
SHARES = {"prediction": 50, "watch": 30, "forecaster": 40, "history": 30, "experiment": 50}
DEADLINE_S = 2400


def _policy(scale: float) -> dict[str, Any]:
    """The shipped policy on a budget that cannot carry all: exploratory is short of money."""
    mapping: dict[str, Any] = yaml.safe_load(POLICY.read_text())
    mapping |= {"peaks": [], "throttles": [], "tick": "10s"}
    mapping["default_bound"] |= {"money": BOUND, "wall": "60s"}
    mapping["classes"]["exploratory"]["environments"] = {}
    mapping["serving_reserve"]["money_per_item"] = BOUND * 0.05 / ITEMS
    day = mapping["budgets"]["prod/day"]
    day |= {"limit": 0.8 * scale, "floors": {"serving": 0.25 * scale, "monitoring": 0.31 * scale}}
    mapping["budgets"]["prod/day/exploratory"] = {
        "parent": "prod/day", "environment": "prod", "class": "exploratory", "period": "day",
        "limit": 0.12 * scale,
    }  # fmt: skip
    return mapping


def _dagster_yaml(root: Path) -> dict[str, Any]:
    return {
        "telemetry": {"enabled": False},
        "run_monitoring": {"enabled": True, "poll_interval_seconds": 30,
                           "start_timeout_seconds": 600},
        "sensors": {"use_threads": True, "num_workers": 2},
        "run_coordinator": {
            "module": "resources.coordinator",
            "class": "AdmissionRunCoordinator",
            "config": {
                "max_concurrent_runs": 6,
                "dequeue_interval_seconds": 2,
                "store": f"sqlite:///{root / 'admission.db'}",
                "policy": str(root / "policy.yaml"),
                "environment": "prod",
            },
        },
    }  # fmt: skip


def _launch_all(port: int, runs: int, seed: int) -> dict[str, str]:
    """Launch the day's runs in a drawn order, the floor of every item first; run -> asset."""
    rng = random.Random(seed)
    total = sum(SHARES.values())
    order = [name for name, share in SHARES.items() for _ in range(round(share * runs / total))]
    rng.shuffle(order)
    launched: dict[str, str] = {}
    deadline = str(time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + DEADLINE_S)))
    for number, name in enumerate(["prediction", *order]):
        tags = {"scenario/number": str(number)}
        if name in ("prediction", "watch"):
            tags["admission/deadline"] = deadline
        if name == "prediction":
            low = 0 if number == 0 else rng.randrange(ITEMS - 40)
            tags["scenario/items"] = f"{low} {ITEMS if number == 0 else low + 40}"
            if number == 0:
                tags["admission/covers"] = str(ITEMS)
        launched[launch(port, MODULE, f"{name}_job", tags)] = name
    return launched


def _settled_down(port: int, launched: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """Wait until only what is held is left; gives the last states."""
    ends, quiet = time.monotonic() + limit_s, 0
    while True:
        found = states(port)
        busy = [
            run for run in found.values()
            if run["status"] in ("STARTING", "STARTED", "NOT_STARTED", "CANCELING")
            or (run["status"] == "QUEUED" and run["tags"].get("admission/hold") != "1")
            or (run["status"] == "QUEUED" and launched.get(run["runId"]) in ("prediction", "watch"))
        ]  # fmt: skip
        quiet = 0 if busy else quiet + 1
        if quiet >= 10 or time.monotonic() > ends:  # 50 s: longer than the sensors' tick
            return found
        time.sleep(5)


def run(quick: bool, seed: int = 11) -> dict[str, float | int | str]:
    """Launch the day (200 runs, or 24) and count what was done, held and spent."""
    wanted = 24 if quick else 200
    began = time.time()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("costs", "items", "starts", "data"):
            (root / folder).mkdir()
        (root / "policy.yaml").write_text(yaml.safe_dump(_policy(wanted / 200)))
        where = {"SCENARIO_ROOT": str(root), "FORECAST_DATA": str(root / "data")}
        with servers(root, _dagster_yaml(root), ["-m", MODULE], where) as port:
            launched = _launch_all(port, wanted, seed)
            promise = time.time() + DEADLINE_S
            found = _settled_down(port, launched, 3000)
        os.environ["SCENARIO_ROOT"] = str(root)
        from benchmarks._admission_scenario_defs import build_escrow
        from resources.escrow import replay

        escrow = build_escrow()
        ended = {run_id for run_id, state in found.items() if state["endTime"]}
        escrow.sweep(lambda run_id: "succeeded" if run_id in ended else "running")
        return _figures(root, launched, found, promise, escrow, replay(escrow.store)) | {
            "seconds": time.time() - began
        }


def _figures(
    root: Path,
    launched: Mapping[str, str],
    found: Mapping[str, Any],
    promise: float,
    escrow: Any,
    replayed: Any,
) -> dict[str, float | int | str]:
    def done_pct(name: str) -> float:
        ids = [run_id for run_id, asset in launched.items() if asset == name]
        good: list[bool] = [
            found[r]["status"] == "SUCCESS" and found[r]["endTime"] < promise for r in ids
        ]
        return 100.0 * sum(good) / len(ids)

    forecast: set[int] = set()
    for path in (root / "items").iterdir():
        low, high = map(int, path.read_text().split())
        forecast |= set(range(low, high))
    held = [
        found[r] for r in launched if found[r]["status"] == "QUEUED"
        and found[r]["tags"].get("admission/hold") == "1"
    ]  # fmt: skip
    day = escrow.balance()["prod/day"]
    short = escrow.balance()["prod/day/exploratory"]
    over = max((n["spent"] + n["held"] - n["limit"]) / n["limit"] for n in (day, short))
    kinds = Counter(launched[run_id] for run_id, state in found.items()
                    if run_id in launched and state["status"] == "SUCCESS")  # fmt: skip
    rungs = Counter(state["tags"].get("admission/rung", "") for state in found.values())
    return {
        "runs": len(launched),
        "serving_done_pct": done_pct("prediction"),
        "monitoring_done_pct": done_pct("watch"),
        "items_forecast_pct": 100 * len(forecast) / ITEMS,
        "overshoot_pct": max(0.0, 100 * float(over)),
        "training_done": kinds["forecaster"],
        "backfill_done": kinds["history"],
        "exploratory_done": kinds["experiment"],
        "degraded": rungs["statistical"] + rungs["floor"],
        "held": len(held),
        "held_with_reason": sum("admission/reason" in state["tags"] for state in held),
        "lost_runs": len(launched) - len(held)
        - sum(found[r]["status"] in ("SUCCESS", "FAILURE", "CANCELED") for r in launched),
        "failed": sum(found[r]["status"] == "FAILURE" for r in launched),
        "started_on_hold": sum(p.read_text() != "0" for p in (root / "starts").iterdir()),
        "day_limit": float(day["limit"]),
        "day_spent": float(day["spent"]),
        "passes": replayed.passes,
        "replayed_differently": len(replayed.differing),
    }  # fmt: skip
