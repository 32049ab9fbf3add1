"""What a daily cost series does by nature: its noise, its weekdays, its answer to volume.

Belongs here: robust estimates over one series that a few spikes, steps or ramps do not move. Does
not: watching it for a rise (`unit_cost_watch`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def is_daily(days: npt.NDArray[np.int64]) -> bool:
    """Whether the series is observed on most days (median gap one day)."""
    return len(days) >= 3 and float(np.median(np.diff(days))) <= 1.0


def rough_noise(y: Floats) -> float:
    """Noise of a log series from its differences: blind to levels, ramps and few spikes."""
    if len(y) < 4:
        return float("nan")
    steps = np.diff(y)
    return float(1.4826 * np.median(np.abs(steps - np.median(steps))) / np.sqrt(2))


def weekday_effects(y: Floats, weekday: npt.NDArray[np.int64]) -> Floats:
    """Mean-free weekday effects (7,), zero unless they explain the noise; robust to levels."""
    effects = np.zeros(7)
    if len(y) < 21:
        return effects
    rest = y - _rolling_median(y, 7)
    for d in range(7):
        own = rest[weekday == d]
        if len(own) >= 3:
            effects[d] = np.median(own) * len(own) / (len(own) + 1.5)
    effects -= effects.mean()
    before, after = np.median(np.abs(rest)), np.median(np.abs(rest - effects[weekday]))
    return effects if after < 0.92 * before else np.zeros(7)


def _rolling_median(y: Floats, width: int) -> Floats:
    half = width // 2
    padded = np.concatenate([np.full(half, np.nan), y, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    middle: Floats = np.nanmedian(windows, axis=1)
    return middle


def volume_elasticity(y: Floats, volume: Floats, *, lag: int = 1) -> float:
    """Slope of log unit cost on log volume, in [-1, 0]: minus the share of cost that is fixed.

    From differences, so that growth and a creep side by side are not taken for it. `lag`: 7 where
    both have weekdays, two patterns of seven that correlate by chance.
    """
    if len(y) < 14 + lag:
        return 0.0
    dy, dv = y[lag:] - y[:-lag], volume[lag:] - volume[:-lag]
    dy, dv = dy - np.median(dy), dv - np.median(dv)
    spread = float(np.std(dv))
    if spread < 0.02:
        return 0.0
    limit = 3.5 * 1.4826 * float(np.median(np.abs(dy))) + 1e-9
    keep = np.abs(dy) < max(limit, 2 * spread)
    dy, dv = dy[keep], dv[keep]
    weight = float(np.sum(dv * dv))
    if len(dy) < 10 or weight <= 0:
        return 0.0
    slope = float(np.sum(dv * dy) / weight)
    error = float(np.sqrt(np.mean((dy - slope * dv) ** 2) / weight))
    sure = 2.5 if lag == 1 else 4.0  # longer differences share their noise with many others
    return float(np.clip(slope, -1.0, 0.0)) if slope < -sure * error else 0.0


def tail_df(series: Sequence[Floats]) -> float:
    """Degrees of freedom of Student's t whose tails the noise of log series has, taken together.

    From the 98th percentile of day-to-day differences over their median, allowing for the share
    that planted changes make; infinite where the noise is as good as normal.
    """
    steps = [np.abs(np.diff(y)) for y in series if len(y) >= 8]
    scaled = [d / np.median(d) for d in steps if np.median(d) > 0]
    if sum(map(len, scaled)) < 300:
        return float("inf")
    ratio = float(np.quantile(np.concatenate(scaled), 0.98)) / (1.4826 * 2.326) / _CHANGED
    return float(1 / max(np.interp(ratio, _TAIL_RATIOS, _TAIL_RECIPROCALS), 1e-3))


# Of |t - t'| with equal degrees of freedom: 98th percentile over median, 1 for normal noise.
_TAIL_RATIOS = (1.0, 1.022, 1.048, 1.082, 1.109, 1.165, 1.215, 1.309, 1.51)
_TAIL_RECIPROCALS = (0.0, 1 / 30, 1 / 15, 1 / 10, 1 / 8, 1 / 6, 1 / 5, 1 / 4, 1 / 3)
_CHANGED = 1.036  # what .4 % of differences that are changes of level add to that ratio
