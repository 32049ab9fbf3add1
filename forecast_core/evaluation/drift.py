"""Drift: what a segment's forecaster was trained on against what it meets now.

Belongs here: which columns are compared and how, the bounded sample, and the verdict over a group's
scores. Does not: the statistic itself (`resources.drift_report`), what follows (`retrain`).

The method of a column is fixed by its role and never chosen by size: a default that changes from a
distance to a p-value at some number of rows is no series that a threshold can be held against. Both
methods are distances: 0 for identical data, larger for a larger shift. The sample takes whole
item-stores by a hash of their name, so both sides hold the same ones: what differs between them is
time, not assortment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import polars as pl

from forecast_core.schema import TABLES

Role = Literal["target", "price", "prediction", "feature"]
Method = Literal["psi", "wasserstein"]

WINDOW_DAYS = 28
SAMPLE_ROWS = 5_000  # a side: PSI of 20 bins then has a standard error of about .004
FEWEST_ROWS = 100  # on either side; below, the distance says more of the sample than of the data
# The levels and prices a forecaster leans on; ages grow by themselves and would always drift.
WATCHED_FEATURES = ("mean_7", "mean_28", "zeros_28", "std_28", "idle_days", "price_relative")
SERIES = ("item_id", "store_id")
COLUMN_OF = {"units": "target", "sell_price": "price", "mean": "prediction"}


@dataclass(frozen=True)
class Ruler:
    """How a role is measured. Wasserstein is in standard deviations of the reference."""

    method: Method
    threshold: float


# PSI above .2 is the usual line for a shift that needs action; prices move a little by nature.
RULERS: Mapping[Role, Ruler] = {
    "target": Ruler("psi", 0.2),
    "prediction": Ruler("psi", 0.25),
    "price": Ruler("wasserstein", 0.25),
    "feature": Ruler("wasserstein", 0.3),
}


@dataclass(frozen=True)
class Verdict:
    """Of one group at one cutoff: whether it drifted, by how many thresholds, and why."""

    drifted: bool
    strength: float
    reason: str


def windows(trained_to: date, cutoff: date, days: int = WINDOW_DAYS) -> tuple[date, date]:
    """First days of the reference and the current window; the last are `trained_to`, `cutoff`.

    Whole weeks on both sides, so that no weekday counts more on one of them.
    """
    back = timedelta(days=days - 1)
    return trained_to - back, cutoff - back


def role_of(column: str) -> Role:
    """What a column is to a forecaster."""
    return COLUMN_OF.get(column, "feature")  # type: ignore[return-value]


def sample(frame: pl.DataFrame, rows: int = SAMPLE_ROWS) -> pl.DataFrame:
    """At most `rows` rows (and at least one item-store): the same item-stores of any frame.

    Item-stores enter in the order of a hash of their name, each whole.
    """
    if frame.height <= rows:
        return frame
    counts = (
        frame.group_by(*SERIES)
        .len("n")
        .with_columns(order=pl.concat_str(SERIES, separator="|").hash(seed=17))
        .sort("order")
    )
    inside = (pl.col("n").cum_sum() <= rows) | (pl.int_range(pl.len()) == 0)
    return frame.join(counts.filter(inside), on=SERIES, how="semi", maintain_order="left")


def comparable(reference: pl.DataFrame, current: pl.DataFrame) -> dict[str, str | None]:
    """Column -> why it cannot be compared, or None where it can."""
    found: dict[str, str | None] = {}
    for name in reference.columns:
        sides = [_known(side, name) for side in (reference, current)]
        low = min(sides)
        found[name] = (
            f"{low} values on one side, {FEWEST_ROWS} are needed" if low < FEWEST_ROWS else None
        )
    return found


def judged(
    group: str,
    cutoff: date,
    trained_to: date,
    reference: pl.DataFrame,
    current: pl.DataFrame,
    scores: Mapping[str, float],
) -> pl.DataFrame:
    """`monitor_drift` rows of one group, one a column of `reference`.

    `scores`: of the columns that could be compared; the others have a reason and no score.
    """
    why = comparable(reference, current)
    rows = []
    for name in reference.columns:
        ruler = RULERS[role_of(name)]
        score = scores.get(name)
        rows.append(
            {
                "cutoff": cutoff,
                "segment_group": group,
                "column": name,
                "role": role_of(name),
                "method": ruler.method,
                "score": score,
                "threshold": ruler.threshold,
                "drifted": score is not None and score >= ruler.threshold,
                "trained_to": trained_to,
                "reference_rows": _known(reference, name),
                "current_rows": _known(current, name),
                "reason": why[name] if score is None else None,
            }
        )
    return pl.DataFrame(rows, schema=TABLES["monitor_drift"].schema)


def verdict(rows: pl.DataFrame) -> Verdict:
    """The verdict over one group's rows: its target moved, or most of what it looks at did.

    A price that moves alone is a plan, and predictions that move alone follow their features.
    """
    known = rows.filter(pl.col("score").is_not_null())
    if known.is_empty():
        return Verdict(False, 0.0, "nothing could be compared")
    strength = known.select((pl.col("score") / pl.col("threshold")).max()).item()
    moved = known.filter("drifted").sort("column")
    text = ", ".join(
        f"{c} {s:.2f} of {t:.2f}" for c, s, t in moved["column", "score", "threshold"].iter_rows()
    )
    if not moved.filter(role="target").is_empty():
        return Verdict(True, float(strength), f"the target moved: {text}")
    if moved.height * 2 > known.height:
        return Verdict(True, float(strength), f"most columns moved: {text}")
    quiet = f"{moved.height} of {known.height} columns moved, not the target"
    return Verdict(False, float(strength), f"{quiet}: {text}" if text else quiet)


def _known(frame: pl.DataFrame, name: str) -> int:
    return int(frame[name].is_finite().sum()) if name in frame.columns else 0
