"""What the platform has measured of its own accuracy, in place of what the plan states of it.

Belongs here: the error of rungs from scored forecasts and backtests, the effect of levers from
theirs, and what stays as stated, by name. Does not: reading tables (`resources.capacity_inputs`),
what runs cost (`fit`), choosing levers (`forecast_core.levers`).

Everything is on the scale of the plan: WRMSSE over all levels, seasonal naive for having nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from forecast_core import levers as lever_options
from forecast_core.capacity.plan import Accuracy, Lever, Plan
from forecast_core.schema import TABLES

NAIVE, FLOOR, GOVERNED = "seasonal_naive", "floor", "governed"
CUTOFFS = 8  # the last ones: what the rungs do now
_TIMED = ("prediction_daily", "forecasters")  # the stages whose work the levers' backtests time


@dataclass(frozen=True)
class Scores:
    """Rows of `eval_accuracy`, and of one day's `eval_backtest` and `eval_levers`."""

    accuracy: pl.DataFrame = field(default_factory=TABLES["eval_accuracy"].schema.to_frame)
    backtest: pl.DataFrame = field(default_factory=TABLES["eval_backtest"].schema.to_frame)
    levers: pl.DataFrame = field(default_factory=TABLES["eval_levers"].schema.to_frame)


def believed(plan: Plan, scores: Scores) -> tuple[Plan, tuple[str, ...]]:
    """The plan with what was measured, and a line for each figure that is only stated."""
    accuracy, of_rungs = measured_accuracy(plan.accuracy, scores)
    effects, of_levers = measured_levers(plan, scores.levers)
    return plan.believing(accuracy, effects), (*of_rungs, *of_levers)


def measured_accuracy(stated: Accuracy, scores: Scores) -> tuple[Accuracy, tuple[str, ...]]:
    """Errors of naive, floor and governed forecasts as scored over the last cutoffs.

    A rung that serves only its own segments has no error over all levels: it is put between floor
    and governed, at the share of the gain that backtests showed (else at the plan's own).
    """
    found = _scored(scores.accuracy)
    if found is None:
        return stated, (f"accuracy: no scored cutoff; stated ({stated.source})",)
    cutoffs, errors = found
    floor, best = errors[FLOOR], errors[GOVERNED]
    rungs, notes, placed = {FLOOR: floor, GOVERNED: best}, [], []
    shares = _shares_of_gain(scores.backtest)
    for rung in stated.rungs.keys() - rungs.keys():
        share = shares.get(rung)
        if share is None:
            share = _stated_share(stated, rung)
            notes.append(f"accuracy of {rung}: no backtest; its place between floor and governed"
                         f" is stated ({stated.source})")  # fmt: skip
        else:
            placed.append(rung)
        rungs[rung] = max(floor - share * (floor - best), 1e-9)
    source = f"measured: eval_accuracy of {cutoffs} cutoffs"
    source += f"; {', '.join(sorted(placed))} by eval_backtest" if placed else ""
    return Accuracy(none=errors[NAIVE], rungs=rungs, source=source), tuple(sorted(notes))


def _scored(rows: pl.DataFrame) -> tuple[int, dict[str, float]] | None:
    """How many cutoffs, and WRMSSE by forecaster: the mean over levels and the last cutoffs that
    have all three."""
    known = rows.filter(
        pl.col("wrmsse").is_finite() & pl.col("forecaster").is_in([NAIVE, FLOOR, GOVERNED])
    )
    whole = (
        known.group_by("cutoff")
        .agg(pl.col("forecaster").n_unique())
        .filter(pl.col("forecaster") == 3)["cutoff"]
        .sort()
        .tail(CUTOFFS)
    )
    if whole.is_empty():
        return None
    means = (
        known.filter(pl.col("cutoff").is_in(whole.implode()))
        .group_by("cutoff", "forecaster")
        .agg(pl.col("wrmsse").mean())
        .group_by("forecaster")
        .agg(pl.col("wrmsse").mean())
    )
    errors = {str(name): float(error) for name, error in means.iter_rows()}
    return (len(whole), errors) if min(errors.values()) > 0 else None


def _shares_of_gain(rows: pl.DataFrame) -> dict[str, float]:
    """Rung -> its gain over the floor, did it serve every segment, as a share of the governed
    forecast's gain; by the segments in which both were tried."""
    tried = rows.filter(pl.col("scope") == "segment", pl.col("fva_wrmsse").is_finite())
    if tried.is_empty():
        return {}
    key = ["cutoff", "name"]
    governed = tried.filter(pl.col("forecaster") == GOVERNED, pl.col("fva_wrmsse") != 0)
    # What the floor missed in a segment: the governed gain over the share of it that this is.
    missed = governed.select(
        *key, gained="wrmsse_gained", missed=pl.col("wrmsse_gained") / pl.col("fva_wrmsse")
    )
    paired = tried.join(missed, on=key).group_by("forecaster").agg(
        own=(pl.col("fva_wrmsse") * pl.col("missed")).sum(), gained=pl.col("gained").sum()
    )  # fmt: skip
    return {
        str(name): own / gained
        for name, own, gained in paired.iter_rows()
        if gained > 0 and name not in (FLOOR, GOVERNED)
    }


def _stated_share(stated: Accuracy, rung: str) -> float:
    floor, best = (stated.rungs.get(name, stated.none) for name in (FLOOR, GOVERNED))
    return (floor - stated.rungs[rung]) / (floor - best) if floor != best else 0.0


def measured_levers(plan: Plan, rows: pl.DataFrame) -> tuple[dict[str, Lever], tuple[str, ...]]:
    """Each lever at its first level in every group that has it.

    Its error is the value-weighted rise over the error of all groups measured. Of its volumes,
    those of works whose stages the backtests time become the share of the cost that was left.
    """
    options = [o for o in lever_options.measure(rows) if o.level == 1] if rows.height else []
    base = rows.filter(pl.col("level") == 0).group_by("group").agg(
        cost=pl.col("cost").mean(), missed=(pl.col("error") * pl.col("value")).mean()
    )  # fmt: skip
    cost, missed = float(base["cost"].sum()), float(base["missed"].sum())
    effects, notes = {}, []
    for name, stated in plan.levers.items():
        own = [o for o in options if o.lever == name]
        if not own or missed <= 0 or cost <= 0:
            notes.append(f"lever {name}: no backtest; {stated.source}")
            effects[name] = stated
            continue
        left = max(1 - sum(o.saving for o in own) / cost, 1e-3)
        timed = [work for work in stated.volume if _is_timed(plan, work)]
        effects[name] = stated.model_copy(
            update={
                "volume": {**stated.volume, **dict.fromkeys(timed, left)},
                "error": max(sum(o.loss for o in own) / missed, -1.0),
                "source": f"measured: eval_levers, {len(own)} groups, {own[0].folds} windows",
            }
        )
        if rest := sorted(stated.volume.keys() - set(timed)):
            notes.append(f"lever {name}: volume of {', '.join(rest)} is stated ({stated.source})")
    return effects, tuple(notes)


def _is_timed(plan: Plan, work: str) -> bool:
    return any(stage in _TIMED for stage in plan.work[work].stages)
