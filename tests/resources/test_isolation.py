"""A crash, a hang and a leak in one of training, inference and monitoring leave the others alone.

Through a real webserver, queue and daemon: every run and every step is a process of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks._dagster_servers import launch, servers, states
from forecast_core.admission.policy import Policy
from resources.admission_log import verdicts
from resources.admission_store import AdmissionStore
from resources.escrow import replay

HERE = Path(__file__).parent
STAGES = ("training", "inference", "monitoring")
FAULTS = ("crash", "hang", "leak")
LOCATION = "_isolation_defs.py"


def _policy() -> dict[str, Any]:
    """The shipped one, with lanes for three bad runs in each stage and steps of little memory."""
    mapping: dict[str, Any] = yaml.safe_load(
        (HERE.parents[1] / "policies" / "admission.yaml").read_text()
    )
    mapping |= {"peaks": [], "throttles": [], "tick": "10s"}
    mapping["host"] |= {"runs": 14, "cpu": 14}
    mapping["default_bound"] |= {"money": 0.01, "memory_gib": 0.5}
    for name in STAGES:
        mapping["stages"][name] |= {"runs": 4, "cpu": 4, "memory_gib": 4, "step": {
            "cpu": 1, "memory_gib": 0.8}}  # fmt: skip
    Policy.parse(mapping)
    return mapping


SETTINGS = {
    "telemetry": {"enabled": False},
    "sensors": {"use_threads": True, "num_workers": 2},
    "run_coordinator": {
        "module": "resources.coordinator",
        "class": "AdmissionRunCoordinator",
        "config": {"max_concurrent_runs": 14, "dequeue_interval_seconds": 1, "environment": "dev"},
    },
}


class Host:
    """A running webserver and daemon, and what they left on record."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.port = root, port
        self.store = AdmissionStore(f"sqlite:///{root / 'admission.db'}")

    def launch(self, stage: str, fault: str = "") -> str:
        tags = {"isolation/fault": fault} if fault else {}
        return launch(self.port, LOCATION, f"{stage}_work_job", tags)

    def until(self, what: str, holds: Callable[[dict[str, str]], bool]) -> dict[str, str]:
        ends = time.monotonic() + 240
        while time.monotonic() < ends:
            found = {run: state["status"] for run, state in states(self.port).items()}
            if holds(found):
                return found
            time.sleep(1)
        raise AssertionError(f"not in 240 s: {what}; {found}")

    def result(self, run: str) -> str:
        return (self.root / "results" / run).read_text()

    def said(self, run: str) -> list[str]:
        return [verdict.decision.action for verdict in verdicts(self.store, run, 0.0)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    root = tmp_path_factory.mktemp("isolation")
    (root / "results").mkdir()
    (root / "policy.yaml").write_text(yaml.safe_dump(_policy()))
    config = SETTINGS["run_coordinator"]["config"] | {  # type: ignore[index,operator]
        "store": f"sqlite:///{root / 'admission.db'}", "policy": str(root / "policy.yaml"),
    }  # fmt: skip
    coordinator = {**SETTINGS["run_coordinator"], "config": config}  # type: ignore[dict-item]
    variables = {"ISOLATION_ROOT": str(root), "FORECAST_DATA": str(root / "data")}
    (root / "hang").touch()
    try:
        with servers(
            root, {**SETTINGS, "run_coordinator": coordinator}, ["-f", str(HERE / LOCATION)],
            {**variables, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1])])},
        ) as port:  # fmt: skip
            yield Host(root, port)
    finally:
        (root / "hang").unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("victim", STAGES)
def test_what_goes_wrong_in_one_stage_leaves_the_others_alone(host: Host, victim: str) -> None:
    bad = {fault: host.launch(victim, fault) for fault in FAULTS}
    neighbours = {host.launch(stage): stage for stage in STAGES if stage != victim}

    def seen(found: dict[str, str]) -> bool:
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        others = [*neighbours, bad["crash"], bad["leak"]]
        return all(found[run] in ended for run in others) and found[bad["hang"]] == "STARTED"

    found = host.until("neighbours end while one hangs, one crashed and one leaked", seen)
    assert found[bad["crash"]] == found[bad["leak"]] == "FAILURE"
    for run, stage in neighbours.items():
        assert found[run] == "SUCCESS"
        assert host.said(run) == ["admit"], "started as it was asked for, and never held"
        assert host.result(run) == f"{stage} {sum(range(100_000))}"
    assert not (host.root / "results" / bad["leak"]).exists()
    (host.root / "hang").unlink()
    host.until("the hanging run ends", lambda now: now[bad["hang"]] == "SUCCESS")
    (host.root / "hang").touch()
    host.until(
        "all money is given back",
        lambda _: not {run for run, *_ in host.store.holders("dev")} & {*bad.values(), *neighbours},
    )
    assert not replay(host.store).differing
