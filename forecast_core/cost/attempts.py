"""Which attempts a run made, read from the events of its steps.

Belongs here: the fold from an ordered list of step events to attempts with their bounds. Does not:
reading an event log (`resources.ledger_reconcile`) or charging.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

Kind = Literal["started", "succeeded", "failed", "to_retry"]
_STATUS: dict[Kind, str] = {"succeeded": "success", "failed": "failure", "to_retry": "retry"}


@dataclass(frozen=True)
class StepEvent:
    """Something that happened to a step."""

    step_key: str
    kind: Kind
    at: datetime


@dataclass(frozen=True)
class Attempt:
    """One try of a step, the first is 1. `end` and `status` are None while it may still run."""

    step_key: str
    attempt: int
    start: datetime
    end: datetime | None = None
    status: str | None = None


def attempts(
    events: Iterable[StepEvent], run_end: datetime | None = None, run_status: str = "killed"
) -> list[Attempt]:
    """The attempts of a run, in the order in which they started.

    An attempt without an end of its own ends with the next start of the same step (its process
    died and nobody noticed) or with the run, as `run_status`. An end without a start is no attempt:
    Dagster also fails steps that never began. It counts retries, though, so a process that died
    before its step began leaves a number out.
    """
    made: list[Attempt] = []
    open_at: dict[str, int] = {}
    latest: dict[str, int] = {}
    retries: dict[str, int] = {}
    for event in events:
        index = open_at.pop(event.step_key, None)
        if index is not None:
            status = _STATUS.get(event.kind, "killed")
            made[index] = replace(made[index], end=event.at, status=status)
        if event.kind == "to_retry":
            retries[event.step_key] = retries.get(event.step_key, 0) + 1
        if event.kind == "started":
            number = max(retries.get(event.step_key, 0), latest.get(event.step_key, 0)) + 1
            latest[event.step_key] = number
            open_at[event.step_key] = len(made)
            made.append(Attempt(event.step_key, number, event.at))
    if run_end is not None:
        for index in open_at.values():
            end = max(run_end, made[index].start)
            made[index] = replace(made[index], end=end, status=run_status)
    return made
