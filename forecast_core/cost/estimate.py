"""What a run will cost before it runs, with a bound, from what runs have cost.

Belongs here: the estimator, its bound, and the replay that measures its own error. Does not:
reading the ledger, or deciding what may start (`admission`).

A log-linear ridge: cost grows as a power of partitions and rows, with an effect (and a slope of
its own) for each asset, forecaster and segment group, shrunk to what they share; recent runs weigh
more, and what lies far from its kind weighs less (Huber). The upper bound is conformal: it adds a
quantile of the errors that the model made on runs it had not seen, taken from runs as new to it as
the one asked for: that run left out, its whole configuration left out, or its whole asset (Vovk et
al. 2005; leave-out errors of a ridge in closed form).

One strange run must not set every bound. Where errors are too few for the level, so that their
worst would be the bound, a robust spread of theirs is, drawn to a stated one. And seconds of wall
that CPU and GPU do not explain (a machine that slept) count as far as they could be believed, until
an asset has shown often enough that they are its habit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

OVERHEAD = "(overhead)"
Novelty = Literal["recurring", "new configuration", "new asset"]

_RIDGE = 0.02
_SLOPE_RIDGE = 0.5
_HALF_LIFE = 40.0  # observations of an asset
_TINY = 1e-9
_MAX_OBSERVATIONS = 2000
_FEW = math.log(2)  # what is added at least where too few errors are known for the level
_PRIOR = 5.0  # errors that the stated spread counts for
_FENCE = 3.0  # robust standard deviations beyond which a run weighs less
_LEAST_SPREAD = 0.1  # of log cost
_ROUNDS = 4  # of weighing again
_DRIVERS = {"wall_s": pl.sum_horizontal("cpu_s", "gpu_s")}  # what explains a target
_HABIT = 5  # observations from which on an asset's own ratio to its driver stands
_BELIEVED = math.log(4)  # times the usual ratio that are believed at least

Floats = NDArray[np.float64]


class NoHistory(LookupError):
    """Nothing has been charged yet, so nothing can be estimated."""


@dataclass(frozen=True)
class Ask:
    """Work to be priced. `rows` None: as many a partition as the asset had at its last runs."""

    asset: str
    forecaster: str | None = None
    segment_group: str | None = None
    partitions: int = 1
    rows: float | None = None


@dataclass(frozen=True)
class Estimate:
    """Expected cost (the median) and its upper bound, in the unit of the target.

    `novelty` says how new the work is, `errors` on how many the bound rests.
    """

    expected: float
    upper: float
    novelty: Novelty
    errors: int


def observations(steps: pl.DataFrame, target: str = "money") -> pl.DataFrame:
    """One row for each success of an asset in an attempt, in order of time, from `cost_steps`.

    Columns: run_id, at, asset, forecaster, segment_group, partitions, rows, target. The overhead of
    a run is a row of its own, its partitions being the steps of the run. Estimates and failures
    are left out: they say nothing about what work costs. Delays that no work explains are cut.
    """
    measured = steps.filter(~pl.col("x_estimated"))
    work = measured.filter(
        (pl.col("x_cost_class") == "workload") & (pl.col("x_status") == "success")
    ).group_by("x_run_id", "x_step_key", "x_attempt", pl.coalesce("x_asset", "x_step_key"))
    overhead = measured.filter(pl.col("x_cost_class") == "overhead").group_by("x_run_id")
    amount = [
        pl.col(target).cast(pl.Float64).sum().alias("target"),
        _DRIVERS.get(target, pl.lit(0.0)).sum().alias("driver"),
    ]
    rows = pl.col("rows").sum().cast(pl.Float64)
    common = ["x_run_id", "at", "asset", "forecaster", "segment_group", "partitions", "rows"]
    of_work = work.agg(
        pl.col("ChargePeriodStart").min().alias("at"),
        pl.col("x_forecaster").first().alias("forecaster"),
        pl.col("x_segment_group").first().alias("segment_group"),
        pl.col("partitions").max().cast(pl.Float64),
        rows,
        *amount,
    ).rename({"x_asset": "asset"})
    of_runs = overhead.agg(
        pl.col("ChargePeriodStart").min().alias("at"),
        pl.lit(OVERHEAD).alias("asset"),
        pl.lit(None, pl.String).alias("forecaster"),
        pl.lit(None, pl.String).alias("segment_group"),
        pl.len().cast(pl.Float64).alias("partitions"),
        rows,
        *amount,
    )
    both = pl.concat([frame.select(*common, "target", "driver") for frame in (of_work, of_runs)])
    kept = both.rename({"x_run_id": "run_id"}).sort("at", "asset").tail(_MAX_OBSERVATIONS)
    return (_undelayed(kept) if target in _DRIVERS else kept).drop("driver")


def _undelayed(observed: pl.DataFrame) -> pl.DataFrame:
    """Targets cut to the most that could be believed of their driver, where habit says no other."""
    ratio = (pl.col("target").clip(lower_bound=_TINY) / pl.col("driver")).log()
    usual = observed.filter(pl.col("driver") > _TINY).select(ratio.alias("ratio"))["ratio"]
    if usual.is_empty():
        return observed
    logs = usual.to_numpy()
    beyond = float(np.median(logs)) + max(_FENCE * _spread(logs), _BELIEVED)
    most = pl.col("driver") * math.exp(beyond)
    few = pl.len().over("asset") < _HABIT
    strange = few & (pl.col("driver") > _TINY) & (pl.col("target") > most)
    return observed.with_columns(target=pl.when(strange).then(most).otherwise(pl.col("target")))


class Estimator:
    """A fitted model of cost."""

    def __init__(self, history: pl.DataFrame) -> None:
        """Fit to `observations`.

        Raises:
            NoHistory: there are none.
        """
        if history.is_empty():
            raise NoHistory("nothing has been charged yet: run something once, then ask again")
        self._terms: dict[str, int] = {}
        self._rows_each = _rows_a_partition(history)
        asks = [_ask_of(row) for row in history.iter_rows(named=True)]
        self._configurations = {_configuration(ask) for ask in asks}
        self._assets = {ask.asset for ask in asks}
        design = self._design(asks, learn=True)
        logs = np.log(np.maximum(history["target"].to_numpy(), _TINY))
        weights = _recency([ask.asset for ask in asks])
        self._level = float(np.average(logs, weights=weights))
        self._coefficients, left_out = _huber(design, logs - self._level, weights, self._penalty())
        kinds = [_configuration(ask) for ask in asks]
        several = _in_several(asks, kinds)
        self._errors: dict[Novelty, Floats] = {
            "recurring": np.sort(left_out(range(len(asks)))),
            # Without its only configuration an asset is new, which tells nothing of this kind.
            "new configuration": np.sort(left_out(kinds)[several]),
            "new asset": np.sort(left_out([ask.asset for ask in asks])),
        }

    def estimate(self, ask: Ask, level: float = 0.95) -> Estimate:
        """The cost of `ask`; the true one is below `upper` with probability `level`."""
        novelty = self.novelty(ask)
        expected = self._level + float((self._design([ask]) @ self._coefficients)[0])
        errors = self._errors[novelty]
        margin = _margin(errors, level, alike=novelty != "new asset")
        return Estimate(
            math.exp(expected), math.exp(expected + max(margin, 0.0)), novelty, len(errors)
        )

    def novelty(self, ask: Ask) -> Novelty:
        """How much of `ask` has been seen."""
        if ask.asset not in self._assets:
            return "new asset"
        seen = _configuration(ask) in self._configurations
        return "recurring" if seen else "new configuration"

    def _design(self, asks: Sequence[Ask], *, learn: bool = False) -> Floats:
        filled = [self._numbers(ask) for ask in asks]
        rows = [self._row(ask, *numbers) for ask, numbers in zip(asks, filled, strict=True)]
        if learn:
            names = sorted({name for row in rows for name in row})
            self._terms = {name: index for index, name in enumerate(names)}
        design = np.zeros((len(asks), len(self._terms)))
        for index, row in enumerate(rows):
            for name, value in row.items():
                if name in self._terms:
                    design[index, self._terms[name]] = value
        return design

    def _numbers(self, ask: Ask) -> tuple[float, float]:
        partitions = max(float(ask.partitions), 1.0)
        each = self._rows_each.get(ask.asset, 0.0)
        rows = each * partitions if ask.rows is None else ask.rows
        return math.log(partitions), math.log1p(max(rows, 0.0))

    @staticmethod
    def _row(ask: Ask, partitions: float, rows: float) -> dict[str, float]:
        return {
            "partitions": partitions,
            "rows": rows,
            f"asset {ask.asset}": 1.0,
            f"forecaster {ask.forecaster}": 1.0,
            f"segment {ask.segment_group}": 1.0,
            f"of {ask.asset} in {ask.segment_group}": 1.0,
            f"slope of partitions {ask.asset}": partitions,
            f"slope of rows {ask.asset}": rows,
        }

    def _penalty(self) -> Floats:
        kinds = {"slope": _SLOPE_RIDGE, "partitions": _RIDGE, "rows": _RIDGE}
        return np.array([kinds.get(name.split()[0], _RIDGE) for name in self._terms])


def _ask_of(row: Mapping[str, object]) -> Ask:
    return Ask(
        asset=str(row["asset"]),
        forecaster=row["forecaster"],  # type: ignore[arg-type]  # a column of strings
        segment_group=row["segment_group"],  # type: ignore[arg-type]
        partitions=int(row["partitions"] or 1),  # type: ignore[call-overload]
        rows=float(row["rows"] or 0.0),  # type: ignore[arg-type]
    )


def _configuration(ask: Ask) -> tuple[object, ...]:
    """What makes two runs the same kind; partitions by powers of two."""
    size = round(math.log2(max(ask.partitions, 1)))
    return (ask.asset, ask.forecaster, ask.segment_group, size)


def _rows_a_partition(history: pl.DataFrame) -> dict[str, float]:
    each = pl.col("rows") / pl.col("partitions").clip(lower_bound=1)
    frame = history.group_by("asset").agg(each.tail(10).median().alias("each"))
    return {asset: float(value or 0.0) for asset, value in frame.iter_rows()}


def _recency(assets: Sequence[str]) -> Floats:
    """Weights halving every `_HALF_LIFE` observations of the same asset, the last one is 1."""
    age: dict[str, int] = {}
    weights = np.empty(len(assets))
    for index in range(len(assets) - 1, -1, -1):
        asset = assets[index]
        weights[index] = 0.5 ** (age.get(asset, 0) / _HALF_LIFE)
        age[asset] = age.get(asset, 0) + 1
    return weights


def _in_several(asks: Sequence[Ask], kinds: Sequence[object]) -> NDArray[np.bool_]:
    """Which rows are of assets that have run in more than one configuration."""
    found: dict[str, set[object]] = {}
    for ask, kind in zip(asks, kinds, strict=True):
        found.setdefault(ask.asset, set()).add(kind)
    return np.array([len(found[ask.asset]) > 1 for ask in asks])


def _spread(values: Floats) -> float:
    """A standard deviation that half of the values could be wrong without moving."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _margin(errors: Floats, level: float, *, alike: bool) -> float:
    """What to add to a log estimate so that it holds at `level`; `errors` in ascending order.

    Their quantile where one of them lies beyond it. Where the worst error would be the bound, the
    lesser of the worst and a robust spread, which counts a stated one among few errors; yet the
    worst where errors are not `alike`: what sets assets apart is no strange run.
    """
    count = len(errors)
    rank = math.ceil((count + 1) * level)
    if rank < count:
        return float(errors[rank - 1])
    worst = max(float(errors[-1]), 0.0) if count else math.inf
    worst += _FEW if rank > count else 0.0
    if not alike:
        return worst
    beyond = NormalDist().inv_cdf(level)
    stated, seen = _FEW / beyond, _spread(errors) if count else 0.0
    pooled = math.sqrt((_PRIOR * stated**2 + count * seen**2) / (_PRIOR + count))
    typical = (float(np.median(errors)) if count else 0.0) + beyond * pooled
    return max(_FEW if rank > count else 0.0, min(worst, typical))


class _LeftOut:
    """Errors of a ridge on what is left out of its fit, without fitting again."""

    def __init__(self, hat: Floats, residuals: Floats) -> None:
        self.hat, self.residuals = hat, residuals

    def __call__(self, keys: Iterable[object]) -> Floats:
        """Error of each row when every row of its key is left out."""
        members: dict[object, list[int]] = {}
        for index, key in enumerate(keys):
            members.setdefault(key, []).append(index)
        errors = np.empty_like(self.residuals)
        for rows in members.values():
            inside = np.eye(len(rows)) - self.hat[np.ix_(rows, rows)]
            errors[rows] = np.linalg.lstsq(inside, self.residuals[rows], rcond=None)[0]
        return errors


def _huber(
    design: Floats, target: Floats, weights: Floats, penalty: Floats
) -> tuple[Floats, _LeftOut]:
    """A ridge in which rows that lie far from the others of their kind weigh less."""
    trust = np.ones_like(target)
    for _ in range(_ROUNDS):
        _, left_out = _ridge(design, target, weights * trust, penalty)
        off = np.abs(left_out.residuals)
        fence = _FENCE * max(_spread(left_out.residuals), _LEAST_SPREAD)
        trust = np.minimum(1.0, fence / np.maximum(off, _TINY))
    return _ridge(design, target, weights * trust, penalty)


def _ridge(
    design: Floats, target: Floats, weights: Floats, penalty: Floats
) -> tuple[Floats, _LeftOut]:
    weighted = design * weights[:, None]
    inverse = np.linalg.inv(design.T @ weighted + np.diag(penalty))
    smoother = inverse @ weighted.T
    coefficients = smoother @ target
    hat = design @ smoother
    return coefficients, _LeftOut(hat, target - design @ coefficients)


def replay(history: pl.DataFrame, *, warm_up: int = 20, level: float = 0.95) -> pl.DataFrame:
    """What would have been said about each run before it ran, beside what it cost.

    Runs in order of time; each is estimated from the runs before it alone, once `warm_up` runs
    are known. Columns: run_id, actual, expected, upper, novelty (the newest of its parts).
    """
    order = history.group_by("run_id", maintain_order=True).agg(pl.col("at").min()).sort("at")
    rank: list[Novelty] = ["recurring", "new configuration", "new asset"]
    rows = []
    for index, run_id in enumerate(order["run_id"]):
        if index < warm_up:
            continue
        known = order["run_id"].head(index).implode()
        estimator = Estimator(history.filter(pl.col("run_id").is_in(known)))
        run = history.filter(pl.col("run_id") == run_id)
        said = [
            estimator.estimate(_without_rows(_ask_of(row)), level)
            for row in run.iter_rows(named=True)
        ]
        rows.append(
            {
                "run_id": run_id,
                "actual": float(run["target"].sum()),
                "expected": sum(part.expected for part in said),
                "upper": sum(part.upper for part in said),
                "novelty": max((part.novelty for part in said), key=rank.index),
            }
        )
    schema = {"run_id": pl.String, "actual": pl.Float64, "expected": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {"upper": pl.Float64, "novelty": pl.String})


def _without_rows(ask: Ask) -> Ask:
    """What is known before the run: which partitions, not how many rows they will have."""
    return Ask(ask.asset, ask.forecaster, ask.segment_group, ask.partitions)


@dataclass(frozen=True)
class EstimatorError:
    """The estimator's own error: mean absolute percentage errors, and how often the bound held."""

    runs: int
    recurring: int
    mape_recurring_pct: float
    mape_new_pct: float
    coverage_pct: float
    coverage_p: float


def error_of(replayed: pl.DataFrame, level: float = 0.95) -> EstimatorError:
    """Summary of a replay. `coverage_p`: chance of as little coverage if the level were true."""
    off = (pl.col("expected") - pl.col("actual")).abs() / pl.col("actual").clip(lower_bound=_TINY)
    known = replayed.filter(pl.col("novelty") == "recurring")
    new = replayed.filter(pl.col("novelty") != "recurring")

    def mape(frame: pl.DataFrame) -> float:
        return 100 * float(frame.select(off.mean()).item()) if frame.height else math.nan

    held = replayed.filter(pl.col("actual") <= pl.col("upper")).height
    return EstimatorError(
        runs=replayed.height,
        recurring=known.height,
        mape_recurring_pct=mape(known),
        mape_new_pct=mape(new),
        coverage_pct=100 * held / replayed.height if replayed.height else math.nan,
        coverage_p=_binomial_at_most(held, replayed.height, level),
    )


def recent_error(history: pl.DataFrame, *, runs: int = 30, warm_up: int = 10) -> EstimatorError:
    """The error on the last `runs` of `observations`, each estimated from those before it."""
    known = history["run_id"].n_unique()
    return error_of(replay(history, warm_up=max(warm_up, known - runs)))


def _binomial_at_most(successes: int, trials: int, probability: float) -> float:
    """P(X <= successes) of a binomial: the one-sided test of too little coverage."""
    return sum(
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k)
        for k in range(successes + 1)
    )
