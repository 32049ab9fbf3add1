"""What the platform itself uses: daemon, webserver and code server, sensors and schedules included.

Belongs here: finding those processes, and charging the growth of each as overhead, once. Does not:
steps or run workers, which meter themselves (`meter`).

The code server evaluates the sensors, and every process of the platform under the same parent is
its kin: all of `dagster dev`, or all of a container. Only a process's own CPU is read, never its
children's, since run workers are children of the code server and are charged to their runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil

from forecast_core.cost.charges import GIB, Usage
from forecast_core.cost.price_card import PriceCard
from forecast_core.cost.settlement import OVERHEAD, Owner, Settlement, ledger_rows
from resources.ledger import Ledger

# What a command line holds, and what the process is called in the ledger (`x_step_key`).
ROLES: Mapping[str, str] = {
    "dagster._daemon": "daemon",
    "dagster-daemon": "daemon",
    "daemon run": "daemon",
    "dagster_webserver": "webserver",
    "dagster-webserver": "webserver",
    "api grpc": "code server",
    "code-server": "code server",
    "dagster dev": "dagster dev",
}


@dataclass(frozen=True)
class PlatformProcess:
    """A process of the platform now: `cpu_s` its own so far, `born` in seconds of the epoch."""

    role: str
    pid: int
    born: float
    cpu_s: float
    rss_gib: float

    @property
    def name(self) -> str:
        """No two processes that ever ran on this machine share it."""
        return f"{self.role}:{self.pid}@{self.born:.2f}"


def platform_processes(pid: int | None = None) -> Iterator[PlatformProcess]:
    """The process `pid` (this one by default), its ancestors and its kin that are the platform."""
    try:
        me = psutil.Process(pid or os.getpid())
        above = me.parents()
    except psutil.Error:
        return
    # The first process of a machine or container is everybody's parent: no kin of ours.
    families = [p.children() for p in above if p.pid > 1 and _role(p) is not None]
    seen: set[int] = set()
    for process in [me, *above, *(child for family in families for child in family)]:
        role = _role(process)
        if role is None or process.pid in seen:
            continue
        seen.add(process.pid)
        try:
            with process.oneshot():
                times, rss = process.cpu_times(), process.memory_info().rss
                born = process.create_time()
        except psutil.Error:  # it ended between the two looks
            continue
        yield PlatformProcess(role, process.pid, born, times.user + times.system, rss / GIB)


def _role(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return next((role for part, role in ROLES.items() if part in line), None)


def charge_platform(ledger: Ledger, card: PriceCard, environment: str) -> float:
    """Charge what each process of the platform used since it was last charged; CPU-seconds.

    Two who look at once charge a stretch once: it is named by where it begins.
    """
    now = datetime.now(UTC)
    charged = 0.0
    for process in platform_processes():
        cursor = f"platform:{process.name}"
        then_s, then = _last(ledger.cursor(cursor), process)
        used = process.cpu_s - then_s
        if used <= 0:
            continue
        wall_s = max((now - then).total_seconds(), 1e-6)
        owner = Owner(
            environment=environment, cost_class=OVERHEAD, pipeline=None, step_key=process.role
        )
        settlement = Settlement(
            charge_set=f"{environment}:{process.name}:{then_s:.2f}",
            owner=owner,
            start=then,
            end=then + timedelta(seconds=wall_s),
            usage=Usage(
                cpu_s=used,
                rss_gib_s=process.rss_gib * wall_s,
                peak_rss_gib=process.rss_gib,
                wall_s=wall_s,
            ),
        )
        rows = ledger_rows(settlement, card.on(then.date(), environment))
        if ledger.record(*rows, cursor=(cursor, f"{process.cpu_s!r} {now.isoformat()}")):
            charged += used
    return charged


def _last(cursor: str | None, process: PlatformProcess) -> tuple[float, datetime]:
    if cursor is None:
        return 0.0, datetime.fromtimestamp(process.born, UTC)
    cpu_s, _, moment = cursor.partition(" ")
    return float(cpu_s), datetime.fromisoformat(moment)
