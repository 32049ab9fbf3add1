"""The processes of a step: itself and what it started since.

Belongs here: finding them, their memory, ending them. Does not: limits (`quotas`).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GIB = 1024**3
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Family:
    """This process and the descendants that it has started since this object was made.

    Found through `/proc`, some microseconds a look; where the kernel does not list children the
    family is this process alone.
    """

    def __init__(self) -> None:
        self._before = frozenset(_descendants(os.getpid()))

    def children(self) -> list[int]:
        """The process ids of the descendants, parents before their own children."""
        return [pid for pid in _descendants(os.getpid()) if pid not in self._before]

    def resident_gib(self) -> float:
        """Resident set of the whole family now, GiB (shared pages count for each)."""
        return resident_gib() + sum(resident_gib(pid) for pid in self.children())

    def end(self) -> None:
        """Kill the descendants; this process lives on."""
        for pid in self.children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def resident_gib(pid: int | None = None) -> float:
    """Resident set of a process (this one) now, GiB; 0 once it is gone."""
    try:
        statm = Path(f"/proc/{pid or 'self'}/statm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(statm.split()[1]) * _PAGE / GIB


def _descendants(pid: int) -> Iterator[int]:
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):  # it, or a thread of it, ended meanwhile
        return
    for child in (int(word) for text in lists for word in text.split()):
        yield child
        yield from _descendants(child)
