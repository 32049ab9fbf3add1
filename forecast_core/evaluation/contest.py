"""Every rung on the same past windows: what each forecast, and what it took.

Belongs here: running rungs side by side at rolling origins, with their CPU. Does not: scoring
and choosing (`frontier`), nor the rungs (`backtest`).

A fit costs far more than its use, so one fit at the first origin serves all windows unless a
refit is asked for; examples are made once a fit. The clock is handed in: the core has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import ParamSpec, Protocol, TypeVar

import polars as pl

from forecast_core.calibration import classified, trial
from forecast_core.combination import Weights, combined, learn
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import KEY, Past
from forecast_core.rungs import gbm
from forecast_core.segments import RUNGS, SegmentPolicy

P = ParamSpec("P")
T = TypeVar("T")

GOVERNED = "governed"
FULL = "full"


class Challenger(Protocol):
    """A rung that is fitted and run by someone else, such as the neural one's own process."""

    def fit(self, past: Past, members: pl.DataFrame, cutoff: date, horizon: int) -> bytes:
        """What it has learnt from the members by the cutoff."""

    def predict(
        self, artefact: bytes, past: Past, members: pl.DataFrame, cutoff: date
    ) -> pl.DataFrame:
        """Forecasts (item_id, store_id, ds, mean) of the members, over the horizon of the fit."""


@dataclass(frozen=True)
class Setup:
    """What is tried.

    Attributes:
        spec: how the gbm is fitted; its feature set is replaced by each of `features`.
        features: feature sets tried; the first is the one of the rung named `gbm`.
        refit: fit anew at every window, so that the age of a fit can be told from its windows.
        governed: whether what would be served is tried beside the rungs alone.
        trial_series: series a segment on which the statistical rung is tried where it does not
            serve.
        challengers: name -> further rungs, tried on the series that `challenged` names; whose
            work is done in another process is timed if the clock counts that process.
    """

    spec: gbm.GbmSpec = field(default_factory=gbm.GbmSpec)
    features: tuple[str, ...] = (FULL,)
    refit: bool = False
    governed: bool = True
    trial_series: int = 200
    challengers: Mapping[str, Challenger] = field(default_factory=dict)
    challenged: Callable[[pl.DataFrame], pl.DataFrame] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One rung at one window: (item_id, store_id, ds, mean), CPU-seconds, and the fit's day."""

    forecaster: str
    cutoff: date
    trained_to: date
    rows: pl.DataFrame
    fit_s: float
    predict_s: float


@dataclass(frozen=True, eq=False)
class Contest:
    """All runs, and who the series were at each window (`demand_segments` rows)."""

    horizon: int
    runs: tuple[Run, ...]
    members: Mapping[date, pl.DataFrame]


def contest(
    past: Past,
    series: pl.DataFrame,
    windows: Sequence[date],
    horizon: int,
    policy: SegmentPolicy,
    clock: Callable[[], float],
    setup: Setup | None = None,
) -> Contest:
    """Run every rung at every window on `series` (whole stores, the hierarchy columns).

    A rung named `gbm` is the first feature set; `gbm:reduced` another; `gbm@2016-03-01` a fit of
    that earlier window where `refit`. `governed` is what would be served: the policy's rungs
    together, bent to their departments, with the floor's part that the weeks before the fit
    earned (`combination`).
    """
    setup = setup or Setup()
    watch = _Watch(clock)
    members = {day: classified(past, series, day, policy) for day in windows}
    runs: list[Run] = []
    models: dict[tuple[str, date], tuple[gbm.Model, float]] = {}
    fits: dict[str, tuple[date, bytes, float]] = {}
    earned: tuple[Weights, float] | None = None
    for day in windows:
        known = members[day]
        rows, spent = watch(backtest.run_floor, past, known, day, horizon)
        base = Run("floor", day, day, rows, 0.0, spent)
        quiet = _statistical_members(known, setup.trial_series)
        rows, spent = watch(backtest.run_statistical, past, quiet, day, horizon)
        by_rung = {"floor": base, "statistical": Run("statistical", day, day, rows, 0.0, spent)}
        for features in setup.features:
            trained = day if setup.refit else windows[0]
            if (features, trained) not in models:
                spec = replace(setup.spec, features=features)
                fitted, spent = watch(backtest.fit_gbm, past, known, day, horizon, spec)
                models[features, trained] = gbm.Model(fitted.artefact), spent
        for (features, trained), (model, fit_s) in models.items():
            if setup.refit and trained != day and features != setup.features[0]:
                continue
            rows, spent = watch(backtest.run_gbm, past, model, known, day, horizon)
            name = "gbm" if features == setup.features[0] else f"gbm:{features}"
            stale = setup.refit and trained != day
            name = f"{name}@{trained}" if stale else name
            by_rung[name] = Run(name, day, trained, rows, fit_s, spent)
        chosen = known if setup.challenged is None else setup.challenged(known)
        for name, challenger in setup.challengers.items():
            if chosen.is_empty():
                continue
            if setup.refit or name not in fits:
                fits[name] = (day, *watch(challenger.fit, past, chosen, day, horizon))
            trained, artefact, fit_s = fits[name]
            rows, spent = watch(challenger.predict, artefact, past, chosen, day)
            by_rung[name] = Run(name, day, trained, rows, fit_s, spent)
        runs += by_rung.values()
        if setup.governed:
            if setup.refit or earned is None:
                earned = watch(_earned, past, series, day, horizon, policy, setup.spec.threads)
            runs.append(_governed(past, known, day, horizon, by_rung, earned, watch))
    return Contest(horizon, tuple(runs), members)


def _earned(
    past: Past, series: pl.DataFrame, day: date, horizon: int, policy: SegmentPolicy, threads: int
) -> Weights:
    """What a training at `day` would find each rung to have earned by then."""
    return learn(trial(past, series, day, horizon, policy, threads).pairs)


def _governed(
    past: Past,
    members: pl.DataFrame,
    day: date,
    horizon: int,
    by_rung: Mapping[str, Run],
    earned: tuple[Weights, float],
    watch: _Watch,
) -> Run:
    """Each series by the rung its segment earns, aligned, beside the floor as that rung earned.

    It pays the floor of everyone, of each rung above it the part of the series that it uses, and
    the trial that found what rungs earn; a rung that earned nothing in a group is not asked.
    """
    weights, fit_s = earned
    used: dict[str, pl.DataFrame] = {}
    predict_s = by_rung["floor"].predict_s
    for rung in (name for name in RUNGS[1:] if name in by_rung):
        run = by_rung[rung]
        groups = members.filter(rung=rung)["segment_group"].unique()
        asked = [group for group in groups if weights.of(group, rung).weight > 0]
        own = members.filter(pl.col("segment_group").is_in(asked), rung=rung).select(KEY)
        mine = run.rows.join(own, on=list(KEY), how="semi")
        if not mine.is_empty():
            used[rung] = mine
            part = mine.height / run.rows.height
            fit_s += part * run.fit_s
            predict_s += part * run.predict_s

    def served() -> pl.DataFrame:
        base = by_rung["floor"].rows.with_columns(floor="mean")
        rows = backtest.over_floor(base, used)
        bent = backtest.aligned(past, rows, members, day, horizon)
        of_group = members.select(*KEY, "segment_group")
        told = bent.join(of_group, on=list(KEY), how="left", maintain_order="left")
        return combined(told, weights).select(list(backtest.MEANS))

    rows, spent = watch(served)
    return Run(GOVERNED, day, by_rung["gbm"].trained_to, rows, fit_s, spent + predict_s)


def _statistical_members(members: pl.DataFrame, trial_series: int) -> pl.DataFrame:
    """Those it serves, and a sample of every segment."""
    serves = pl.col("rung") == "statistical"
    place = pl.int_range(pl.len()).over("segment")
    return members.sort("item_id", "store_id").filter(serves | (place < trial_series))


class _Watch:
    """Times a call by the clock at hand."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock

    def __call__(self, body: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
        began = self.clock()
        result = body(*args, **kwargs)
        return result, self.clock() - began
