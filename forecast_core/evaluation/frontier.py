"""What accuracy costs: every rung beside the floor, by segment, per CPU-second and per money.

Belongs here: scoring a contest by segment and by level, the frontier of accuracy and cost, and
what each lever would have saved and lost. Does not: running rungs (`contest`), choosing levers
(`levers`), or drawing (`frontier_plot`).

The cost of a fit is split over segments by their share of the series it serves, that of a
prediction by its rows. Money is CPU-seconds at the rate given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import polars as pl

from forecast_core.calibration import spreads
from forecast_core.evaluation import accuracy
from forecast_core.evaluation.accuracy import Scales
from forecast_core.evaluation.backtest import KEY, Past, sold
from forecast_core.evaluation.contest import GOVERNED, Contest, Run
from forecast_core.quantiles import with_quantiles
from forecast_core.rungs.frames import published
from forecast_core.segments import RUNGS, Rung, SegmentPolicy

PERIOD_DAYS = 28  # costs and values of the levers are per so many days


def by_segment(
    past: Past, held: Contest, by: Mapping[date, Scales], usd_per_cpu_s: float
) -> pl.DataFrame:
    """Scores and cost of every run in every segment.

    Returns:
        `cutoff, forecaster, segment, segment_group, series, units, weight, wape, bias, wrmsse,
        cpu_s, usd`, errors of the series that the run forecast; sorted. `fva_wape`,
        `error_avoided` (units a horizon), `fva_wrmsse` and `wrmsse_gained` (points of the item-
        store level's WRMSSE) compare with the floor on the same series. Absolute errors favour
        forecasts of nothing where little sells; the scaled squared ones do not.
    """
    frames = [_segments_of(past, held, run, by[run.cutoff], usd_per_cpu_s) for run in held.runs]
    return pl.concat(frames).sort("cutoff", "segment", "forecaster")


def _segments_of(
    past: Past, held: Contest, run: Run, by: Scales, usd_per_cpu_s: float
) -> pl.DataFrame:
    base = next(r for r in held.runs if r.cutoff == run.cutoff and r.forecaster == "floor")
    errors = per_series(past, run, by).join(
        per_series(past, base, by).select(*KEY, floor_absolute="absolute", floor_rmsse="rmsse"),
        on=list(KEY),
    )
    labelled = errors.join(
        held.members[run.cutoff].select(*KEY, "segment", "segment_group"), on=list(KEY)
    )
    sold_units = pl.when(pl.col("units") > 0).then(pl.col("units"))
    avoided = pl.col("floor_absolute") - pl.col("absolute")
    grouped = labelled.group_by("segment", "segment_group").agg(
        series=pl.len().cast(pl.Int64),
        units=pl.col("units").sum(),
        weight=pl.col("weight").sum(),
        absolute=pl.col("absolute").sum(),
        error=pl.col("error").sum(),
        error_avoided=avoided.sum(),
        floor_absolute=pl.col("floor_absolute").sum(),
        scaled=(pl.col("weight") * pl.col("rmsse")).sum(),
        floor_scaled=(pl.col("weight") * pl.col("floor_rmsse")).sum(),
        scalable=pl.col("weight").filter(pl.col("rmsse").is_finite()).sum(),
    )
    share = pl.col("series") / max(labelled.height, 1)
    return (
        grouped.with_columns(cpu_s=share * (run.fit_s + run.predict_s))
        .with_columns(
            cutoff=pl.lit(run.cutoff),
            forecaster=pl.lit(run.forecaster),
            wape=pl.col("absolute") / sold_units,
            bias=pl.col("error") / sold_units,
            wrmsse=pl.col("scaled") / pl.when(pl.col("scalable") > 0).then("scalable"),
            fva_wape=pl.when(pl.col("floor_absolute") > 0).then(
                1 - pl.col("absolute") / pl.col("floor_absolute")
            ),
            fva_wrmsse=pl.when(pl.col("floor_scaled") > 0).then(
                1 - pl.col("scaled") / pl.col("floor_scaled")
            ),
            wrmsse_gained=pl.col("floor_scaled") - pl.col("scaled"),
            usd=pl.col("cpu_s") * usd_per_cpu_s,
        )
        .select(
            "cutoff", "forecaster", "segment", "segment_group", "series", "units", "weight",
            "wape", "bias", "wrmsse", "cpu_s", "usd", "fva_wape", "error_avoided",
            "fva_wrmsse", "wrmsse_gained",
        )
    )  # fmt: skip


def per_series(past: Past, run: Run, by: Scales) -> pl.DataFrame:
    """`item_id, store_id, units, absolute, error, rmsse, weight` of each series of a run."""
    pairs = sold(past, run.rows).filter(pl.col("units").is_finite())
    miss = pl.col("mean") - pl.col("units")
    errors = pairs.group_by(KEY).agg(
        units=pl.col("units").sum(),
        absolute=miss.abs().sum(),
        error=miss.sum(),
        mse=(miss**2).mean(),
    )
    bottom = by.hierarchy.bottom
    scale = by.hierarchy.series.select(KEY).with_columns(
        squared=pl.Series(by.squared[bottom]), weight=pl.Series(by.weight[bottom])
    )
    return (
        errors.join(scale, on=list(KEY), how="left")
        .with_columns(rmsse=(pl.col("mse") / pl.col("squared")).sqrt())
        .with_columns(rmsse=pl.when(pl.col("squared") > 0).then("rmsse"))
        .drop("mse", "squared")
        .sort(KEY)
    )


def weighted_rmsse(told: pl.DataFrame) -> float:
    """One figure of `per_series` rows: RMSSE weighted by revenue, of those that have a scale."""
    usable = told.drop_nulls("rmsse")
    weight, rmsse = usable["weight"].to_numpy(), usable["rmsse"].to_numpy()
    return float(weight @ rmsse / (weight.sum() or 1.0))


def frontier(scored: pl.DataFrame) -> pl.DataFrame:
    """The mean over windows of `by_segment`, and what a CPU-second and a unit of money bought.

    `error_avoided_per_..`: units of absolute error avoided against the floor for a CPU-second or
    unit of money; `wrmsse_gained_per_..`: points of WRMSSE. `efficient`: no rung is both cheaper
    and better (by WRMSSE) in that segment.
    """
    held = scored.group_by("segment", "segment_group", "forecaster").agg(
        windows=pl.col("cutoff").n_unique().cast(pl.Int64),
        series=pl.col("series").mean().round().cast(pl.Int64),
        wape=pl.col("wape").mean(),
        wrmsse=pl.col("wrmsse").mean(),
        bias=pl.col("bias").mean(),
        cpu_s=pl.col("cpu_s").mean(),
        usd=pl.col("usd").mean(),
        fva_wape=pl.col("fva_wape").mean(),
        error_avoided=pl.col("error_avoided").mean(),
        fva_wrmsse=pl.col("fva_wrmsse").mean(),
        fva_worst=pl.col("fva_wrmsse").min(),
        wrmsse_gained=pl.col("wrmsse_gained").mean(),
    )
    each = pl.col("cpu_s") / pl.col("series")
    ranked = held.with_columns(cpu_ms_per_series=1000 * each).sort(
        "segment", "cpu_ms_per_series", "wrmsse"
    )
    best = pl.col("wrmsse").cum_min().shift(1).over("segment")
    return ranked.with_columns(
        error_avoided_per_cpu_s=_per("error_avoided", "cpu_s"),
        error_avoided_per_usd=_per("error_avoided", "usd"),
        wrmsse_gained_per_cpu_s=_per("wrmsse_gained", "cpu_s"),
        wrmsse_gained_per_usd=_per("wrmsse_gained", "usd"),
        efficient=(pl.col("wrmsse") < best).fill_null(pl.int_range(pl.len()).over("segment") == 0),
    )


def _per(what: str, cost: str) -> pl.Expr:
    return pl.when((pl.col(cost) > 0) & (pl.col("forecaster") != "floor")).then(
        pl.col(what) / pl.col(cost)
    )


def by_level(past: Past, held: Contest, by: Mapping[date, Scales]) -> pl.DataFrame:
    """`eval_accuracy` rows of `floor`, `gbm` and `governed` at every window and level.

    The governed one has quantiles from the second window on, calibrated on the windows before.
    """
    scored: list[pl.DataFrame] = []
    pairs: list[pl.DataFrame] = []
    for run in held.runs:
        if run.forecaster not in ("floor", "gbm", GOVERNED):
            continue
        scale = by[run.cutoff]
        floor_rows = next(
            r.rows for r in held.runs if r.cutoff == run.cutoff and r.forecaster == "floor"
        )
        rows = floor_rows if run.forecaster == "floor" else _whole(floor_rows, run.rows)
        known = sold(past, rows)
        frame = pl.concat(
            published(part, str(store), run.cutoff, "floor", None)
            for (store,), part in rows.partition_by("store_id", as_dict=True).items()
        )
        if run.forecaster == GOVERNED:
            labels = held.members[run.cutoff].select(*KEY, "segment")
            told = frame.join(labels, on=list(KEY), how="left", maintain_order="left")
            if pairs:
                spread = spreads(pl.concat(pairs)).daily
                frame = with_quantiles(frame, told["segment"], spread)
            pairs.append(
                known.join(labels, on=list(KEY), how="left").with_columns(cutoff=pl.lit(run.cutoff))
            )
        actual = known.select(*KEY, "units", date="ds")
        scored.append(accuracy.evaluate(frame, actual, scale, run.forecaster))
    return pl.concat(scored, how="diagonal")


def _whole(base: pl.DataFrame, better: pl.DataFrame) -> pl.DataFrame:
    key = [*KEY, "ds"]
    rows = base.join(better.select(*key, _better="mean"), on=key, how="left")
    return rows.with_columns(mean=pl.coalesce("_better", "mean")).drop("_better")


# -- what the levers would have done -------------------------------------------------------------


def lever_backtests(
    past: Past, held: Contest, policy: SegmentPolicy, usd_per_cpu_s: float
) -> pl.DataFrame:
    """Rows for `levers.measure`: what each lever would have cost and missed, by group and fold.

    A contest that refits at every window and tries several feature sets is needed. Level 0 is
    the policy as it stands. Costs are money a period of `PERIOD_DAYS` (a prediction a day,
    fits by cadence); `error` is WAPE; `value` the group's revenue in the period.
    `retrain_less`: fits of earlier windows; `fewer_features`: the pruned sets;
    `simpler_forecaster`: the rungs below; `shorter_horizon`: the floor after the first half;
    `reclassify`: the half of the series that earns least goes to the floor.
    """
    rows = []
    for fold, (day, members) in enumerate(sorted(held.members.items())):
        runs = {run.forecaster: run for run in held.runs if run.cutoff == day}
        revenue = _revenue(past, members, day)
        for (name,), own in members.partition_by("segment_group", as_dict=True).items():
            group = policy.group(str(name))
            if group.rung not in runs or group.rung == "floor":
                continue
            own = own.join(revenue, on=list(KEY), how="left").sort("sold_value", nulls_last=False)
            share = own.height / members.height
            value = float(own["sold_value"].fill_null(0).sum())
            each = _Options(past, own, runs, held.horizon, group.retrain_days, share)
            for lever, level, cost, error in each.rows(group.rung):
                rows.append((str(name), lever, level, fold, cost * usd_per_cpu_s, error, value))
    return pl.DataFrame(
        rows,
        schema={
            "group": pl.String, "lever": pl.String, "level": pl.Int64, "fold": pl.Int64,
            "cost": pl.Float64, "error": pl.Float64, "value": pl.Float64,
        },
        orient="row",
    )  # fmt: skip


def _revenue(past: Past, members: pl.DataFrame, day: date) -> pl.DataFrame:
    """`sold_value` of each series over the period after `day`'s own window began."""
    frames = []
    for store in members["store_id"].unique().sort():
        window = past.sales(store, day - timedelta(days=PERIOD_DAYS - 1), day)
        frames.append(
            window.group_by("item_id", "store_id").agg(
                sold_value=(pl.col("units") * pl.col("sell_price").fill_null(0)).sum()
            )
        )
    return pl.concat(frames)


class _Options:
    """The options of one group at one fold, as (lever, level, CPU-seconds a period, WAPE)."""

    def __init__(
        self,
        past: Past,
        own: pl.DataFrame,
        runs: Mapping[str, Run],
        horizon: int,
        retrain_days: int,
        share: float,
    ) -> None:
        self.past, self.own, self.runs = past, own, runs
        self.horizon, self.retrain_days, self.share = horizon, retrain_days, share
        floor_rows = runs["floor"].rows.join(own.select(KEY), on=list(KEY), how="semi")
        self.base = sold(past, floor_rows).sort(*KEY, "ds")

    def rows(self, rung: Rung) -> list[tuple[str, int, float, float]]:
        now = self.runs[rung]
        cost, error = self._cost(now), self._error(self._means(now))
        out = [("none", 0, cost, error)]
        if rung == "gbm":
            for level, features in enumerate(("reduced", "minimal"), start=1):
                if f"gbm:{features}" in self.runs:
                    pruned = self.runs[f"gbm:{features}"]
                    out.append(
                        ("fewer_features", level, self._cost(pruned), self._error_of(pruned))
                    )
            stale = sorted(
                (run for name, run in self.runs.items() if name.startswith("gbm@")),
                key=lambda run: run.trained_to,
                reverse=True,
            )
            errors = [error]
            for level, run in enumerate(stale, start=1):
                # With a cadence twice as long, a fit serves young and old in equal parts.
                errors.append(self._error_of(run))
                longer = self._cost(now, cadence=level + 1)
                out.append(("retrain_less", level, longer, float(np.mean(errors))))
        below = [r for r in reversed(RUNGS[: RUNGS.index(rung)]) if r in self.runs]
        for level, simpler in enumerate(below, start=1):
            run = self.runs[simpler]
            if run.rows.join(self.own.select(KEY), on=list(KEY), how="semi").is_empty():
                continue
            out.append(("simpler_forecaster", level, self._cost(run), self._paired(run, now)))
        half = self._means(now).with_columns(
            mean=pl.when(pl.int_range(pl.len()).over(KEY) < self.horizon // 2)
            .then("mean")
            .otherwise(self.base["mean"])
        )
        out.append(("shorter_horizon", 1, self._cost(now, predicted=0.5), self._error(half)))
        least = self.own.head(self.own.height // 2).select(KEY)
        others = self._means(now).with_columns(floor=self.base["mean"])
        dropped = others.join(least.with_columns(poor=True), on=list(KEY), how="left").with_columns(
            mean=pl.when(pl.col("poor").fill_null(False)).then("floor").otherwise("mean")
        )
        out.append(("reclassify", 1, self._cost(now, served=0.5), self._error(dropped)))
        return out

    def _means(self, run: Run) -> pl.DataFrame:
        key = [*KEY, "ds"]
        rows = self.base.join(
            run.rows.select(*key, _better="mean"), on=key, how="left", maintain_order="left"
        )
        return rows.with_columns(mean=pl.coalesce("_better", "mean")).drop("_better")

    def _error_of(self, run: Run) -> float:
        return self._error(self._means(run))

    @staticmethod
    def _error(rows: pl.DataFrame) -> float:
        known = rows.filter(pl.col("units").is_finite())
        units = float(known["units"].sum())
        return float((known["mean"] - known["units"]).abs().sum()) / units if units else 0.0

    def _paired(self, run: Run, now: Run) -> float:
        """A rung tried on a sample: today's error, moved by what the sample shows."""
        served = run.rows.select(KEY).unique()
        on_sample = [
            self._error(self._means(one).join(served, on=list(KEY), how="semi"))
            for one in (run, now)
        ]
        return self._error_of(now) + on_sample[0] - on_sample[1]

    def _cost(
        self, run: Run, cadence: float = 1.0, predicted: float = 1.0, served: float = 1.0
    ) -> float:
        """CPU-seconds a period for this group's share of the series that the run served."""
        in_run = run.rows.select(KEY).n_unique()
        scale = self.own.height / max(in_run, 1) * served
        fits = PERIOD_DAYS / self.retrain_days / cadence
        return scale * (run.fit_s * fits + run.predict_s * predicted * PERIOD_DAYS)
