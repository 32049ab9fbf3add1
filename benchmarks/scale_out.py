"""A partitioned backfill over two Ray nodes, one of which is killed in mid-run.

Dagster's storage and the ledger in Postgres, the lake behind S3's API, the configuration of
`deploy/`. The same partitions are made by one machine on a disk; both lakes must hold the same
rows. Attempts are counted from Dagster's event log alone, charges from the ledger alone.

Two nodes on one machine prove that nothing is lost or doubled. They say nothing about speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._moto_server import BUCKET, endpoint
from benchmarks._postgres_server import new_database, postgres
from benchmarks._ray_cluster import Cluster, cluster, free_ports, surroundings, until

if TYPE_CHECKING:
    import dagster as dg

    from forecast_core.admission.step_room import Room
    from resources import Settings

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
ASSETS = ("raw_sales", "raw_prices", "cleaned_sales", "quarantined_sales")
PARTITIONED_BY = "dagster/backfill"
QUICK = {"FORECAST_DEMO_SERIES": "400", "FORECAST_DEMO_STORES": "2", "FORECAST_DEMO_DAYS": "730"}
M5_STORES, M5_MONTHS = 6, (date(2015, 1, 1), date(2015, 12, 1))
BACKFILL = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""


def run(quick: bool) -> dict[str, float | int | str]:
    """One machine, then two nodes less one; compare rows, count charges.

    Raises:
        NoPostgres: no Postgres server is installed.
        TimeoutError: a step of it did not come to its end, with what it waited for.
    """
    with _folder() as folder, _environment() as outside:
        data = {**outside, **_data(quick)}
        single = _settings(_installation(folder / "single", data, ROOT / "dagster.yaml"))
        work = _work(single)
        _on_one_machine(folder / "single", data, work)
        with postgres(_made(folder / "postgres")) as url, endpoint() as s3:
            (port,) = free_ports(1)
            env = {
                **data,
                **s3,
                **surroundings(_made(folder / "ray").parent),
                "FORECAST_RAY_ADDRESS": f"http://127.0.0.1:{port}",
                "FORECAST_DATA": f"s3://{BUCKET}/scaled",
                "FORECAST_LEDGER_URL": new_database(url, "ledger"),
                "DAGSTER_POSTGRES_URL": _for_dagster(new_database(url, "dagster")),
                "FORECAST_EXECUTOR": "ray",
                "DAGSTER_HOME": str(_home(folder / "scaled", ROOT / "deploy" / "dagster.yaml")),
            }
            os.environ.update(env)  # what the nodes see, and their steps with them
            with cluster(_room(single), port) as two:
                figures = _over_two_nodes(two, env, work, folder)
            figures |= _rows(single, _settings(env), work)
    return {"stores": len(work.stores), "partitions": len(work.keys), **figures}


# ---- the work --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What is made: months by store."""

    stores: tuple[str, ...]
    first: date
    last: date

    @property
    def months(self) -> list[date]:
        """The first day of each month."""
        found = [self.first]
        while found[-1] < self.last:
            found.append((found[-1] + timedelta(days=32)).replace(day=1))
        return found

    @property
    def keys(self) -> list[str]:
        """Every partition."""
        return [key for store in self.stores for key in self.keys_of(store)]

    def keys_of(self, store: str) -> list[str]:
        """The partitions of one store."""
        return [f"{month.isoformat()}|{store}" for month in self.months]


def _data(quick: bool) -> dict[str, str]:
    m5 = os.environ.get("M5_DIR")
    if quick or not m5:
        return {**QUICK, "FORECAST_SOURCE": "demo"}
    return {"FORECAST_SOURCE": "m5", "M5_DIR": m5}


def _work(settings: Settings) -> Work:
    from resources.wiring import source_of

    source = source_of(settings)
    stores = tuple(source.stores())
    if settings.source == "m5":
        return Work(stores[:M5_STORES], *M5_MONTHS)
    first, last = source.span()
    return Work(stores, first.replace(day=1), last.replace(day=1))


def _on_one_machine(folder: Path, data: Mapping[str, str], work: Work) -> None:
    env = _installation(folder, data, ROOT / "dagster.yaml")
    first, last = work.first.isoformat(), work.last.isoformat()
    stores = ",".join(work.stores)
    _call(
        env, "forecast", "backfill", ",".join(ASSETS),
        "--first", first, "--last", last, "--stores", stores,
    )  # fmt: skip


def _room(settings: Settings) -> Room:
    """A node is as large as the policy lets one step of this work be: one at a time on each."""
    from forecast_core.admission.policy import Policy
    from forecast_core.admission.step_room import room_of
    from resources.policies import load_policy

    return room_of(load_policy(settings.admission_policy, Policy.parse), ("ingest",))


# ---- over two nodes ----------------------------------------------------------------------------


def _over_two_nodes(
    two: Cluster, env: dict[str, str], work: Work, folder: Path
) -> dict[str, float | int | str]:
    import dagster as dg

    _call(env, "dagster", "instance", "migrate")
    with dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance:
        _register(instance, env, work)
        workspace = folder / "workspace.yaml"
        with _code_server(env, workspace, folder), _daemon(env, workspace, folder):
            for store in work.stores:
                _launch(env, workspace, work.keys_of(store))
            killed = _kill_in_mid_run(two, instance)
            until(lambda: _finished(instance, work), "every store is done", 1200, every_s=1)
            used = set(_node_of(two, instance).values())
        books = _books(instance, _settings(env))
    return {"nodes_used": len(used), **killed, **books}


def _register(instance: dg.DagsterInstance, env: Mapping[str, str], work: Work) -> None:
    instance.add_dynamic_partitions(f"stores_{_settings(env).dataset}", list(work.stores))


def _launch(env: Mapping[str, str], workspace: Path, keys: list[str]) -> None:
    """What the UI sends when partitions of assets are launched: one store, one run."""
    params = {
        "assetSelection": [{"path": [name]} for name in ASSETS],
        "partitionNames": keys,
        "tags": [{"key": "admission/class", "value": "backfill"}],
    }
    told = _call(
        env, "dagster-graphql", "-w", str(workspace), "-t", BACKFILL,
        "-v", json.dumps({"params": params}),
    )  # fmt: skip
    if "backfillId" not in told:
        raise RuntimeError(f"the backfill was not launched: {told[-2000:]}")


def _kill_in_mid_run(two: Cluster, instance: dg.DagsterInstance) -> dict[str, int | str]:
    """Kill the worker node once a step works there; what was killed."""
    worker = next(node for node, is_head in two.nodes().items() if not is_head)
    until(lambda: worker in _node_of(two, instance, under_way=True).values(), "a step works there",
          every_s=0.1)  # fmt: skip
    processes = two.kill_worker()
    return {"killed_node": worker[:12], "killed_processes": processes}


def _node_of(two: Cluster, instance: dg.DagsterInstance, under_way: bool = False) -> dict[str, str]:
    """Submission id of a step's job -> the node it ran on (`under_way`: runs on)."""
    jobs = [(name, state, node) for name, state, node in two.jobs() if name and node]
    steps = {n: (s, node) for n, s, node in jobs if n.startswith("dagster-step-")}
    if not under_way:
        return {name: str(node) for name, (_, node) in steps.items()}
    running = {name: str(node) for name, (state, node) in steps.items() if state == "RUNNING"}
    return {name: node for name, node in running.items() if name in _begun(instance)}


def _begun(instance: dg.DagsterInstance) -> set[str]:
    """Submission ids of the steps that have started and not ended, by the event log."""
    import dagster as dg

    kind = dg.DagsterEventType
    begun: set[str] = set()
    for run_record in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        open_steps: dict[str, str] = {}
        for event in _events(instance, run_record.run_id):
            if event.event_type is kind.STEP_WORKER_STARTING:
                said = event.event_specific_data.metadata["Ray Submission ID"]
                open_steps[event.step_key] = said.value
            elif event.event_type is kind.STEP_START:
                begun.add(open_steps[event.step_key])
            else:
                begun.discard(open_steps.get(event.step_key, ""))
    return begun


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[Any]:
    import dagster as dg

    kind = dg.DagsterEventType
    wanted = {kind.STEP_WORKER_STARTING, kind.STEP_START, kind.STEP_SUCCESS, kind.STEP_FAILURE,
              kind.STEP_UP_FOR_RETRY, kind.STEP_RESTARTED}  # fmt: skip
    for record in instance.get_records_for_run(run_id, of_type=wanted).records:
        if record.event_log_entry.dagster_event is not None:
            yield record.event_log_entry.dagster_event


def _ours(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs() if PARTITIONED_BY in run.tags]


def _finished(instance: dg.DagsterInstance, work: Work) -> bool:
    """Has a run of every store succeeded? A store that nobody tries again ends the wait."""
    import dagster as dg

    runs = _ours(instance)
    for found in runs:
        if found.tags.get("dagster/will_retry") == "false":
            raise RuntimeError(f"run {found.run_id} is not tried again: {_why(instance, found)}")
    done = [t for t in runs if t.status is dg.DagsterRunStatus.SUCCESS]
    return len({t.tags[PARTITIONED_BY] for t in done}) == len(work.stores)


def _why(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The last words of a run."""
    said = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    words = [f"{one.message} {one.event_specific_data}" for one in said if one.is_failure]
    return f"{run.status.value}\n" + "\n".join(text[-3000:] for text in words)


# ---- what came of it -----------------------------------------------------------------------


def _books(instance: dg.DagsterInstance, settings: Settings) -> dict[str, float | int | str]:
    """Settle what died, then attempts beside charges."""
    import polars as pl

    from resources.ledger import open_ledger
    from resources.ledger_reconcile import reconcile
    from resources.price_card import load_price_card

    ledger = open_ledger(settings.ledger)
    card = load_price_card(settings.price_card)
    reconcile(instance, ledger, card, settings.environment, grace=timedelta(0))
    attempts: Counter[tuple[str, str, int]] = Counter()
    steps: set[tuple[str, str]] = set()
    killed: set[tuple[str, str, int]] = set()
    for run in _ours(instance):
        retries: Counter[str] = Counter()
        for event in _events(instance, run.run_id):
            steps.add((run.tags[PARTITIONED_BY], event.step_key))
            attempt = (run.run_id, event.step_key, retries[event.step_key] + 1)
            if attempt in attempts and _was_lost(event):  # what never began is no attempt
                killed.add(attempt)
            if event.event_type.value == "STEP_UP_FOR_RETRY":
                retries[event.step_key] += 1
            elif event.event_type.value in ("STEP_START", "STEP_RESTARTED"):
                attempts[attempt] += 1
    runs = [run.run_id for run in _ours(instance)]
    closing = ledger.settlements().filter(
        "x_final", pl.col("x_cost_class") == "workload", pl.col("x_run_id").is_in(runs)
    )
    key = ("x_run_id", "x_step_key", "x_attempt")
    charged = Counter(closing.select(key).rows())
    estimated = set(closing.filter("x_estimated").select(key).rows())
    return {
        "runs": len(runs),
        "steps": len(steps),
        "attempts": len(attempts),
        "killed_attempts": len(killed),
        "killed_charged": len(killed & estimated),
        "charges": charged.total(),
        "duplicates": sum(count - 1 for count in charged.values()),
        "missing": len(attempts.keys() - charged.keys()),
        "invented": len(charged.keys() - attempts.keys()),
        "estimated": len(estimated),
        "money_difference": float(
            ledger.totals()[()] - Decimal(ledger.settlements()["money"].sum())
        ),
    }


def _was_lost(event: Any) -> bool:
    """Was the step failed by its executor, which found its process gone?"""
    return (
        event.event_type.value == "STEP_FAILURE"
        and "failed health check" in event.event_specific_data.error.message
    )


def _rows(single: Settings, scaled: Settings, work: Work) -> dict[str, int | bool]:
    """Both lakes, row for row."""
    from forecast_core.cells import Cells
    from resources.wiring import lake_of

    end = (work.last + timedelta(days=32)).replace(day=1) - timedelta(days=1)
    one, two = lake_of(single), lake_of(scaled)
    rows, equal = 0, True
    for name in ASSETS:
        for store in work.stores:
            cells = Cells(work.first, end, (store,))
            mine, other = (lake.table(name).read(cells).frame.collect() for lake in (one, two))
            order = mine.columns
            rows += mine.height
            equal &= mine.sort(order).equals(other.select(order).sort(order))
    return {"rows": rows, "rows_equal": equal}


# ---- processes -------------------------------------------------------------------------------


@contextmanager
def _folder() -> Iterator[Path]:
    """Short: Ray's sockets lie in it, and their paths may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="so"))
    try:
        yield folder
    except BaseException:
        for log in sorted(folder.glob("*.log")):  # what was said by whom, before it is gone
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment() -> Iterator[dict[str, str]]:
    """The variables of this process less those of another installation; put back at the end."""
    before = dict(os.environ)
    kept = {k: v for k, v in before.items() if not k.startswith(("FORECAST_", "DAGSTER_", "RAY_"))}
    try:
        yield {
            **kept,
            "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', '')}",  # Ray's jobs call `dagster`
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "DAGSTER_EVENT_BATCH_SIZE": "200",
            "PYTHONWARNINGS": "ignore",
            "POLARS_MAX_THREADS": "1",
        }
    finally:
        os.environ.clear()
        os.environ.update(before)


def _installation(folder: Path, data: Mapping[str, str], config: Path) -> dict[str, str]:
    home = _home(folder, config)
    return {**data, "DAGSTER_HOME": str(home), "FORECAST_DATA": str(folder / "data")}


def _home(folder: Path, config: Path) -> Path:
    home = _made(folder / "dagster")
    shutil.copy(config, home / "dagster.yaml")
    return home


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _settings(env: Mapping[str, str]) -> Settings:
    from resources import Settings

    return Settings.from_environment(env)


def _for_dagster(url: str) -> str:
    return url.replace("+psycopg://", "+psycopg2://")  # the driver that its NOTIFY is written for


def _call(env: Mapping[str, str], program: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(BIN / program), *arguments], env=dict(env), cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{program} {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def _code_server(env: Mapping[str, str], workspace: Path, folder: Path) -> Iterator[None]:
    """The code location behind gRPC, and a workspace that leads to it."""
    (port,) = free_ports(1)
    workspace.write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port},"
        " location_name: forecast_assets}\n"
    )
    with _process(
        env, folder / "code.log",
        "dagster", "api", "grpc", "-m", "forecast_assets.definitions",
        "--host", "127.0.0.1", "--port", str(port),
    ):  # fmt: skip
        health = [str(BIN / "dagster"), "api", "grpc-health-check", "--port", str(port)]
        until(
            lambda: subprocess.run(health, env=dict(env), capture_output=True).returncode == 0,
            "the code server answers",
        )
        yield


@contextmanager
def _daemon(env: Mapping[str, str], workspace: Path, folder: Path) -> Iterator[None]:
    with _process(env, folder / "daemon.log", "dagster-daemon", "run", "-w", str(workspace)):
        yield


@contextmanager
def _process(env: Mapping[str, str], log: Path, program: str, *arguments: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(BIN / program), *arguments], env=dict(env), cwd=ROOT, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
