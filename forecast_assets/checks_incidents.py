"""Asset checks of cost: no grave incident is left lying, and what closed one still holds.

Belongs here: flagging what nobody has taken on, safeguards that are broken and cases that the
detector has unlearnt. Does not: opening or closing incidents, or the limits themselves
(`forecast_core.incidents.safeguards`).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from forecast_core.incidents import Incident, Safeguard, safeguards
from resources import Settings
from resources.meter import Meter


@dg.asset_check(asset="cost_incidents")
def incidents_are_acknowledged(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Every open incident has someone who looks into it; a grave one that has not is an error."""
    from resources.incident_store import IncidentStore

    settings.state_dir.mkdir(parents=True, exist_ok=True)
    waiting = [i for i in IncidentStore(settings.ledger).all(active_only=True) if i.state == "open"]
    grave = [i for i in waiting if i.severity == "high"]
    return dg.AssetCheckResult(
        passed=not waiting,
        severity=dg.AssetCheckSeverity.ERROR if grave else dg.AssetCheckSeverity.WARN,
        metadata={
            "waiting": len(waiting),
            "grave": len(grave),
            "owners": dg.MetadataValue.json(sorted({i.owner for i in waiting})),
            "which": dg.MetadataValue.json([i.incident_id for i in waiting]),
        },
    )


@dg.asset_check(asset="cost_incidents")
def safeguards_hold(
    settings: dg.ResourceParam[Settings], meter: dg.ResourceParam[Meter]
) -> dg.AssetCheckResult:
    """What each closed incident was closed with still holds against the ledger."""
    today = datetime.now(UTC).date()
    back = min(today.replace(day=1), today - timedelta(days=safeguards.DAYS))
    charges = meter.ledger.charges(first=back)
    made = [
        (incident, safeguards.held(Safeguard.parse(incident.safeguard), charges, today))
        for incident in _closed(settings)
        if incident.safeguard
    ]
    broken = {i.incident_id: held.reason for i, held in made if not held.holds}
    return dg.AssetCheckResult(
        passed=not broken,
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "safeguards": len(made),
            "broken": dg.MetadataValue.json(broken),
            "figures": dg.MetadataValue.json([held.reason for _, held in made]),
        },
    )


@dg.asset_check(asset="cost_incidents")
def detector_finds_past_cases(settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """The detector of today still finds every incident that was closed."""
    from resources.incident_cases import replayed

    cases = replayed(settings.state_dir, _closed(settings))
    missed = [case.incident_id for case in cases if not case.found]
    return dg.AssetCheckResult(
        passed=not missed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"cases": len(cases), "missed": dg.MetadataValue.json(missed)},
    )


def _closed(settings: Settings) -> list[Incident]:
    from resources.incident_store import IncidentStore

    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return [i for i in IncidentStore(settings.ledger).all() if i.state == "closed"]


ALL: Sequence[dg.AssetChecksDefinition] = [
    incidents_are_acknowledged,
    safeguards_hold,
    detector_finds_past_cases,
]
