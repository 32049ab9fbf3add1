"""The run queue holds, releases, cancels and explains; what goes around it is found or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (  # a queued run must name where it came from
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from forecast_core.admission import Override
from forecast_core.admission.policy import NANO, Policy
from resources.admission_log import add_override
from resources.admission_store import AdmissionStore, StoreError
from resources.coordinator import AdmissionRunCoordinator, HoldReplaced, attend
from resources.escrow import Escrow, replay
from resources.gate import HOLD, Gate, Refusal, Terms, granted
from resources.run_facts import KnownAssets

ROOT = Path(__file__).parents[2]


def _asset(name: str, pipeline: str | None, **metadata: Any) -> dg.AssetsDefinition:
    paid = {"cost/pipeline": pipeline} if pipeline else {}

    @dg.asset(name=name, metadata={**paid, **metadata})
    def made() -> None: ...

    return made


ASSETS = [
    _asset("predicted", "inference"),
    _asset("watched", "monitoring"),
    _asset("trained", "training", **{"cost/rungs": ["gbm", "floor"]}),
    _asset("tuned", "tuning"),
    _asset("orphan", None),
]
DEFS = dg.Definitions(assets=ASSETS, jobs=[dg.define_asset_job("tuning_job", selection=["tuned"])])
GRAPH = DEFS.resolve_asset_graph()
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__"), "__ASSET_JOB"
)


@pytest.fixture
def policy_file(tmp_path: Path) -> Path:
    mapping = yaml.safe_load((ROOT / "policies" / "admission.yaml").read_text())
    mapping["peaks"] = []
    mapping["throttles"] = []
    mapping["budgets"]["dev/exploratory"]["limit"] = 0.08  # one default bound, not two
    path = tmp_path / "admission.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


def queue_config(tmp_path: Path, policy_file: Path, **more: Any) -> dict[str, Any]:
    return {
        "run_coordinator": {
            "module": "resources.coordinator",
            "class": "AdmissionRunCoordinator",
            "config": {
                "store": f"sqlite:///{tmp_path / 'admission.db'}",
                "policy": str(policy_file),
                "environment": "dev",
                **more,
            },
        },
        "run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"},
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = tmp_path_factory.mktemp("home")
    with dg.instance_for_test(overrides=queue_config(home, home / "none.yaml")) as made:
        yield made


@pytest.fixture
def instance(
    shared: dg.DagsterInstance, tmp_path: Path, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """One Dagster home for all tests (making it takes seconds); each has a store of its own."""
    store, policy = f"sqlite:///{tmp_path / 'admission.db'}", str(policy_file)
    monkeypatch.setattr(shared.run_coordinator, "_named", (store, policy, "dev"))
    monkeypatch.setattr(shared.run_coordinator, "_escrow", None)
    yield shared
    for run in shared.get_runs():
        shared.delete_run(run.run_id)


def escrow_of(instance: dg.DagsterInstance) -> Escrow:
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, AdmissionRunCoordinator)
    return coordinator.escrow


def launch(instance: dg.DagsterInstance, *names: str, **tags: str) -> dg.DagsterRun:
    """What the webserver does: create the run, then submit it."""
    job = DEFS.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in names]
    run = instance.create_run_for_job(
        job,
        asset_selection=frozenset(keys),
        tags={k.replace("__", "/"): v for k, v in tags.items()},
        remote_job_origin=ORIGIN,
    )
    return submit(instance, run)


def submit(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    workspace: Any = SimpleNamespace(asset_graph=GRAPH)
    return instance.run_coordinator.submit_run(dg.SubmitRunContext(run, workspace))


def reload(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def gate_of(instance: dg.DagsterInstance) -> Gate:
    return Gate(lambda: escrow_of(instance), sleep=lambda _: None, patience_s=0.0)


def look(instance: dg.DagsterInstance) -> Any:
    return attend(instance, escrow_of(instance), KnownAssets(GRAPH))


def test_an_affordable_run_is_released_with_its_terms(instance: dg.DagsterInstance) -> None:
    run = launch(instance, "trained")
    assert run.status == dg.DagsterRunStatus.QUEUED
    assert run.tags[HOLD] == "0"
    assert run.tags["admission/class"] == "training"
    assert granted(instance, run).rung == "gbm"
    assert int(run.tags["dagster/max_runtime"]) >= 1800
    assert run.tags["dagster/max_retries"] == "0"
    terms = gate_of(instance)(instance, run, KnownAssets(GRAPH))
    assert isinstance(terms, Terms)
    assert (terms.money, terms.memory_gib, terms.cpu) == (Decimal("0.02"), 4.0, 3.0)


def test_a_run_over_budget_waits_with_its_reason_and_starts_later(
    instance: dg.DagsterInstance,
) -> None:
    first, second = launch(instance, "tuned"), launch(instance, "tuned")
    assert (first.tags[HOLD], second.tags[HOLD]) == ("0", "1")
    assert "money" in second.tags["admission/reason"]
    assert second.tags["admission/earliest_start"] < second.tags["admission/latest_start"]
    assert "Admission: held: dev/exploratory has" in log_of(instance, second)
    instance.report_run_canceled(first)
    assert look(instance).settled == 1
    assert reload(instance, second).tags[HOLD] == "0"
    assert replay(escrow_of(instance).store).differing == ()


def log_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    entries = instance.all_logs(run.run_id)
    return " ".join((e.dagster_event and e.dagster_event.message) or "" for e in entries)


def test_the_daemon_is_given_the_hold_whatever_else_is_limited(
    tmp_path: Path, policy_file: Path
) -> None:
    own = {"key": "team", "value": "a", "limit": 2}
    config = queue_config(tmp_path, policy_file, tag_concurrency_limits=[own])
    with dg.instance_for_test(overrides=config) as instance:
        limits = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
        assert {"key": HOLD, "value": "1", "limit": 0} in limits
        assert own in limits


def test_settings_that_replace_the_hold_are_refused(tmp_path: Path, policy_file: Path) -> None:
    limits = {"tag_concurrency_limits": [{"key": "team", "limit": 1}]}
    config = queue_config(tmp_path, policy_file) | {"concurrency": {"runs": limits}}
    with (
        dg.instance_for_test(overrides=config) as instance,
        pytest.raises(HoldReplaced, match=r"run_coordinator\.config"),
    ):
        _ = instance.run_coordinator


def test_a_user_cannot_lift_the_hold_by_a_tag(instance: dg.DagsterInstance) -> None:
    run = launch(instance, "orphan", admission__hold="0")
    assert run.tags[HOLD] == "1"


def test_a_run_without_metadata_is_held_and_released_by_a_named_person(
    instance: dg.DagsterInstance,
) -> None:
    run = launch(instance, "orphan")
    assert run.tags[HOLD] == "1"
    assert "names no pipeline" in run.tags["admission/reason"]
    escrow = escrow_of(instance)
    now = escrow.clock()
    add_override(escrow.store, Override("release", run.run_id, "ops", "known", now + 60), now)
    look(instance)
    assert reload(instance, run).tags[HOLD] == "0"


def test_a_user_may_lower_a_class_but_not_raise_it(instance: dg.DagsterInstance) -> None:
    lowered = launch(instance, "predicted", admission__class="exploratory")
    raised = launch(instance, "tuned", admission__class="serving")
    assert lowered.tags["admission/class"] == "exploratory"
    assert raised.tags["admission/class"] == "exploratory"


def test_what_can_never_start_is_cancelled_not_failed(
    instance: dg.DagsterInstance, policy_file: Path
) -> None:
    mapping = yaml.safe_load(policy_file.read_text())
    mapping["budgets"]["dev/exploratory"]["limit"] = 0.01
    policy_file.write_text(yaml.safe_dump(mapping))
    run = reload(instance, launch(instance, "tuned"))
    assert run.status == dg.DagsterRunStatus.CANCELED
    assert "too_dear" in run.tags["admission/reason"]


def test_a_run_whose_submitter_died_is_found(instance: dg.DagsterInstance) -> None:
    job = DEFS.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(
        job, asset_selection=frozenset([dg.AssetKey("watched")]), remote_job_origin=ORIGIN
    )
    instance.add_run_tags(run.run_id, {HOLD: "1"})
    dg.QueuedRunCoordinator.submit_run(
        instance.run_coordinator,
        dg.SubmitRunContext(run, SimpleNamespace()),  # type: ignore[arg-type]
    )
    assert look(instance).found == 1
    assert reload(instance, run).tags[HOLD] == "0"


def test_every_stage_has_a_pool_with_its_lanes(instance: dg.DagsterInstance) -> None:
    look(instance)
    limits = {p.name: p.limit for p in instance.event_log_storage.get_pool_limits()}
    assert limits["training"] == 3 and limits["monitoring"] == 2 and limits["gpu"] == 1


def test_a_decision_that_was_not_told_is_told_later(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*_: Any) -> int:
        raise RuntimeError("killed before it told")

    with monkeypatch.context() as patch:
        patch.setattr("resources.coordinator.tell", died)
        run = launch(instance, "watched")
    assert reload(instance, run).tags[HOLD] == "1"
    look(instance)
    assert reload(instance, run).tags[HOLD] == "0"


def test_nothing_starts_while_the_store_is_away_and_all_resumes(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    escrow = escrow_of(instance)

    def away(*_: Any, **__: Any) -> Any:
        raise StoreError("no route to the store")

    with monkeypatch.context() as patch:
        patch.setattr(escrow, "submit", away)
        runs = [launch(instance, "watched"), launch(instance, "predicted")]
    assert [reload(instance, run).tags[HOLD] for run in runs] == ["1", "1"]
    assert look(instance).found == 2
    assert [reload(instance, run).tags[HOLD] for run in runs] == ["0", "0"]


def test_a_cancelled_run_stops_waiting(instance: dg.DagsterInstance) -> None:
    launch(instance, "tuned")
    waits = launch(instance, "tuned")
    instance.report_run_canceled(waits)
    assert look(instance).withdrawn == 1
    row = escrow_of(instance).store.find(waits.run_id)
    assert row and row["state"] == "withdrawn"


def test_a_job_is_known_by_the_assets_of_its_plan(instance: dg.DagsterInstance) -> None:
    job = DEFS.resolve_job_def("tuning_job")
    run = submit(instance, instance.create_run_for_job(job, remote_job_origin=ORIGIN))
    assert run.tags["admission/class"] == "exploratory"


def test_the_gate_refuses_in_process_what_the_queue_would_hold(
    instance: dg.DagsterInstance,
) -> None:
    gate = gate_of(instance)
    job = DEFS.resolve_implicit_global_asset_job_def()

    def straight(name: str) -> dg.DagsterRun:
        return instance.create_run_for_job(job, asset_selection=frozenset([dg.AssetKey(name)]))

    first, second = straight("tuned"), straight("tuned")
    assert isinstance(gate(instance, first, KnownAssets(GRAPH)), Terms)
    assert isinstance(gate(instance, first, KnownAssets(GRAPH)), Terms)
    refusal = gate(instance, second, KnownAssets(GRAPH))
    assert (
        isinstance(refusal, Refusal) and refusal.code == "money" and "budget status" in str(refusal)
    )
    instance.report_run_failed(first)
    third = gate(instance, straight("tuned"), KnownAssets(GRAPH))
    assert isinstance(third, Terms), "its money came back"


def test_the_gate_knows_a_run_that_the_queue_admitted(instance: dg.DagsterInstance) -> None:
    admitted, held = launch(instance, "tuned"), launch(instance, "tuned")
    gate = gate_of(instance)
    assert isinstance(gate(instance, admitted, KnownAssets(GRAPH)), Terms)
    assert isinstance(gate(instance, held, KnownAssets(GRAPH)), Refusal)


def test_money_is_exact_in_the_store(tmp_path: Path, policy_file: Path) -> None:
    policy = Policy.parse(yaml.safe_load(policy_file.read_text()))
    assert policy.budgets["dev/exploratory"].limit == 8 * NANO // 100
    assert json.loads(policy.text)["version"]
    AdmissionStore(f"sqlite:///{tmp_path / 'x.db'}").close()
