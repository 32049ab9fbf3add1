"""Run one side of a comparison in a process of its own, so that its peak memory is its own.

Belongs here: the process, the CPU clock and the peak. Does not: what is measured.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


def cpu_seconds(body: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """The least CPU-seconds of `repeats` calls, all threads, and the last result."""
    least = float("inf")
    result = None
    for _ in range(repeats):
        result = None  # let the last one go before the next is built
        start = time.process_time()
        result = body()
        least = min(least, time.process_time() - start)
    return least, result


@dataclass(frozen=True)
class Apart:
    """What a function returned in a process of its own, and that process's peak memory."""

    result: Any
    peak_gb: float


def apart(body: Callable[..., Any], *args: Any) -> Apart:
    """Call `body(*args)` in a fresh process (both picklable by name).

    Raises:
        RuntimeError: the process died or the body raised, with the body's own words.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, body, args))
    process.start()
    sender.close()
    try:
        result, peak, error = receiver.recv()
    except EOFError:
        result, peak, error = None, 0.0, "the process died: out of memory?"
    process.join()
    if error:
        raise RuntimeError(f"{body.__module__}.{body.__name__}: {error}")
    return Apart(result, peak)


def _tell(sender: Connection, body: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        sender.send((body(*args), _peak_gb(), None))
    except BaseException as error:
        sender.send((None, 0.0, f"{type(error).__name__}: {error}"))


def _peak_gb() -> float:
    """VmHWM, not ru_maxrss: the latter is inherited across exec."""
    with open("/proc/self/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return kib / 1024**2
