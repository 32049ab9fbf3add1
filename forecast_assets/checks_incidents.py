"""Asset checks of cost: no grave incident is left lying.

Belongs here: flagging what nobody has taken on. Does not: opening or closing incidents.
"""

from collections.abc import Sequence

import dagster as dg

from resources import Settings


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


ALL: Sequence[dg.AssetChecksDefinition] = [incidents_are_acknowledged]
