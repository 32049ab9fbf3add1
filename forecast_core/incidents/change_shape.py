"""Whether a raised series stepped or crept, and where it began.

Belongs here: fitting one change of level, sudden or over a while, to a short series, with ruptures
for the change point and a Mann-Kendall test for the trend. Does not: deciding that it rose at
all (`unit_cost_watch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """`start`: index of the first raised observation; `length`: of the ramp (1 for a step).

    `effect`: log ratio of the level after to the one before; `trend_p`: Mann-Kendall's two-sided p
    and `sen_slope` the Theil-Sen slope per observation, both from `start` on.
    """

    kind: Literal["step", "creep"]
    start: int
    length: int
    effect: float
    trend_p: float
    sen_slope: float


def shape_of(x: Floats, *, shortest_ramp: int = 5, evidence: float = 3.0) -> Shape:
    """The better of one step and one ramp (rising over `length` observations, then level).

    `x`: log unit costs, (n,), oldest first, n >= 2. A ramp has one degree of freedom more and must
    earn it by `evidence` (twice the log of a likelihood ratio); it must also show a significant
    trend from its start to its end.
    """
    step_at, step_error = _step(x)
    start, length, ramp_error = _ramp(x, shortest_ramp)
    n = len(x)
    # A ramp of few observations is hardly more than a step with noise on it.
    least = 2 * evidence if length <= shortest_ramp + 1 else evidence
    earned = ramp_error > 0 and n * np.log(max(step_error, 1e-300) / ramp_error) > least
    if earned or (ramp_error <= 0 < step_error):
        end = min(start + length, n)
        p, slope = _trend(x[max(start - 1, 0) : end])
        if p < 0.1 and slope > 0:
            before = float(np.median(x[:start])) if start else float(x[0])
            after = float(np.median(x[end:])) if n - end >= 3 else float(np.mean(x[end - 2 : end]))
            return Shape("creep", start, length, after - before, p, slope)
    p, slope = _trend(x[step_at:])
    before = float(np.median(x[:step_at])) if step_at else float(x[0])
    return Shape("step", step_at, 1, float(np.median(x[step_at:])) - before, p, slope)


def _step(x: Floats) -> tuple[int, float]:
    import ruptures

    if len(x) < 4:
        at = int(np.argmax(np.diff(x))) + 1 if len(x) > 1 else 0
    else:
        search = ruptures.KernelCPD(kernel="linear", min_size=2).fit(x.reshape(-1, 1))
        at = int(search.predict(n_bkps=1)[0])
    return at, float(np.var(x[:at]) * at + np.var(x[at:]) * (len(x) - at)) if at else float("inf")


def _ramp(x: Floats, shortest: int) -> tuple[int, int, float]:
    """Least squares over every start and length of a ramp with a free base and a free height."""
    n = len(x)
    best = (0, shortest, float("inf"))
    lengths = sorted(
        {length for length in (*range(shortest, 16), *range(16, n, 3), n) if length <= n}
    )
    index = np.arange(n, dtype=np.float64)
    centred = x - x.mean()
    power = float(np.sum(centred**2))
    for length in lengths:
        starts = np.arange(2, max(n - shortest + 1, 3), dtype=np.float64)
        form = np.clip((index[None, :] - starts[:, None] + 1) / length, 0.0, 1.0)
        form -= form.mean(axis=1, keepdims=True)
        match, size = form @ centred, np.sum(form**2, axis=1)
        gain = np.where((match > 0) & (size > 0), match**2 / np.maximum(size, 1e-12), 0.0)
        i = int(np.argmax(gain))
        if power - gain[i] < best[2]:
            best = (int(starts[i]), length, float(power - gain[i]))
    return best


def _trend(x: Floats) -> tuple[float, float]:
    """Mann-Kendall's p and Sen's slope; (1, 0) where too few points say anything."""
    if len(x) < 4 or float(np.ptp(x)) == 0.0:
        return 1.0, 0.0
    import pymannkendall

    result = pymannkendall.original_test(x)
    return float(result.p), float(result.slope)
