"""What has a history: the events of a subject, and the record that they add up to.

Belongs here: the event, the refusal, and the fold that `incidents` and `levers.decisions` share.
Does not: which event may follow which (theirs), keeping events (`resources.event_log`), the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

Record = TypeVar("Record")


@dataclass(frozen=True)
class Event:
    """Something that happened to a subject; `details` are JSON values."""

    subject: str
    at: datetime
    action: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """Why an event may not be applied, and what would make it possible."""

    reason: str


Apply = Callable[[Record | None, Event], Record | Refusal]


def unsaid(kind: str, event: Event, required: Mapping[str, tuple[str, ...]]) -> Refusal | None:
    """The refusal of an event that lacks what its action must say; None where all is said.

    `required`: action -> details of which nothing may be empty; `kind` names the record.
    """
    if event.action not in required:
        return Refusal(f"{kind} is never {event.action}; it is one of: {', '.join(required)}")
    said = (event.details.get(name) for name in required[event.action])
    empty = [value is None or not str(value).strip() or value in ([], ()) for value in said]
    missing = [name for name, lacks in zip(required[event.action], empty, strict=True) if lacks]
    if missing:
        return Refusal(f"{kind} is not {event.action} without: {', '.join(missing)}")
    return None


def fold(events: Iterable[Event], apply: Apply[Record]) -> Record:
    """The record that events add up to, oldest first.

    Raises:
        ValueError: they are not a possible history (none, or one that was refused).
    """
    current: Record | None = None
    for event in events:
        result = apply(current, event)
        if isinstance(result, Refusal):
            raise ValueError(f"{event.subject}: {result.reason}")
        current = result
    if current is None:
        raise ValueError("a history has at least the event that began it")
    return current
