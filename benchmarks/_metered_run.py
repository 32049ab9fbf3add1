"""Landing, features and the floor, again and again in one process, with and without metering.

Belongs here: the rounds of `ledger`'s pairs and the switch between them. Does not: what is made of
them (`ledger`). In one process and after a round that is not counted, since two processes differ
in their start and imports by more than what metering could cost. Training and dbt are left out:
what they take varies by more, too, and a step of minutes is charged no more often than one of
seconds, so that the share shown is the highest.

`python -m benchmarks._metered_run PAIRS`: CPU-seconds of each pair as JSON on the last line; the
installation comes from the environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def without_metering() -> Iterator[None]:
    """Every call of the meter does nothing, so that the difference is what metering costs."""
    from resources.meter import Meter
    from resources.meter_probe import ProcessProbe

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def only_admit(self: Meter, context: Any, **_: Any) -> None:
        self._admit(context)  # the gate is not the meter's cost

    silent = ("read", "wrote", "share", "failed", "closed", "flush", "returned")
    replaced: dict[str, Callable[..., Any]] = dict.fromkeys(silent, nothing)
    replaced |= {"opened": only_admit, "enter": only_admit, "settle": lambda *_, **__: {}}
    with ExitStack() as switched:
        switched.enter_context(mock.patch.object(ProcessProbe, "sample", nothing))
        for name, function in replaced.items():
            switched.enter_context(mock.patch.object(Meter, name, function))
        yield


def rounds() -> Callable[[], None]:
    """What lands the data, makes the features and forecasts by the floor, once a call."""
    import dagster as dg

    from forecast_assets.batch import Cycle, register_stores, run_stages
    from forecast_assets.definitions import build_defs
    from resources import Settings
    from resources.wiring import data_span, source_of

    settings = Settings.from_environment()
    span = data_span(settings)
    instance = dg.DagsterInstance.get()
    stores = register_stores(instance, source_of(settings).stores())
    cycle = Cycle(span.first, span.last, span.as_of, stores, ("none",), 0, settings.horizon)
    floor = [s for s in cycle.forecasting() if s.assets == ("prediction_floor",)]
    stages = [*cycle.landing(), *cycle.refreshing(), *floor]
    definitions = build_defs(settings)

    def once() -> None:
        for _ in run_stages(definitions, instance, stages):
            pass

    return once


def main(pairs: int) -> None:
    """A round to warm up, then the pairs; which of a pair comes first alternates."""
    from resources.meter_share import cpu_clock

    once = rounds()
    once()
    taken = []
    for index in range(pairs):
        pair = {}
        for metering in ("on", "off") if index % 2 else ("off", "on"):
            began = cpu_clock()
            if metering == "on":
                once()
            else:
                with without_metering():
                    once()
            pair[metering] = cpu_clock() - began
        taken.append(pair)
    print(json.dumps(taken))


if __name__ == "__main__":
    main(int(sys.argv[1]))
