"""The sensors of the queue look, settle and say what they did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from forecast_assets.sensors_admission import SENSORS, admission_queue
from forecast_core.admission import Load
from forecast_core.admission.policy import Policy
from forecast_core.admission.request import AssetFacts, RunFacts, request_of
from resources.admission_store import AdmissionStore, StoreError
from resources.escrow import Escrow

ROOT = Path(__file__).parents[2]


@dg.asset(metadata={"cost/pipeline": "training"})
def forecaster() -> None: ...


@pytest.fixture
def escrow(tmp_path: Path) -> Escrow:
    mapping = yaml.safe_load((ROOT / "policies" / "admission.yaml").read_text())
    policy = Policy.parse({**mapping, "peaks": [], "throttles": []})
    store = AdmissionStore(f"sqlite:///{tmp_path / 'admission.db'}", timeout_s=0.2)
    return Escrow(store, policy, "dev", load=Load)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(instance: dg.DagsterInstance, escrow: Escrow) -> str:
    repository = dg.Definitions(assets=[forecaster]).get_repository_def()
    context = dg.build_sensor_context(
        instance=instance, resources={"escrow": escrow}, repository_def=repository
    )
    skipped = admission_queue(context)
    assert isinstance(skipped, dg.SkipReason) and skipped.skip_message
    return skipped.skip_message


def test_a_tick_settles_what_ended_and_starts_what_waited(
    instance: dg.DagsterInstance, escrow: Escrow
) -> None:
    result = dg.materialize([forecaster], instance=instance)
    facts = RunFacts(result.run_id, "manual", (AssetFacts("a", "training"),), escrow.clock())
    escrow.submit(request_of(facts, escrow.policy))
    assert "1 settled" in tick(instance, escrow)
    assert "0 settled" in tick(instance, escrow)


def test_a_tick_without_the_store_fails_and_starts_nothing(
    instance: dg.DagsterInstance, escrow: Escrow
) -> None:
    facts = RunFacts("r1", "manual", (AssetFacts("a", "training"),), escrow.clock())
    blocker = AdmissionStore(escrow.store.url.render_as_string(False))
    with blocker.alone(), pytest.raises(StoreError):
        escrow.submit(request_of(facts, escrow.policy))
        tick(instance, escrow)
    assert escrow.store.find("r1") is None


def test_every_end_of_a_run_has_its_sensor() -> None:
    assert {sensor.name for sensor in SENSORS} == {
        "admission_queue",
        "admission_run_succeeded",
        "admission_run_failed",
        "admission_run_cancelled",
    }
    assert all(s.default_status == dg.DefaultSensorStatus.RUNNING for s in SENSORS)
    dg.Definitions(assets=[forecaster], sensors=SENSORS, resources={"escrow": object()})
