"""What this process and its children have used so far.

Belongs here: CPU, resident memory, peak and GPU-seconds of the running process, as figures that
only grow. Does not: which step used them (`meter`) or what they cost
(`forecast_core.cost.charges`).

CPU comes from the kernel's own account (getrusage of self and of reaped children, and the times of
children that still live), so nothing is lost between samples. Memory has no such account: a thread
samples it twice a second and integrates by trapezoids. The thread's own CPU is measured too.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from dataclasses import dataclass

import psutil

GIB = 2**30
SAMPLE_S = 0.5
CHILDREN_EVERY = 10  # samples: listing children reads the names of all processes of the machine


@dataclass(frozen=True)
class Reading:
    """Totals since the process began: seconds, GiB-seconds; `clock` is monotonic."""

    clock: float
    cpu_s: float
    rss_gib_s: float
    gpu_s: float
    meter_cpu_s: float

    def since(self, earlier: Reading) -> Reading:
        """The growth between two readings; never negative."""
        return Reading(
            *(
                max(getattr(self, name) - getattr(earlier, name), 0.0)
                for name in ("clock", "cpu_s", "rss_gib_s", "gpu_s", "meter_cpu_s")
            )
        )


class ProcessProbe:
    """Measures the process it lives in. One for a process: see `probe`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._lock = threading.Lock()
        self._family = Descendants(self._process)
        self._children: list[psutil.Process] = []
        self._samples = 0
        self._rss_gib_s = 0.0
        self._gpu_s = 0.0
        self._peak_gib = 0.0
        self._meter_cpu_s = 0.0
        self._thread: threading.Thread | None = None
        began = time.monotonic() - max(time.time() - self._process.create_time(), 0.0)
        # Memory from the start of the process to now: a trapezoid from nothing.
        self._last = (began, 0.0, 0)
        # Up to where somebody was charged; nothing yet, so the first one pays for the start too.
        self.charged = Reading(began, 0.0, 0.0, 0.0, 0.0)
        self.sample()

    @property
    def name(self) -> str:
        """Names this process among all that ever ran: its id and when it began."""
        return f"{self._process.pid}@{self._process.create_time():.2f}"

    def start(self) -> None:
        """Begin sampling in the background; idempotent."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="meter", daemon=True)
            self._thread.start()

    def read(self) -> Reading:
        """Totals up to now."""
        self.sample(list_children=True)
        with self._lock:
            return Reading(
                clock=self._last[0],
                cpu_s=self._cpu_s(),
                rss_gib_s=self._rss_gib_s,
                gpu_s=self._gpu_s,
                meter_cpu_s=self._meter_cpu_s,
            )

    def restart_peak(self) -> float:
        """Begin a new peak at the present size; returns the kernel's high-water mark in GiB.

        The kernel's mark is left alone, since whoever started this process may read it.
        """
        with self._lock:
            self._peak_gib = self._last[1]
        return high_water_gib()

    def peak_gib(self, mark_gib: float) -> float:
        """Peak since `restart_peak` gave `mark_gib`: exact at a new high, else sampled."""
        high = high_water_gib()
        with self._lock:
            return max(self._peak_gib, high if high > mark_gib else 0.0)

    def spent(self, cpu_s: float) -> None:
        """Count CPU that metering took, so that it is metered too."""
        with self._lock:
            self._meter_cpu_s += cpu_s

    def sample(self, *, list_children: bool = False) -> None:
        """Take one sample of memory and GPUs."""
        began = time.thread_time()
        with self._lock:
            if list_children or self._samples % CHILDREN_EVERY == 0:
                self._children = self._family.living()
            self._samples += 1
            clock, rss_gib, gpus = time.monotonic(), self._rss_gib(), held_gpus()
            then, had_gib, had_gpus = self._last
            self._rss_gib_s += (clock - then) * (rss_gib + had_gib) / 2
            self._gpu_s += (clock - then) * (gpus + had_gpus) / 2
            self._peak_gib = max(self._peak_gib, rss_gib)
            self._last = (clock, rss_gib, gpus)
            self._meter_cpu_s += time.thread_time() - began

    def _run(self) -> None:
        while True:
            time.sleep(SAMPLE_S)
            self.sample()

    def _rss_gib(self) -> float:
        total = self._process.memory_info().rss
        for child in self._children:
            try:
                total += child.memory_info().rss
            except psutil.Error:
                continue
        return float(total) / GIB

    def _cpu_s(self) -> float:
        used = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            times = resource.getrusage(who)
            used += times.ru_utime + times.ru_stime
        for child in self._children:
            try:
                live = child.cpu_times()
            except psutil.Error:
                continue
            # Only what a direct or further child has reaped itself is in its children's times.
            used += live.user + live.system + live.children_user + live.children_system
        return used


class Descendants:
    """The living children of a process, and theirs.

    A process keeps its parent, so of each of the machine's only a new one is asked for it: reading
    them all, as psutil does, took more than all else that metering does. One whose parent has
    ended stays in the family as long as it lives.
    """

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._ours: dict[int, psutil.Process] = {}
        self._others: set[int] | None = None

    def living(self) -> list[psutil.Process]:
        """Those that live now, as a list of its own."""
        alive = set(psutil.pids()) - {self._root.pid}
        self._ours = {pid: process for pid, process in self._ours.items() if pid in alive}
        if self._others is None:
            self._ours = {child.pid: child for child in self._root.children(recursive=True)}
        else:
            self._adopt(alive - self._others - self._ours.keys())
        self._others = alive - self._ours.keys()
        return list(self._ours.values())

    def _adopt(self, new: set[int]) -> None:
        born = {pid: (process, parent) for pid in new for process, parent in _with_parent(pid)}
        family = {self._root.pid, *self._ours}
        while found := [pid for pid, (_, parent) in born.items() if parent in family]:
            self._ours |= {pid: born.pop(pid)[0] for pid in found}
            family = set(found)


def _with_parent(pid: int) -> list[tuple[psutil.Process, int]]:
    try:
        process = psutil.Process(pid)
        return [(process, process.ppid())]
    except psutil.Error:  # it ended between the two looks
        return []


def high_water_gib() -> float:
    """VmHWM of this process: ru_maxrss would be inherited from the parent."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 2**20
    except OSError:  # no Linux: the sampled peak stands
        pass
    return 0.0


def held_gpus() -> int:
    """GPUs that this process holds. Never initializes one, and never imports torch."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    try:
        return int(cuda.device_count()) if cuda is not None and cuda.is_initialized() else 0
    except (AttributeError, RuntimeError):  # half imported
        return 0


_PROBES: dict[int, ProcessProbe] = {}


def probe() -> ProcessProbe:
    """The probe of this process; a fork gets one of its own."""
    pid = os.getpid()
    if pid not in _PROBES:
        _PROBES.clear()
        _PROBES[pid] = ProcessProbe()
    return _PROBES[pid]
