"""What a lever in force changes: the segment policy that the graph runs on.

Belongs here: from levers by group to the effective policy. Does not: choosing them (`levers`),
logging them (`decisions`), or the file's own rules (`segments`).

The meaning of a level is the one its backtest was measured with (`frontier.lever_backtests`). Where
a level takes a forecaster away, the next prediction already goes without it; a change of features
or cadence shows at the group's next training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forecast_core.levers.decisions import policy_version
from forecast_core.segments import RUNGS, Group, SegmentPolicy

_FEATURES = ("full", "reduced", "minimal")


def under(
    policy: SegmentPolicy, levers: Mapping[str, Mapping[str, Any]], horizon: int
) -> SegmentPolicy:
    """The policy with each group's lever pulled; the same object where none is in force.

    Args:
        levers: group -> `lever`, `level`. A group that the policy does not know changes nothing.
        horizon: periods that a group without a horizon of its own answers for.
    """
    if not levers:
        return policy
    groups = tuple(
        _pulled(group, str(lever["lever"]), int(lever["level"]), horizon)
        if (lever := levers.get(group.name)) is not None
        else group
        for group in policy.content.groups
    )
    version = policy_version(policy.version, levers)
    return SegmentPolicy(policy.content.model_copy(update={"groups": groups, "version": version}))


def _pulled(group: Group, lever: str, level: int, horizon: int) -> Group:
    change: dict[str, Any] = {}
    if lever == "retrain_less":
        change["retrain_days"] = group.retrain_days * (level + 1)
    elif lever == "fewer_features":
        at = _FEATURES.index(group.features) + level
        change["features"] = _FEATURES[min(at, len(_FEATURES) - 1)]
    elif lever == "simpler_forecaster":
        change["rung"] = RUNGS[max(RUNGS.index(group.rung) - level, 0)]
    elif lever == "shorter_horizon":
        change["horizon"] = max((group.horizon or horizon) // (level + 1), 1)
    elif lever == "reclassify":
        change["demoted"] = 1 - (1 - group.demoted) * 0.5**level
    return group.model_copy(update=change)
