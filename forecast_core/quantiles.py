"""The spread around a mean: count distributions calibrated on past errors, and their quantiles.

Belongs here: how widely demand scatters around a forecast, by segment and by the number of days
summed, and the quantiles that follow. Does not: the means, the scoring of quantiles
(`accuracy`), and what to do about a risk (`stockout`).

Sales are counts, so demand given a mean m is taken as negative binomial with variance m x f(m).
The inflation f, one curve over the mean a segment, is all that is calibrated: from pairs of a
published mean and what was then sold. Every quantile follows from the one distribution, so they
never cross, and a mean model plus this costs a tenth more than the mean model alone, where
quantile regressions cost one more model each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ANY = "any"
MAX_KNOTS = 20
MIN_PAIRS = 300  # a knot is the mean of at least so many squared errors
_POISSON = 1.0 + 1e-6  # a count scatters at least like this
_RECURSION = 300.0  # means above it go by the gamma limit, below it term by term


class SpreadError(ValueError):
    """Errors, means or levels that no spread can be made of: says which, and the remedy."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Variance over mean, at means in rising order; flat outside them."""

    mean: Floats
    inflation: Floats

    def at(self, mean: Floats) -> Floats:
        """Variance over mean at any mean; between knots linear in log mean."""
        place = np.log(np.maximum(mean, 1e-9))
        return np.asarray(np.interp(place, np.log(self.mean), self.inflation))


@dataclass(frozen=True, eq=False)
class Spread:
    """How demand scatters around a forecast mean.

    Attributes:
        curves: segment -> inflation curve; `ANY` pools all segments and serves those unknown.
        pairs: number of (mean, sold) pairs that each curve rests on.
    """

    curves: Mapping[str, Curve]
    pairs: Mapping[str, int]

    def inflation(self, mean: Floats, segment: pl.Series) -> Floats:
        """Variance over mean of each row."""
        out = self.curves[ANY].at(mean)
        for name in segment.unique().to_list():
            if name in self.curves:
                rows = (segment == name).fill_null(False).to_numpy()
                out[rows] = self.curves[name].at(mean[rows])
        return out

    def to_json(self) -> str:
        """As text, for a table or an artefact."""
        return json.dumps(
            {
                name: {
                    "mean": curve.mean.tolist(),
                    "inflation": curve.inflation.tolist(),
                    "pairs": self.pairs[name],
                }
                for name, curve in self.curves.items()
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Spread:
        """Read `to_json` back."""
        held = json.loads(text)
        return cls(
            {n: Curve(np.array(c["mean"]), np.array(c["inflation"])) for n, c in held.items()},
            {n: int(c["pairs"]) for n, c in held.items()},
        )


def calibrate(pairs: pl.DataFrame, min_pairs: int = MIN_PAIRS) -> Spread:
    """Learn the spread from past forecasts and what was then sold.

    Args:
        pairs: `segment` (String), `mean` and `units` of item-store-days (or of sums of days, see
            `lead_time_pairs`) that the forecast had not seen. Rows where either is null or NaN
            are left out.
        min_pairs: a segment with fewer is served by the pooled curve.

    Raises:
        SpreadError: a negative mean, or no usable pair at all.
    """
    known = pairs.select("segment", pl.col("mean", "units").cast(pl.Float64)).filter(
        pl.col("mean").is_finite() & pl.col("units").is_finite()
    )
    if known.is_empty():
        raise SpreadError(
            f"none of {pairs.height} pairs has both a mean and units; "
            "calibrate on a cutoff whose horizon has been sold"
        )
    least = float(known["mean"].to_numpy().min())
    if least < 0:
        raise SpreadError(f"a mean of {least} is below zero; publish it clipped")
    groups = {ANY: known} | {
        rows["segment"][0]: rows
        for rows in known.drop_nulls("segment").partition_by("segment")
        if rows.height >= min_pairs
    }
    curves = {name: _curve(rows, min_pairs) for name, rows in groups.items()}
    return Spread(curves, {name: rows.height for name, rows in groups.items()})


def _curve(rows: pl.DataFrame, min_pairs: int) -> Curve:
    """Mean squared error over mean, in groups of rows of like means."""
    ordered = rows.sort("mean")
    mean, units = ordered["mean"].to_numpy(), ordered["units"].to_numpy()
    knots = max(1, min(MAX_KNOTS, len(mean) // max(min_pairs, 1)))
    edges = np.linspace(0, len(mean), knots + 1).astype(int)
    counts = np.diff(edges)
    at = np.add.reduceat(mean, edges[:-1]) / counts
    variance = np.add.reduceat((units - mean) ** 2, edges[:-1]) / counts
    sells = at > 1e-6
    if not sells.any():
        return Curve(np.array([1.0]), np.array([_POISSON]))
    at, first = np.unique(at[sells], return_index=True)
    return Curve(at, np.maximum(variance[sells][first] / at, _POISSON))


def quantiles(mean: npt.ArrayLike, inflation: Floats, levels: Sequence[float] = LEVELS) -> Floats:
    """Quantiles of the negative binomial of each mean: [n, n_levels], whole, never crossing.

    Args:
        mean: [n] expected units, not negative; zero gives zeros.
        inflation: [n] variance over mean, from `Spread.inflation`.
        levels: rising, between 0 and 1.

    Raises:
        SpreadError: a level out of range or order, or a mean that is negative or no number.
    """
    mean = np.asarray(mean, dtype=np.float64)
    _refuse(mean, levels)
    out = np.zeros((len(mean), len(levels)))
    large = mean > _RECURSION
    for rows, of in ((~large, _by_recursion), (large, _by_gamma)):
        if rows.any():
            out[rows] = of(mean[rows], np.maximum(inflation[rows], _POISSON), levels)
    return out


def _by_recursion(mean: Floats, inflation: Floats, levels: Sequence[float]) -> Floats:
    """Add up probabilities of 0, 1, 2, ... until every level is reached; rows leave as they do."""
    out = np.zeros((len(mean), len(levels)))
    size = mean / (inflation - 1.0)
    ratio = 1.0 - 1.0 / inflation
    mass = np.exp(-size * np.log(inflation))
    reached = mass.copy()
    left = np.arange(len(mean))
    units = 0
    while len(left):
        for k, level in enumerate(levels):
            out[left, k] += reached < level
        open_ = (reached < levels[-1]) & (mass > 0)
        left, size, ratio = left[open_], size[open_], ratio[open_]
        mass, reached = mass[open_], reached[open_]
        mass = mass * (units + size) / (units + 1.0) * ratio
        reached = reached + mass
        units += 1
    return out


def _by_gamma(mean: Floats, inflation: Floats, levels: Sequence[float]) -> Floats:
    """Of a large mean: the gamma of that mean and variance, rounded."""
    from scipy.special import gammaincinv

    shape = (mean / inflation)[:, None]
    return np.asarray(np.floor(gammaincinv(shape, np.asarray(levels)) * inflation[:, None] + 0.5))


def with_quantiles(
    prediction: pl.DataFrame,
    segment: pl.Series,
    spread: Spread,
    levels: Sequence[float] = LEVELS,
) -> pl.DataFrame:
    """Add columns `q10` .. `q90` to `prediction_daily` rows.

    Args:
        prediction: rows with a finite `mean`.
        segment: the segment of each row, as `spread` was calibrated.
    """
    mean = prediction["mean"].to_numpy()
    found = quantiles(mean, spread.inflation(mean, segment), levels)
    columns = {column_of(level): found[:, k] for k, level in enumerate(levels)}
    return prediction.with_columns(**{name: pl.Series(at) for name, at in columns.items()})


def only_levels(
    rows: pl.DataFrame, group: pl.Series, wanted: Mapping[str, Sequence[float]]
) -> pl.DataFrame:
    """Blank the quantiles that a row's group does not publish.

    Args:
        rows: with the columns that `with_quantiles` adds.
        group: the group of each row; one that `wanted` does not name keeps all.
        wanted: group -> levels.
    """
    columns = []
    for name in (column for column in rows.columns if is_quantile(column)):
        without = [g for g, levels in wanted.items() if name not in map(column_of, levels)]
        if without:
            blank = group.is_in(without).fill_null(False)
            columns.append(pl.when(~pl.lit(blank)).then(pl.col(name)).alias(name))
    return rows.with_columns(columns)


def is_quantile(column: str) -> bool:
    """Whether a column is named as `column_of` names them."""
    return column[:1] == "q" and column[1:].isdigit()


def column_of(level: float) -> str:
    """`q10` for .1, `q05` for .05, `q975` for .975."""
    return "q" + f"{level:.6f}".split(".")[1].rstrip("0").ljust(2, "0")


def lead_time_pairs(pairs: pl.DataFrame, days: int) -> pl.DataFrame:
    """Sum daily pairs over each whole run of `days` days of an item-store.

    Errors of one forecast lean the same way on many days, so sums scatter more than days that
    knew nothing of each other; calibrating on sums takes that in.

    Args:
        pairs: `item_id, store_id, cutoff, ds, segment, mean, units`.
        days: length of the sums; runs start at the cutoff and do not overlap.

    Returns:
        `segment, mean, units`, one row a run; runs with an unknown day are left out.
    """
    ahead = (pl.col("ds") - pl.col("cutoff")).dt.total_days() - 1
    known = pl.col("mean").is_finite() & pl.col("units").is_finite()
    return (
        pairs.filter(known.fill_null(False))
        .with_columns(run=ahead // days)
        .group_by("item_id", "store_id", "cutoff", "run", "segment")
        .agg(pl.col("mean", "units").sum(), held=pl.len())
        .filter(pl.col("held") == days)
        .select("segment", "mean", "units")
    )


def pit_coverage(
    units: Floats, mean: Floats, inflation: Floats, lower: float, upper: float
) -> float:
    """Expected share of counts whose place in their distribution lies in [lower, upper].

    A count spans a range of probability, [P(< y), P(<= y)]; the share of that range inside the
    interval is what a continuous sale would have scored, so a calibrated spread gives
    `upper - lower` where counting whole intervals gives more (an interval of counts cannot be
    cut finer than a unit).
    """
    at_most = cumulative(units, mean, inflation)
    below = cumulative(units - 1.0, mean, inflation)
    inside = np.clip(at_most, lower, upper) - np.clip(below, lower, upper)
    return float((inside / np.maximum(at_most - below, 1e-12)).mean())


def cumulative(units: Floats, mean: Floats, inflation: Floats) -> Floats:
    """P(demand <= units) of each row; 0 below zero, 1 where the mean is zero."""
    from scipy.special import betainc

    inflation = np.maximum(inflation, _POISSON)
    size = np.maximum(mean, 1e-12) / (inflation - 1.0)
    whole = np.floor(units)
    found = betainc(size, np.maximum(whole, 0.0) + 1.0, 1.0 / inflation)
    return np.asarray(np.where(whole < 0, 0.0, np.where(mean > 0, found, 1.0)))


def _refuse(mean: Floats, levels: Sequence[float]) -> None:
    if not levels or min(levels) <= 0 or max(levels) >= 1 or list(levels) != sorted(set(levels)):
        raise SpreadError(f"levels {tuple(levels)}: give rising numbers between 0 and 1")
    bad = ~(np.isfinite(mean) & (mean >= 0))
    if bad.any():
        at = int(bad.argmax())
        raise SpreadError(
            f"the mean of row {at} is {mean[at]} ({int(bad.sum())} such rows); "
            "a mean is a finite number, not negative: publish the floor for it"
        )
