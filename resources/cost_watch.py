"""The watch over the ledger: regressions become incidents, each with its computed cause.

Belongs here: reading the ledger and accuracy, recording what the detector finds, attaching the
bridge. Does not: detection (`forecast_core.incidents.regressions`), the bridge
(`forecast_core.incidents.root_cause`), an incident's states, or what answers one
(`resources.lever_proposals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from forecast_core.evaluation.live_accuracy import ALL
from forecast_core.events import Event
from forecast_core.incidents import Incident, root_cause, unit_costs
from forecast_core.incidents.plot import svg
from forecast_core.incidents.regressions import Detection, Policy, detect
from resources.cost_policy import CostPolicy
from resources.incident_store import IncidentStore

LOOK_BACK_DAYS = 180
CAUSES = 3


@dataclass(frozen=True)
class Watched:
    """One look: what was detected, which incidents are new, which are open now, and their plots
    by incident (SVG)."""

    detection: Detection
    opened: tuple[Incident, ...]
    active: tuple[Incident, ...]
    plots: Mapping[str, str]


def look_back(now: datetime) -> date:
    """The first day of the ledger that a look takes in."""
    return now.date() - timedelta(days=LOOK_BACK_DAYS)


def watch(
    charges: pl.DataFrame,
    store: IncidentStore,
    policy: CostPolicy,
    accuracy: pl.DataFrame,
    upstream: Mapping[str, Sequence[str]],
    now: datetime,
) -> Watched:
    """Look at `charges`, of the days from `look_back(now)` on; looking twice changes nothing.

    Args:
        charges: as `Ledger.charges` gives them, or any FOCUS ledger with `x_` columns.
        accuracy: `monitor_accuracy` rows; may be empty.
        upstream: asset -> the assets it reads, for the ranking of causes.
    """
    found = _detected(charges, accuracy, policy)
    opened = store.record(found.incidents, policy.owners, now, look_back(now))
    active = [i for i in store.all(active_only=True) if i.state in ("open", "acknowledged")]
    for incident in active:
        if "causes" not in incident.evidence:
            _attach_cause(store, incident, charges, upstream, now)
    current = tuple(store.all(active_only=True))
    return Watched(found, tuple(opened), current, _plots(current, charges))


def _detected(charges: pl.DataFrame, accuracy: pl.DataFrame, policy: CostPolicy) -> Detection:
    """The detector's finding. Fresh weeks of one series and a ledger of years go the same way."""
    told = accuracy.filter(
        pl.all_horizontal(pl.col("store_id", "horizon") == ALL),
        pl.all_horizontal(pl.col("segment_group", "forecaster") != ALL),
        pl.col("wape").is_not_null(),
    ).select(day="cutoff", forecaster="forecaster", segment="segment_group", wape="wape")
    rules = Policy(gain_per_cost=policy.gain_per_cost)
    return detect(charges, told if told.height else None, None, rules)


def _attach_cause(
    store: IncidentStore,
    incident: Incident,
    charges: pl.DataFrame,
    upstream: Mapping[str, Sequence[str]],
    now: datetime,
) -> None:
    """The bridge between the days of the rise and as many before it, written down as evidence."""
    start, detected = (date.fromisoformat(d) for d in (incident.start, incident.detected))
    days = max((detected - start).days + 1, 7)
    environment = incident.series.rsplit("/", 1)[-1]
    mine = charges.filter(pl.col("x_environment") == environment)
    before = root_cause.uses(mine, start - timedelta(days=days), start - timedelta(days=1))
    after = root_cause.uses(mine, start, start + timedelta(days=days - 1))
    bridge = root_cause.explain(before, after, upstream)
    causes = [
        {
            "asset": cause.asset,
            "factor": cause.factor,
            "amount": str(cause.amount),
            "share": round(cause.share, 4),
            "change": cause.change,
        }
        for cause in bridge.causes[:CAUSES]
    ]
    evidence: dict[str, Any] = {
        "causes": causes,
        "bridge": {name: str(amount) for name, amount in bridge.parts.items()},
        "change": str(bridge.change),
    }
    first = causes[0] if causes else None
    note = f"{first['factor']} of {first['asset']}" if first else "no cost changed"
    details = {"note": f"computed cause: {note}", "evidence": evidence}
    store.append(Event(incident.incident_id, now, "noted", details))


def _plots(incidents: Sequence[Incident], charges: pl.DataFrame) -> dict[str, str]:
    if not incidents:
        return {}
    frame = unit_costs.daily(charges).frame
    name = pl.concat_str(unit_costs.SERIES, separator="/")
    found = {}
    for incident in incidents:
        own = frame.filter(name == incident.series).sort("day")
        expected = float(incident.evidence.get("unit_cost_expected", 0.0))
        title = f"{incident.kind}: unit cost of {incident.series}"
        start = date.fromisoformat(incident.start)
        found[incident.incident_id] = svg(
            own["day"].to_list(), own["unit"].to_list(), start, expected, title
        )
    return found
