"""What happened in one draw of the future: the tallies that the twin keeps while it runs.

Belongs here: counting, by month, pipeline, class and day. Does not: deciding anything, nor
statistics over several draws (`outcomes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from forecast_core.admission import Decision
from forecast_core.admission.policy import NANO
from forecast_core.capacity.arrivals import Batch, Truth
from forecast_core.capacity.calendar import DAY, month_of

PATIENCE_S = 1800.0  # a run this late has not merely waited for its turn


def _floats() -> defaultdict[Any, float]:
    return defaultdict(float)


class Record:
    """Tallies of one draw. Money in currency units, resources in hours, storage in bytes.

    `money`: (month, pipeline) -> money. `used`: (month, resource) -> CPU, GPU and GiB hours.
    `tally`: (month, work, rung) -> [series x runs, money]. `delays`: class -> minute of delay ->
    runs. `covered` and `watched`: day -> (done by the deadline, due), in series and runs.
    `upgraded`: day -> rung -> series that had it by the deadline. `breaks`: what ran short ->
    (first day, how often).
    """

    def __init__(self, start: float, offset_s: float) -> None:
        self.start, self.offset_s = start, offset_s
        self.money = _floats()
        self.used = _floats()
        self.tally: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.runs = self.passes = self.failed = self.stopped = self.lost = self.superseded = 0
        self.unstarted = 0
        self.rejections: dict[str, int] = {}
        self.delays: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        self.covered: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.watched: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self.upgraded: dict[int, dict[str, float]] = defaultdict(_floats)
        self.upgrades_due: dict[int, dict[str, float]] = defaultdict(_floats)
        self.written: dict[int, float] = _floats()
        self.breaks: dict[str, list[int]] = {}
        self.overshoot: dict[str, float] = {}
        self.last_end = start

    # ---- what the twin tells -----------------------------------------------------------------

    def due(self, batch: Batch) -> None:
        """A batch of the day is known of."""
        work, amount = batch.kind.work, batch.count * batch.kind.series
        if work.covers:
            self.covered[batch.day][1] += amount
        if work.watches:
            self.watched[batch.day][1] += batch.count
        if _is_upgrade(batch):
            self.upgrades_due[batch.day][batch.kind.shape.quotes[0].rung] += amount

    def started(self, work_class: str, delay_s: float, count: int) -> None:
        """So many runs of a class start after so long a wait."""
        self.runs += count
        self.delays[work_class][int(delay_s // 60)] += count

    def ended(
        self,
        now: float,
        batch: Batch,
        rung: str,
        truth: Truth,
        count: int,
        ratio: float,
        nanos: int,
    ) -> None:
        """So many runs ended, whatever way; `ratio` is the sum of their charges over the mean."""
        month = month_of(now, self.offset_s)
        money = nanos / NANO
        self.money[month, batch.kind.pipeline] += money
        tally = self.tally[month, batch.kind.name.partition("+")[0], rung]
        tally[0] += count * batch.kind.series
        tally[1] += money
        self.used[month, "cpu_h"] += truth.cpu_s * ratio / 3600
        self.used[month, "gpu_h"] += truth.gpu_s * ratio / 3600
        self.used[month, "gib_h"] += truth.gib_s * ratio / 3600
        self.written[batch.day] += truth.bytes_written * count
        self.last_end = max(self.last_end, now)

    def succeeded(self, now: float, batch: Batch, rung: str, count: int) -> None:
        """So many runs ended well."""
        if batch.deadline is not None and now > batch.deadline:
            return
        work, amount = batch.kind.work, count * batch.kind.series
        if work.covers:
            self.covered[batch.day][0] += amount
        if work.watches:
            self.watched[batch.day][0] += count
        if _is_upgrade(batch):
            self.upgraded[batch.day][rung] += amount

    def held(self, now: float, decision: Decision) -> None:
        """A run is told to wait; for money, or long beyond its latest start, that is a break."""
        if decision.code == "money" or now > decision.latest + PATIENCE_S:
            self.short(now, decision)

    def short(self, now: float, decision: Decision) -> None:
        """Something did not suffice: a budget node, or a stage's or the host's room."""
        name = decision.code
        if name in ("peak", "load", "cap", "blocked", "fan_out"):
            return  # the policy's own will, not a shortage
        if name == "money":
            name = f"budget {decision.reason.partition(' has ')[0]}"
        day = int((now - self.start) // DAY)
        self.breaks.setdefault(name, [day, 0])[1] += 1

    def rejected(self, now: float, batch: Batch, count: int, decision: Decision) -> None:
        """So many runs can never start."""
        key = f"{batch.kind.name}: {decision.reason}"
        self.rejections[key] = self.rejections.get(key, 0) + count
        day = int((now - self.start) // DAY)
        self.breaks.setdefault(f"rejected {batch.kind.name}", [day, 0])[1] += count

    def never(self, batch: Batch, count: int) -> None:
        """So many runs still waited when the days were over."""
        self.unstarted += count

    def check(self, over: Mapping[str, float]) -> None:
        """Remember the worst overshoot of each budget node."""
        for node, share in over.items():
            if share > self.overshoot.get(node, 0.0):
                self.overshoot[node] = share

    # ---- what it amounts to ------------------------------------------------------------------

    @property
    def total(self) -> float:
        """All money of the draw."""
        return sum(self.money.values())

    def months(self) -> list[str]:
        """The months that anything was charged in, in order."""
        return sorted({month for month, _ in self.money})

    def of_month(self, month: str) -> float:
        """All money of a month."""
        return sum(amount for (m, _), amount in self.money.items() if m == month)

    def share(self, tally: Mapping[int, list[float]]) -> float:
        """What was done of what was due, 1 where nothing was."""
        due = sum(entry[1] for entry in tally.values())
        return sum(entry[0] for entry in tally.values()) / due if due else 1.0

    def days_missed(self, tally: Mapping[int, list[float]]) -> int:
        """Days on which something was missing at the deadline (by more than rounding)."""
        return sum(done < due * (1 - 1e-9) for done, due in tally.values())

    def delay(self, work_class: str, level: float) -> float:
        """A quantile of the delay of a class's runs, in minutes."""
        histogram = self.delays.get(work_class, {})
        total, passed = sum(histogram.values()), 0
        for minute in sorted(histogram):
            passed += histogram[minute]
            if passed >= level * total:
                return float(minute)
        return 0.0


def _is_upgrade(batch: Batch) -> bool:
    """A forecast better than the first one, worth having by the deadline."""
    return len(batch.kind.work.rungs) > 1 and not batch.kind.work.covers and not _extra(batch)


def _extra(batch: Batch) -> bool:
    return "+" in batch.kind.name
