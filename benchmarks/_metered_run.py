"""One forecast cycle in a process of its own, with or without metering, for `ledger`.

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

    def no_costs(*_: Any, **__: Any) -> dict[str, Any]:
        return {}

    replaced: dict[str, Callable[..., Any]] = dict.fromkeys(
        ("opened", "read", "wrote", "share", "failed", "closed", "flush", "enter", "returned"),
        nothing,
    )
    for name, function in {**replaced, "settle": no_costs}.items():
        setattr(meter.Meter, name, function)


def main(metering: str) -> None:
    """Land, train and forecast once."""
    if metering == "off":
        without_metering()
    from forecast_assets.commands.run import run_cycle
    from resources import Settings

    run_cycle(Settings.from_environment())


if __name__ == "__main__":
    main(sys.argv[1])
