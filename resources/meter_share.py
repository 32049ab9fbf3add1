"""Whom the parts of one step served, by the CPU that each was seen to take.

Belongs here: the stopwatch that a body holds while it serves several segment groups. Does not:
charging (`meter`), or splitting exactly (`forecast_core.cost.settlement`).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from forecast_core.cost.settlement import Share
from resources.meter import Meter
from resources.meter_step import AnyContext


def cpu_clock() -> float:
    """CPU-seconds of this process and of its children that have ended, such as a network's."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


class Laps:
    """CPU-seconds by share, children's too, told to the meter at every lap.

    `method` names the driver in the ledger (`x_method`): fit_seconds, predict_seconds. What served
    everyone (reading, aligning) is a lap of all shares, divided by the series of each.
    """

    def __init__(self, meter: Meter, context: AnyContext, method: str) -> None:
        self._meter, self._context, self._method = meter, context, method
        self.seconds: dict[Share, float] = {}
        self.start()

    def start(self) -> None:
        """Begin a lap here: what was done since the last one served nobody named."""
        self._began = cpu_clock()

    def lap(self, *shares: Share) -> None:
        """What was done since the last lap served `shares`, each by its number of series."""
        now = cpu_clock()
        taken, self._began = now - self._began, now
        for share, part in zip(shares, _parts(shares), strict=True):
            self.seconds[share] = self.seconds.get(share, 0.0) + taken * part
        if self.seconds:
            self._meter.share(self._context, self.seconds, self._method)


def _parts(shares: Sequence[Share]) -> list[float]:
    whole = sum(share.series or 0 for share in shares)
    return [(share.series or 0) / whole if whole else 1 / len(shares) for share in shares]
