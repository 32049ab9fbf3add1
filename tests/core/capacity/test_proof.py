"""A stressed night on a tight budget: ours keeps its promises, a greedy queue does not."""

from pathlib import Path

import pytest
import yaml

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.proof import Night, greedy, night, sized
from forecast_core.capacity.stress import ALL_AT_ONCE, CATALOGUE, named, together

POLICIES = Path(__file__).parents[3] / "policies"
MAPPING = yaml.safe_load((POLICIES / "capacity.yaml").read_text())
PLAN = Plan.parse(MAPPING | {"first": "2027-03-10"})
POLICY = sized(
    Policy.parse(yaml.safe_load((POLICIES / "admission.yaml").read_text())), PLAN, Rates()
)


@pytest.mark.parametrize("stress", [*CATALOGUE, ALL_AT_ONCE], ids=lambda s: s.name)
def test_every_item_is_forecast_and_watched_whatever_comes(stress: object) -> None:
    nights = [night(PLAN, Rates(), POLICY, stress, seed) for seed in range(4)]  # type: ignore[arg-type]
    assert min(n.items for n in nights) == pytest.approx(100)
    assert min(n.watched for n in nights) == pytest.approx(100)
    assert max(n.overshoot for n in nights) <= 0.5
    assert min(n.kept for n in nights) >= 52  # the floor alone keeps that much


def test_a_greedy_queue_leaves_items_without_a_forecast() -> None:
    nights = [night(PLAN, Rates(), POLICY, ALL_AT_ONCE, seed, greedy) for seed in range(4)]
    assert min(n.items for n in nights) < 100


def test_a_night_is_the_same_for_the_same_seed() -> None:
    first, again = (night(PLAN, Rates(), POLICY, ALL_AT_ONCE, 9) for _ in range(2))
    assert isinstance(first, Night) and first == again


def test_stresses_join_and_are_found_by_name() -> None:
    both = together(CATALOGUE[0], CATALOGUE[1])
    assert both.rows["ingest"] == CATALOGUE[0].rows["ingest"] * CATALOGUE[1].rows["ingest"]
    assert named("seasonal-spike") is CATALOGUE[0]
    with pytest.raises(LookupError, match="there are seasonal-spike"):
        named("flood")
    assert all(stress.source for stress in CATALOGUE)
