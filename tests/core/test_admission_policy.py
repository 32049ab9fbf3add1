"""A policy is read whole or refused with every fault named."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission.policy import NANO, Policy, PolicyError, nanos, units

SHIPPED: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[2] / "policies" / "admission.yaml").read_text()
)


def changed(path: str, value: Any) -> dict[str, Any]:
    mapping = deepcopy(SHIPPED)
    node: Any = mapping
    *way, last = path.split(".")
    for step in way:
        node = node[int(step) if isinstance(node, list) else step]
    if value is None:
        del node[last]
    elif isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return mapping


def test_the_shipped_policy_governs() -> None:
    policy = Policy.parse(SHIPPED)
    assert policy.path("prod", "training", "training") == (
        "organisation", "prod", "prod/day", "prod/training",
    )  # fmt: skip
    assert policy.class_of("training", "schedule") == "training"
    assert policy.class_of("inference", "backfill") == "backfill"
    assert policy.floors["organisation"]["serving"] == 110 * NANO
    assert Policy.parse(yaml.safe_load(yaml.safe_dump(SHIPPED))).hash == policy.hash


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("budgets.prod.limit", -1, "greater than or equal to 0"),
        ("budgets.prod.limit", "lots", "no amount of money"),
        ("budgets.prod.parent", "prod/day", "cycle"),
        ("budgets.prod.parent", "nowhere", "does not exist"),
        ("budgets.prod.floors.serving", 290, "above its limit"),
        ("budgets.prod.floors.serving", None, "starve"),
        ("budgets.prod.floors.magic", 1, "'magic' is unknown"),
        ("budgets.prod.pipeline", "sales", "'sales' is unknown"),
        ("budgets.prod/day.environment", None, "repeat it here"),
        ("budgets.dev.limit", 500, "above that of its parent"),
        ("budgets.extra", {"limit": 5}, "exactly one is the root"),
        ("classes.monitoring", None, "'monitoring' is missing"),
        ("classes.hobby", {"priority": 1, "max_defer": "1d"}, "'hobby' is unknown"),
        ("classes.monitoring.floor_runs", 0, "starves it"),
        ("classes.monitoring.environments", {"prod": {"allowed": False}}, "switches monitoring"),
        ("classes.serving.max_defer", "soon", "no duration"),
        ("classes.serving.floor_runs", 40, "host runs 10"),
        ("peaks.0.pause", ["monitoring"], "may never pause"),
        ("peaks.0.until", None, "neither"),
        ("throttles.0.pause", ["monitoring"], "may never pause"),
        ("throttles.0.memory_pressure", None, "names no load"),
        ("stages.monitoring.runs", 0, "could never run"),
        ("stages.monitoring.pipelines", ["training"], "already"),
        ("stages.training.memory_gib", 99, "adds up to"),
        ("stages.training.gpu", -1, "greater than or equal to 0"),
        ("classify", [{"class": "serving", "pipeline": ["ingest"]}], "no rule for pipeline"),
        ("default_bound.money", 0, "never free"),
        ("default_bound.wall", "9h", "max_chunk"),
        ("default_bound.cpu", 3.5, "does not fit stage"),
        ("surprise", 1, "Extra inputs"),
        ("tick", "0s", "greater than 0"),
        ("serving_reserve.pipeline", "sales", "'sales' is unknown"),
        ("classes.exploratory.environments", {"prdo": {"max_runs": 1}}, "use one of dev, prod"),
        ("peaks.0.environments", ["prdo"], "'prdo' is unknown"),
        ("classes.monitoring.environments", {"prod": {"max_money": 0.001}}, "never start"),
        ("budgets.prod/day.floors.monitoring", 0.001, "others could starve"),
        ("classify.0.class", "exploratory", "make it monitoring"),
        ("classify.2.class", "training", "make it serving"),
        ("currency", "dollars", "pattern"),
    ],
)
def test_a_faulty_policy_is_refused_with_its_fault(path: str, value: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        Policy.parse(changed(path, value))


def test_every_fault_is_named_at_once() -> None:
    mapping = changed("classes.monitoring.floor_runs", 0)
    mapping["peaks"][0]["pause"] = ["serving"]
    with pytest.raises(PolicyError) as refused:
        Policy.parse(mapping)
    assert len(refused.value.problems) >= 2


@given(st.decimals(0, 10**6, places=9))
def test_money_is_exact_to_the_nano(amount: Decimal) -> None:
    assert units(nanos(amount)) == amount


@given(st.decimals(0, 10**6, places=14))
def test_money_held_never_falls_short(amount: Decimal) -> None:
    assert 0 <= units(nanos(amount)) - amount < Decimal(1) / NANO


@pytest.mark.parametrize("amount", ["nan", "Infinity", "a lot", ""])
def test_what_is_no_amount_is_refused(amount: str) -> None:
    with pytest.raises(ValueError):
        nanos(amount)
