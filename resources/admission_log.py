"""The decision log and the overrides: written once, never changed, never deleted.

Belongs here: putting a pass on record, reading passes back, people's exceptions. Does not: what a
decision does to a run or to money (`admission_store`).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from forecast_core.admission import Decision, Override, Quote
from forecast_core.admission.policy import PROTECTED, Policy
from forecast_core.admission.record import decisions_from_json, digest, snapshot_from_json
from resources.admission_store import AdmissionStore
from resources.admission_tables import insert_once, overrides, passes, policies, runs


def write_pass(
    connection: sa.Connection,
    now: float,
    environment: str,
    policy: Policy,
    snapshot: str,
    decisions: str,
) -> int:
    """Put a pass on record; returns its number."""
    body = {"hash": policy.hash, "version": policy.version, "body": policy.text}
    insert_once(connection, policies, [body])
    row = {
        "at": now,
        "environment": environment,
        "policy": policy.hash,
        "snapshot_hash": digest(snapshot),
        "snapshot": zlib.compress(snapshot.encode(), 3),
        "decisions": zlib.compress(decisions.encode(), 3),
    }
    key = connection.execute(sa.insert(passes).values(row)).inserted_primary_key
    assert key is not None
    return int(key[0])


def logged(
    store: AdmissionStore, *, run_id: str | None = None, since: float = 0.0
) -> Iterator[tuple[int, float, str, str, str, str]]:
    """(pass, at, policy text, snapshot hash, snapshot, decisions) of passes, oldest first."""
    query = (
        sa.select(passes, policies.c.body)
        .join(policies, policies.c.hash == passes.c.policy)
        .where(passes.c.at >= since)
        .order_by(passes.c.pass_id)
    )
    if run_id is not None:
        query = query.where(
            passes.c.pass_id.in_(sa.select(runs.c.pass_id).where(runs.c.run_id == run_id))
        )
    with store.reading() as connection:
        for row in connection.execution_options(yield_per=50).execute(query).mappings():
            yield (
                row["pass_id"],
                row["at"],
                row["body"],
                row["snapshot_hash"],
                zlib.decompress(row["snapshot"]).decode(),
                zlib.decompress(row["decisions"]).decode(),
            )


@dataclass(frozen=True)
class Verdict:
    """What one pass said of a run, and on what: `quote` is what it asked for, `waiting` and
    `running` count the runs beside it, `spent` is gone by budget node (nanos)."""

    number: int
    at: float
    policy: str
    snapshot: str
    decision: Decision
    quote: Quote
    waiting: int
    running: int
    spent: Mapping[str, int]


def verdicts(store: AdmissionStore, run_id: str, since: float) -> Iterator[Verdict]:
    """Every change of mind about a run since a moment (its submission), oldest first."""
    last: tuple[str, str] | None = None
    for number, at, policy, digested, snapshot, decisions in logged(store, since=since):
        if f'"{run_id}"' not in decisions:
            continue
        found = next((d for d in decisions_from_json(decisions) if d.id == run_id), None)
        if found is None or (found.action, found.code) == last:
            continue
        last = (found.action, found.code)
        facts = snapshot_from_json(snapshot)
        request = next(r for r in facts.waiting if r.id == run_id)
        quote = next(q for q in request.shape.quotes if q.rung == found.rung)
        gone = {node: sum(by_class.values()) for node, by_class in facts.spent.items()}
        counts = (len(facts.waiting) - 1, len(facts.running))
        version = json.loads(policy)["version"]
        yield Verdict(number, at, version, digested, found, quote, *counts, gone)


def add_override(store: AdmissionStore, override: Override, now: float) -> int:
    """Log an override; it acts from the next pass on. Overrides are never deleted.

    Raises:
        ValueError: it would be over before it began, or switch monitoring or serving off.
    """
    if override.expires <= now:
        raise ValueError("an override must end in the future: give it more than 0 hours")
    if override.effect == "block" and override.target in PROTECTED:
        raise ValueError(
            f"{override.target} may never be switched off; block the single run instead"
        )
    with store.alone() as connection:
        row = {
            "effect": override.effect,
            "target": override.target,
            "owner": override.owner,
            "reason": override.reason,
            "amount": override.amount,
            "made": now,
            "expires": override.expires,
        }
        key = connection.execute(sa.insert(overrides).values(row)).inserted_primary_key
        assert key is not None
        return int(key[0])


def every_override(store: AdmissionStore) -> list[dict[str, Any]]:
    """All overrides that were ever made, oldest first."""
    with store.reading() as connection:
        rows = connection.execute(sa.select(overrides).order_by(overrides.c.override_id))
        return [dict(row) for row in rows.mappings()]


def active_overrides(connection: sa.Connection, now: float) -> tuple[Override, ...]:
    """The overrides that have not expired, oldest first."""
    names = ("effect", "target", "owner", "reason", "expires", "amount")
    query = sa.select(*(overrides.c[name] for name in names)).where(overrides.c.expires > now)
    rows = connection.execute(query.order_by(overrides.c.override_id)).mappings()
    return tuple(Override(**row) for row in rows)
