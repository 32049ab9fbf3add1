"""The segment policy: what the file may say, and what a refusal names."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from forecast_core.segments import RUNGS, SegmentPolicy, SegmentPolicyError


@pytest.fixture
def content(project_root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((project_root / "policies" / "segments.yaml").read_text()))


def test_the_shipped_policy_is_whole(content: dict[str, Any]) -> None:
    policy = SegmentPolicy.parse(content)
    assert len(set(policy.groups)) == len(policy.groups)
    assert [policy.group(name).name for name in policy.groups] == policy.groups
    assert {policy.group(name).rung for name in policy.groups} <= set(RUNGS)
    assert not policy.group(policy.groups[-1]).when
    assert policy.version == content["version"]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("groups", 0, "rung"), "oracle", "groups.0.rung"),
        (("groups", 0, "when"), {"colour": ["red"]}, "when.colour is unknown"),
        (("groups", 0, "when"), {"abc": ["D"]}, "when.abc"),
        (("groups", 0, "when"), {"abc": []}, "when.abc"),
        (("groups", 0, "when"), {}, "those after it get nothing"),
        (("groups", 0, "name"), "gbm_core", "named twice"),
        (("groups", 0, "name"), "Not A Key", "groups.0.name"),
        (("groups", 0, "colour"), 1, "groups.0.colour"),
        (("groups", -1, "when"), {"abc": ["A"]}, "the last must have no `when`"),
        (("abc", "A"), 0.99, "A must be below B"),
        (("window_days",), 30, "window_days must be at least 84"),
        (("window_days",), "many", "window_days"),
        (("demand", "adi"), 0, "demand.adi"),
        (("colour",), 1, "colour"),
    ],
)
def test_a_wrong_policy_is_refused_by_its_place(
    content: dict[str, Any], path: tuple[Any, ...], value: Any, said: str
) -> None:
    wrong = deepcopy(content)
    place = wrong
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(SegmentPolicyError, match=said.replace(".", r"\.")):
        SegmentPolicy.parse(wrong)


@pytest.mark.parametrize("missing", ["groups", "abc", "window_days", "life", "version"])
def test_a_missing_key_is_named(content: dict[str, Any], missing: str) -> None:
    del content[missing]
    with pytest.raises(SegmentPolicyError, match=missing):
        SegmentPolicy.parse(content)


def test_an_unknown_group_is_refused_with_those_there_are(content: dict[str, Any]) -> None:
    with pytest.raises(SegmentPolicyError, match="dormant"):
        SegmentPolicy.parse(content).group("nope")
