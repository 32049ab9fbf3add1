"""Landing, features and the floor in a process of its own, with or without metering, for `ledger`.

Training and dbt are left out: what they take varies by more than what metering could cost, and a
step of minutes is charged no more often than one of seconds.

`python -m benchmarks._metered_run on|off`: the installation comes from the environment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def without_metering() -> None:
    """Make every call of the meter do nothing, so that the difference is what metering costs."""
    from resources import meter

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def only_admit(self: meter.Meter, context: Any, **_: Any) -> None:
        self._admit(context)  # the gate is not the meter's cost

    def no_costs(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    replaced: dict[str, Callable[..., Any]] = dict.fromkeys(
        ("read", "wrote", "share", "failed", "closed", "flush", "returned"), nothing
    ) | {"opened": only_admit, "enter": only_admit}
    for name, function in {**replaced, "settle": no_costs}.items():
        setattr(meter.Meter, name, function)


def main(metering: str) -> None:
    """Land and forecast once, by the floor."""
    if metering == "off":
        without_metering()
    import gc

    import dagster as dg

    from forecast_assets.batch import Cycle, register_stores, run_stages
    from forecast_assets.definitions import build_defs
    from resources import Settings
    from resources.wiring import data_span, source_of

    settings = Settings.from_environment()
    span = data_span(settings)
    with dg.DagsterInstance.get() as instance:
        stores = register_stores(instance, source_of(settings).stores())
        cycle = Cycle(span.first, span.last, span.as_of, stores, ("none",), 0, settings.horizon)
        floor = [s for s in cycle.forecasting() if s.assets == ("prediction_floor",)]
        stages = [*cycle.landing(), *cycle.refreshing(), *floor]
        definitions = build_defs(settings)
        # The meter spares the collector what is imported by now, which saves more than metering
        # takes: both sides have that, so that the difference is what metering costs.
        gc.freeze()
        for _ in run_stages(definitions, instance, stages):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
