"""A cost incident: what it is, and how it may move from open to closed.

Belongs here: the value objects and the one function that applies an event to an incident. Does not:
finding regressions (`regressions`), storing events (`resources.incident_store`) or the clock.

open -> acknowledged -> mitigated -> closed. Nothing closes without a root cause, a mitigation and a
safeguard that runs; an incident that a later look at the ledger no longer supports is withdrawn.
What may not happen is returned as a `Refusal`, never raised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Literal

from forecast_core.events import Event, Refusal, fold, unsaid

State = Literal["open", "acknowledged", "mitigated", "closed", "withdrawn"]
_LIMIT = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
SAFEGUARDS = ("quota", "asset_check", "budget")

# Which actions each state allows, and the state they lead to (None: it stays).
_MOVES: Mapping[State, Mapping[str, State | None]] = {
    "open": {
        "acknowledged": "acknowledged",
        "reclassified": None,
        "explained": None,
        "withdrawn": "withdrawn",
        "noted": None,
    },
    "acknowledged": {
        "reclassified": None,
        "explained": None,
        "mitigated": "mitigated",
        "withdrawn": "withdrawn",
        "noted": None,
    },
    "mitigated": {"explained": None, "closed": "closed", "noted": None},
    "closed": {"noted": None},
    "withdrawn": {"noted": None},
}
# What each action must say, and of it nothing may be empty.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "opened": ("kind", "series", "start", "detected", "owner", "severity"),
    "reclassified": ("kind",),
    "acknowledged": ("by",),
    "explained": ("root_cause",),
    "mitigated": ("by", "mitigation"),
    "closed": ("by", "safeguard"),
    "withdrawn": ("reason",),
    "noted": ("note",),
}


@dataclass(frozen=True)
class Safeguard:
    """Something that runs and keeps the case from coming back: a quota, a check or a budget.

    `target`: the pipeline or series that it guards. `setting`: the limit put in force, a number
    and what it counts (`safeguards` holds it against the ledger every day).
    """

    kind: str
    target: str
    setting: str

    def __post_init__(self) -> None:
        if self.kind not in SAFEGUARDS:
            raise ValueError(f"a safeguard is one of {', '.join(SAFEGUARDS)}, not {self.kind!r}")
        if not self.target.strip() or not self.setting.strip():
            raise ValueError("a safeguard names its target and the setting put in force")
        if _LIMIT.match(self.setting) is None:
            raise ValueError(f"a setting begins with a limit, like `2 CPU-h`, not {self.setting!r}")

    @property
    def limit(self) -> float:
        """The number that the setting begins with."""
        return float(_LIMIT.match(self.setting)[0])  # type: ignore[index]

    @classmethod
    def parse(cls, text: str) -> Safeguard:
        """From `kind:target=setting`, as the command line takes it."""
        kind, _, rest = text.partition(":")
        target, _, setting = rest.partition("=")
        return cls(kind.strip(), target.strip(), setting.strip())

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}={self.setting}"


@dataclass(frozen=True)
class Incident:
    """The state that the events add up to. `owner` is a role, never a person."""

    incident_id: str
    kind: str
    series: str
    start: str
    detected: str
    owner: str
    severity: str
    opened_at: datetime
    evidence: Mapping[str, Any] = field(default_factory=dict)
    state: State = "open"
    root_cause: str | None = None
    mitigation: str | None = None
    safeguard: str | None = None
    changed_at: datetime | None = None
    history: tuple[Event, ...] = ()

    @property
    def active(self) -> bool:
        """Neither closed nor withdrawn."""
        return self.state not in ("closed", "withdrawn")


def incident_id(series: str, detected: date) -> str:
    """The same regression has the same id however often the ledger is looked at."""
    return hashlib.sha256(f"{series}|{detected.isoformat()}".encode()).hexdigest()[:12]


def owner_of(pipeline: str, owners: Mapping[str, str]) -> str:
    """The role that answers for a pipeline's cost; `default` owns what is not listed."""
    return owners.get(pipeline, owners.get("default", "forecasting-platform"))


def apply(incident: Incident | None, event: Event) -> Incident | Refusal:
    """The incident after the event, or why it may not happen. None: before it was opened."""
    if refused := unsaid("an incident", event, REQUIRED):
        return refused
    if incident is None:
        return _opened(event)
    if event.action == "opened":
        return Refusal(f"incident {incident.incident_id} is open already")
    moves = _MOVES[incident.state]
    if event.action not in moves:
        allowed = ", ".join(sorted(moves)) or "nothing"
        return Refusal(f"an incident that is {incident.state} can only be: {allowed}")
    changed = _with_details(incident, event)
    if event.action == "closed" and (lacking := _lacking(changed)):
        return Refusal(f"an incident does not close without its {' and '.join(lacking)}")
    return replace(
        changed,
        state=moves[event.action] or incident.state,
        changed_at=event.at,
        history=(*incident.history, event),
    )


def replay(events: Iterable[Event]) -> Incident:
    """The incident that stored events add up to; raises as `events.fold` does."""
    return fold(events, apply)


def _opened(event: Event) -> Incident | Refusal:
    if event.action != "opened":
        return Refusal(f"there is no incident {event.subject}")
    d = event.details
    texts = {k: str(d[k]) for k in REQUIRED["opened"]}
    return Incident(
        event.subject,
        **texts,  # type: ignore[arg-type]
        opened_at=event.at,
        evidence=dict(d.get("evidence") or {}),
        changed_at=event.at,
        history=(event,),
    )


def _with_details(incident: Incident, event: Event) -> Incident:
    """What the event says, written down; what it leaves out stays as it was."""
    known = ("kind", "severity", "root_cause", "mitigation", "safeguard")
    said = {k: str(event.details[k]) for k in known if event.details.get(k)}
    if "safeguard" in said:
        said["safeguard"] = str(Safeguard.parse(said["safeguard"]))
    evidence = {**incident.evidence, **(event.details.get("evidence") or {})}
    return replace(incident, evidence=evidence, **said)  # type: ignore[arg-type]


def _lacking(incident: Incident) -> list[str]:
    needed = {
        "root cause": incident.root_cause,
        "mitigation": incident.mitigation,
        "safeguard": incident.safeguard,
    }
    return [name for name, value in needed.items() if not value]
