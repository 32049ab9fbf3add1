"""Watching one daily unit-cost series as it arrives: when it rose, and when that was known.

Belongs here: the online replay over one series, using at each observation only what came
before it. Does not: reading ledgers (`unit_costs`), naming the shape (`change_shape`), weighing
accuracy or siblings (`regressions`).

At every observation three statistics are held against a robust baseline of the level in force: the
observation itself (a spike), the mean of the last k (a step), and the last k weighed by a rising
line (a creep, the matched filter of a ramp). Each is scaled by the series' own noise, with the
noise of like series as a prior while history is short, and turned into a tail probability of
Student's t, so a threshold means the same for a quiet daily series and a sparse weekly one.
A cycle is an observation: a weekly training run is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from forecast_core.incidents.change_shape import Shape, shape_of
from forecast_core.incidents.series_nature import (
    is_daily,
    rough_noise,
    volume_elasticity,
    weekday_effects,
)

Floats = npt.NDArray[np.float64]
Opened = Literal["spike", "step", "creep"]


@dataclass(frozen=True)
class Watch:
    """Thresholds. Probabilities are one-sided and per observation of a daily series; a sparse one,
    looked at less often, may take `sparse_looks` times that for the same false alarms a month.
    Effects are log ratios. `event_most`: the most that an unquantified planned event may add.
    """

    spike_p: float = 3e-5
    step_p: float = 4e-6
    creep_p: float = 2e-4
    fall_p: float = 1e-5
    sparse_looks: float = 7.0
    spike_least: float = 0.2
    step_least: float = 0.09
    creep_least: float = 0.05
    spike_over_largest: float = 1.2
    event_most: float = 0.7
    history: int = 56
    least_history: int = 10
    least_history_sparse: int = 6
    settle: int = 14
    settle_sparse: int = 7
    noise_floor: float = 0.012
    prior_weight: float = 4.0


@dataclass(frozen=True)
class Rise:
    """A rise of the unit cost. Indices are observations of the series.

    `start`: first raised; `opened`: when it was known; `classified`: when the shape was. `effect`:
    log ratio to the baseline; `level`: log unit cost expected. `until`: last raised, if it ended.
    """

    kind: Opened
    start: int
    opened: int
    opened_as: Opened
    classified: int
    effect: float
    level: float
    score: float
    shape: Shape | None = None
    until: int | None = None


@dataclass(frozen=True)
class Fall:
    """A lasting fall to a cheaper level (never an incident; the other half of a cost shift)."""

    start: int
    effect: float
    level_before: float


@dataclass
class Replay:
    """What the watch saw over a whole series. `dismissed`: (observation, reason)."""

    rises: list[Rise] = field(default_factory=list)
    falls: list[Fall] = field(default_factory=list)
    dismissed: list[tuple[int, str]] = field(default_factory=list)


@lru_cache(maxsize=4096)
def _bound(p: float, df: int) -> float:
    """Student's t quantile of an upper tail `p`, capped where few points make it absurd."""
    from scipy.stats import t

    return float(min(t.isf(p, max(df, 3)), 9.0))


_HEAVY = 6.5  # above it the series' own 98th percentile is guard enough


@lru_cache(maxsize=64)
def _tail_bound(p: float, df: float) -> float:
    """The same of noise with the tails of Student's t, in units of its middle-based scale."""
    from scipy.stats import norm, t

    if df > _HEAVY:
        return float(norm.isf(p))
    return float(min(t.isf(p, df) / (1 + 0.39 / df), 9.0))


@dataclass(frozen=True)
class Observed:
    """One series: `day` (ordinal), `y` (log unit cost), `volume` (log), `event` (0, or
    the code of the planned events in force)."""

    day: npt.NDArray[np.int64]
    y: Floats
    volume: Floats
    event: npt.NDArray[np.int64]


def replay(
    series: Observed, watch: Watch, prior_noise: float, tail_df: float = float("inf")
) -> Replay:
    """Walk the series in order of time and report what an online watch would have opened.

    `tail_df`: degrees of freedom of Student's t that the noise of like series has the tails of.
    """
    walk = _Walk(series, watch, prior_noise, tail_df)
    for t in range(len(series.y)):
        walk.observe(t)
    walk.finish()
    return walk.seen


class _Walk:
    """The state of the watch between two observations."""

    def __init__(self, series: Observed, watch: Watch, prior_noise: float, tail_df: float) -> None:
        self.s, self.w, self.prior, self.tail_df = series, watch, prior_noise, tail_df
        self.daily = is_daily(series.day)
        self.least = watch.least_history if self.daily else watch.least_history_sparse
        self.settle = watch.settle if self.daily else watch.settle_sparse
        self.looks = 1.0 if self.daily else watch.sparse_looks
        self.seen = Replay()
        self.from_ = 0  # first observation of the level in force
        self.masked = np.zeros(len(series.y), dtype=bool)
        self.segment = np.zeros(len(series.y), dtype=np.int64)
        self.offset = np.zeros(len(series.y))  # the lift of planned events
        self.adjusted = series.y.copy()
        self.open: Rise | None = None
        self.before_last = 0  # first observation of the level before the last rise
        self.quiet_until = -1  # further rise before this belongs to the creep that is open

    # -- one observation -------------------------------------------------------------------
    def observe(self, t: int) -> None:
        self._adjust(t)
        if self.open is not None:
            self._follow(t)
            return
        base = self._base(t)
        if len(base) < self.least and not (self.from_ > 0 and len(base) >= 3):
            return
        noise, df, rho = self._noise(t)
        if (spike := self._spike(t, base, noise, df)) is not None:
            self.open = spike
            return
        rise, fall = self._scan(t, noise, df, rho)
        if rise is not None:
            self.open = rise
            self._follow(t)
        elif fall is not None:
            self.seen.falls.append(fall)
            self._new_level(fall.start, t)

    def finish(self) -> None:
        """The data ended with a rise still open: name it by what there is."""
        if self.open is None:
            return
        last = len(self.s.y) - 1
        raised = self._raised(self.open, last)
        if self.open.opened_as == "spike" and raised <= 1:
            self._close_spike(last)
        else:
            self._classify(last)

    # -- adjustments known at t --------------------------------------------------------------
    def _adjust(self, t: int) -> None:
        """Take weekdays, volume and planned events out, by what was known before t."""
        if t % 7 == 0 or t < 28:
            plain = self.s.event[:t] == 0  # an event lifts both volume and cost: no elasticity
            y, volume = self.s.y[:t], self.s.volume[:t]
            lag = 7 if self.daily and t >= 28 else 1
            self.beta = volume_elasticity(y[plain], volume[plain], lag=lag)
            self.middle = float(np.median(self.s.volume[: t + 1]))
            y = y - self.offset[:t] - self.beta * (volume - self.middle)
            weekday = self.s.day[:t] % 7
            self.weekdays = weekday_effects(y, weekday) if self.daily else np.zeros(7)
        plain_cost = (
            self.s.y[: t + 1]
            - self.beta * (self.s.volume[: t + 1] - self.middle)
            - self.weekdays[self.s.day[: t + 1] % 7]
        )
        if self.s.event[t]:
            self._expect_event(t, plain_cost)
        self.adjusted[: t + 1] = plain_cost - self.offset[: t + 1]

    def _expect_event(self, t: int, cost: Floats) -> None:
        """Move the expectation by the event's own lift so far; the threshold stays."""
        first = t
        while first > 0 and self.s.event[first - 1] == self.s.event[t]:
            first -= 1
        risen = self.open.start if self.open is not None else self.from_
        if first < risen:
            # A level that rose within the event is no part of the event's lift.
            self.offset[t] = self.offset[risen - 1]
            return
        since, until = self.from_, first
        if self.open is not None and self.open.start < first:
            # The event lifts a level, it lowers none: below the rise, the rise was a spike.
            raised = float(np.median(cost[self.open.start : first]))
            now = float(np.median(cost[first : t + 1]))
            if first - self.open.start < 3 and now < raised - 0.25 * self.open.effect:
                until = self.open.start
            else:
                since = max(since, self.open.start)
        before = [i for i in range(max(since, until - 10), until) if not self.masked[i]]
        if before:
            level = float(np.median(cost[before] - self.offset[before]))
            lift = float(np.median(cost[first : t + 1])) - level
            self.offset[t] = min(lift, self.w.event_most)
        elif first < t:
            self.offset[t] = self.offset[t - 1]  # the level in force began with the event

    def _base(self, t: int) -> Floats:
        low = max(self.from_, t - self.w.history)
        kept: Floats = self.adjusted[low:t][~self.masked[low:t]]
        return kept

    def _noise(self, t: int) -> tuple[float, int, float]:
        """Scale of the noise, its degrees of freedom and lag-one correlation, from before t."""
        low = max(0, t - 2 * self.w.history)
        keep = ~self.masked[low:t]
        x, seg = self.adjusted[low:t][keep], self.segment[low:t][keep]
        rest = np.concatenate([x[seg == g] - np.median(x[seg == g]) for g in np.unique(seg)])
        settled = rest[: max(len(rest) - 8, min(len(rest), 10))]
        n = len(settled)
        spread = 1.4826 * float(np.median(np.abs(settled))) if n else 0.0
        cut = np.clip(settled, -3 * spread, 3 * spread) if spread > 0 else settled
        power = float(np.sum(cut * cut))
        rho = float(np.sum(cut[1:] * cut[:-1]) / power) if n > 3 and power > 0 else 0.0
        rho = float(np.clip(rho * n / (n + 10), 0.0, 0.7))
        own = max(spread, rough_noise(x) / np.sqrt(1 - rho) if len(x) >= 4 else 0.0)
        tail = float(np.quantile(np.abs(rest), 0.95)) / 2.2 if n >= 20 else 0.0
        own = max(own, tail)
        k = self.w.prior_weight
        pooled = np.sqrt((n * own**2 + k * self.prior**2) / (n + k))
        return max(float(pooled), self.w.noise_floor), int(n + k), rho

    # -- the three statistics ------------------------------------------------------------------
    def _spike(self, t: int, base: Floats, noise: float, df: int) -> Rise | None:
        recent = base[-28:]
        level = float(np.median(recent))
        effect = float(self.adjusted[t]) - level
        if effect < self.w.spike_least:
            return None
        # One observation meets the tail of the noise, which a middle-based scale cannot see.
        rest = np.abs(base - np.median(base))
        own_tail = float(np.quantile(rest, 0.98)) / 2.33 if len(base) >= 30 else 0.0
        error = np.sqrt(1 + 1.57 / len(recent))
        score = effect / (max(noise, own_tail) * error)
        if effect < self.w.spike_over_largest * float(np.max(base - level)):
            return None
        p = self.looks * self.w.spike_p
        if score < _bound(p, df) or effect / (noise * error) < _tail_bound(p, self.tail_df):
            return None
        return Rise("spike", t, t, "spike", t, effect, level, score)

    def _scan(self, t: int, noise: float, df: int, rho: float) -> tuple[Rise | None, Fall | None]:
        """Every start of a step or ramp that could end at t, at once."""
        low = max(self.from_, t - 2 * self.w.history)
        where = np.flatnonzero(~self.masked[low : t + 1]) + low
        x = self.adjusted[where]
        level = np.median(x[: max(len(x) - 3, 1)])
        x = np.clip(x, level - 6 * noise, level + 6 * noise) if len(x) > 8 else x
        m = len(x)
        # Degrees of the new level on its own: a baseline of three is allowed after a change.
        least = 3 if self.from_ > 0 else self.least
        ks = np.arange(2, min(61 if self.daily else 20, m - least + 1))
        if len(ks) == 0:
            return None, None
        total = np.concatenate([[0.0], np.cumsum(x)])
        indexed = np.concatenate([[0.0], np.cumsum(x * np.arange(m))])
        starts = m - ks
        first = np.maximum(starts - self.w.history, 0)
        n = (starts - first).astype(np.float64)
        mu = (total[starts] - total[first]) / n
        widen = _correlated(ks, rho)
        bound_df = df
        mean = (total[m] - total[starts]) / ks
        step = (mean - mu) / (noise * widen * np.sqrt(1 / ks + 1 / n))
        ramp, rise_now = _ramps(ks, starts, n, mu, total, indexed, m, noise * widen)
        up = self._best_rise(t, ks, where, mean - mu, step, rise_now, ramp, mu, x, bound_df)
        if up is not None:
            return up, None
        fallen = (ks >= 3) & (ks <= 28) & (-step > _bound(self.looks * self.w.fall_p, bound_df))
        fallen &= mean - mu < -self.w.step_least
        fallen &= x[starts] < mu + 0.4 * (mean - mu)  # it begins with a fallen observation
        fallen &= x[-3:].max() < mu + 0.4 * (mean - mu)  # and lasts: one low day is a correction
        if not fallen.any():
            return None, None
        i = int(np.argmax(np.where(fallen, -step, -np.inf)))
        return None, Fall(int(where[starts[i]]), float(mean[i] - mu[i]), float(mu[i]))

    def _best_rise(
        self,
        t: int,
        ks: npt.NDArray[np.int64],
        where: npt.NDArray[np.int64],
        lift: Floats,
        step: Floats,
        rise_now: Floats,
        ramp: Floats,
        mu: Floats,
        x: Floats,
        df: int,
    ) -> Rise | None:
        lowest = np.array([x[-k:].min() for k in ks[:2]] + [np.inf] * max(len(ks) - 2, 0))
        held = lowest > mu + 0.4 * lift  # the first two must both be up: one alone is a spike
        steps = (
            (ks <= 28)
            & held
            & (lift > self.w.step_least)
            & (step > _bound(self.looks * self.w.step_p, df))
        )
        least_ramp = 5 if self.daily else 4
        ramps = (ks >= least_ramp) & (rise_now > self.w.creep_least)
        ramps &= ramp > _bound(self.looks * self.w.creep_p, df)
        scores = np.maximum(np.where(steps, step, -np.inf), np.where(ramps, ramp, -np.inf))
        if not np.isfinite(scores).any():
            return None
        i = int(np.argmax(scores))
        kind: Opened = (
            "step" if steps[i] and step[i] >= ramp[i] * (ks[i] >= least_ramp) else "creep"
        )
        effect = float(lift[i] if kind == "step" else rise_now[i])
        start = int(where[len(x) - ks[i]])
        return Rise(kind, start, t, kind, t, effect, float(mu[i]), float(scores[i]))

    # -- what became of a rise -----------------------------------------------------------------
    def _raised(self, rise: Rise, t: int) -> int:
        """Observations since the start that stand above half the rise."""
        return int(np.sum(self.adjusted[rise.start : t + 1] > rise.level + 0.5 * rise.effect))

    def _follow(self, t: int) -> None:
        rise = self.open
        assert rise is not None
        if rise.opened_as == "spike":
            # Nearer to the old level than the noise of a step would let it come.
            noise = rise.effect / rise.score
            gone = self.adjusted[t] < rise.level + min(0.5 * rise.effect, 2.5 * noise)
            raised = self._raised(rise, t)
            if gone and raised <= 2 and t > rise.opened:
                self._close_spike(t)
                return
            if raised < 3:
                return
        tail = self.adjusted[max(rise.opened + 1, t - 2) : t + 1]
        if len(tail) == 3 and np.all(tail < rise.level + 0.4 * rise.effect):
            self._close_gone(t)
        elif t - rise.opened >= self.settle:
            self._classify(t)

    def _close_spike(self, t: int) -> None:
        rise = self.open
        assert rise is not None
        up = self.adjusted[rise.start : t + 1] > rise.level + 0.5 * rise.effect
        last = rise.start + int(np.flatnonzero(up)[-1]) if up.any() else rise.start
        self.masked[rise.start : last + 1] = True
        self._report(_kind(rise, "spike", t, until=last))
        self.open = None

    def _close_gone(self, t: int) -> None:
        """A raised level that fell back before it had settled."""
        rise = self.open
        assert rise is not None
        last = t - 3
        self.open = None
        if rise.opened_as == "creep" or (rise.opened_as == "step" and last <= rise.opened):
            self.seen.dismissed.append((rise.start, "went away before it had settled"))
            return
        self.masked[rise.start : last + 1] = True
        kind: Opened = "spike" if last - rise.start + 1 <= 2 else "step"
        self._report(_kind(rise, kind, t, until=last))

    def _classify(self, t: int) -> None:
        """Name a rise that has settled, and take its level as the one in force."""
        rise = self.open
        assert rise is not None
        self.open = None
        shape = self._shape(max(self.from_, rise.start - 45), t, rise)
        start = shape.start
        opened = rise.opened
        if start > rise.opened + 2:
            # It opened by chance, before what the shape shows began: a creep is known only now.
            opened = t if shape.kind == "creep" else min(start + 1, t)
        elif shape.kind == "step":
            start = min(start, rise.opened)
        named = _kind(
            rise, shape.kind, t, start=start, opened=opened, effect=shape.effect, shape=shape
        )
        if self._returned(named):
            self.seen.dismissed.append((start, "back at the level it had before a brief fall"))
        elif shape.effect < self.w.step_least or not self._held(rise, t):
            self.seen.dismissed.append((start, "went away before its shape was known"))
        elif not self._continues(named, t):
            self._report(named)
        if shape.kind == "creep":
            self.quiet_until = t + (40 if self.daily else 10)
            start = max(start, t - 5)
        self._new_level(start, t)

    def _shape(self, low: int, t: int, rise: Rise) -> Shape:
        """The shape from `low` to `t`; planned events, whose lift is not known, say nothing of it
        where enough else does."""
        kept = ~self.masked[low : t + 1]
        plain = kept & (self.s.event[low : t + 1] == 0)
        if np.sum(plain[max(rise.start - low, 0) :]) >= 3:
            kept = plain
        where = np.flatnonzero(kept) + low
        shape = shape_of(self.adjusted[where], where)
        if not ((where >= shape.start) & (where < rise.start)).any():
            shape = replace(shape, start=max(shape.start, rise.start))  # left out: not known better
        return shape

    def _continues(self, rise: Rise, t: int) -> bool:
        """Whether the rise is more of the last one: a creep is one incident, however long."""
        last = self.seen.rises[-1] if self.seen.rises else None
        if last is None or last.kind == "spike":
            return False
        if last.kind == "creep":
            return rise.opened <= self.quiet_until
        if last.until is not None or rise.start - last.start > (40 if self.daily else 10):
            return False
        # What settled as a step and rose again may have been one slow creep.
        shape = self._shape(max(self.before_last, last.start - 45), t, last)
        start = shape.start
        if shape.kind != "creep" or start > last.opened:
            return False
        self.seen.rises[-1] = _kind(last, "creep", t, start=start, effect=shape.effect, shape=shape)
        self.quiet_until = t + (40 if self.daily else 10)
        return True

    def _held(self, rise: Rise, t: int) -> bool:
        """Whether what came after the opening, which chance did not choose, is still raised."""
        fresh = self.adjusted[rise.opened + 1 : t + 1]
        if len(fresh) < 3:
            return True
        noise, _, rho = self._noise(rise.start)
        error = noise * np.sqrt((1 + rho) / (1 - rho) / len(fresh) + 1 / self.w.least_history)
        lift = float(np.median(fresh)) - rise.level
        return lift > max(2.0 * float(error), 0.4 * rise.effect)

    def _returned(self, rise: Rise) -> bool:
        for fall in self.seen.falls[-2:]:
            brief = 0 < rise.start - fall.start <= (21 if self.daily else 3)
            if brief and rise.level + rise.effect < fall.level_before + 0.05:
                return True
        return False

    def _report(self, rise: Rise) -> None:
        last = self.seen.rises[-1] if self.seen.rises else None
        if last is not None and last.kind == "spike" and abs(rise.start - last.start) <= 1:
            # It came back to stay: the spike was the step's first cycle.
            self.seen.rises.pop()
            rise = _kind(rise, rise.kind, rise.classified, opened=last.opened, opened_as="spike")
        self.seen.rises.append(rise)
        self.before_last = self.from_

    def _new_level(self, start: int, t: int) -> None:
        self.from_ = start
        self.segment[start:] = self.segment[min(start, len(self.segment) - 1)] + 1


def _kind(rise: Rise, kind: Opened, t: int, **changes: object) -> Rise:
    return replace(rise, kind=kind, classified=t, **changes)  # type: ignore[arg-type]


def _correlated(ks: npt.NDArray[np.int64], rho: float) -> Floats:
    """By how much the standard error of a mean of k grows when neighbours correlate by `rho`."""
    k = ks.astype(np.float64)
    ratio = (1 + rho) / (1 - rho) - 2 * rho * (1 - rho**k) / (k * (1 - rho) ** 2)
    return np.asarray(np.sqrt(ratio))


def _ramps(
    ks: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    n: Floats,
    mu: Floats,
    total: Floats,
    indexed: Floats,
    m: int,
    noise: Floats,
) -> tuple[Floats, Floats]:
    """Matched filter of a line from zero at each start to now, and the height it reaches."""
    k = ks.astype(np.float64)
    # weights (j + 1) / k over j = 0..k-1, by cumulative sums of x and of index * x
    moment = (indexed[m] - indexed[starts]) - (starts - 1) * (total[m] - total[starts])
    weighted = moment / k - mu * (k + 1) / 2
    squares = (k + 1) * (2 * k + 1) / (6 * k)
    error = noise * np.sqrt(squares + ((k + 1) / 2) ** 2 / n)
    return weighted / error, weighted / squares
