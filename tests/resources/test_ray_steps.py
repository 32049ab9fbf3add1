"""Steps on Ray: the room that each is submitted with, refusals before Ray is asked, lost machines.

The cluster is played by a recorder here; `tests/test_scale_out.py` runs a real one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml

from forecast_core.admission.policy import Policy
from forecast_core.admission.step_room import GIB, Room
from resources import Settings, SettingsError

pytest.importorskip("dagster_ray", reason="the extra `ray` is not installed")

from resources import ray_steps
from resources.ray_steps import LOST_RETRIES, ClusterError, GovernedSteps, ray_executor
from resources.wiring import executor_of

LARGE = Room(64, 256, 8)
SETTINGS = Settings(executor="ray", ray_address="http://ray:8265")


@dataclass
class Recorder:
    """A cluster that takes every job and runs none."""

    submitted: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int | None = None

    def submit_job(self, **job: Any) -> None:
        self.submitted.append(job)
        raise RuntimeError("recorded")  # ends the run: nothing would come of it

    def stop_job(self, submission_id: str) -> None:
        raise RuntimeError("no such job")

    def get_job_status(self, submission_id: str) -> Any:
        from ray.job_submission import JobStatus

        return JobStatus.FAILED

    def get_job_info(self, submission_id: str) -> Any:
        return SimpleNamespace(driver_exit_code=self.exit_code, error_type=None, message="gone")


@dg.asset(metadata={"cost/pipeline": "training", "admission/gpu": 1})
def trained() -> None:
    """Never runs here."""


@dg.asset(metadata={"cost/pipeline": "ingest"}, op_tags={"dagster-ray/config": {"num_cpus": 99}})
def landed() -> None:
    """Never runs here."""


def _job(asset: dg.AssetsDefinition) -> dg.JobDefinition:
    found = dg.Definitions(
        assets=[asset], jobs=[dg.define_asset_job("job", [asset])], executor=ray_executor(SETTINGS)
    )
    return found.resolve_job_def("job")


def training_job() -> dg.JobDefinition:
    return _job(trained)


def ingest_job() -> dg.JobDefinition:
    return _job(landed)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture(scope="module")
def policy(project_root: Path) -> Policy:
    return Policy.parse(yaml.safe_load((project_root / "policies" / "admission.yaml").read_text()))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(ray_steps, "client_of", lambda address: recorder)
    return recorder


def _run(job: Any, instance: dg.DagsterInstance) -> str:
    """Execute a job; the words with which it ended."""
    with pytest.raises(Exception) as ended:
        dg.execute_job(dg.reconstructable(job), instance, raise_on_error=True)
    return str(ended.value)


def test_each_step_is_submitted_with_the_room_of_its_stage(
    cluster: Recorder,
    instance: dg.DagsterInstance,
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_steps, "machines_of", lambda address: (LARGE,))
    for job, stage, gpus in ((training_job, "training", 1), (ingest_job, "ingest", 0)):
        assert "recorded" in _run(job, instance)
        sent, room = cluster.submitted.pop(), policy.stages[stage].of_a_step
        assert sent["entrypoint_num_cpus"] == room.cpu, "the policy, not a tag of the step"
        assert sent["entrypoint_memory"] == room.memory_gib * GIB
        assert (sent["entrypoint_num_gpus"] or 0) == gpus
        told = sent["runtime_env"]["env_vars"]
        assert told["FORECAST_ENV"] == "dev" and told["FORECAST_DATA"] == SETTINGS.data_root
        assert not [n for n in told if "LEDGER" in n or n.startswith("AWS")], json.dumps(told)


def test_a_step_that_fits_no_machine_is_refused_before_ray_hears_of_it(
    cluster: Recorder, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_steps, "machines_of", lambda address: (Room(64, 256, 0), Room(1, 1, 1)))
    said = _run(training_job, instance)
    assert "step trained asks for 3 CPU, 4 GiB, 1 GPU" in said
    assert "64 CPU, 256 GiB; 1 CPU, 1 GiB, 1 GPU" in said and "admission policy" in said
    assert cluster.submitted == []


def test_each_stage_may_have_a_cluster_of_its_own(
    instance: dg.DagsterInstance, policy: Policy
) -> None:
    handler = GovernedSteps(policy, "http://ray.{stage}.svc:8265", {}, client=str)
    for job, address in ((training_job, "training"), (ingest_job, "ingest")):
        handler.client = None
        handler._turn_to(_context(job, instance))
        assert handler.client == f"http://ray.{address}.svc:8265"


@pytest.mark.parametrize(("exit_code", "marked"), [(None, str(LOST_RETRIES)), (70, None)])
def test_only_a_run_that_lost_a_machine_is_tried_again(
    instance: dg.DagsterInstance, policy: Policy, exit_code: int | None, marked: str | None
) -> None:
    recorder = Recorder(exit_code=exit_code)
    handler = GovernedSteps(policy, "http://ray", {}, client=lambda address: recorder)
    context = _context(ingest_job, instance)
    assert not handler.check_step_health(context).is_healthy
    run = instance.get_run_by_id(context.dagster_run.run_id)
    assert run is not None and run.tags.get("dagster/max_retries") == marked


def test_an_address_where_nobody_answers_is_named() -> None:
    with pytest.raises(ClusterError, match="FORECAST_RAY_ADDRESS"):
        ray_steps.client_of("")
    with pytest.raises(ClusterError, match=r"no Ray cluster answers at http://127\.0\.0\.1:9"):
        ray_steps.client_of("http://127.0.0.1:9")


def test_the_executor_is_chosen_by_a_setting() -> None:
    assert executor_of(Settings(), []).name == "multiprocess"
    assert executor_of(SETTINGS, []).name == "ray"
    chosen = Settings.from_environment({"FORECAST_EXECUTOR": "ray", "FORECAST_RAY_ADDRESS": "x"})
    assert (chosen.executor, chosen.ray_address) == ("ray", "x")
    with pytest.raises(SettingsError, match="FORECAST_EXECUTOR='spark' is unknown"):
        Settings.from_environment({"FORECAST_EXECUTOR": "spark"})


def _context(job: Any, instance: dg.DagsterInstance) -> Any:
    """As the executor hands it to its step handler, with the job's real step."""
    definition = job()
    run = instance.create_run_for_job(definition)
    (node,) = definition.nodes
    made = SimpleNamespace(asset_key=dg.AssetKey(node.name), asset_check_key=None)
    outputs = [SimpleNamespace(properties=made)]
    step = SimpleNamespace(
        step=SimpleNamespace(key=node.name, step_outputs=outputs),
        job=SimpleNamespace(get_definition=lambda: definition),
    )
    arguments = SimpleNamespace(
        step_keys_to_execute=[node.name], run_id=run.run_id, known_state=None
    )
    return SimpleNamespace(
        get_step_context=lambda key: step,
        execute_step_args=arguments,
        dagster_run=run,
        instance=instance,
    )
