"""What died without a word is charged from the event log, once, and marked as an estimate."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.ledger import Ledger, LedgerLocked
from resources.ledger_reconcile import CURSOR, reconcile
from resources.meter import Meter, metered
from resources.price_card import load_price_card

NOW = timedelta(0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def meter(tmp_path: Path, project_root: Path) -> Meter:
    card = project_root / "policies" / "price_card.yaml"
    return Meter(f"sqlite:///{tmp_path / 'ledger.db'}", card, "dev")


@dg.asset(metadata={"cost/pipeline": "training", "cost/forecaster": "neural"})
@metered
def trained() -> None:
    """Metered to its end."""


@dg.asset(metadata={"cost/pipeline": "tuning"})
def unmetered() -> None:
    """Nobody measures it."""


def run(instance: dg.DagsterInstance, meter: Meter, *assets, **tags: str) -> str:
    defs = dg.Definitions(assets=list(assets), resources={"meter": meter})
    job = defs.resolve_implicit_global_asset_job_def()
    named = {key.replace("__", "/"): value for key, value in tags.items()}
    result = job.execute_in_process(instance=instance, raise_on_error=False, tags=named)
    meter.flush()
    return result.run_id


def again(instance: dg.DagsterInstance, meter: Meter, **options):
    metadata = {"unmetered": {"cost/pipeline": "tuning"}}
    return reconcile(
        instance,
        meter.ledger,
        meter.card,
        "dev",
        lambda a: metadata.get(a, {}),
        grace=NOW,
        **options,
    )


def lose_charges(meter: Meter, monkeypatch, instance, *assets, **tags: str) -> str:
    """A run whose settlements never reach the ledger: as if each step were killed at its end."""

    def locked(*_: object) -> None:
        raise LedgerLocked("held")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_all", locked)
        return run(instance, meter, *assets, **tags)


def test_a_measured_step_is_left_alone(instance, meter) -> None:
    run(instance, meter, trained)
    before = meter.ledger.charges()
    done = again(instance, meter)
    assert (done.runs, done.attempts, done.estimated) == (1, 1, 0)
    assert meter.ledger.charges().equals(before)


def test_a_lost_step_is_charged_quota_times_wall(instance, meter, monkeypatch) -> None:
    run_id = lose_charges(meter, monkeypatch, instance, unmetered, cost__vcpus="4", cost__gib="16")
    done = again(instance, meter)
    assert (done.attempts, done.estimated) == (1, 1)
    row = meter.ledger.settlements().filter(pl.col("x_cost_class") == "workload").to_dicts()[0]
    assert row["x_estimated"] and row["x_final"]
    assert (row["x_run_id"], row["x_step_key"], row["x_attempt"]) == (run_id, "unmetered", 1)
    assert (row["x_pipeline"], row["x_asset"]) == ("tuning", "unmetered")
    assert row["cpu_s"] == pytest.approx(4 * row["wall_s"])
    assert row["rss_gib_s"] == pytest.approx(16 * row["wall_s"])
    charges = meter.ledger.charges().filter(pl.col("x_cost_class") == "workload")
    assert charges["x_estimated"].all()


def test_without_a_declared_quota_the_card_presumes_one(instance, meter, monkeypatch) -> None:
    lose_charges(meter, monkeypatch, instance, unmetered)
    again(instance, meter)
    (row,) = meter.ledger.settlements().to_dicts()
    assert row["cpu_s"] == pytest.approx(meter.card.presumed.vcpus * row["wall_s"])


def test_any_number_of_passes_charges_once(instance, meter, monkeypatch) -> None:
    lose_charges(meter, monkeypatch, instance, unmetered, trained)
    first = again(instance, meter)
    before = meter.ledger.charges()
    for _ in range(2):
        assert again(instance, meter).estimated == 0
        assert again(instance, meter, everything=True).estimated == 0
    assert first.estimated == 2
    assert meter.ledger.charges().equals(before)
    assert meter.ledger.cursor(CURSOR) is not None


def test_a_new_run_is_found_after_the_cursor(instance, meter, monkeypatch) -> None:
    run(instance, meter, trained)
    again(instance, meter)
    lose_charges(meter, monkeypatch, instance, unmetered)
    assert again(instance, meter).estimated == 1


def test_a_step_that_just_ended_has_time_to_settle(instance, meter, monkeypatch) -> None:
    lose_charges(meter, monkeypatch, instance, unmetered)
    card = meter.card
    assert reconcile(instance, meter.ledger, card, "dev").estimated == 0
    assert again(instance, meter).estimated == 1  # and the cursor has not passed it


def test_a_measurement_that_comes_late_changes_nothing(instance, meter, monkeypatch) -> None:
    """Two daemons, or a worker that was only thought dead."""
    held: list = []
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_all", lambda self, batch: held.extend(batch))
        run(instance, meter, trained)
    again(instance, meter)
    before = meter.ledger.charges(), meter.ledger.settlements()
    workload = [pair for pair in held if pair[0]["x_cost_class"] == "workload"]
    assert meter.ledger.record_all(workload) == [False]
    assert meter.ledger.charges().equals(before[0])
    assert meter.ledger.settlements().equals(before[1])


def test_idle_is_what_was_declared_and_not_used(instance, meter) -> None:
    run_id = run(instance, meter, trained, cost__vcpus="8", cost__gib="32")
    assert again(instance, meter).idle == 1
    assert again(instance, meter, everything=True).idle == 0
    settled = meter.ledger.settlements(run_id=run_id)
    (idle,) = settled.filter(pl.col("x_cost_class") == "idle").to_dicts()
    used = settled.filter(pl.col("x_cost_class") != "idle")
    assert idle["cpu_s"] == pytest.approx(8 * idle["wall_s"] - used["cpu_s"].sum(), abs=1e-6) or (
        idle["cpu_s"] == 0
    )
    classes = meter.ledger.totals(["x_cost_class"])
    assert sum(classes.values()) == meter.ledger.totals()[()]
    assert set(classes) == {("workload",), ("overhead",), ("idle",)}


KILLED = """
import os, signal, sys
from pathlib import Path
import dagster as dg
from resources.meter import Meter, metered

@dg.asset(metadata={"cost/pipeline": "training"})
@metered
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

meter = Meter(sys.argv[1], Path(sys.argv[2]), "dev")
job = dg.Definitions(assets=[dies], resources={"meter": meter})
with dg.DagsterInstance.get() as instance:
    job.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance)
"""


def test_a_killed_worker_is_charged_once_its_run_is_found_dead(tmp_path, project_root) -> None:
    home, url = tmp_path / "home", f"sqlite:///{tmp_path / 'ledger.db'}"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    card = project_root / "policies" / "price_card.yaml"
    died = subprocess.run(
        [sys.executable, "-c", KILLED, url, str(card)],
        env={**os.environ, "DAGSTER_HOME": str(home), "PYTHONPATH": str(project_root)},
        capture_output=True,
        check=False,
    )
    assert died.returncode == -9
    ledger = Ledger(url)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        parsed = load_price_card(card)
        assert reconcile(instance, ledger, parsed, "dev", grace=NOW).estimated == 0  # may live yet
        (run_,) = instance.get_runs()
        instance.report_run_failed(run_)  # what run monitoring does
        assert reconcile(instance, ledger, parsed, "dev").estimated == 1
        assert reconcile(instance, ledger, parsed, "dev", everything=True).estimated == 0
    (row,) = ledger.settlements().to_dicts()
    assert (row["x_step_key"], row["x_status"], row["x_estimated"]) == ("dies", "killed", True)
