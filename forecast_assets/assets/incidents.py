"""Cost incidents: the ledger is watched like a service, and a regression is opened with its cause.

Belongs here: one look at the ledger as an asset, its figures, evidence and plots. Does not: the
look (`resources.cost_watch`), or what answers an incident (`resources.lever_proposals`).
"""

import base64
from datetime import UTC, datetime

import dagster as dg

from forecast_assets.storage_reads import GraphFacts
from forecast_core.incidents import Incident
from forecast_core.schema import TABLES
from resources import PROJECT_ROOT, Settings
from resources.cost_policy import CostPolicy, read_cost_policy
from resources.lake import Lake
from resources.meter import Meter, metered

SettingsResource = dg.ResourceParam[Settings]


def cost_policy() -> CostPolicy:
    """Owners, what accuracy may cost, and the levers that may be pulled without asking."""
    return read_cost_policy(PROJECT_ROOT / "policies" / "levers.yaml")


@dg.asset(deps=["cost_ledger", "monitor_accuracy"], pool="monitoring")
@metered
def cost_incidents(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    lake: dg.ResourceParam[Lake],
    meter: dg.ResourceParam[Meter],
    graph: dg.ResourceParam[GraphFacts],
) -> dg.MaterializeResult[None]:
    """Rises of unit cost that nothing planned explains, opened as incidents with their cause."""
    from resources.cost_watch import look_back, watch
    from resources.incident_store import IncidentStore

    table = lake.table("monitor_accuracy")
    known = table.read().frame.collect() if table.exists() else None
    accuracy = TABLES["monitor_accuracy"].schema.to_frame() if known is None else known
    now = datetime.now(UTC)
    charges = meter.ledger.charges(first=look_back(now))
    store = IncidentStore(settings.ledger)
    found = watch(charges, store, cost_policy(), accuracy, graph.upstream, now)
    for incident in found.opened:
        context.log.warning(
            f"{incident.kind} of {incident.series} since {incident.start}: {incident.severity},"
            f" for {incident.owner}"
        )
    series = found.detection.series
    return dg.MaterializeResult(
        metadata={
            "opened": len(found.opened),
            "active": len(found.active),
            "series": series.height,
            "too_short_to_judge": series["reason"].drop_nulls().len(),
            "dismissed": found.detection.dismissed.height,
            "basis": found.detection.basis,
            "incidents": dg.MetadataValue.md(_markdown(found.active)),
            **{
                f"plot/{key}": dg.MetadataValue.md(_picture(svg))
                for key, svg in found.plots.items()
                if svg
            },
        }
    )


def _picture(svg: str) -> str:
    return f"![incident](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _markdown(incidents: tuple[Incident, ...]) -> str:
    if not incidents:
        return "no incident is open"
    head = "id | state | kind | series | since | severity | owner | cause"
    lines = [f"| {head} |", "|" + " --- |" * 8]
    for i in incidents:
        causes = i.evidence.get("causes") or [{}]
        cause = i.root_cause or " of ".join(
            str(causes[0][k]) for k in ("factor", "asset") if k in causes[0]
        )
        cells = (i.incident_id, i.state, i.kind, i.series, i.start, i.severity, i.owner, cause)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
