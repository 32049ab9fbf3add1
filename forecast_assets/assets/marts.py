"""The dbt project in the graph: marts over the Delta tables.

Belongs here: handing dbt its paths and its events to Dagster. Does not: any SQL (`dbt_project`).

The manifest is made by `make install` (`dbt parse`), never on loading; at run time dbt works in a
process of its own, whose CPU is metered as the step's.
"""

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, dbt_assets

from resources import PROJECT_ROOT, Settings
from resources.meter import metered

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
MANIFEST = DBT_PROJECT / "target" / "manifest.json"


class StaleManifest(RuntimeError):
    """The manifest is missing, or of other models than the project's; says what to do."""


def parsed(project: Path, manifest: Path) -> dict[str, Any]:
    """The project's manifest.

    Raises:
        StaleManifest: there is none, or models came or went since it was made.
    """
    remedy = "run `make install`, which parses dbt_project/"
    if not manifest.is_file():
        raise StaleManifest(f"{manifest} is missing: {remedy}")
    found: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    nodes = found["nodes"].values()
    known = {n["original_file_path"] for n in nodes if n["resource_type"] == "model"}
    there = {str(m.relative_to(project)) for m in (project / "models").rglob("*.sql")}
    if known != there:
        strange = min(known ^ there)
        raise StaleManifest(f"{manifest} is of other models ({strange} came or went): {remedy}")
    return found


@dbt_assets(manifest=parsed(DBT_PROJECT, MANIFEST))
@metered
def cost_marts(
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    settings: dg.ResourceParam[Settings],
) -> Iterator[Any]:
    """Build the marts and run their identities as tests."""
    settings.marts.parent.mkdir(parents=True, exist_ok=True)
    paths = {"marts": str(settings.marts), "lake": settings.lake_root}
    invocation = dbt.cli(["build", "--vars", json.dumps(paths)], context=context)
    said = io.StringIO()
    try:
        yield from _quietly(invocation.stream(), said)
    except Exception:
        print(said.getvalue(), file=sys.stderr)
        raise
    context.log.info(_last_line(said.getvalue()))


def _quietly(events: Iterator[Any], said: io.StringIO) -> Iterator[Any]:
    """The events, with what dbt prints between them kept in `said`."""
    while True:
        with redirect_stdout(said):
            event = next(events, None)
        if event is None:
            return
        yield event


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "dbt said nothing")


def mart_names() -> tuple[str, ...]:
    """Every model of the dbt project, as assets are named."""
    return tuple(sorted(key.to_user_string() for key in cost_marts.keys))


def dbt_program() -> DbtCliResource:
    """dbt on the project, with its profile beside it."""
    beside_python = Path(sys.executable).with_name("dbt")
    return DbtCliResource(
        project_dir=str(DBT_PROJECT),
        profiles_dir=str(DBT_PROJECT),
        dbt_executable=str(beside_python),
    )
