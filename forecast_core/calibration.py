"""Where the spread of forecasts comes from: a small backtest made beside each training.

Belongs here: the trial whose errors calibrate the spreads, of single days and of lead times, and
how they are kept, beside the weights that the same weeks gave each group's rung. Does not: what a
spread is (`quantiles`), a weight (`combination`) or the rungs (`backtest`).

The trial is bounded: some stores, one quick fit held back by a horizon, so that quantiles cost a
fraction of the mean model on all stores. Demand scatters far more than two models of the same
mean differ, so the errors of a quick one serve; they are a little wider, never narrower.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

import polars as pl

from forecast_core.combination import Weights, combined, learn
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import KEY, Past
from forecast_core.quantiles import Spread, SpreadError, calibrate, lead_time_pairs
from forecast_core.rungs import gbm
from forecast_core.segments import SegmentPolicy, classify, measure

LEAD_DAYS = (1, 3, 7, 14)  # lengths of sums that get a spread of their own
TRIAL_SERIES = 6_000  # whole stores are taken until so many series are reached
_FEW_SERIES = 3_000  # below it, three windows instead of one: errors must be many
_ROUNDS, _RATE, _DRAWS = 100, 0.12, 2


@dataclass(frozen=True, eq=False)
class Spreads:
    """Days summed -> the spread of such sums; 1 is a single day. `weights` are of the forecasts
    that they lie around."""

    by_days: Mapping[int, Spread]
    weights: Weights = field(default_factory=Weights)

    @property
    def daily(self) -> Spread:
        """The spread of a single day."""
        return self.by_days[1]

    def to_bytes(self) -> bytes:
        """As JSON, for the forecasters' table."""
        held = {str(days): spread.to_json() for days, spread in self.by_days.items()}
        text = {"kind": "spread", "by_days": held, "weights": self.weights.to_json()}
        return json.dumps(text, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, artefact: bytes) -> Spreads:
        """Read `to_bytes` back.

        Raises:
            SpreadError: it is no such artefact; train the forecasters again.
        """
        try:
            text = json.loads(artefact)
            by_days = {int(days): Spread.from_json(of) for days, of in text["by_days"].items()}
            return cls(by_days, Weights.from_json(text.get("weights")))
        except (ValueError, KeyError, TypeError) as error:
            raise SpreadError(f"no spread to read ({error}); train the forecasters again") from None


@dataclass(frozen=True, eq=False)
class Trial:
    """What the trial forecast and what was sold: the pairs, and what drove its cost."""

    pairs: pl.DataFrame
    drivers: Mapping[str, float]


def trial(
    past: Past,
    series: pl.DataFrame,
    as_of: date,
    horizon: int,
    policy: SegmentPolicy,
    threads: int = 2,
    most: int = TRIAL_SERIES,
) -> Trial:
    """Forecast the last horizon before `as_of` by a quick fit of each rung, and look at the sales.

    Args:
        series: the hierarchy columns of every item-store.
        most: whole stores are tried until so many series are reached.

    Returns:
        pairs `item_id, store_id, dept_id, cutoff, ds, segment, segment_group, rung, mean, floor,
        units` (the rung being who forecast the row) of a sample of whole stores, classified as
        they were then; empty where history is too short for a trial.
    """
    sample = series.filter(pl.col("store_id").is_in(backtest.sample_stores(series, most)))
    count = 1 if sample.height >= _FEW_SERIES else 3
    windows = (
        backtest.origins(as_of, horizon, count)
        if past.step == 1
        else backtest.origins(as_of, horizon, count, stride=1)  # every week is a stored origin
    )
    model: gbm.Model | None = None
    drivers: dict[str, float] = {}
    found = []
    for cutoff in windows:
        members = classified(past, sample, cutoff, policy)
        shared = members.filter(pl.col("rung").is_in(["gbm", "neural"]))
        better: dict[str, pl.DataFrame] = {}
        if model is None and not shared.is_empty():
            spec = gbm.GbmSpec(
                "full", per_origin=_DRAWS, rounds=_ROUNDS, learning_rate=_RATE, threads=threads
            )
            try:
                fitted = backtest.fit_gbm(past, shared, cutoff, horizon, spec)
            except gbm.NoExamplesError:  # nothing to learn from by then: a later window may have it
                continue
            model, drivers = gbm.Model(fitted.artefact), fitted.drivers
        if model is not None and not shared.is_empty():
            better["gbm"] = backtest.run_gbm(past, model, shared, cutoff, horizon)
        quiet = members.filter(rung="statistical")
        if not quiet.is_empty():
            better["statistical"] = backtest.run_statistical(past, quiet, cutoff, horizon)
        base = backtest.run_floor(past, members, cutoff, horizon)
        rows = backtest.over_floor(base.with_columns(floor="mean"), better)
        if past.step == 1:
            rows = backtest.aligned(past, rows, members, cutoff, horizon)
        else:
            rows = rows.filter((pl.col("ds") - cutoff).dt.total_days() % past.step == 0)
        labelled = rows.join(
            members.select(*KEY, "dept_id", "segment", "segment_group"),
            on=list(KEY),
            how="left",
            maintain_order="left",
        )
        found.append(backtest.sold(past, labelled).with_columns(cutoff=pl.lit(cutoff)))
    empty = pl.DataFrame(
        schema={
            **backtest.MEANS,
            **dict.fromkeys(("dept_id", "segment", "segment_group", "rung"), pl.String),
            **dict.fromkeys(("floor", "units"), pl.Float64),
            "cutoff": pl.Date,
        }
    )
    return Trial(pl.concat([empty, *found], how="diagonal_relaxed"), drivers)


def held_back(pairs: pl.DataFrame) -> Spreads:
    """What pairs as `trial` gives them earned, and how sales scatter around what that serves."""
    weights = learn(pairs)
    return replace(spreads(combined(pairs, weights)), weights=weights)


def spreads(pairs: pl.DataFrame) -> Spreads:
    """Calibrate a day, and the sums over `LEAD_DAYS`, on pairs `segment, mean, units`.

    Without any pair (a history too short to hold one back) counts are taken as Poisson.
    """
    if pairs.is_empty():
        certain = pl.DataFrame({"segment": ["-"], "mean": [1.0], "units": [1.0]})
        return Spreads({1: calibrate(certain)})
    found = {}
    for days in LEAD_DAYS:
        sums = pairs if days == 1 else lead_time_pairs(pairs, days)
        if not sums.is_empty():
            found[days] = calibrate(sums)
    return Spreads(found)


def classified(
    past: Past, series: pl.DataFrame, cutoff: date, policy: SegmentPolicy
) -> pl.DataFrame:
    """`demand_segments` rows of `series` as of a past cutoff, ranked among themselves."""
    since = cutoff - timedelta(days=policy.window_days - 1)
    stats = [
        measure(past.sales(str(store), since, cutoff), cutoff, policy, known)
        for (store,), known in series.partition_by("store_id", as_dict=True).items()
    ]
    return classify(pl.concat(stats), cutoff, policy)
