"""The code location of `test_isolation`: a job a stage, whose step crashes, hangs or leaks when its
run is tagged so.

Belongs here: what the test's daemon and webserver load, with the project's own meter, gate and
sensors. Does not: what must come of it (the test).
"""

import os
import signal
import time
from pathlib import Path

import dagster as dg
import yaml

from forecast_assets.sensors_admission import SENSORS
from forecast_core.admission.policy import Policy
from resources.admission_store import AdmissionStore
from resources.escrow import Escrow
from resources.gate import Gate
from resources.ledger import open_ledger
from resources.meter import Meter, metered
from resources.spending import LedgerSpending

ROOT = Path(os.environ["ISOLATION_ROOT"])
LEDGER = f"sqlite:///{ROOT / 'ledger.db'}"
PRICES = Path(__file__).parents[2] / "policies" / "price_card.yaml"


def build_escrow() -> Escrow:
    """Over the test's own store, policy and ledger."""
    rules = Policy.parse(yaml.safe_load((ROOT / "policy.yaml").read_text()))
    store = AdmissionStore(f"sqlite:///{ROOT / 'admission.db'}")
    return Escrow(store, rules, "dev", LedgerSpending(open_ledger(LEDGER)))


def misbehave(fault: str | None) -> None:
    """Die without a word, stand still until the test has seen it, or take memory without end."""
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    while fault == "hang" and (ROOT / "hang").exists():
        time.sleep(0.2)
    held = []
    while fault == "leak":
        held.append(bytearray(os.urandom(1 << 20)) * 4)


def _asset(pipeline: str) -> dg.AssetsDefinition:
    @dg.asset(name=f"{pipeline}_work", metadata={"cost/pipeline": pipeline})
    @metered
    def work(context: dg.AssetExecutionContext) -> None:
        misbehave(context.run.tags.get("isolation/fault"))
        (ROOT / "results" / context.run.run_id).write_text(f"{pipeline} {sum(range(100_000))}")

    return work


meter = Meter(LEDGER, PRICES, "dev")
meter.gate = Gate(build_escrow)
ASSETS = [_asset(pipeline) for pipeline in ("training", "inference", "monitoring")]
defs = dg.Definitions(
    assets=ASSETS,
    jobs=[dg.define_asset_job(f"{asset.key.path[-1]}_job", selection=[asset]) for asset in ASSETS],
    sensors=SENSORS,
    resources={"meter": meter, "escrow": dg.ResourceDefinition(lambda _: build_escrow())},
    executor=dg.multiprocess_executor.configured({"max_concurrent": 1}),
)
