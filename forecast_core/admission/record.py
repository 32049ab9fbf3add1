"""A pass on record: snapshots, policies, decisions and work as canonical JSON, and back, exactly.

Belongs here: the encoding and its hash. Does not: where records are kept. Equal shapes are written
once and come back as one object, so that a replay is as fast as the pass was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from forecast_core.admission import decide
from forecast_core.admission.policy import Policy
from forecast_core.admission.request import AssetFacts, Work
from forecast_core.admission.values import (
    NEVER,
    Decision,
    Holding,
    Load,
    Override,
    Quote,
    Request,
    Shape,
    Snapshot,
)


class RecordError(ValueError):
    """A record that cannot be read: made by other code, or damaged."""


def canonical(value: object) -> str:
    """JSON with sorted keys and no blanks: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """SHA-256 of a text, hexadecimal."""
    return sha256(text.encode()).hexdigest()


def quote_to_json(quote: Quote) -> dict[str, Any]:
    """One quote as plain JSON values."""
    return asdict(quote)


def quote_from_json(value: Mapping[str, Any]) -> Quote:
    """The quote that `quote_to_json` wrote."""
    charges = tuple((str(pipeline), int(amount)) for pipeline, amount in value["charges"])
    return Quote(**{**value, "charges": charges})


def shape_to_json(shape: Shape) -> dict[str, Any]:
    """One shape as plain JSON values."""
    quotes = [quote_to_json(quote) for quote in shape.quotes]
    return {
        "work_class": shape.work_class,
        "stage": shape.stage,
        "quotes": quotes,
        "problem": shape.problem,
    }


def shape_from_json(value: Mapping[str, Any]) -> Shape:
    """The shape that `shape_to_json` wrote."""
    quotes = tuple(quote_from_json(quote) for quote in value["quotes"])
    return Shape(value["work_class"], value["stage"], quotes, value["problem"])


def work_to_json(work: Work) -> dict[str, Any]:
    """What a run will do as plain JSON values."""
    return asdict(work)


def work_from_json(value: Mapping[str, Any]) -> Work:
    """The work that `work_to_json` wrote."""
    assets = tuple(AssetFacts(**{**a, "rungs": tuple(a["rungs"])}) for a in value["assets"])
    return Work(assets, tuple(value["pipelines"]), value["partitions"])


def snapshot_to_json(snapshot: Snapshot) -> str:
    """A snapshot as canonical JSON, equal shapes written once."""
    numbers: dict[str, int] = {}
    seen: dict[int, int] = {}

    def number(shape: Shape) -> int:
        if id(shape) not in seen:
            text = canonical(shape_to_json(shape))
            seen[id(shape)] = numbers.setdefault(text, len(numbers))
        return seen[id(shape)]

    def request(value: Request) -> list[Any]:
        return [value.id, number(value.shape), *value[2:]]

    body = {
        "now": snapshot.now,
        "environment": snapshot.environment,
        "waiting": [request(r) for r in snapshot.waiting],
        "running": [
            [request(h.request), quote_to_json(h.quote), h.admitted] for h in snapshot.running
        ],
        "spent": {node: dict(classes) for node, classes in snapshot.spent.items()},
        "items_due": snapshot.items_due,
        "load": asdict(snapshot.load),
        "overrides": [asdict(override) for override in snapshot.overrides],
        "last_start": dict(snapshot.last_start),
    }
    if snapshot.counts:
        body["counts"] = dict(snapshot.counts)
    return canonical({**body, "shapes": [json.loads(text) for text in numbers]})


def snapshot_from_json(text: str) -> Snapshot:
    """The snapshot that `snapshot_to_json` wrote.

    Raises:
        RecordError: the text is no snapshot.
    """
    try:
        body = json.loads(text)
        shapes = [shape_from_json(shape) for shape in body["shapes"]]

        def request(value: list[Any]) -> Request:
            return Request(value[0], shapes[value[1]], *value[2:])

        return Snapshot(
            now=body["now"],
            environment=body["environment"],
            waiting=tuple(request(r) for r in body["waiting"]),
            running=tuple(
                Holding(request(r), quote_from_json(quote), admitted)
                for r, quote, admitted in body["running"]
            ),
            spent=body["spent"],
            items_due=body["items_due"],
            load=Load(**body["load"]),
            overrides=tuple(Override(**override) for override in body["overrides"]),
            last_start=body["last_start"],
            counts=body.get("counts", {}),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RecordError(f"no snapshot of an admission pass: {error!r}") from None


def decisions_to_json(decisions: Iterable[Decision]) -> str:
    """Decisions as canonical JSON; a time that never comes is null."""
    return canonical(
        [[None if field == NEVER else field for field in decision] for decision in decisions]
    )


def decisions_from_json(text: str) -> list[Decision]:
    """The decisions that `decisions_to_json` wrote.

    Raises:
        RecordError: the text is no list of decisions.
    """
    try:
        rows = json.loads(text)
        return [Decision._make(NEVER if field is None else field for field in row) for row in rows]
    except (ValueError, TypeError) as error:
        raise RecordError(f"no decisions of an admission pass: {error!r}") from None


def agrees(snapshot: str, policy: str, decisions: str) -> bool:
    """Does deciding again, from the record alone, give the recorded decisions to the letter?"""
    again = decide(snapshot_from_json(snapshot), Policy.parse(json.loads(policy)))
    return decisions_to_json(again) == decisions
