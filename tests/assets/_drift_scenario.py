"""A department's demand triples after its forecaster was trained; what the platform then does.

Run as a program in an installation whose forecasters were trained four weeks before the last day.
Prints one JSON object. Every run goes through the instance named by DAGSTER_HOME.
"""

import json
import sys
from typing import Any

import dagster as dg
import polars as pl

from forecast_assets.batch import Stage, run_stages
from forecast_assets.definitions import build_defs
from forecast_assets.sensors_drift import retrain_on_drift
from forecast_core.cells import Cells
from resources import Settings
from resources.wiring import build_resources, data_span, lake_of


def shift(department: str, after: Any, until: Any) -> None:
    """Three times the units of a department from the day after `after` on, in the lake itself."""
    table = lake_of(Settings.from_environment()).table("cleaned_sales")
    moved = pl.col("date") > after
    for store in table.read().frame.select("store_id").unique().collect()["store_id"]:
        cells = Cells(after.replace(day=1), until, (store,))
        rows = table.read(cells).frame.collect()
        units = pl.when(moved & (pl.col("dept_id") == department)).then(pl.col("units") * 3)
        table.replace(rows.with_columns(units=units.otherwise(pl.col("units"))), cells)


def main(department: str) -> None:
    """Monitor, react, monitor again, react again."""
    settings = Settings.from_environment()
    span, defs, instance = data_span(settings), build_defs(settings), dg.DagsterInstance.get()
    trained = _trained(settings)
    told: dict[str, Any] = {"before": {name: str(day) for name, day in trained.items()}}
    shift(department, min(trained.values()), span.as_of)
    ticks = []
    for _ in range(2):
        day = span.as_of.isoformat()
        watch = Stage("watch", ("monitor_drift", "monitor_accuracy"), day, day)
        list(run_stages(defs, instance, [watch]))
        ticks.append(_tick(defs, instance))
        for request in ticks[-1]["runs"]:
            done = defs.resolve_job_def("training_job").execute_in_process(
                instance=instance, partition_key=request["group"], tags=request["tags"]
            )
            assert done.success
    told["ticks"] = ticks
    told["after"] = {name: str(day) for name, day in _trained(settings).items()}
    folder = settings.state_dir / settings.dataset / "drift"
    told["reports"] = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.html"))
    print(json.dumps(told))


def _trained(settings: Settings) -> dict[str, Any]:
    fitted = lake_of(settings).table("forecasters").read().frame
    return dict(fitted.group_by("segment_group").agg(pl.max("trained_to")).collect().iter_rows())


def _tick(defs: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, Any]:
    with dg.build_sensor_context(
        instance=instance,
        definitions=defs,
        resources=dict(build_resources(Settings.from_environment())),
    ) as context:
        result = retrain_on_drift(context)
    if isinstance(result, dg.SkipReason):
        return {"runs": [], "why": result.skip_message}
    return {
        "runs": [
            {"group": r.partition_key, "key": r.run_key, "tags": dict(r.tags)}
            for r in result.run_requests or ()
        ],
        "why": "",
    }


if __name__ == "__main__":
    main(sys.argv[1])
