"""What the period will have cost by its end, with an interval.

Belongs here: the platform's own schedule and growth carried to the end of a budget period. Does
not: what-if scenarios (`capacity`), budgets (`admission`) or reading the ledger.

Each pipeline runs on its own days, so its money is forecast as runs still due (from the schedule
where one is given, else the weekdays it has kept) times the money of a run (its recent level, with
growth). The interval is simulated: days are drawn from the pipeline's own past, and the level and
growth from their errors. A day that was out of all proportion is an incident, not a forecast: what
is drawn of it is held to four times the noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

_HISTORY_DAYS = 84
_DRAWS = 2000


@dataclass(frozen=True)
class Spend:
    """Money of a period: `spent` so far, and `expected`, `low`, `high` (90 %) at its end.

    `by_pipeline`: expected at the end. `notes`: pipelines that could not be forecast, and why.
    """

    spent: float
    expected: float
    low: float
    high: float
    by_pipeline: Mapping[str, float]
    notes: Mapping[str, str]
    draws: tuple[float, ...] = ()

    def chance_over(self, budget: float) -> float:
        """Probability that the period ends over `budget`."""
        return (
            float(np.mean(np.array(self.draws) > budget))
            if self.draws
            else float(self.spent > budget)
        )


def forecast(
    daily: pl.DataFrame,
    today: date,
    period_first: date,
    period_last: date,
    *,
    schedule: Mapping[str, Sequence[date]] | None = None,
    seed: int = 0,
) -> Spend:
    """Spend of `period_first`..`period_last` as known at the end of `today`.

    `daily`: pipeline, day, cost (money; days without charges may be absent). `schedule`: days on
    which a pipeline is due, where it is known. Corrections may be negative; they count as spent and
    are left out of the level.

    Raises:
        ValueError: the period is empty, or `today` lies outside of it and the day before it.
    """
    if period_last < period_first:
        raise ValueError(f"an empty period: {period_first} is after {period_last}")
    if not period_first - timedelta(days=1) <= today <= period_last:
        raise ValueError(f"{today} is outside the period {period_first}..{period_last}")
    rng = np.random.default_rng(seed)
    known = daily.filter(pl.col("day") <= today)
    in_period = known.filter(pl.col("day") >= period_first)
    spent = float(in_period["cost"].sum())
    if today == period_last:
        ended = in_period.group_by("pipeline").agg(pl.col("cost").sum()).sort("pipeline")
        return Spend(spent, spent, spent, spent, dict(ended.iter_rows()), {}, (spent,))
    draws = np.full(_DRAWS, spent)
    by_pipeline, notes = {}, {}
    rest = [today + timedelta(days=i) for i in range(1, (period_last - today).days + 1)]
    for pipeline in sorted(known["pipeline"].unique()):
        own = known.filter(pl.col("pipeline") == pipeline, pl.col("cost") > 0)
        sofar = float(in_period.filter(pl.col("pipeline") == pipeline)["cost"].sum())
        due = schedule.get(pipeline) if schedule is not None else None
        drawn, note = _rest(own, today, rest, due, rng)
        if note:
            notes[pipeline] = note
        by_pipeline[pipeline] = sofar + float(np.mean(drawn))
        draws = draws + drawn
    low, high = (float(v) for v in np.quantile(draws, [0.05, 0.95]))
    return Spend(
        spent, float(np.mean(draws)), low, high, by_pipeline, notes, tuple(map(float, draws))
    )


def _rest(
    own: pl.DataFrame,
    today: date,
    rest: Sequence[date],
    due: Sequence[date] | None,
    rng: np.random.Generator,
) -> tuple[Floats, str | None]:
    """Draws of what one pipeline will still cost, and why it may be a poor guess."""
    history = own.group_by("day").agg(pl.col("cost").sum()).sort("day")
    history = history.filter(pl.col("day") > today - timedelta(days=_HISTORY_DAYS))
    if not rest or history.is_empty():
        return np.zeros(_DRAWS), None
    days, cost = history["day"].to_list(), history["cost"].to_numpy()
    gap = _typical_gap(days)
    if due is None and (today - days[-1]).days > 2 * gap + 1:
        return np.zeros(_DRAWS), f"last ran on {days[-1]}, taken to have ended"
    runs = _runs_due(days, rest, due, today, rng)
    if len(days) < 4:
        days_known = "1 day" if len(days) == 1 else f"{len(days)} days"
        note = f"{days_known} of history: no growth, no spread of its own"
        level = float(np.mean(cost)) * np.exp(rng.normal(0, 0.3, (_DRAWS, 1)))
        return np.sum(runs * level, axis=1), note
    return _paths(days, cost, rest, runs, today, rng), None


def _paths(
    days: Sequence[date],
    cost: Floats,
    rest: Sequence[date],
    runs: Floats,
    today: date,
    rng: np.random.Generator,
) -> Floats:
    """Level and growth with their errors, weekdays, and past residuals drawn anew."""
    from scipy.stats import theilslopes

    x = np.array([(d - today).days for d in days], dtype=np.float64)
    y = np.log(cost)
    weekdays = _weekday_effects(np.array([d.weekday() for d in days]), y)
    y = y - weekdays[[d.weekday() for d in days]]
    slope, _, low, high = theilslopes(y, x)
    # Growth is believed as far as its own error lets it; a short or noisy past has none.
    error = max((high - low) / (2 * 1.96), 1e-12)
    growth = slope * slope**2 / (slope**2 + error**2)
    residual = y - growth * x - np.median(y - growth * x)
    spread = 1.4826 * float(np.median(np.abs(residual)))
    residual = np.clip(residual[-56:], -4 * spread, 4 * spread)
    # The level is known best in the middle of the recent past; growth carries it from there.
    middle, level = float(np.median(x[-28:])), float(np.median((y - growth * x)[-28:]))
    level_error = 1.25 * float(np.std(residual[-28:])) / np.sqrt(len(residual[-28:]))
    ahead = np.arange(1, len(rest) + 1, dtype=np.float64)
    drift = rng.normal(0.0, error, (_DRAWS, 1)) * (ahead - middle)
    start = rng.normal(level, level_error, (_DRAWS, 1))
    noise = rng.choice(residual, (_DRAWS, len(rest)))
    path = np.exp(start + growth * ahead + drift + weekdays[[d.weekday() for d in rest]] + noise)
    total: Floats = np.sum(path * runs, axis=1)
    return total


def _weekday_effects(weekday: npt.NDArray[np.int64], y: Floats) -> Floats:
    """Weekday levels of the log cost, pulled to none by one imaginary day each."""
    effects = np.zeros(7)
    middle = float(np.median(y))
    for d in range(7):
        own = y[weekday == d]
        if len(own) >= 3:
            effects[d] = (float(np.median(own)) - middle) * len(own) / (len(own) + 1)
    return effects


def _typical_gap(days: Sequence[date]) -> int:
    gaps = [(b - a).days for a, b in pairwise(days)]
    return int(np.median(gaps)) if gaps else 7


def _runs_due(
    days: Sequence[date],
    rest: Sequence[date],
    due: Sequence[date] | None,
    today: date,
    rng: np.random.Generator,
) -> Floats:
    """Whether the pipeline runs on each day ahead, (draws, days): scheduled, or as often as the
    same weekday has in the last eight weeks."""
    if due is not None:
        fixed = np.array([d in set(due) for d in rest], dtype=np.float64)
        return np.broadcast_to(fixed, (_DRAWS, len(rest)))
    since = max(days[0], today - timedelta(days=55))
    span = [since + timedelta(days=i) for i in range((today - since).days + 1)]
    ran = set(days)
    chance = np.zeros(7)
    for weekday in range(7):
        same = [d in ran for d in span if d.weekday() == weekday]
        chance[weekday] = np.mean(same) if same else np.mean([d in ran for d in span])
    odds = np.array([chance[d.weekday()] for d in rest])
    return (rng.random((_DRAWS, len(rest))) < odds).astype(np.float64)
