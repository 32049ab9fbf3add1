"""Quotas of a step in flight: memory, cores and money, and who stops the offender.

Belongs here: limits of a step's processes while it works, and their clear failure. Does not: what a
step costs (`meter`), whether it may start (`coordinator`), run timeouts (`dagster/max_runtime`),
finding processes (`family`).

Facts this is built on:

- RLIMIT_AS kills innocent libraries that only reserve addresses; it is never set.
- A soft RLIMIT_DATA (what is used now + the quota) turns a leak into `MemoryError` where the
  library can raise it. A hard one could not be undone and would lose Dagster's failure event.
- Native code may ignore the soft limit or die of it, so a thread watches the resident set and
  interrupts the step; if the step does not yield (it is inside a long native call), the process
  ends with a word on stderr, and the parent records the failure.
- All limits are lifted before Dagster records the failure: recording needs memory too.
- A killed run worker leaves its step child running: the watchdog ends a step whose parent is gone.
- What a step starts (the neural rung's process) takes the step's memory too, is counted with it and
  ends with it: a step that waits for a child could not be interrupted otherwise.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from resources.family import GIB, Family

T = TypeVar("T")
_LOG = logging.getLogger("forecast.quota")


class QuotaExceeded(RuntimeError):
    """A step passed one of its limits; the message says which, what it used and what to do."""

    def __init__(self, quota: str, message: str) -> None:
        self.quota = quota
        super().__init__(message)


@dataclass(frozen=True)
class Limits:
    """What one step may use. None: no limit.

    `spent` gives the money that the run has cost so far and `more` asks for a larger hold (None:
    there is none). `grace_s` is how long a step may take to yield before its process is ended.
    With `cgroup` the kernel backs the memory limit where it lets us make a group.
    """

    memory_gib: float | None = None
    threads: int | None = None
    money: Decimal | None = None
    spent: Callable[[], Decimal] | None = None
    more: Callable[[Decimal], Decimal | None] | None = None
    money_interval_s: float = 0.0
    interval_s: float = 0.25
    grace_s: float = 5.0
    end_with_parent: bool = False
    cgroup: bool = False


@contextmanager
def guarded(limits: Limits, step: str = "step") -> Iterator[None]:
    """Run the body within `limits`, in the main thread or any other.

    Raises:
        QuotaExceeded: the body passed a limit. Where it cannot be interrupted within `grace_s` the
            process ends with status 70 instead, and the parent reports it.
    """
    watch = _Watch(limits, step)
    watch.start()  # before any limit (a thread needs memory to start), yet not armed
    lifted = ExitStack()
    lifted.callback(watch.finish)
    try:
        if limits.memory_gib is not None:
            lifted.enter_context(_soft_data_limit(limits.memory_gib))
        if limits.memory_gib is not None and limits.cgroup:
            lifted.enter_context(_hard_limit(limits.memory_gib))
        if limits.threads is not None:
            lifted.enter_context(_thread_limit(limits.threads))
        lifted.callback(watch.finish)  # lifted first, so that no interrupt hits the lifting
        watch.armed.set()
        yield
        lifted.close()
    except BaseException as error:
        lifted.close()
        if watch.verdict is not None:
            raise watch.verdict from error
        if isinstance(error, MemoryError) and limits.memory_gib is not None:
            raise QuotaExceeded("memory", watch.memory_message()) from error
        raise
    if watch.verdict is not None:
        raise watch.verdict


def each_within(
    within: Callable[[], AbstractContextManager[None]], items: Iterable[T]
) -> Iterator[T]:
    """The items, each made within its own limits; whoever takes them works without any."""
    source = iter(items)
    while True:
        with within():
            try:
                item = next(source)
            except StopIteration:
                return
        yield item


class _Watch:
    """The thread that looks at a step from beside it."""

    def __init__(self, limits: Limits, step: str) -> None:
        self.limits, self.step = limits, step
        self.verdict: QuotaExceeded | None = None
        self.peak_gib = 0.0
        self._hold, self._asked = limits.money, time.monotonic()
        self._worker = threading.get_ident()
        self._family = Family()
        self.armed, self._done = threading.Event(), threading.Event()
        self._parent = os.getppid()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name=f"quota:{step}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Stop looking; an interrupt that is on its way ends here and hits nobody else."""
        while True:
            try:
                self._done.set()
                self.armed.set()
                with self._lock:  # whatever is sent has been sent by now
                    pass
                self._thread.join(timeout=self.limits.interval_s * 4)
                _interrupt(self._worker, None)
                return
            except _Stopped:
                continue

    def _look(self) -> None:
        self.armed.wait()
        while not self._done.wait(self.limits.interval_s):
            if self.limits.end_with_parent and os.getppid() != self._parent:
                _LOG.error("%s: the run worker is gone; this step ends with it", self.step)
                self._family.end()
                os._exit(71)
            found = self._over()
            if found is not None:
                self.stop(*found)
                return

    def _over(self) -> tuple[str, str] | None:
        limits = self.limits
        if limits.memory_gib is not None:
            self.peak_gib = max(self.peak_gib, self._family.resident_gib())
            if self.peak_gib > limits.memory_gib:
                return "memory", self.memory_message()
        return self._over_money()

    def _over_money(self) -> tuple[str, str] | None:
        limits = self.limits
        if self._hold is None or limits.spent is None:
            return None
        if time.monotonic() - self._asked < limits.money_interval_s:
            return None
        self._asked = time.monotonic()
        try:
            spent = limits.spent()
            if spent <= self._hold:
                return None
            more = limits.more(spent) if limits.more else None
        except Exception:  # the store is away: what was admitted goes on, and is asked about again
            _LOG.exception("%s: its cost could not be read", self.step)
            return None
        if more is not None:
            _LOG.warning("%s: has cost %.6f, its hold grows to %.6f", self.step, spent, more)
            self._hold = more
            return None
        return "money", (
            f"{self.step}: has cost {spent:.6f}, its hold is {self._hold:.6f} and no budget has"
            " room for more; stopped. The charges stand in the ledger; raise the budget, or ask for"
            " a cheaper rung"
        )

    def memory_message(self) -> str:
        peak = max(self.peak_gib, self._family.resident_gib())
        return (
            f"{self.step}: uses {peak:.2f} GiB, its quota is {self.limits.memory_gib:.2f} GiB;"
            " stopped so that its neighbours keep theirs. Raise `step` of its stage in the"
            " admission policy, or split the work by store"
        )

    def stop(self, quota: str, message: str) -> None:
        """Interrupt the step; end the process if it does not yield."""
        with self._lock:
            if self._done.is_set() or self.verdict is not None:
                return
            self.verdict = QuotaExceeded(quota, message)
            self._family.end()  # whoever waits for a child wakes up now
            _interrupt(self._worker, _Stopped)
        if not self._done.wait(self.limits.grace_s):
            print(f"quota: {message} (it did not yield; the process ends)", file=sys.stderr)
            sys.stderr.flush()
            os._exit(70)


class _Stopped(BaseException):
    """What the watchdog raises inside a step; `guarded` turns it into `QuotaExceeded`."""


def _interrupt(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(error) if error is not None else None
    )


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def _soft_data_limit(memory_gib: float) -> Iterator[None]:
    """A soft limit a little above the quota: the watchdog speaks first, malloc fails second."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    room = _data_bytes() + int(memory_gib * GIB * 1.1)
    soft = room if before[0] == resource.RLIM_INFINITY else min(room, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@contextmanager
def _hard_limit(memory_gib: float) -> Iterator[None]:
    """A cgroup a quarter above the quota, where one can be made: the watchdog speaks first, and
    the kernel ends what takes memory faster than it looks."""
    group = Cgroup.make(f"forecast-{os.getpid()}", memory_gib * 1.25)
    if group is None:
        yield
        return
    try:
        group.take(os.getpid())
        yield
    finally:
        group.leave(os.getpid())
        group.remove()


@contextmanager
def _thread_limit(threads: int) -> Iterator[None]:
    """Pin the process to so many cores: libraries that count cores then start that many threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[: max(1, threads)]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Cgroup:
    """A cgroup v2 of our own with a hard memory limit, where the host lets us make one."""

    path: Path

    @classmethod
    def make(
        cls, name: str, memory_gib: float, root: Path = Path("/sys/fs/cgroup")
    ) -> Cgroup | None:
        """A child group, or None where cgroup v2 is not there or not writable."""
        path = root / name
        try:
            if "memory" not in (root / "cgroup.subtree_control").read_text().split():
                return None
            path.mkdir(exist_ok=True)
            (path / "memory.max").write_text(str(int(memory_gib * GIB)))
        except OSError:
            return None
        return cls(path)

    def take(self, pid: int) -> None:
        """Move a process into the group."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def leave(self, pid: int) -> None:
        """Move a process back to where the group was made."""
        (self.path.parent / "cgroup.procs").write_text(str(pid))

    def remove(self, within_s: float = 2.0) -> None:
        """Remove the group once it is empty."""
        ends = time.monotonic() + within_s
        while time.monotonic() < ends:
            try:
                self.path.rmdir()
                return
            except OSError:
                time.sleep(0.05)
