"""What room one step asks of a cluster, and whether any machine there could ever give it.

Belongs here: from the admission policy's stages to cores, memory and GPUs of a step, and the
refusal of what fits no machine. Does not: talking to a cluster (`resources.ray_steps`), rules.

A step is reserved exactly what the gate lets it use: `step` of its pipeline's stage, else a lane's
share of the stage's room. What Ray keeps free and what ends an offender are one number of one file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from forecast_core.admission.policy import Policy

GIB = 1024**3


@dataclass(frozen=True)
class Room:
    """Busy cores, memory in GiB and whole GPUs: of a step, or of a machine in all."""

    cpu: float
    memory_gib: float
    gpu: int = 0

    @property
    def memory_bytes(self) -> int:
        """Memory in whole bytes, rounded up."""
        return math.ceil(self.memory_gib * GIB)

    def holds(self, other: Room) -> bool:
        """Could `other` run here, were nothing else here?"""
        return (
            self.cpu >= other.cpu
            and self.memory_bytes >= other.memory_bytes
            and self.gpu >= other.gpu
        )

    def __str__(self) -> str:
        gpus = f", {self.gpu} GPU" if self.gpu else ""
        return f"{self.cpu:g} CPU, {self.memory_gib:.3g} GiB{gpus}"


@dataclass(frozen=True)
class Misfit:
    """A step that no machine could ever run; `str()` says what it asks, what there is, and what
    to do."""

    step: str
    asks: Room
    machines: tuple[Room, ...]

    def __str__(self) -> str:
        there = "; ".join(str(machine) for machine in self.machines) or "none"
        return (
            f"step {self.step} asks for {self.asks}, and no machine of the cluster has that"
            f" (machines alive: {there}). It would wait for ever, so it is refused: add a machine"
            " that large, or give its stage less room in the admission policy"
        )


def room_of(policy: Policy, pipelines: Collection[str], gpu: int = 0) -> Room:
    """The room of a step that works for `pipelines` and holds `gpu` lanes.

    The largest of their stages', as a step that serves several must fit the neediest; a pipeline
    that the policy does not name has the room of the first stage, as at the gate.
    """
    steps = [policy.stage_for(pipeline).of_a_step for pipeline in pipelines or ("",)]
    return Room(max(s.cpu for s in steps), max(s.memory_gib for s in steps), gpu)


def misfit(step: str, asks: Room, machines: Iterable[Room]) -> Misfit | None:
    """Why `step` can run on none of the machines; None where one is large enough."""
    known = tuple(machines)
    if any(machine.holds(asks) for machine in known):
        return None
    return Misfit(step, asks, known)
