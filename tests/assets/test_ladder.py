"""The ladder: every rung that a policy may name is fitted, forecasts, and pays for itself."""

import polars as pl

from forecast_assets.assets.predictions import _shares
from forecast_assets.ladder import LADDER
from forecast_core.segments import RUNGS
from forecast_core.settlement import Share


def test_every_rung_above_the_floor_has_a_step() -> None:
    assert tuple(LADDER) == RUNGS[1:] and RUNGS[0] == "floor"


def test_each_group_of_a_store_is_paid_by_the_version_that_serves_it() -> None:
    groups = [f"by_{rung}" for rung in RUNGS]
    segments = pl.DataFrame({"segment_group": [*groups, groups[0], "untrained"]})
    fitted = pl.DataFrame(
        {"segment_group": groups, "rung": RUNGS, "version": [f"v-{rung}" for rung in RUNGS]}
    )
    shares = _shares(segments, fitted, "s")
    assert shares["by_floor"] == Share("floor", None, "by_floor", "s", 2)
    assert shares["untrained"] == Share("floor", None, "untrained", "s", 1)
    for rung in RUNGS[1:]:
        assert shares[f"by_{rung}"] == Share(rung, f"v-{rung}", f"by_{rung}", "s", 1)
