"""The code location: assets, checks, jobs, schedules, sensors and the resources they run on.

Belongs here: putting the parts together, with overrides for tests. Does not: any part.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from forecast_assets import (
    checks,
    checks_capacity,
    checks_incidents,
    jobs,
    jobs_storage,
    sensors,
)
from forecast_assets.assets.marts import dbt_program
from forecast_assets.layers import layer_assets
from forecast_assets.storage_reads import GraphFacts
from resources import Settings, threads_wait_asleep
from resources.wiring import build_resources, executor_of


def build_defs(
    settings: Settings | None = None, resources: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Everything, on the given settings; `resources` replace those of the same key."""
    threads_wait_asleep()
    settings = settings or Settings.from_environment()
    assets = layer_assets()
    graph = GraphFacts.of(assets)
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            *checks.ALL,
            *checks_capacity.ALL,
            *checks_incidents.ALL,
            *jobs_storage.CHECKS,
        ],
        jobs=[*jobs.ALL, *jobs_storage.JOBS],
        schedules=[*jobs.SCHEDULES, *jobs_storage.SCHEDULES],
        sensors=sensors.ALL,
        resources={
            **build_resources(settings),
            "graph": graph,
            "dbt": dbt_program(),
            **(resources or {}),
        },
        executor=executor_of(settings, PRELOADED),
    )


PRELOADED = ["forecast_assets.layers"]

defs = build_defs()
