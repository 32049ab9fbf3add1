"""Did dearer forecasts become better ones, by enough to pay for the rise?

Belongs here: reading an accuracy frame whatever its names, and a paired before/after interval of
its error. Does not: computing accuracy (`accuracy`), or finding the rise (`unit_cost_watch`).

The pairing is by day: the same day's movement of the groups that did not change is taken out where
that makes the comparison sharper (difference in differences). The gain is relative: .05 is an
error 5 % lower than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Verdict = Literal["paid for", "no gain", "undecided", "no accuracy"]

_NAMES: dict[str, tuple[str, ...]] = {
    "day": ("day", "date", "cutoff", "ds", "ChargePeriodStart", "as_of"),
    "error": ("wape", "error", "wrmsse", "rmsse", "smape", "mape", "mae", "rmse"),
    "pipeline": ("pipeline", "x_pipeline"),
    "forecaster": ("forecaster", "x_forecaster"),
    "segment_group": ("segment_group", "x_segment_group", "segment", "x_segment"),
    "environment": ("environment", "x_environment"),
}
LABELS = ("pipeline", "forecaster", "segment_group", "environment")
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """Relative fall of the error with its interval, and the fall that would pay for the rise."""

    verdict: Verdict
    needed: float
    mean: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    points_before: int = 0
    points_after: int = 0


def read(accuracy: pl.DataFrame) -> pl.DataFrame:
    """Columns day, error (lower is better) and those of LABELS that the frame has.

    A long frame (`metric`, `value`) gives its first metric of the accepted names; an `accuracy`
    is read as one minus the error.

    Raises:
        ValueError: no day or no error column, named with what is accepted.
    """
    accuracy = _wide(accuracy)
    found: dict[str, str] = {}
    lower = {c.lower(): c for c in accuracy.columns}
    for name, accepted in _NAMES.items():
        match = next((lower[a.lower()] for a in accepted if a.lower() in lower), None)
        if match is not None:
            found[name] = match
    for name in ("day", "error"):
        if name not in found:
            raise ValueError(
                f"the accuracy file has no {name} column; give one of {', '.join(_NAMES[name])}"
            )
    day = pl.col(found["day"])
    if accuracy.schema[found["day"]] == pl.String:
        day = day.str.slice(0, 10).str.to_date("%Y-%m-%d", strict=False)
    labels = [pl.col(found[n]).cast(pl.String).alias(n) for n in LABELS if n in found]
    tidy = accuracy.select(
        day.cast(pl.Date).alias("day"),
        pl.col(found["error"]).cast(pl.Float64, strict=False).alias("error"),
        *labels,
    )
    return tidy.filter(pl.col("day").is_not_null(), pl.col("error") > 0)


def _wide(accuracy: pl.DataFrame) -> pl.DataFrame:
    lower = {c.lower(): c for c in accuracy.columns}
    if "metric" in lower and "value" in lower:
        metric = pl.col(lower["metric"]).cast(pl.String).str.to_lowercase()
        known = set(accuracy.select(metric).to_series().drop_nulls())
        name = next((n for n in (*_NAMES["error"], "accuracy") if n in known), None)
        if name is not None:
            accuracy = accuracy.filter(metric == name).rename({lower["value"]: name})
            lower = {c.lower(): c for c in accuracy.columns}
    if "accuracy" in lower and not lower.keys() & set(_NAMES["error"]):
        error = 1 - pl.col(lower["accuracy"]).cast(pl.Float64, strict=False)
        accuracy = accuracy.with_columns(error=error)
    return accuracy


def gain(
    tidy: pl.DataFrame,
    labels: Mapping[str, str],
    start: date,
    rise: float,
    *,
    gain_per_cost: float,
    before_days: int = 56,
    after_days: int = 42,
) -> Gain:
    """The gain around `start` of the group that `labels` name, for a relative cost `rise`.

    `gain_per_cost`: relative fall of the error that one relative unit of cost must buy (.1: 10 %
    more cost is paid for by an error 1 % lower).
    """
    needed = gain_per_cost * rise
    named = {k: v for k, v in labels.items() if k in tidy.columns and v in tidy[k].unique()}
    keys = [k for k in LABELS if k in tidy.columns]
    if not {"segment_group", "forecaster"} & named.keys():
        return Gain("no accuracy", needed)
    own = tidy.filter(*(pl.col(k) == v for k, v in named.items()))
    near = pl.col("day").is_between(
        pl.lit(start).dt.offset_by(f"-{before_days}d"), pl.lit(start).dt.offset_by(f"{after_days}d")
    )
    daily = own.filter(near).group_by("day").agg(pl.col("error").log().mean().alias("own"))
    others = (
        tidy.filter(near)
        .join(own.select(keys).unique(), on=keys, how="anti")
        .with_columns(level=pl.col("error").log().median().over(keys))
        .group_by("day")
        .agg((pl.col("error").log() - pl.col("level")).median().alias("control"), pl.len())
        .filter(pl.col("len") >= 3)
    )
    daily = daily.join(others, on="day", how="left").sort("day")
    is_before = (daily["day"] < start).to_numpy()
    x = daily["own"].to_numpy()
    paired = x - daily["control"].to_numpy() if daily["control"].null_count() == 0 else x
    if np.sum(is_before) >= 4 and np.std(paired[is_before]) < np.std(x[is_before]):
        x = paired
    return _interval(x[is_before], x[~is_before], needed)


def _interval(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], needed: float
) -> Gain:
    """Welch's interval of the fall in log error, as a relative gain."""
    n, m = len(before), len(after)
    if n < 3 or m < 2:
        return Gain("undecided", needed, points_before=n, points_after=m)
    from scipy.stats import t

    va, vb = float(np.var(before, ddof=1)) / n, float(np.var(after, ddof=1)) / m
    fall = float(before.mean() - after.mean())
    spread = va + vb
    df = spread**2 / (va**2 / (n - 1) + vb**2 / (m - 1)) if spread > 0 else n + m - 2
    half = float(t.ppf(0.5 + _CONFIDENCE / 2, df)) * spread**0.5
    mean, low, high = (float(-np.expm1(-v)) for v in (fall, fall - half, fall + half))
    # A gain is allowed to pay by its best estimate once it is surely a gain at all.
    verdict: Verdict = "undecided"
    if high < needed:
        verdict = "no gain"
    elif low > 0 and mean >= needed:
        verdict = "paid for"
    return Gain(verdict, needed, mean, low, high, n, m)
