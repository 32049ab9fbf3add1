"""Who holds money, and does it still live?

Belongs here: the mark that a process leaves on the run it works for, and what became of the runs
that hold. Does not: what follows for their money (`escrow`).

A run of the queue has the daemon's run monitoring to declare it dead. One that a command works on
has nobody: it names its process, and whoever asks next on the same machine looks for it.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterable, Sequence

import dagster as dg
import psutil

from resources.escrow import Escrow, Fate

HOLD = "admission/hold"
HOLDER = "admission/holder"


def this_process() -> str:
    """The process behind the run at hand, as `host:pid:start`: a step's child names its parent."""
    parent = multiprocessing.parent_process()
    pid = parent.pid if parent is not None and parent.pid is not None else os.getpid()
    return f"{socket.gethostname()}:{pid}:{_began(pid):.2f}"


def lives(holder: str) -> bool | None:
    """Is that process still there? None when it runs on another machine."""
    host, pid, began = holder.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        return abs(_began(int(pid)) - float(began)) < 1.0
    except psutil.Error:
        return False


def _began(pid: int) -> float:
    return psutil.Process(pid).create_time()


def runs_by_id(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterable[dg.DagsterRun]:
    """Those of the runs that the instance knows, in chunks that any database takes."""
    for start in range(0, len(run_ids), 500):
        yield from instance.get_runs(dg.RunsFilter(run_ids=list(run_ids[start : start + 500])))


def fate_of(run: dg.DagsterRun) -> Fate:
    """What became of a run, as Dagster and its process know it.

    An unfinished run that came by no queue and names no process here may be dead: its money is
    kept until the hold expires, no longer.
    """
    if run.is_finished:
        return "succeeded" if run.is_success else "failed"
    if HOLDER in run.tags:
        return {True: "running", False: "failed", None: "unknown"}[lives(run.tags[HOLDER])]  # type: ignore[return-value]
    return "running" if HOLD in run.tags else "unknown"


def fates(instance: dg.DagsterInstance, escrow: Escrow) -> Callable[[str], Fate]:
    """What became of everything that holds money."""
    holders = [run_id for run_id, *_ in escrow.store.holders(escrow.environment)]
    known = {run.run_id: fate_of(run) for run in runs_by_id(instance, holders)}
    return lambda run_id: known.get(run_id, "unknown")


def withdraw_gone(instance: dg.DagsterInstance, escrow: Escrow) -> int:
    """Take out of the queue what will not come: cancelled runs, commands that died waiting."""
    waiting = escrow.store.waiting_ids(escrow.environment)
    gone = [
        run.run_id
        for run in runs_by_id(instance, waiting)
        if run.status != dg.DagsterRunStatus.QUEUED and fate_of(run) in ("succeeded", "failed")
    ]
    return sum(escrow.withdraw(run_id) for run_id in gone)
