"""The ladder: every rung that a policy may name can be fitted and can forecast."""

from forecast_assets.ladder import LADDER
from forecast_core.segments import RUNGS


def test_every_rung_above_the_floor_has_a_step() -> None:
    assert tuple(LADDER) == RUNGS[1:] and RUNGS[0] == "floor"
