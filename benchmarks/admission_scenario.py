"""A day on a small budget through a real Dagster daemon and webserver on loopback.

Belongs here: starting both, launching runs of every class over GraphQL as the UI does, and counting
what happened from Dagster's own records. Does not: the assets (`_admission_scenario_defs`).
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

POLICY = Path(__file__).parents[1] / "policies" / "admission.yaml"
MODULE = "benchmarks._admission_scenario_defs"
ITEMS = 400
BOUND = 0.01
SHARES = {"prediction": 50, "watch": 30, "forecaster": 40, "history": 30, "experiment": 50}
DEADLINE_S = 2400
LAUNCH = """
mutation Launch($job: String!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "LOCATION", repositoryName: "__repository__", jobName: $job}
    runConfigData: {}
    executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
""".replace("LOCATION", MODULE)


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


@contextmanager
def _dagster(root: Path, port: int) -> Iterator[None]:
    """A webserver and a daemon on that home; both end with the block."""
    home = root / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(_dagster_yaml(root)))
    environment = os.environ | {
        "DAGSTER_HOME": str(home), "SCENARIO_ROOT": str(root), "DAGSTER_DISABLE_TELEMETRY": "yes",
        "FORECAST_DATA": str(root / "data"), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1",
    }  # fmt: skip
    bin_dir = Path(sys.executable).parent
    where = Path(__file__).parents[1]
    subprocess.run(
        [bin_dir / "dagster", "instance", "migrate"], env=environment, cwd=where, check=True,
        capture_output=True,
    )  # fmt: skip
    commands = (
        ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-m", MODULE],
        ["dagster-daemon", "run", "-m", MODULE],
    )
    started = []
    try:
        for command in commands:
            with open(root / f"{command[0]}.log", "w") as log:
                started.append(
                    subprocess.Popen(
                        [bin_dir / command[0], *command[1:]],
                        env=environment, cwd=where, stdout=log, stderr=log,
                    )
                )  # fmt: skip
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(port: int, query: str, variables: Mapping[str, Any] | None = None) -> Any:
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["data"]


def _wait_for_server(port: int) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        try:
            _ask(port, "{ version }")
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError("the webserver did not answer within 300 s")


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
        pairs = [{"key": key, "value": value} for key, value in tags.items()]
        done = _ask(port, LAUNCH, {"job": f"{name}_job", "tags": pairs})["launchRun"]
        if done["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(f"launching {name}: {done}")
        launched[done["run"]["runId"]] = name
    return launched


def _states(port: int) -> dict[str, dict[str, Any]]:
    query = """{ runsOrError(limit: 2000) { ... on Runs { results {
        runId status startTime endTime tags { key value } } } } }"""
    results = _ask(port, query)["runsOrError"]["results"]
    return {
        run["runId"]: run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
        for run in results
    }


def _settled_down(port: int, launched: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """Wait until only what is held is left; gives the last states."""
    ends, quiet = time.monotonic() + limit_s, 0
    while True:
        states = _states(port)
        busy = [
            run for run in states.values()
            if run["status"] in ("STARTING", "STARTED", "NOT_STARTED", "CANCELING")
            or (run["status"] == "QUEUED" and run["tags"].get("admission/hold") != "1")
            or (run["status"] == "QUEUED" and launched.get(run["runId"]) in ("prediction", "watch"))
        ]  # fmt: skip
        quiet = 0 if busy else quiet + 1
        if quiet >= 10 or time.monotonic() > ends:  # 50 s: longer than the sensors' tick
            return states
        time.sleep(5)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run(quick: bool, seed: int = 11) -> dict[str, float | int | str]:
    """Launch the day (200 runs, or 24) and count what was done, held and spent."""
    wanted = 24 if quick else 200
    began = time.time()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for folder in ("costs", "items", "starts", "data"):
            (root / folder).mkdir()
        (root / "policy.yaml").write_text(yaml.safe_dump(_policy(wanted / 200)))
        port = _free_port()
        with _dagster(root, port):
            _wait_for_server(port)
            launched = _launch_all(port, wanted, seed)
            promise = time.time() + DEADLINE_S
            states = _settled_down(port, launched, 3000)
        os.environ["SCENARIO_ROOT"] = str(root)
        from benchmarks._admission_scenario_defs import build_escrow
        from resources.escrow import replay

        escrow = build_escrow()
        ended = {run_id for run_id, state in states.items() if state["endTime"]}
        escrow.sweep(lambda run_id: "succeeded" if run_id in ended else "running")
        return _figures(root, launched, states, promise, escrow, replay(escrow.store)) | {
            "seconds": time.time() - began
        }


def _figures(
    root: Path,
    launched: Mapping[str, str],
    states: Mapping[str, Any],
    promise: float,
    escrow: Any,
    replayed: Any,
) -> dict[str, float | int | str]:
    def done_pct(name: str) -> float:
        ids = [run_id for run_id, asset in launched.items() if asset == name]
        good: list[bool] = [
            states[r]["status"] == "SUCCESS" and states[r]["endTime"] < promise for r in ids
        ]
        return 100.0 * sum(good) / len(ids)

    forecast: set[int] = set()
    for path in (root / "items").iterdir():
        low, high = map(int, path.read_text().split())
        forecast |= set(range(low, high))
    held = [
        states[r] for r in launched if states[r]["status"] == "QUEUED"
        and states[r]["tags"].get("admission/hold") == "1"
    ]  # fmt: skip
    day = escrow.balance()["prod/day"]
    short = escrow.balance()["prod/day/exploratory"]
    over = max((n["spent"] + n["held"] - n["limit"]) / n["limit"] for n in (day, short))
    kinds = Counter(launched[run_id] for run_id, state in states.items()
                    if run_id in launched and state["status"] == "SUCCESS")  # fmt: skip
    rungs = Counter(state["tags"].get("admission/rung", "") for state in states.values())
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
        - sum(states[r]["status"] in ("SUCCESS", "FAILURE", "CANCELED") for r in launched),
        "failed": sum(states[r]["status"] == "FAILURE" for r in launched),
        "started_on_hold": sum(p.read_text() != "0" for p in (root / "starts").iterdir()),
        "day_limit": float(day["limit"]),
        "day_spent": float(day["spent"]),
        "passes": replayed.passes,
        "replayed_differently": len(replayed.differing),
    }  # fmt: skip
