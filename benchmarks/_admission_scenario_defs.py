"""The code location of `admission_scenario`: one small asset a class of work, the real sensors.

Belongs here: what the benchmark's daemon and webserver load. Does not: the measurement.
"""

import json
import os
import random
import time
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from forecast_assets.sensors_admission import SENSORS
from forecast_core.admission.policy import Policy
from resources.admission_store import AdmissionStore
from resources.escrow import Escrow
from resources.gate import HOLD, granted

ROOT = Path(os.environ["SCENARIO_ROOT"])
WORK = {  # asset -> (pipeline, ladder)
    "prediction": ("inference", ["gbm", "statistical", "floor"]),
    "watch": ("monitoring", ["asked"]),
    "forecaster": ("training", ["gbm", "floor"]),
    "history": ("storage", ["asked"]),
    "experiment": ("tuning", ["asked"]),
}


class FileSpending:
    """What each run cost, as it wrote it; stands for the ledger."""

    def of_run(self, run_id: str) -> Mapping[str, Decimal]:
        path = ROOT / "costs" / run_id
        if not path.exists():
            return {}
        return {name: Decimal(cost) for name, cost in json.loads(path.read_text()).items()}

    def recent(self, since: float) -> Mapping[Any, Any]:
        return {}


def build_escrow() -> Escrow:
    """The escrow over the benchmark's own store and policy."""
    policy = Policy.parse(yaml.safe_load((ROOT / "policy.yaml").read_text()))
    store = AdmissionStore(f"sqlite:///{ROOT / 'admission.db'}")
    return Escrow(store, policy, "prod", FileSpending())


def _asset(name: str, pipeline: str, rungs: list[str]) -> dg.AssetsDefinition:
    @dg.asset(name=name, metadata={"cost/pipeline": pipeline, "cost/rungs": rungs})
    def work(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        tags = context.run.tags
        rng = random.Random(context.run.run_id)
        held = Decimal(tags.get("admission/money", "0"))
        time.sleep(0.2)
        cost = held * Decimal(str(round(rng.uniform(0.3, 1.02), 3)))
        (ROOT / "costs" / context.run.run_id).write_text(json.dumps({pipeline: str(cost)}))
        if "scenario/items" in tags:
            (ROOT / "items" / context.run.run_id).write_text(tags["scenario/items"])
        (ROOT / "starts" / context.run.run_id).write_text(tags.get(HOLD, "none"))
        rung = granted(context.instance, context.run).rung or "none"
        return dg.MaterializeResult(metadata={"rung": rung})

    return work


ASSETS = [_asset(name, pipeline, rungs) for name, (pipeline, rungs) in WORK.items()]

defs = dg.Definitions(
    assets=ASSETS,
    jobs=[dg.define_asset_job(f"{name}_job", selection=[name]) for name in WORK],
    sensors=SENSORS,
    resources={"escrow": build_escrow()},
    executor=dg.in_process_executor,
)
