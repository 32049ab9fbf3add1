"""Our event store against Dagster's own, which is the oracle: the same events, the same tables."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import serialize_value
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.event_storage import KEPT, KeptSqliteEventLogStorage

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-01-12")
ONE_RUN = dg.BackfillPolicy.single_run()
RANGE = {
    "dagster/asset_partition_range_start": "2026-01-02",
    "dagster/asset_partition_range_end": "2026-01-10",
}
COLUMNS = {
    "event_logs": "id, run_id, event, dagster_event_type, timestamp, step_key, asset_key,"
    " partition",
    "asset_keys": "asset_key, last_materialization, last_run_id, last_materialization_timestamp",
    "asset_event_tags": "event_id, asset_key, key, value, event_timestamp",
    "asset_check_executions": "asset_key, check_name, partition, run_id, execution_status,"
    " evaluation_event, evaluation_event_storage_id, materialization_event_storage_id",
}


@dg.asset(partitions_def=DAYS, backfill_policy=ONE_RUN)
def landed() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion("7"), tags={"a/tag": "told"})


@dg.asset(
    partitions_def=DAYS,
    backfill_policy=ONE_RUN,
    deps=[landed],
    check_specs=[dg.AssetCheckSpec("holds", asset="cleaned")],
)
def cleaned(context: dg.AssetExecutionContext):  # type: ignore[no-untyped-def]  # two outputs
    for day in ("2026-01-03", "2026-01-04"):
        context.log_event(dg.AssetObservation("elsewhere", partition=day))
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


@cache
def told() -> tuple[dg.EventLogEntry, ...]:
    """Every event of a run over a range, in the order of its log."""
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize([landed, cleaned], instance=instance, tags=RANGE)
        return tuple(instance.all_logs(done.run_id))


def again() -> list[dg.EventLogEntry]:
    """Those that may be stored twice: a planned check is one a run."""
    return [event for event in told() if "CHECK" not in str(event.dagster_event_type)]


def one_by_one(home: str) -> SqliteEventLogStorage:
    """Dagster's own store, told everything an event at a time."""
    storage = SqliteEventLogStorage(os.path.join(home, "history", "runs"))
    for event in told():
        storage.store_event(event)
    return storage


def contents(home: str, shard: str) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(f"{home}/history/runs/{shard}.db")) as db:
        return {
            table: sorted(db.execute(f"SELECT {columns} FROM {table}"), key=repr)
            for table, columns in COLUMNS.items()
        }


def test_the_run_told_of_everything_that_a_batch_may_hold() -> None:
    types = [e.dagster_event_type for e in told() if e.dagster_event_type]
    for expected in (
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_OBSERVATION,
        dg.DagsterEventType.ASSET_CHECK_EVALUATION,
        dg.DagsterEventType.RUN_SUCCESS,
    ):
        assert expected in types
    assert types.count(dg.DagsterEventType.ASSET_MATERIALIZATION) == 18


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_however_events_are_cut_into_batches_the_tables_are_the_oracles(cuts: list[int]) -> None:
    with TemporaryDirectory() as ours:
        storage = KeptSqliteEventLogStorage(ours)
        for batch in cut(told(), cuts):
            storage.store_event_batch(batch)
        storage.dispose()
        for shard, of_oracle in oracle().items():
            assert contents(ours, shard) == of_oracle


@cache
def oracle() -> dict[str, dict[str, list[Any]]]:
    run_id = told()[0].run_id
    with TemporaryDirectory() as theirs:
        one_by_one(theirs)
        found = {shard: contents(theirs, shard) for shard in ("index", run_id)}
    assert len(found[run_id]["event_logs"]) == len(told())
    return found


def cut(events: Sequence[dg.EventLogEntry], cuts: list[int]) -> list[list[dg.EventLogEntry]]:
    batches, rest, turn = [], list(events), 0
    while rest:
        size = cuts[turn % len(cuts)]
        batches.append(rest[:size])
        rest, turn = rest[size:], turn + 1
    return batches


def test_a_home_that_dagsters_own_class_wrote_is_read_on(tmp_path: Path) -> None:
    theirs, ours = one_by_one(str(tmp_path)), KeptSqliteEventLogStorage(str(tmp_path))
    run_id, key = told()[0].run_id, dg.AssetKey("landed")
    assert ours.get_logs_for_run(run_id) == theirs.get_logs_for_run(run_id) == list(told())
    assert ours.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION
    ) == theirs.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert len(ours.get_materialized_partitions(key)) == 9
    ours.delete_events(run_id)
    assert theirs.get_logs_for_run(run_id) == []


def test_a_daemon_does_not_keep_a_connection_for_every_run_it_ever_saw(tmp_path: Path) -> None:
    storage = KeptSqliteEventLogStorage(str(tmp_path))
    for run in range(2 * KEPT):
        assert storage.get_logs_for_run(f"run-{run}") == []
    assert len(storage._engines) == KEPT
    storage.wipe()
    assert storage.get_logs_for_run("run-0") == []  # in a new file: the old one is gone
    assert (tmp_path / "history" / "runs" / "run-0.db").exists()
    storage.dispose()
    assert not storage._engines


WRITER = """
import sys
from pathlib import Path
from dagster._serdes import deserialize_values
from resources.event_storage import KeptSqliteEventLogStorage

events = deserialize_values(Path(sys.argv[2]).read_text().splitlines())
storage = KeptSqliteEventLogStorage(sys.argv[1])
for _ in range(5):
    storage.store_event_batch(events)
"""


def test_threads_and_processes_write_one_home_together(tmp_path: Path) -> None:
    home, said = tmp_path / "home", tmp_path / "events"
    said.write_text("\n".join(serialize_value(event) for event in again()))
    storage = KeptSqliteEventLogStorage(str(home))
    command = [sys.executable, "-c", WRITER, str(home), str(said)]
    children = [subprocess.Popen(command) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(storage.store_event_batch, [again()] * 8))
    assert [child.wait(120) for child in children] == [0, 0]
    assert len(storage.get_logs_for_run(told()[0].run_id)) == (8 + 2 * 5) * len(again())


@pytest.mark.parametrize(("said", "batches"), [(None, True), ("0", False)])
def test_a_home_of_this_store_hands_it_whole_ranges_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, batches: bool
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", said or "")  # put back at the end either way
    if said is None:
        monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    named = "{module: resources.event_storage, class: KeptSqliteEventLogStorage"
    home = f"event_log_storage: {named}, config: {{home: {{env: DAGSTER_HOME}}}}}}\n"
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + home)
    sizes: list[int] = []
    real = KeptSqliteEventLogStorage.store_event_batch

    def counted(self: KeptSqliteEventLogStorage, events: Sequence[dg.EventLogEntry]) -> None:
        sizes.append(len(events))
        real(self, events)

    monkeypatch.setattr(KeptSqliteEventLogStorage, "store_event_batch", counted)
    with dg.DagsterInstance.get() as instance:
        done = dg.materialize([landed, cleaned], instance=instance, tags=RANGE)
        assert len(instance.get_materialized_partitions(dg.AssetKey("landed"))) == 9
    assert done.success and (9 in sizes) == batches


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_opens_its_own(tmp_path: Path) -> None:
    storage = KeptSqliteEventLogStorage(str(tmp_path))
    storage.store_event_batch(again())
    child = multiprocessing.get_context("fork").Process(
        target=storage.store_event_batch, args=(again(),)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    storage.store_event_batch(again())
    assert len(storage.get_logs_for_run(told()[0].run_id)) == 3 * len(again())
