"""The policy file of incidents and levers.

Belongs here: reading and checking `policies/levers.yaml`. Does not: applying it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from forecast_core.levers import LEVERS


class CostPolicyError(ValueError):
    """The file cannot be used; the message names the file, the entry and the remedy."""


@dataclass(frozen=True)
class CostPolicy:
    """`owners`: pipeline -> role. `preapproved`: lever -> highest level that applies itself."""

    owners: Mapping[str, str] = field(default_factory=dict)
    gain_per_cost: float = 0.1
    preapproved: Mapping[str, int] = field(default_factory=dict)


def read_cost_policy(path: Path) -> CostPolicy:
    """Read the file; an absent one means the defaults.

    Raises:
        CostPolicyError: a value of the wrong kind, or an unknown entry or lever.
    """
    if not path.is_file():
        return CostPolicy()
    text = path.read_text(encoding="utf-8")
    try:
        given = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise CostPolicyError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(given, dict):
        raise CostPolicyError(f"{path}: a mapping is expected")
    unknown = set(given) - {"owners", "gain_per_cost", "preapproved"}
    if unknown:
        raise CostPolicyError(f"{path}: unknown entry {min(map(str, unknown))!r}")
    return CostPolicy(
        owners={str(k): str(v) for k, v in _mapping(given, "owners", path).items()},
        gain_per_cost=_gain(given.get("gain_per_cost", 0.1), path),
        preapproved=_preapproved(_mapping(given, "preapproved", path), path),
    )


def _mapping(given: Mapping[str, Any], name: str, path: Path) -> Mapping[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, dict):
        raise CostPolicyError(f"{path}: {name} is a mapping")
    return value


def _gain(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise CostPolicyError(f"{path}: gain_per_cost is a number of 0 or more, not {value!r}")
    return float(value)


def _preapproved(given: Mapping[str, Any], path: Path) -> dict[str, int]:
    for lever, level in given.items():
        if lever not in LEVERS:
            raise CostPolicyError(f"{path}: lever {lever!r} is not one of {', '.join(LEVERS)}")
        if isinstance(level, bool) or not isinstance(level, int) or level < 0:
            raise CostPolicyError(f"{path}: preapproved.{lever} is a level of 0 or more")
    return dict(given)
