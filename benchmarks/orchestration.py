"""What orchestration adds: the graph beside the very bodies of its assets, called one by one.

Both sides land, clean, build features, train, forecast and store the same data in the same kind of
lake, checks included. The direct side takes each asset's function out of its decorators, hands it
its inputs and writes what it returns; the graph adds Dagster (runs, events, metadata), admission,
the meter and the ledger. Without `--quick` the data is the whole of M5.
"""

from __future__ import annotations

import inspect
import logging
import math
import multiprocessing.process
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

import polars as pl

from benchmarks import _m5
from benchmarks._apart import apart
from benchmarks.m5_cycle import CUTOFF, installation

if TYPE_CHECKING:
    import dagster as dg

    from forecast_assets.batch import Cycle, Stage
    from resources.lake import Lake


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds of both sides, the overhead in percent, and how much there was to orchestrate."""
    source = {"FORECAST_SOURCE": "demo"}
    if not quick:
        source = {
            "FORECAST_SOURCE": "m5",
            "M5_DIR": str(_m5.folder()),
            "FORECAST_AS_OF": CUTOFF.isoformat(),
        }
    with tempfile.TemporaryDirectory() as scratch:
        direct = apart(_directly, str(Path(scratch) / "direct"), source)
        graph = apart(_through_the_graph, str(Path(scratch) / "graph"), source)
    direct_cpu_s, rows, units = direct.result
    graph_cpu_s, graph_rows, graph_units, partitions, steps = graph.result
    # Equal but for the order in which a mean of millions is added up.
    if rows != graph_rows or not math.isclose(units, graph_units, rel_tol=1e-9):
        raise AssertionError(f"two forecasts: {rows, units} direct, {graph_rows, graph_units}")
    return {
        "overhead_pct": 100 * (graph_cpu_s - direct_cpu_s) / direct_cpu_s,
        "graph_cpu_s": graph_cpu_s,
        "direct_cpu_s": direct_cpu_s,
        "partitions": partitions,
        "steps": steps,
        "forecasts": rows,
        "graph_peak_gb": graph.peak_gb,
        "direct_peak_gb": direct.peak_gb,
    }


def _directly(root: str, source: Mapping[str, str]) -> tuple[float, int, float]:
    """CPU-seconds, forecasts and units forecast of the bodies without Dagster around them."""
    os.environ.update({**installation(Path(root)), **source})
    began = time.process_time()
    from forecast_assets.batch import Cycle
    from forecast_assets.definitions import build_defs
    from forecast_assets.partitions import SEGMENT_GROUPS
    from forecast_core.rungs.gbm import TRAINING_DAYS
    from resources import Settings
    from resources.wiring import build_resources, data_span, lake_of, source_of

    settings = Settings.from_environment()
    span, stores = data_span(settings), tuple(source_of(settings).stores())
    groups = tuple(SEGMENT_GROUPS.get_partition_keys())
    cycle = Cycle(
        span.first, span.last, span.as_of, stores, groups, TRAINING_DAYS, settings.horizon
    )
    lake = lake_of(settings)
    resources = {**build_resources(settings), "meter": SimpleNamespace(share=lambda *_: None)}
    bodies = _Bodies(build_defs(settings), lake, resources, cycle)
    for stage in _stages(cycle):
        bodies.work_off(stage)
    return (time.process_time() - began, *_forecast(lake))


def _stages(cycle: Cycle) -> Iterator[Stage]:
    yield from cycle.landing()
    yield from cycle.training()
    yield from cycle.forecasting()


class _Bodies:
    """Calls the functions behind assets and checks as the IO managers would feed them."""

    def __init__(
        self, defs: dg.Definitions, lake: Lake, resources: Mapping[str, Any], cycle: Cycle
    ) -> None:
        self.graph: Any = defs.resolve_asset_graph()
        self.checks: list[Any] = list(defs.asset_checks or ())
        self.lake, self.resources, self.cycle = lake, resources, cycle

    def work_off(self, stage: Stage) -> None:
        """Every asset of the stage in the order of the graph, its checks behind it."""
        import dagster as dg

        wanted = {dg.AssetKey(name) for name in stage.assets}
        keys = self._partition_keys(stage)
        done: set[int] = set()
        for key in (k for k in self.graph.toposorted_asset_keys if k in wanted):
            assets_def = self.graph.get(key).assets_def
            if id(assets_def) not in done:
                done.add(id(assets_def))
                self._materialize(assets_def, keys)
            for check in self.checks:
                if any(spec.asset_key == key for spec in check.check_specs):
                    self._call(check, self._context(keys))

    def _materialize(self, assets_def: dg.AssetsDefinition, keys: Sequence[str]) -> None:
        from resources.delta_io import TieredDeltaIOManager

        made = self._call(assets_def, self._context(keys))
        values = made if isinstance(made, tuple) else (made,)
        for (name, output), value in zip(
            assets_def.node_def.output_dict.items(), values, strict=True
        ):
            table = self.lake.table(assets_def.keys_by_output_name[name].path[-1])
            manager = self.resources[output.io_manager_key]
            assert isinstance(manager, TieredDeltaIOManager)
            for rows, _ in manager.write(table, getattr(value, "value", value), keys):
                del rows

    def _call(self, of: dg.AssetsDefinition, context: Any) -> Any:
        compute: Any = of.op.compute_fn
        body = inspect.unwrap(compute.decorated_fn)
        hints = get_type_hints(body)
        given: dict[str, Any] = {}
        for name in inspect.signature(body).parameters:
            if name == "context":
                given[name] = context
            elif name in self.resources:
                import dagster as dg

                made = self.resources[name]
                lazy = isinstance(made, dg.ResourceDefinition)  # opened when asked for
                given[name] = made(dg.build_init_resource_context()) if lazy else made
            else:
                given[name] = self._input(name, hints[name], context.partition_keys)
        return body(**given)

    def _input(self, name: str, wanted: type, keys: Sequence[str]) -> Any:
        from forecast_core.by_store import ByStore
        from forecast_core.cells import Cells
        from forecast_core.schema import Cut
        from resources.partition_keys import decode
        from resources.table_view import TableView

        table = self.lake.table(name)
        if wanted is TableView:
            return TableView(table, lambda _: None)
        cells = None
        if table.table.cut != "none":
            cut: Cut = "month_store" if table.table.cut == "month_store" else "cutoff_store"
            spelt = keys if "|" in keys[0] else [f"{k}|{s}" for k in keys for s in self._stores]
            cells = decode(spelt, cut).cells
            assert isinstance(cells, Cells)
        if wanted is ByStore:
            return table.by_store(cells)
        return table.read(cells).frame.collect() if table.exists() else table.empty()

    @property
    def _stores(self) -> tuple[str, ...]:
        return self.cycle.stores

    def _context(self, keys: Sequence[str]) -> Any:
        """As much of Dagster's context as the bodies use."""
        import dagster as dg

        op = SimpleNamespace(
            has_partition_key_range=bool(keys), has_partition_key=False, partition_keys=keys
        )
        return SimpleNamespace(
            partition_keys=keys,
            partition_key=keys[0] if keys else None,
            log=logging.getLogger("direct"),
            instance=dg.DagsterInstance.ephemeral(),
            run=SimpleNamespace(tags={}, run_id="direct"),
            op_execution_context=op,
        )

    def _partition_keys(self, stage: Stage) -> list[str]:
        if stage.start is None or stage.end is None:
            return []
        if stage.start in self.cycle.groups:
            return list(self.cycle.groups)
        (first, bar, _), (last, _, _) = stage.start.partition("|"), stage.end.partition("|")
        days = _months(date.fromisoformat(first), date.fromisoformat(last))
        return [f"{day}{bar}{s}" for day in days for s in (self._stores if bar else ("",))]


def _months(first: date, last: date) -> list[str]:
    found = [first]
    while found[-1] < last:
        found.append((found[-1].replace(day=1) + timedelta(days=32)).replace(day=1))
    return [day.isoformat() for day in found]


def _through_the_graph(root: str, source: Mapping[str, str]) -> tuple[float, int, float, int, int]:
    """CPU-seconds, forecasts, units, partitions materialized and steps of the graph."""
    # A spawned process is taken for a step's own; here all steps share one, as in a command.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    os.environ.update({**installation(Path(root)), **source})
    began = time.process_time()
    import dagster as dg

    from forecast_assets.commands.run import run_cycle
    from resources import Settings
    from resources.wiring import data_span, lake_of

    settings = Settings.from_environment()
    settings = replace(settings, as_of=data_span(settings).as_of)
    runs = run_cycle(settings, books=False)
    used = time.process_time() - began
    with dg.DagsterInstance.get() as instance:
        events = [event for run in runs for event in instance.all_logs(run)]
    of_type = [e.dagster_event_type for e in events if e.dagster_event_type is not None]
    return (
        used,
        *_forecast(lake_of(settings)),
        of_type.count(dg.DagsterEventType.ASSET_MATERIALIZATION),
        of_type.count(dg.DagsterEventType.STEP_SUCCESS),
    )


def _forecast(lake: Lake) -> tuple[int, float]:
    rows = lake.table("prediction_daily").read().frame
    count, units = rows.select(pl.len(), pl.col("mean").sum()).collect().row(0)
    return int(count), float(units)
