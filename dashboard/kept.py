"""Answers kept while what they rest on stays the same, for all readers together.

Belongs here: the cache. Does not: what is asked, nor how a change is noticed.

Twenty readers beside a backfill would ask the same twenty times at every charge. An answer is
computed by one of them; the others have the one of before meanwhile, and nobody looks for a change
more often than every `look_every_s`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
_NEVER = float("-inf")


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    stamp: Hashable = None
    value: Any = None
    known: bool = False
    looked: float = _NEVER


class Kept:
    """A bounded store of answers; the ones longest unused go first."""

    def __init__(
        self,
        look_every_s: float = 2.0,
        most: int = 256,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every, self._most, self._clock = look_every_s, most, clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        key: Hashable,
        stamp: Callable[[], Hashable],
        compute: Callable[[], T],
        look_every_s: float | None = None,
    ) -> T:
        """The answer to `key`: computed again when `stamp` has changed since.

        While one reader computes it, the others are given the answer of before. An error is
        raised to whoever met it and never kept. `look_every_s`: for an answer that is dear.
        """
        entry, every = self._entry(key), look_every_s or self._every
        if entry.known and self._clock() - entry.looked < every:
            return entry.value  # type: ignore[no-any-return]
        if not entry.lock.acquire(blocking=not entry.known):
            return entry.value  # type: ignore[no-any-return]
        try:
            if entry.known and self._clock() - entry.looked < every:
                return entry.value  # type: ignore[no-any-return]  # another reader was first
            now = stamp()
            if not entry.known or now != entry.stamp:
                entry.value, entry.stamp, entry.known = compute(), now, True
            entry.looked = self._clock()
            return entry.value  # type: ignore[no-any-return]
        finally:
            entry.lock.release()

    def _entry(self, key: Hashable) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)
            return entry
