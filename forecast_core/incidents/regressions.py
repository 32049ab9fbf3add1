"""Cost regressions: rises of the unit cost that nothing planned, bought or shifted explains.

Belongs here: holding every series of a ledger against its own past, and dismissing what has an
explanation. Does not: the watch over one series (`unit_cost_watch`), incidents as a workflow
(`incidents`), the cause (`root_cause`).

Kinds: `spike` (one or two cycles), `step` (a lasting level), `creep` (a gradual rise), `nogain` (a
rise with a new forecaster version whose paired accuracy interval excludes the gain that would pay
for it). A version's rise that accuracy pays for is no incident. What is dismissed, and every
series too short to judge, is returned with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.incidents import accuracy_gain, unit_costs
from forecast_core.incidents.series_nature import is_daily, rough_noise, tail_df
from forecast_core.incidents.unit_cost_watch import (
    Fall,
    Floats,
    Observed,
    Replay,
    Rise,
    Watch,
    replay,
)

KINDS = ("spike", "step", "creep", "nogain")

_INCIDENT_SCHEMA: dict[str, Any] = {
    "kind": pl.String,
    "series": pl.String,
    "start": pl.Date,
    "detected": pl.Date,
    "evidence": pl.String,
    **{f"x_{name}": pl.String for name in unit_costs.SERIES},
    "opened_as": pl.String,
    "classified": pl.Date,
    "until": pl.Date,
    "rise": pl.Float64,
    "excess_cost": pl.Float64,
    "severity": pl.String,
}


@dataclass(frozen=True)
class Policy:
    """`gain_per_cost`: relative error reduction that a relative unit of cost must buy.

    `version_window`: cycles between a version change and a rise that it may have caused.
    `version_rate`: a version that changes in more of the cycles than this names a retraining, not
    a design, and is not blamed. `shift_share`: how much of a rise another series must have saved
    to call it a shift. `shift_least`: log fall below which a series has saved nothing.
    """

    watch: Watch = field(default_factory=Watch)
    gain_per_cost: float = 0.1
    version_window: int = 2
    version_rate: float = 0.08
    shift_share: float = 0.75
    shift_least: float = 0.15


@dataclass(frozen=True)
class Detection:
    """`incidents`: one row each. `series`: one row a series with its points, and `reason` where it
    could not be judged. `dismissed`: rises with an explanation, and the explanation."""

    incidents: pl.DataFrame
    series: pl.DataFrame
    dismissed: pl.DataFrame
    basis: str


@dataclass(frozen=True)
class _Series:
    labels: dict[str, str]
    days: list[date]
    frame: pl.DataFrame
    observed: Observed
    noise: float

    @property
    def name(self) -> str:
        return "/".join(self.labels[k] for k in unit_costs.SERIES)

    @property
    def daily(self) -> bool:
        return is_daily(self.observed.day)


def detect(
    ledger: pl.DataFrame,
    accuracy: pl.DataFrame | None = None,
    events: pl.DataFrame | None = None,
    policy: Policy | None = None,
    *,
    raw: bool = False,
) -> Detection:
    """Replay a ledger in order of time and return the incidents that would have been opened.

    `events`: planned events, columns `start`, `end` (dates, both included), optional `kind`,
    `factor` (expected ratio of the unit cost; without it the event's own lift is the expectation)
    and any of x_pipeline, x_forecaster, x_segment_group, x_environment to narrow it.
    `raw`: watch plain money per day instead of unit cost, as a peer to compare with.

    Raises:
        LedgerError: a column the ledger cannot do without is missing.
    """
    policy = policy or Policy()
    costs = unit_costs.daily(ledger, raw=raw)
    frame = costs.frame if events is None or raw else _with_events(costs.frame, events)
    if not raw and not (costs.has_volume and costs.has_price):
        frame = _less_common_movement(frame)
    parts = frame.partition_by(*unit_costs.SERIES, maintain_order=True)
    series = [_series(part) for part in parts]
    priors = _priors(series)
    tails = tail_df([s.observed.y for s in series if s.daily])
    seen = {s.name: replay(s.observed, policy.watch, priors[s.daily], tails) for s in series}
    shifted = _shifts(series, seen, policy)
    tidy = None if accuracy is None or raw else accuracy_gain.read(accuracy)
    told = any(part["version"].n_unique() > 1 or part["change"].n_unique() > 1 for part in parts)
    rows, dismissed = [], []
    for s in series:
        dismissed += [(s.name, s.days[at], why) for at, why in seen[s.name].dismissed]
        for rise in seen[s.name].rises:
            why_not = None if raw else _explained(s, rise, shifted)
            row = None if why_not else _incident(s, rise, tidy, policy, told)
            if row is None:
                reason = why_not or "accuracy pays for it"
                dismissed.append((s.name, s.days[rise.start], reason))
            else:
                rows.append(row)
    incidents = pl.DataFrame(rows, schema=_INCIDENT_SCHEMA, orient="row")
    return Detection(
        incidents.sort("detected", "series"),
        _judged(series, policy.watch),
        pl.DataFrame(
            dismissed,
            schema={"series": pl.String, "start": pl.Date, "reason": pl.String},
            orient="row",
        ),
        costs.basis,
    )


# -- from frame to series ------------------------------------------------------------------------


def _series(part: pl.DataFrame) -> _Series:
    labels = {k: str(part[k][0]) for k in unit_costs.SERIES}
    kept = part.filter(pl.col("unit").is_not_null())
    y: Floats = kept["unit"].log().to_numpy().astype(np.float64)
    observed = Observed(
        kept["day"].to_physical().to_numpy().astype(np.int64),
        y,
        kept["volume"].log().to_numpy().astype(np.float64),
        _codes(kept["event"].to_list()),
    )
    return _Series(labels, kept["day"].to_list(), kept, observed, rough_noise(y))


def _codes(events: list[str]) -> npt.NDArray[np.int64]:
    """0 outside events; the same number for the same events in force together."""
    names = {"": 0}
    return np.array([names.setdefault(e, len(names)) for e in events], dtype=np.int64)


def _priors(series: list[_Series]) -> dict[bool, float]:
    """Typical noise of daily and of sparse series: the prior while a history is short."""
    noises = {d: [s.noise for s in series if s.daily == d and s.noise > 0] for d in (True, False)}
    typical = [n for each in noises.values() for n in each]
    fallback = float(np.median(typical)) if typical else 0.05
    return {d: float(np.median(ns)) if len(ns) >= 3 else fallback for d, ns in noises.items()}


def _with_events(frame: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Mark the days of planned events; a known factor is divided out instead."""
    for name in ("start", "end"):
        if name not in events.columns:
            raise ValueError(f"the events file has no {name!r} column")
    for i, event in enumerate(events.iter_rows(named=True)):
        start, end = _as_date(event["start"]), _as_date(event["end"])
        touched = pl.col("day").is_between(start, end)
        for k in unit_costs.SERIES:
            value = event.get(f"x_{k}") or event.get(k)
            if value not in (None, "", "*"):
                touched &= pl.col(k) == str(value)
        factor = event.get("factor")
        if factor is not None and float(factor) > 0:
            expected = pl.when(touched).then(pl.col("unit") / float(factor))
            frame = frame.with_columns(unit=expected.otherwise(pl.col("unit")))
        else:
            marked = pl.concat_str(pl.col("event"), pl.lit(f"+{event.get('kind') or 'event'}{i}"))
            frame = frame.with_columns(event=pl.when(touched).then(marked).otherwise("event"))
    return frame


def _as_date(value: Any) -> date:
    return date.fromisoformat(value[:10]) if isinstance(value, str) else value


def _less_common_movement(frame: pl.DataFrame) -> pl.DataFrame:
    """Without volumes or prices, what all series do together is growth or a price card."""
    own = pl.col("unit").log()
    # In two steps: a window inside a window would be taken within the outer one's groups.
    apart = frame.with_columns(apart=own - own.median().over(unit_costs.SERIES))
    common = pl.col("apart").median().over("day")
    known = pl.col("apart").count().over("day") >= 5
    return apart.with_columns(
        unit=pl.when(known).then((own - common).exp()).otherwise("unit")
    ).drop("apart")


def _judged(series: list[_Series], watch: Watch) -> pl.DataFrame:
    rows = []
    for s in series:
        n, least = len(s.days), watch.least_history if s.daily else watch.least_history_sparse
        reason = f"{n} points, {least + 1} needed" if n <= least else None
        days = (s.days[-1] - s.days[0]).days + 1 if n else 0
        rows.append((s.name, n, days, s.noise, "daily" if s.daily else "sparse", reason))
    return pl.DataFrame(
        rows,
        schema={
            "series": pl.String,
            "points": pl.Int64,
            "days": pl.Int64,
            "noise": pl.Float64,
            "cadence": pl.String,
            "reason": pl.String,
        },
        orient="row",
    )


# -- explanations ----------------------------------------------------------------------------------


def _explained(s: _Series, rise: Rise, shifted: Mapping[tuple[str, int], str]) -> str | None:
    """Why the rise is no regression, or None."""
    if rise.kind == "creep":
        return None
    if _fixed_cost_spread_thinner(s, rise):
        return "the volume fell and the cost did not rise"
    if _rose_with_volume(s, rise):
        return "came and went with a surge of volume, as a promotion does"
    giver = shifted.get((s.name, rise.start))
    return f"shifted from {giver}, which fell by as much" if giver else None


def _window(s: _Series, rise: Rise) -> slice:
    last = rise.until if rise.until is not None else min(rise.start + 13, len(s.days) - 1)
    return slice(rise.start, last + 1)


def _fixed_cost_spread_thinner(s: _Series, rise: Rise) -> bool:
    before = slice(max(rise.start - 28, 0), rise.start)
    volume, real = s.observed.volume, s.frame["real"].log().to_numpy()
    if rise.start < 4:
        return False
    fell = float(np.median(volume[_window(s, rise)]) - np.median(volume[before]))
    dearer = float(np.median(real[_window(s, rise)]) - np.median(real[before]))
    usual = max(float(np.std(volume[before])), 0.05)
    return fell < -2 * usual and fell < -0.5 * rise.effect and dearer < 0.25 * rise.effect


def _rose_with_volume(s: _Series, rise: Rise) -> bool:
    """A rise of a few days in step with the volume: an event nobody wrote down."""
    if rise.start < 7 or rise.until is None or rise.until - rise.start < 2:
        return False
    volume, window = s.observed.volume, _window(s, rise)
    before, after = volume[max(rise.start - 14, 0) : rise.start], volume[window.stop :][:14]
    usual = max(float(np.std(before)), 0.04)
    surge = float(np.median(volume[window]) - np.median(before))
    fell_back = len(after) < 3 or float(np.median(volume[window]) - np.median(after)) > usual
    return surge > 2.5 * usual and fell_back


def _excess(s: _Series, rise: Rise) -> float:
    """Money (at reference prices) above the expectation, over the first cycles of the rise."""
    window = _window(s, rise)
    real = s.frame["real"].to_numpy()[window]
    expected = np.exp(rise.level + s.observed.volume[window])
    return float(np.sum(real - expected))


def _shifts(
    series: list[_Series], seen: Mapping[str, Replay], policy: Policy
) -> dict[tuple[str, int], str]:
    """Rises that are another series' saving: attribution moved money, and the total stayed.

    A fall answers for one rise only, the one nearest to it in money: (series, start) -> giver.
    """
    shifted: dict[tuple[str, int], str] = {}
    for giver in series:
        for fall in seen[giver.name].falls:
            if -fall.effect < max(policy.shift_least, 2 * giver.noise):
                continue  # a large series wavers by as much as a small one rises
            likely = [
                (_mismatch(s, rise, giver, fall), (s.name, rise.start))
                for s in series
                if s is not giver and _share_money(s, giver)
                for rise in seen[s.name].rises
                if rise.kind == "step"  # what fell for good pays for no spike
            ]
            miss, rise_of = min(likely, default=(float("inf"), ("", 0)))
            if miss <= abs(np.log(policy.shift_share)):
                shifted[rise_of] = giver.name
    return shifted


def _share_money(a: _Series, b: _Series) -> bool:
    """Only within an environment, and a pipeline or a segment group, does attribution move; and
    at each run, so that what runs daily takes nothing from what runs weekly."""
    near = any(a.labels[k] == b.labels[k] for k in ("pipeline", "segment_group"))
    return near and a.labels["environment"] == b.labels["environment"] and a.daily == b.daily


def _mismatch(s: _Series, rise: Rise, giver: _Series, fall: Fall) -> float:
    """|log(saved / excess)| over the same days; infinite where they did not begin together."""
    window = _window(s, rise)
    first, last = s.days[window.start], s.days[window.stop - 1]
    excess = _excess(s, rise)
    saved = _saved(giver, fall, first, last)
    apart = abs((giver.days[fall.start] - first).days)
    together = apart <= max(_gap(s), _gap(giver)) / 2 + 0.5
    if not together or excess <= 0 or saved <= 0:
        return float("inf")
    return abs(float(np.log(saved / excess)))


def _saved(s: _Series, fall: Fall, first: date, last: date) -> float:
    inside = np.array([first <= d <= last for d in s.days])
    expected = np.exp(fall.level_before + s.observed.volume[inside])
    return float(np.sum(expected - s.frame["real"].to_numpy()[inside]))


# -- incidents -------------------------------------------------------------------------------------


def _incident(
    s: _Series, rise: Rise, tidy: pl.DataFrame | None, policy: Policy, told: bool
) -> tuple[Any, ...] | None:
    """A row of the incidents frame; None where a better forecast pays for the rise.

    `told`: whether the ledger tells versions at all; where it does, only a new one is paid for.
    """
    relative = float(np.expm1(rise.effect))
    version = _version_change(s, rise, policy)
    verdict: accuracy_gain.Gain | None = None
    kind: str = rise.kind
    if tidy is not None and rise.kind != "spike":
        start = s.days[rise.start]
        if version is not None:
            start = min(start, version[0])
        verdict = accuracy_gain.gain(
            tidy,
            s.labels,
            start,
            relative,
            gain_per_cost=policy.gain_per_cost,
            before_days=int(max(56, 16 * _gap(s))),
            after_days=int(max(42, 12 * _gap(s))),
        )
        if verdict.verdict == "paid for" and (version or _change(s, rise) or not told):
            return None
        if version is not None and verdict.verdict == "no gain":
            kind = "nogain"
    window = _window(s, rise)
    month = float(np.exp(rise.level) * np.exp(np.median(s.observed.volume[window])))
    month *= 30 / max(_gap(s), 1.0)
    excess = _excess(s, rise)
    evidence = _evidence(s, rise, relative, version, verdict, excess / month if month else 0.0)
    return (
        kind,
        s.name,
        s.days[rise.start],
        s.days[rise.opened],
        json.dumps(evidence),
        *(s.labels[k] for k in unit_costs.SERIES),
        rise.opened_as,
        s.days[rise.classified],
        s.days[rise.until] if rise.until is not None else None,
        relative,
        excess,
        _severity(relative, excess / month if month else 0.0),
    )


def _gap(s: _Series) -> float:
    return float(np.median(np.diff(s.observed.day))) if len(s.days) > 1 else 1.0


def _change(s: _Series, rise: Rise) -> tuple[date, str, str] | None:
    """The change of code or configuration beside the rise: (day, from, to)."""
    labels = s.frame["change"].to_list()
    near = range(max(rise.start - 2, 1), min(rise.start + 3, len(labels)))
    moved = [i for i in near if labels[i] != labels[i - 1]]
    return (s.days[moved[0]], labels[moved[0] - 1], labels[moved[0]]) if moved else None


def _version_change(s: _Series, rise: Rise, policy: Policy) -> tuple[date, str, str] | None:
    """The change of forecaster version beside the rise: (day, from, to)."""
    versions = s.frame["version"].to_list()
    changes = [i for i in range(1, len(versions)) if versions[i] != versions[i - 1]]
    if len(changes) > max(policy.version_rate * len(versions), 3):
        return None
    reach = policy.version_window if rise.kind == "step" else 10

    def apart(i: int) -> int:
        return min(abs(i - rise.start), abs(i - rise.opened))

    i = min(changes, key=apart, default=None)
    if i is None or apart(i) > reach:
        return None
    return s.days[i], versions[i - 1], versions[i]


def _evidence(
    s: _Series,
    rise: Rise,
    relative: float,
    version: tuple[date, str, str] | None,
    verdict: accuracy_gain.Gain | None,
    excess_share: float,
) -> dict[str, Any]:
    unit = s.frame["unit"].to_numpy()
    evidence: dict[str, Any] = {
        "score": round(rise.score, 2),
        "unit_cost_expected": float(np.exp(rise.level)),
        "unit_cost_observed": float(unit[rise.opened]),
        "rise": round(relative, 4),
        "excess_share_of_month": round(excess_share, 4),
        "noise": round(s.noise, 4),
    }
    if rise.shape is not None:
        evidence["trend_p"] = round(rise.shape.trend_p, 5)
        evidence["sen_slope"] = round(rise.shape.sen_slope, 5)
    if version is not None:
        evidence["forecaster_version"] = dict(
            zip(("day", "from", "to"), map(str, version), strict=True)
        )
    if change := _change(s, rise):
        evidence["code_or_configuration"] = dict(
            zip(("day", "from", "to"), map(str, change), strict=True)
        )
    if verdict is not None and verdict.verdict != "no accuracy":
        evidence["accuracy"] = {
            "verdict": verdict.verdict,
            "gain": [_rounded(v) for v in (verdict.low, verdict.mean, verdict.high)],
            "needed": _rounded(verdict.needed),
        }
    return evidence


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _severity(relative: float, share: float) -> str:
    if share > 0.25 or relative > 1.0:
        return "high"
    return "medium" if share > 0.08 or relative > 0.3 else "low"
