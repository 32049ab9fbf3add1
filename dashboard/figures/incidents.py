"""Incidents and decisions: what went wrong with costs, what was decided, by whom.

Belongs here: reading the logs of incidents, levers, admission and its exceptions. Does not: which
event is allowed (`forecast_core.incidents`, `.lever_decisions`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from dashboard.live import Live
from forecast_core import incidents as incident_rules
from forecast_core.incidents import Incident, unit_costs
from forecast_core.levers import decisions as lever_decisions
from forecast_core.levers.decisions import Decision
from resources.admission_log import every_override
from resources.admission_tables import runs


def incidents(live: Live) -> list[Incident]:
    """Every cost incident, active ones first, the newest first among them."""

    def ask() -> list[Incident]:
        found = [
            incident_rules.replay(own) for own in live.log("incident_events").subjects().values()
        ]
        return sorted(found, key=lambda i: (not i.active, -i.opened_at.timestamp(), i.incident_id))

    return live.of_ledger("incidents", ask)


def decisions(live: Live) -> list[Decision]:
    """Every proposal of levers, newest first."""

    def ask() -> list[Decision]:
        found = [
            lever_decisions.replay(own) for own in live.log("lever_events").subjects().values()
        ]
        return sorted(found, key=lambda d: (d.history[0].at, d.decision_id), reverse=True)

    return live.of_ledger("decisions", ask)


def incident_table(found: list[Incident]) -> pl.DataFrame:
    """One row an incident."""
    rows = [
        (i.incident_id, i.state, i.severity, i.kind, i.series, i.start, i.detected, i.owner,
         i.root_cause, i.opened_at)
        for i in found
    ]  # fmt: skip
    schema: dict[str, Any] = dict.fromkeys(
        ("incident", "state", "severity", "kind", "series", "start", "detected", "owner",
         "root cause"), pl.String,
    )  # fmt: skip
    return pl.DataFrame(rows, schema={**schema, "opened": pl.Datetime("us", "UTC")}, orient="row")


def decision_table(found: list[Decision]) -> pl.DataFrame:
    """One row a proposal; money and loss a period, as promised and as it came."""
    rows = [
        (d.decision_id, d.state, d.reason, len(d.options), d.saving_expected, d.saving_realised,
         d.loss_expected, d.loss_realised, d.history[0].at)
        for d in found
    ]  # fmt: skip
    money = dict.fromkeys(("saving", "saving realised", "loss", "loss realised"), pl.Float64)
    schema: dict[str, Any] = {
        "decision": pl.String,
        "state": pl.String,
        "reason": pl.String,
        "levers": pl.Int64,
        **money,
        "proposed": pl.Datetime("us", "UTC"),
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def history(events: Any) -> pl.DataFrame:
    """at, action, by, note of the events of an incident or a decision."""
    rows = [(e.at, e.action, _said(e.details, "by"), _note(e.details)) for e in events]
    schema: dict[str, Any] = {
        "at": pl.Datetime("us", "UTC"),
        "action": pl.String,
        "by": pl.String,
        "note": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _said(details: Mapping[str, Any], key: str) -> str | None:
    value = details.get(key)
    return None if value is None else str(value)


def _note(details: Mapping[str, Any]) -> str | None:
    names = ("reason", "note", "root_cause", "mitigation", "safeguard", "policy_version")
    found = [f"{n.replace('_', ' ')}: {details[n]}" for n in names if details.get(n)]
    return "; ".join(found) or None


def causes(incident: Incident) -> pl.DataFrame:
    """asset, factor, amount, share of the computed causes of an incident."""
    rows = [
        (str(c["asset"]), str(c["factor"]), float(c["amount"]), float(c["share"]),
         str(c.get("change") or ""))
        for c in incident.evidence.get("causes", ())
    ]  # fmt: skip
    schema: dict[str, Any] = {
        "asset": pl.String,
        "factor": pl.String,
        "amount": pl.Float64,
        "share": pl.Float64,
        "change": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def bridge(incident: Incident) -> pl.DataFrame:
    """part, amount: why money rose, in parts that sum to the change; none until it is computed."""
    parts = incident.evidence.get("bridge") or {}
    rows = [(str(name), float(amount)) for name, amount in parts.items()]
    return pl.DataFrame(rows, schema={"part": pl.String, "amount": pl.Float64}, orient="row")


def series_of(live: Live, incident: Incident, days: int = 28) -> pl.DataFrame:
    """day, unit of the series that an incident is about, from some days before its rise."""

    def ask() -> pl.DataFrame:
        first = date.fromisoformat(incident.start) - timedelta(days=days)
        frame = unit_costs.daily(live.ledger.charges(first=first)).frame
        name = pl.concat_str(unit_costs.SERIES, separator="/")
        return frame.filter(name == incident.series).select("day", "unit").drop_nulls().sort("day")

    return live.of_ledger(("incident", incident.incident_id, days), ask)


def admissions(live: Live, most: int = 200) -> pl.DataFrame:
    """What admission last decided of each run, newest first."""

    def ask() -> pl.DataFrame:
        r = runs.c
        query = (
            sa.select(r.submitted, r.state, r.work_class, r.rung, r.code, r.reason, r.run_id)
            .where(r.environment == live.settings.environment)
            .order_by(r.submitted.desc(), r.run_id)
            .limit(most)
        )
        with live.admission.reading() as connection:
            rows = [tuple(row) for row in connection.execute(query)]
        text = dict.fromkeys(("state", "class", "rung", "code", "reason", "run"), pl.String)
        found = pl.DataFrame(rows, schema={"submitted": pl.Float64, **text}, orient="row")
        return found.with_columns(_moments("submitted"))

    return live.of_admission(("admissions", most), ask)


def overrides(live: Live) -> pl.DataFrame:
    """Every exception that was made: effect, target, owner, reason, made, expires."""

    def ask() -> pl.DataFrame:
        text = dict.fromkeys(("effect", "target", "owner", "reason"), pl.String)
        schema: dict[str, Any] = {**text, "made": pl.Float64, "expires": pl.Float64}
        rows = [tuple(row[name] for name in schema) for row in every_override(live.admission)]
        found = pl.DataFrame(rows, schema=schema, orient="row")
        return found.with_columns(_moments("made"), _moments("expires"))

    return live.of_admission("overrides", ask)


def _moments(column: str) -> pl.Expr:
    return pl.from_epoch((pl.col(column) * 1000).cast(pl.Int64), "ms").dt.replace_time_zone("UTC")
