"""What `deploy/` holds is what the real libraries take: Dagster, Postgres, Kubernetes' schemas."""

import json
import re
import warnings
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from typer.testing import CliRunner

from forecast_core.admission.kubernetes_stages import HEAD, RAYLET_GIB, manifests, workers
from forecast_core.admission.policy import Policy
from resources.coordinator import AdmissionRunCoordinator

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
K8S = "1.33"
IMAGE = "registry.example/forecast:1"
SECRET = re.compile(r"(password|secret|token|key)\w*\s*[:=]\s*[\"']?\w{6,}", re.IGNORECASE)


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.parse(_yaml(ROOT / "policies" / "admission.yaml"))


@pytest.fixture(scope="module")
def stages(policy: Policy) -> list[dict[str, Any]]:
    return list(manifests(policy, IMAGE))


def test_dagster_starts_on_it_with_postgres_the_coordinator_and_ray(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dagster_postgres", reason="the extra `postgres` is not installed")
    launchers = pytest.importorskip("dagster_ray", reason="the extra `ray` is not installed")
    from benchmarks._postgres_server import new_database

    url = new_database(postgres_server, "deployed").replace("+psycopg:", "+psycopg2:")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url)
    monkeypatch.setenv("FORECAST_RAY_ADDRESS", "http://ray:8265")
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        coordinator, launcher = instance.run_coordinator, instance.run_launcher
        assert isinstance(coordinator, AdmissionRunCoordinator)
        limits = coordinator.get_run_queue_config().tag_concurrency_limits
        assert limits[0] == {"key": "admission/hold", "value": "1", "limit": 0}
        assert isinstance(launcher, launchers.RayRunLauncher)
        assert launcher.address == "http://ray:8265"
        nothing = dg.GraphDefinition("nothing").to_job()
        run = instance.create_run_for_job(nothing)
        instance.report_engine_event("written over the wire", run)  # fails on another driver
        assert any("over the wire" in e.message for e in instance.all_logs(run.run_id))
        assert "Postgres" in type(instance.event_log_storage).__name__


def test_only_storage_and_launcher_differ_from_one_machine() -> None:
    one, many = _yaml(ROOT / "dagster.yaml"), _yaml(DEPLOY / "dagster.yaml")
    stored = one.pop("event_log_storage")
    assert stored["class"] == "KeptSqliteEventLogStorage"  # of SQLite; Postgres has its own
    assert many.keys() - one.keys() == {"storage", "run_launcher"}
    assert {key: many[key] for key in one} == one


def test_the_charts_coordinator_and_launcher_are_valid_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the chart's templates write them into its dagster.yaml."""
    launchers = pytest.importorskip("dagster_k8s", reason="the extra `k8s` is not installed")
    values = _yaml(DEPLOY / "kubernetes" / "values.yaml")
    asked = values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    kube = tmp_path / "kube"
    kube.write_text(json.dumps(NOWHERE))
    config = {
        "run_coordinator": asked,
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "dagster_home": "/opt/dagster/dagster_home",
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "service_account_name": "dagster",
                "load_incluster_config": False,
                "kubeconfig_file": str(kube),
                "env_config_maps": [one["name"] for one in launcher["envConfigMaps"]],
                "env_secrets": [one["name"] for one in launcher["envSecrets"]],
                "resources": launcher["resources"],
            },
        },
    }
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_coordinator, AdmissionRunCoordinator)
        assert isinstance(instance.run_launcher, launchers.K8sRunLauncher)
    plain = _yaml(ROOT / "dagster.yaml")
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert asked["config"] == plain["run_coordinator"]["config"]
    daemon = values["dagsterDaemon"]
    assert daemon["runRetries"]["maxRetries"] == plain["run_retries"]["max_retries"]
    monitoring = daemon["runMonitoring"]
    assert monitoring["maxRuntimeSeconds"] == plain["run_monitoring"]["max_runtime_seconds"]


def test_manifests_pass_the_schemas_of_kubernetes(stages: list[dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemas = pytest.importorskip("kubernetes_validate", reason="install kubernetes-validate")
    core = [one for one in stages if not one["apiVersion"].startswith("ray.io")]
    for manifest in [*core, _yaml(DEPLOY / "kubernetes" / "settings.yaml")]:
        schemas.validate(manifest, K8S, strict=True)
    for pod in _pods(stages):
        whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, **pod}
        schemas.validate(whole, K8S, strict=True)
    with pytest.raises(schemas.ValidationError):  # the schemas do look
        broken = {**core[1], "spec": {"hard": ["2"]}}
        schemas.validate(broken, K8S, strict=True)


def test_ray_clusters_pass_the_model_of_dagster_ray(stages: list[dict[str, Any]]) -> None:
    kuberay = pytest.importorskip("dagster_ray.kuberay.configs", reason="no extras `ray`, `k8s`")
    clusters = [one for one in stages if one["kind"] == "RayCluster"]
    for cluster in clusters:
        spec = kuberay.RayClusterSpec.model_validate(_snake(cluster["spec"]))
        assert spec.worker_group_specs == cluster["spec"]["workerGroupSpecs"]


def test_each_stage_has_its_wall_and_its_pods_fit_within(
    policy: Policy, stages: list[dict[str, Any]]
) -> None:
    quotas = {o["metadata"]["namespace"]: o["spec"]["hard"] for o in stages
              if o["kind"] == "ResourceQuota"}  # fmt: skip
    assert set(quotas) == {f"forecast-{name}" for name in policy.stages}
    for name, stage in policy.stages.items():
        hard, step, count = quotas[f"forecast-{name}"], stage.of_a_step, workers(stage)
        assert hard["limits.cpu"] == f"{int(1000 * (step.cpu * count + HEAD.cpu))}m"
        gib = (step.memory_gib + RAYLET_GIB) * count + HEAD.memory_gib
        assert hard["limits.memory"] == f"{int(1024 * gib)}Mi"
        assert hard["requests.nvidia.com/gpu"] == str(stage.gpu)
        (cluster,) = (o for o in stages if o["kind"] == "RayCluster"
                      and o["metadata"]["namespace"] == f"forecast-{name}")  # fmt: skip
        groups = cluster["spec"]["workerGroupSpecs"]
        assert sum(group["replicas"] for group in groups) == count == int(hard["pods"]) - 1
        assert sum(g["replicas"] * int(g["rayStartParams"]["num-gpus"]) for g in groups) == min(
            stage.gpu, count
        )
        for group in groups:  # a step of full size fits each worker
            start = group["rayStartParams"]
            assert float(start["num-cpus"]) >= step.cpu
            assert int(start["memory"]) >= step.memory_gib * 1024**3


def test_a_stage_that_is_cut_into_steps_gets_a_worker_for_each() -> None:
    text = _yaml(ROOT / "policies" / "admission.yaml")
    text["stages"]["training"]["step"] = {"cpu": 2, "memory_gib": 4}
    cut = Policy.parse(text)
    assert workers(cut.stages["training"]) == 2
    training = [one for one in manifests(cut, IMAGE)
                if one["metadata"].get("namespace") == "forecast-training"]  # fmt: skip
    groups = training[-1]["spec"]["workerGroupSpecs"]
    assert [(group["groupName"], group["replicas"]) for group in groups] == [
        ("gpu", 1),
        ("plain", 1),
    ]


def test_the_command_prints_the_manifests(stages: list[dict[str, Any]]) -> None:
    from forecast_assets.commands.admission import policy_app

    policy_file = str(ROOT / "policies" / "admission.yaml")
    done = CliRunner().invoke(policy_app, ["kubernetes", "--image", IMAGE, "--file", policy_file])
    assert done.exit_code == 0, done.output
    assert list(yaml.safe_load_all(done.output)) == stages


def test_the_page_is_true_and_no_file_holds_a_secret(policy: Policy) -> None:
    page = (DEPLOY / "README.md").read_text()
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (DEPLOY / target).is_file(), target
    for name in policy.stages:
        assert f"forecast-{name}" in page, "every namespace is given its settings"
    extras = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in extras for extra in ("postgres", "ray", "s3"))
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            found = [line for line in path.read_text().splitlines() if SECRET.search(line)]
            assert not [line for line in found if "SecretName" not in line], (path, found)


NOWHERE = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:9"}}],
    "users": [{"name": "nobody", "user": {}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "nobody"}}],
    "current-context": "none",
}


def _pods(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    specs = [one["spec"] for one in stages if one["kind"] == "RayCluster"]
    groups = [
        group for spec in specs for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]
    return [group["template"] for group in groups]


def _snake(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        re.sub(r"[A-Z]", lambda m: f"_{m[0].lower()}", key): value for key, value in spec.items()
    }
