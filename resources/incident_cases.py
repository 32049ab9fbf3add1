"""Closed incidents as labelled cases that the detector is held to.

Belongs here: keeping the charges around an incident with its label, and asking the detector again.
Does not: detecting (`forecast_core.incidents.regressions`), or an incident's states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from forecast_core.incidents import Incident
from forecast_core.incidents.regressions import detect

BEFORE_DAYS, AFTER_DAYS = 120, 21
GRACE = timedelta(days=3)
_FOLDER = "incident_cases"


@dataclass(frozen=True)
class Case:
    """A closed incident: whether the detector of today still finds it."""

    incident_id: str
    series: str
    found: bool


def keep(folder: Path, incident: Incident, charges: pl.DataFrame) -> Path | None:
    """Keep the charges of the incident's environment around it; None where it has none.

    `charges`: FOCUS rows of at least `BEFORE_DAYS` before its start. The label lies beside them.
    """
    start, detected = date.fromisoformat(incident.start), date.fromisoformat(incident.detected)
    environment = incident.series.rsplit("/", 1)[-1]
    around = (
        pl.col("ChargePeriodStart")
        .cast(pl.Date)
        .is_between(start - timedelta(days=BEFORE_DAYS), detected + timedelta(days=AFTER_DAYS))
    )
    own = charges.filter(around, pl.col("x_environment") == environment)
    if own.is_empty():
        return None
    path = folder / _FOLDER / f"{incident.incident_id}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    own.write_parquet(path)
    return path


def replayed(folder: Path, closed: Sequence[Incident]) -> list[Case]:
    """Every closed incident whose charges were kept, put before the detector again."""
    cases = []
    for incident in closed:
        path = folder / _FOLDER / f"{incident.incident_id}.parquet"
        if not path.is_file():
            continue
        detected = date.fromisoformat(incident.detected)
        near = pl.col("detected").is_between(detected - GRACE, detected + GRACE)
        found = detect(pl.read_parquet(path)).incidents.filter(
            near, pl.col("series") == incident.series
        )
        cases.append(Case(incident.incident_id, incident.series, not found.is_empty()))
    return cases
