"""Whether a group's forecaster is trained again now: what is expected of it against what it costs.

Belongs here: the loss of accuracy as monitoring saw it, the expected value of a training, and the
decision with its reason. Does not: measuring (`drift`, `live_accuracy`), the regular cadence
(`segments.due`), or launching (`sensors_drift`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core.evaluation.drift import Verdict
from forecast_core.evaluation.live_accuracy import ALL

EARLIER_DAYS = 84


@dataclass(frozen=True)
class RetrainPolicy:
    """What it takes to train out of turn.

    `cooldown_days`: between two trainings of a group, in days of the data. `loss`: rise of WAPE
    that counts as a loss, as a share of it. `drift_gain`: WAPE that a training is expected to win
    back for each threshold that the drift is over, as long as no loss was measured; `gain_cap`
    bounds it. `value_of_error`: money that revenue-weighted error costs, a share of revenue.
    """

    cooldown_days: int = 7
    loss: float = 0.1
    drift_gain: float = 0.01
    gain_cap: float = 0.05
    value_of_error: float = 0.01


@dataclass(frozen=True)
class Loss:
    """Accuracy that a group has lost: `gain` in WAPE is what winning it back would bring."""

    lost: bool
    gain: float
    reason: str


@dataclass(frozen=True)
class Group:
    """What is known of a group. `revenue` is of `WINDOW_DAYS`; `cost` of its last training, money,
    None where none was measured; `in_flight`: a training of it that has not ended."""

    name: str
    rung: str
    trained_to: date
    revenue: float
    cost: float | None
    in_flight: str | None = None


@dataclass(frozen=True)
class Decision:
    """`train` says it all; `reason` says why, also why not."""

    group: str
    train: bool
    reason: str


def accuracy_loss(scores: pl.DataFrame, group: str, cutoff: date, least: float) -> Loss:
    """What `monitor_accuracy` rows up to `cutoff` say of a group, against its own past and the
    floor. Earlier scores overlap with the newest; those of the last four weeks are left out.
    """
    own = scores.filter(
        pl.col("segment_group") == group,
        pl.all_horizontal(pl.col("store_id", "forecaster", "horizon") == ALL),
        pl.col("wape").is_not_null(),
    )
    now = own.filter(cutoff=cutoff)
    if now.is_empty():
        return Loss(False, 0.0, "no accuracy is known yet")
    wape, floor = now.select("wape", "floor_wape").row(0)
    since, until = cutoff - timedelta(days=EARLIER_DAYS), cutoff - timedelta(days=28)
    past = own.filter(pl.col("cutoff").is_between(since, until))["wape"].median()
    rises = {
        "its own past": wape - past if isinstance(past, float) else 0.0,
        "the floor": wape - floor if floor is not None else 0.0,
    }
    against, gain = max(rises.items(), key=lambda item: item[1])
    if gain > least * wape:
        return Loss(True, gain, f"WAPE {wape:.3f} is {gain:.3f} above {against}")
    return Loss(False, 0.0, f"WAPE {wape:.3f} holds")


def decide(
    group: Group, cutoff: date, drift: Verdict, loss: Loss, policy: RetrainPolicy
) -> Decision:
    """Train or not, and why; reasons in the order in which they settle the matter."""

    def no(reason: str) -> Decision:
        return Decision(group.name, False, reason)

    if not (drift.drifted or loss.lost):
        return no(f"no drift ({drift.reason}) and no loss ({loss.reason})")
    seen = loss.reason if loss.lost else drift.reason
    if group.rung == "floor":
        return no(f"{seen}; the floor has nothing to train")
    if group.in_flight is not None:
        return no(f"{seen}; run {group.in_flight} trains it already")
    if group.trained_to >= cutoff:
        return no(f"{seen}; it was trained to {group.trained_to}, nothing newer is known")
    if (cutoff - group.trained_to).days < policy.cooldown_days:
        again = group.trained_to + timedelta(days=policy.cooldown_days)
        return no(f"{seen}; trained to {group.trained_to}, cooling down until {again}")
    gain = loss.gain if loss.lost else min(policy.drift_gain * drift.strength, policy.gain_cap)
    value = gain * group.revenue * policy.value_of_error
    if group.cost is not None and value <= group.cost:
        return no(f"{seen}; worth {value:.6f} in four weeks, a training costs {group.cost:.6f}")
    price = "unmeasured, admission quotes it" if group.cost is None else f"{group.cost:.6f}"
    return Decision(
        group.name, True, f"{seen}; worth {value:.6f} in four weeks, a training costs {price}"
    )


def decisions(
    groups: Mapping[str, Group],
    cutoff: date,
    drift: Mapping[str, Verdict],
    scores: pl.DataFrame,
    policy: RetrainPolicy,
) -> list[Decision]:
    """One decision a group, by name. A group that was not compared has no drift."""
    unknown = Verdict(False, 0.0, "not compared")
    return [
        decide(
            group,
            cutoff,
            drift.get(name, unknown),
            accuracy_loss(scores, name, cutoff, policy.loss),
            policy,
        )
        for name, group in sorted(groups.items())
    ]
