"""Whether a raised series stepped or crept, and where it began.

Belongs here: weighing one change of level, sudden or over a while, in a short series; ruptures
finds the change point, a Mann-Kendall test the trend. Does not: deciding that it rose at all
(`unit_cost_watch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """`start`: index of the first raised observation; `length`: of the ramp (1 for a step).

    `effect`: log ratio of the level after to the one before; `trend_p`: Mann-Kendall's two-sided p
    and `sen_slope` the Theil-Sen slope per observation, both from `start` on. `ramp_odds`: log of
    the odds that it crept.
    """

    kind: Literal["step", "creep"]
    start: int
    length: int
    effect: float
    trend_p: float
    sen_slope: float
    ramp_odds: float


def shape_of(x: Floats, at: Indices | None = None, *, shortest_ramp: int = 5) -> Shape:
    """The likelier of one step and one ramp (rising over `length` observations, then level).

    `x`: log unit costs, (n,), oldest first, n >= 2. `at`: their places in the series where some are
    left out; `start` is one of these places, or of those between them.

    Neither is judged by its best fit alone: a ramp has a length to choose besides its start, and
    fits noise on a step too well. The evidence of each is its likelihood over all starts (and
    lengths, as many between 5 and 10 as between 10 and 20), for noise of unknown size. A creep
    must also rise from its start to its end by the median of all slopes.
    """
    at = np.arange(len(x), dtype=np.int64) if at is None else at
    step_at = _step(x, at)
    starts = np.arange(at[min(2, len(x) - 1)], at[-1], dtype=np.int64)
    odds, start, length = float("-inf"), step_at, 1
    if len(x) > shortest_ramp + 2 and len(starts):
        lengths = np.unique(np.geomspace(shortest_ramp, len(x), 24).round()).astype(np.int64)
        sudden = _log_likelihood(x, at, starts, np.array([1]))
        early = starts[starts <= at[-shortest_ramp]]
        gradual = _log_likelihood(x, at, early, lengths)
        odds = _log_mean(gradual) - _log_mean(sudden)
        i, j = np.unravel_index(int(np.argmax(gradual)), gradual.shape)
        start, length = int(early[i]), int(lengths[j])
    if odds > 0:
        rising = (at >= start - 1) & (at < start + length)
        p, slope = _trend(x[rising])
        if slope > 0:
            return Shape("creep", start, length, _height(x, at, start, length), p, slope, odds)
    p, slope = _trend(x[at >= step_at])
    return Shape("step", step_at, 1, _height(x, at, step_at, 1), p, slope, odds)


def _step(x: Floats, at: Indices) -> int:
    """The place of the change point; of places left out before it, the first."""
    if len(x) < 4:
        i = int(np.argmax(np.diff(x))) + 1 if len(x) > 1 else 0
    else:
        import ruptures

        search = ruptures.KernelCPD(kernel="linear", min_size=2).fit(x.reshape(-1, 1))
        i = int(search.predict(n_bkps=1)[0])
    return int(at[i - 1]) + 1 if i else int(at[0])


def _log_likelihood(x: Floats, at: Indices, starts: Indices, lengths: Indices) -> Floats:
    """(starts, lengths): of a base, a height above zero and noise of unknown size."""
    n = len(x)
    centred = x - x.mean()
    power = max(float(np.sum(centred**2)), 1e-300)
    found = np.empty((len(starts), len(lengths)))
    for j, length in enumerate(lengths):
        form = np.clip((at[None, :] - starts[:, None] + 1) / length, 0.0, 1.0)
        form -= form.mean(axis=1, keepdims=True)
        match, size = form @ centred, np.sum(form**2, axis=1)
        explained = np.where((match > 0) & (size > 0), match**2 / np.maximum(size, 1e-12), 0.0)
        found[:, j] = np.maximum(power - explained, 1e-9 * power)
    return np.asarray(-0.5 * (n - 2) * np.log(found))


def _log_mean(values: Floats) -> float:
    top = float(values.max())
    return top + float(np.log(np.mean(np.exp(values - top))))


def _height(x: Floats, at: Indices, start: int, length: int) -> float:
    before, after = x[at < start], x[at >= start + length - 1]
    base = float(np.median(before)) if len(before) else float(x[0])
    if len(after) < 3:
        return float(np.mean(x[-2:])) - base
    return float(np.median(after)) - base


def _trend(x: Floats) -> tuple[float, float]:
    """Mann-Kendall's p and Sen's slope; (1, 0) where too few points say anything."""
    if len(x) < 4 or float(np.ptp(x)) == 0.0:
        return 1.0, 0.0
    import pymannkendall

    result = pymannkendall.original_test(x)
    return float(result.p), float(result.slope)
