"""Two Ray nodes on one machine, as two machines would be: each a family of processes.

Belongs here: starting them, what runs where, killing one as a power cut would. Does not: what runs
on them.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from forecast_core.admission.step_room import Room

T = TypeVar("T")
STORE_BYTES = 100_000_000  # Ray's own object store: steps do not use it
PATIENCE_S = 400.0
TRIES = 2


@dataclass(frozen=True)
class Cluster:
    """A head and a worker; `address` is where jobs are submitted."""

    address: str
    worker: list[psutil.Process]

    def jobs(self) -> list[tuple[str, str, str | None]]:
        """(submission id, status, node id) of every job."""
        from resources.ray_steps import client_of

        return [
            (job.submission_id, str(job.status), job.driver_node_id)
            for job in client_of(self.address).list_jobs()
        ]

    def nodes(self) -> dict[str, bool]:
        """Node id -> is it the head?, of those alive."""
        from ray.util.state import list_nodes

        found = list_nodes(address=self.address, raise_on_missing_output=False)
        return {node.node_id: node.is_head_node for node in found if node.state == "ALIVE"}

    def kill_worker(self) -> int:
        """SIGKILL every process of the worker node, steps included; how many there were."""
        return _kill(self.worker)


def surroundings(folder: Path) -> dict[str, str]:
    """Variables that keep a cluster's files in `folder`, close it to strangers, and give its
    processes time to start: on a busy machine Ray's own 5 to 60 s are not enough."""
    patience = {
        "RAY_raylet_start_wait_time_s": "240",
        "RAY_agent_register_timeout_ms": "240000",
        "RAY_worker_register_timeout_seconds": "240",
        "RAY_gcs_rpc_server_connect_timeout_s": "60",
    }
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {"RAY_TMPDIR": str(folder), **token, **patience}


@contextmanager
def cluster(room: Room, port: int) -> Iterator[Cluster]:
    """Two nodes of so much room each, jobs submitted at `port`; what runs there sees the
    environment of this process, `surroundings` among it."""
    from ray.cluster_utils import Cluster as RayCluster

    each = {
        "num_cpus": room.cpu,
        "memory": room.memory_bytes,
        "num_gpus": room.gpu,
        "object_store_memory": STORE_BYTES,
    }
    made = RayCluster(initialize_head=False, shutdown_at_exit=False)
    address = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as started:
        head = {"include_dashboard": True, "dashboard_port": port}
        started.callback(_kill, _node(made, **each, **head))
        until(lambda: _answers(address), "the head answers")
        worker = _node(made, **each)
        started.callback(_kill, worker)
        both = Cluster(address, worker)
        until(lambda: len(both.nodes()) == 2, "both nodes are there")
        yield both


def until(
    look: Callable[[], T], what: str, patience_s: float = PATIENCE_S, every_s: float = 0.5
) -> T:
    """The first truthy answer of `look`.

    Raises:
        TimeoutError: it did not come.
    """
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        found = look()
        if found:
            return found
        time.sleep(every_s)
    raise TimeoutError(f"after {patience_s:.0f} s still not: {what}")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _node(made: Any, **asked: Any) -> list[psutil.Process]:
    """The processes of a new node; one that does not come up is tried again."""
    is_head, reason = made.head_node is None, Exception()
    for _ in range(TRIES):
        before = set(psutil.Process().children())
        try:
            made.add_node(**asked)
        except Exception as error:  # Ray has no name for it
            reason = error
            _kill([one for one in psutil.Process().children() if one not in before])
            if is_head:
                made.head_node = None
            continue
        return [one for one in psutil.Process().children() if one not in before]
    raise TimeoutError(f"no node came up in {TRIES} tries: {reason}") from reason


def _answers(address: str) -> bool:
    from resources.ray_steps import ClusterError, client_of, machines_of

    try:
        client_of(address)
        return bool(machines_of(address))
    except ClusterError:
        return False


def _kill(node: list[psutil.Process]) -> int:
    """The whole family at once: nobody is left to tidy up after another."""
    family = list(node)
    for one in node:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += one.children(recursive=True)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(family, timeout=10)
    return len(family)


__all__ = ["Cluster", "cluster", "free_ports", "surroundings", "until"]
