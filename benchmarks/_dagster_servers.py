"""A Dagster webserver and daemon on a home of their own, on loopback, and questions to them.

Belongs here: starting both, ending both, GraphQL as the UI speaks it. Does not: what they load.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
_LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: $selector, runConfigData: {}, executionMetadata: {tags: $tags}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""


@contextmanager
def servers(
    root: Path, settings: Mapping[str, Any], code: Sequence[str], variables: Mapping[str, str]
) -> Iterator[int]:
    """Both on the home `root`/home with these settings (`dagster.yaml`) and this code location, as
    the options name it; gives the webserver's port once it answers. Both end with the block."""
    home = root / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(dict(settings)))
    environment = os.environ | {
        "DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "yes", "OMP_NUM_THREADS": "1",
        "POLARS_MAX_THREADS": "1", **variables,
    }  # fmt: skip
    bin_dir, port = Path(sys.executable).parent, _free_port()
    subprocess.run(
        [bin_dir / "dagster", "instance", "migrate"], env=environment, cwd=ROOT, check=True,
        capture_output=True,
    )  # fmt: skip
    commands = (
        ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), *code],
        ["dagster-daemon", "run", *code],
    )
    started = []
    try:
        for command in commands:
            with open(root / f"{command[0]}.log", "w") as log:
                started.append(
                    subprocess.Popen(
                        [bin_dir / command[0], *command[1:]],
                        env=environment, cwd=ROOT, stdout=log, stderr=log,
                    )
                )  # fmt: skip
        _wait_for(port)
        yield port
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(port: int, query: str, variables: Mapping[str, Any] | None = None) -> Any:
    """A GraphQL answer."""
    body = json.dumps({"query": query, "variables": variables or {}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["data"]


def launch(port: int, location: str, job: str, tags: Mapping[str, str]) -> str:
    """Launch a job as the UI does; the run's id."""
    selector = {
        "repositoryLocationName": location, "repositoryName": "__repository__", "jobName": job,
    }  # fmt: skip
    pairs = [{"key": key, "value": value} for key, value in tags.items()]
    done = ask(port, _LAUNCH, {"selector": selector, "tags": pairs})["launchRun"]
    if done["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(f"launching {job}: {done}")
    return str(done["run"]["runId"])


def states(port: int) -> dict[str, dict[str, Any]]:
    """Run -> status, times and tags of every run."""
    query = """{ runsOrError(limit: 2000) { ... on Runs { results {
        runId status startTime endTime tags { key value } } } } }"""
    results = ask(port, query)["runsOrError"]["results"]
    return {
        run["runId"]: run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
        for run in results
    }


def _wait_for(port: int) -> None:
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        try:
            ask(port, "{ version }")
            return
        except OSError:
            time.sleep(1)
    raise RuntimeError("the webserver did not answer within 300 s")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
