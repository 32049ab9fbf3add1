"""Room of a step: as the stage has it, and refused where no machine could ever give it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission.policy import PIPELINES, Policy, PolicyError
from forecast_core.admission.step_room import GIB, Room, misfit, room_of


@pytest.fixture(scope="module")
def policy(project_root: Path) -> Policy:
    return Policy.parse(yaml.safe_load((project_root / "policies" / "admission.yaml").read_text()))


rooms = st.builds(
    Room,
    cpu=st.floats(0, 64),
    memory_gib=st.floats(0, 512),
    gpu=st.integers(0, 8),
)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_step_gets_what_the_gate_lets_it_use(policy: Policy, pipeline: str) -> None:
    step = policy.stage_for(pipeline).of_a_step
    room = room_of(policy, [pipeline])
    assert (room.cpu, room.memory_gib, room.gpu) == (step.cpu, step.memory_gib, 0)
    assert room.memory_bytes == step.memory_gib * GIB


def test_a_step_has_its_lane_s_share_where_the_policy_states_none(project_root: Path) -> None:
    text = yaml.safe_load((project_root / "policies" / "admission.yaml").read_text())
    del text["stages"]["training"]["step"]
    stage = Policy.parse(text).stages["training"]
    step = stage.of_a_step
    assert step.cpu * stage.runs == stage.cpu and step.memory_gib * stage.runs == stage.memory_gib
    assert stage.memory_of_a_step(held_gib=1) == step.memory_gib
    assert stage.memory_of_a_step(held_gib=6) == 6, "what was measured is held, and may be used"
    assert stage.memory_of_a_step(held_gib=99) == stage.memory_gib
    whole = yaml.safe_load((project_root / "policies" / "admission.yaml").read_text())
    stated = Policy.parse(whole).stages["training"]
    assert stated.memory_of_a_step(held_gib=6) == stated.memory_of_a_step(held_gib=1) == 4
    text["stages"]["training"] |= {"runs": 0}
    assert Policy.parse(text).stages["training"].of_a_step.memory_gib == stage.memory_gib


def test_a_stage_may_be_cut_into_steps(project_root: Path) -> None:
    text = yaml.safe_load((project_root / "policies" / "admission.yaml").read_text())
    text["stages"]["ingest"]["step"] = {"cpu": 1, "memory_gib": 1.5}
    cut = Policy.parse(text)
    assert room_of(cut, ["ingest"]) == Room(1, 1.5)
    assert room_of(cut, ["ingest", "training"]) == Room(3, 4)
    text["stages"]["ingest"]["step"] = {"cpu": 1, "memory_gib": 99}
    with pytest.raises(PolicyError, match=r"stages\.ingest\.step: asks for more than"):
        Policy.parse(text)


def test_a_step_for_several_pipelines_fits_the_neediest(policy: Policy) -> None:
    room = room_of(policy, ["monitoring", "training"], gpu=1)
    step = policy.stages["training"].of_a_step
    assert room == Room(step.cpu, step.memory_gib, 1)


def test_an_unknown_pipeline_has_the_room_of_the_first_stage(policy: Policy) -> None:
    first = next(iter(policy.stages.values())).of_a_step
    assert room_of(policy, ["nobody's"]).cpu == first.cpu
    assert room_of(policy, []).memory_gib == first.memory_gib


def test_what_no_machine_has_is_refused_with_what_there_is() -> None:
    refused = misfit("train", Room(4, 8, 1), [Room(8, 32), Room(2, 64, 2)])
    assert refused is not None
    said = str(refused)
    assert "step train asks for 4 CPU, 8 GiB, 1 GPU" in said
    assert "8 CPU, 32 GiB; 2 CPU, 64 GiB, 2 GPU" in said
    assert "admission policy" in said


def test_without_machines_nothing_fits() -> None:
    assert "alive: none" in str(misfit("any", Room(1, 1), []))


@given(asks=rooms, machines=st.lists(rooms, max_size=5))
def test_refused_exactly_when_each_machine_is_too_small_in_something(
    asks: Room, machines: list[Room]
) -> None:
    lacking = [
        m.cpu < asks.cpu or m.memory_bytes < asks.memory_bytes or m.gpu < asks.gpu for m in machines
    ]
    refused = misfit("step", asks, machines)
    assert (refused is not None) == all(lacking)
    assert misfit("step", asks, [*machines, asks]) is None  # its own size always fits
