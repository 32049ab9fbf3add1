"""The platform's own work is overhead: found by name, charged once, run workers left out."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from resources import meter_platform
from resources.ledger import Ledger
from resources.meter_platform import charge_platform, platform_processes
from resources.price_card import load_price_card

# A parent named like `dagster dev` with a daemon, a code server and, below that, a run worker.
TREE = """
import subprocess, sys, time
code = "import time; x = sum(range(3_000_000)); print(1, flush=True); time.sleep(60)"
def child(name):
    return subprocess.Popen([sys.executable, "-c", code, *name.split()], stdout=subprocess.PIPE)
if len(sys.argv) > 1 and sys.argv[1] == "server":
    worker = child("run worker")
    worker.stdout.readline()
    print(1, flush=True)
    time.sleep(60)
daemon = child("dagster-daemon run")
server = subprocess.Popen(
    [sys.executable, __file__, "server", "api", "grpc"], stdout=subprocess.PIPE
)
daemon.stdout.readline(); server.stdout.readline()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    script = tmp_path / "tree.py"
    script.write_text(TREE)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    yield int(parent.stdout.readline())
    for process in [*psutil.Process(parent.pid).children(recursive=True), parent]:
        process.kill()
    parent.wait()


def test_kin_are_found_and_run_workers_are_not(server: int, monkeypatch) -> None:
    # The parent is a script here, so it is told by its file.
    monkeypatch.setattr(meter_platform, "ROLES", {**meter_platform.ROLES, "tree.py": "dagster dev"})
    found = {process.role: process for process in platform_processes(server)}
    assert set(found) == {"dagster dev", "daemon", "code server"}
    assert all(process.cpu_s > 0 and process.rss_gib > 0 for process in found.values())


def test_growth_is_charged_once_as_overhead(tmp_path: Path, project_root, monkeypatch) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    card = load_price_card(project_root / "policies" / "price_card.yaml")
    born = time.time() - 100
    now = {"cpu_s": 5.0}

    def processes() -> Iterator[meter_platform.PlatformProcess]:
        yield meter_platform.PlatformProcess("daemon", 7, born, now["cpu_s"], 0.5)

    monkeypatch.setattr(meter_platform, "platform_processes", processes)
    assert charge_platform(ledger, card, "dev") == 5.0
    assert charge_platform(ledger, card, "dev") == 0.0
    now["cpu_s"] = 7.5
    assert charge_platform(ledger, card, "dev") == 2.5
    steps = ledger.settlements()
    assert steps["cpu_s"].to_list() == [5.0, 2.5]
    assert set(steps["x_cost_class"]) == {"overhead"}
    assert set(steps["x_step_key"]) == {"daemon"}
    assert steps["ChargePeriodEnd"][0] == steps["ChargePeriodStart"][1]
    cpu = ledger.charges().filter(pl.col("SkuId") == "vcpu_s")
    assert float(cpu["PricingQuantity"].sum()) == 7.5


def test_whoever_comes_second_charges_nothing(tmp_path: Path, project_root, monkeypatch) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    card = load_price_card(project_root / "policies" / "price_card.yaml")
    process = meter_platform.PlatformProcess("daemon", 7, time.time() - 100, 5.0, 0.5)
    monkeypatch.setattr(meter_platform, "platform_processes", lambda: iter([process]))
    monkeypatch.setattr(Ledger, "cursor", lambda *_: None)  # both looked before either wrote
    assert charge_platform(ledger, card, "dev") == 5.0
    assert charge_platform(ledger, card, "dev") == 0.0
    assert ledger.settlements().height == 1
