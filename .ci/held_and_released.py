"""A run over budget through a real webserver and daemon: held with its reason, released when the
budget is raised; the same work launched in process fails before it starts."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from through_the_daemon import BIN, MODULE

from forecast_core.admission.request import AssetFacts, RunFacts, request_of
from resources import Settings
from resources.coordinator import build_escrow

LAUNCH = """
mutation Launch($tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "forecast_assets.definitions",
               repositoryName: "__repository__", jobName: "training_job"}
    runConfigData: {}
    executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
GROUP = "dormant"


def tight_policy() -> Path:
    """The shipped policy with room for one run of unknown work and a half, beyond the floors."""
    policy = yaml.safe_load(Path("policies/admission.yaml").read_text())
    floors = sum(policy["budgets"]["dev"]["floors"].values())
    policy["budgets"]["dev"]["limit"] = floors + 1.5 * policy["default_bound"]["money"]
    path = Path(os.environ["DAGSTER_HOME"]) / "tight.yaml"
    path.write_text(yaml.safe_dump(policy))
    return path


def hold_the_money() -> None:
    """Another run of unknown work, which keeps what it holds."""
    escrow = build_escrow(Settings.from_environment())
    facts = RunFacts("other", "manual", (AssetFacts("other", "training"),), escrow.clock())
    assert escrow.submit(request_of(facts, escrow.policy)).starts


def forecast(*arguments: str, fails: bool = False) -> str:
    """Run the console script; its output."""
    done = subprocess.run([BIN / "forecast", *arguments], capture_output=True, text=True)
    if bool(done.returncode) != fails:
        raise SystemExit(f"forecast {' '.join(arguments)}: {done.stdout}{done.stderr[-3000:]}")
    return done.stdout


def ask(port: int, query: str, **variables: Any) -> Any:
    """A GraphQL answer of the webserver."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["data"]


def until(what: str, found: Callable[[], Any], seconds: float = 300) -> Any:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := found():
                return answer
        except OSError:
            pass
        time.sleep(2)
    raise SystemExit(f"{what}: not so after {seconds:.0f} s")


def held_then_released(instance: dg.DagsterInstance, port: int) -> None:
    """Launch as the UI does, read the reason, raise the budget, see it done."""
    tags = [{"key": "dagster/partition", "value": GROUP}]
    launched = ask(port, LAUNCH, tags=tags)["launchRun"]
    if launched["__typename"] != "LaunchRunSuccess":
        raise SystemExit(f"launch: {launched}")
    run_id = launched["run"]["runId"]

    def run() -> dg.DagsterRun:
        found = instance.get_run_by_id(run_id)
        assert found is not None
        return found

    tags_now = until("a reason", lambda: run().tags if "admission/reason" in run().tags else None)
    assert tags_now["admission/hold"] == "1" and "(money)" in tags_now["admission/reason"], tags_now
    assert "dev has" in tags_now["admission/reason"] and tags_now["admission/earliest_start"]
    time.sleep(40)  # more than a tick of the sensor and several of the queue
    assert run().status is dg.DagsterRunStatus.QUEUED, run().status
    events = [entry.dagster_event for entry in instance.all_logs(run_id)]
    logged = " ".join(event.message or "" for event in events if event is not None)
    assert "Admission: held" in logged, logged
    assert run_id in forecast("admission", "waiting")
    print(f"held: {tags_now['admission/reason']}")

    done = subprocess.run(
        [BIN / "dagster", "asset", "materialize", *MODULE, "--select", "forecasters",
         "--partition", GROUP], capture_output=True, text=True,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1, f"over budget, yet exit code {done.returncode}"
    assert "admission refuses run" in said and "budget status" in said, said[-4000:]
    assert instance.get_latest_materialization_event(dg.AssetKey("forecasters")) is None
    print("in process: refused before any work, exit code 1")

    forecast("admission", "override", "raise", "dev", "--owner", "ci", "--reason", "test",
             "--hours", "1", "--amount", "1")  # fmt: skip
    until("the release", lambda: run().tags["admission/hold"] == "0")
    until("success", lambda: run().is_finished)
    assert run().status is dg.DagsterRunStatus.SUCCESS, run().status
    print(f"released at {run().tags['admission/money']} held, and done")
    shown = until(
        "settlement",
        lambda: (text := forecast("admission", "explain", run_id)) and "settled" in text and text,
    )
    print(shown)
    print(forecast("budget", "status"))
    print(forecast("admission", "replay"), end="")


def main() -> None:
    os.environ["FORECAST_ADMISSION_POLICY"] = str(tight_policy())
    forecast("policy", "check", os.environ["FORECAST_ADMISSION_POLICY"])
    hold_the_money()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    commands = (
        ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), *MODULE],
        ["dagster-daemon", "run", *MODULE],
    )
    home = Path(os.environ["DAGSTER_HOME"])
    started = []
    try:
        for name, *arguments in commands:
            with open(home / f"{name}.log", "w") as log:
                started.append(subprocess.Popen([BIN / name, *arguments], stdout=log, stderr=log))
        until("a webserver", lambda: ask(port, "{ version }"))
        with dg.DagsterInstance.get() as instance:
            held_then_released(instance, port)
    except BaseException:
        for name, *_ in commands:
            print((home / f"{name}.log").read_text()[-3000:], file=sys.stderr)
        raise
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


if __name__ == "__main__":
    main()
