"""What forecasters may serve when admission granted a rung below the one that segments earn.

Belongs here: which fitted forecaster serves a group under a granted rung, and the reason that each
forecast then carries. Does not: granting (`forecast_core.admission`), forecasting (the rungs).
"""

from __future__ import annotations

import polars as pl

from forecast_core.rungs import statistical
from forecast_core.segments import RUNGS

WHOLE = "governed"  # every segment by the rung that it earns
LADDER = (WHOLE, "statistical", "floor")


def within(forecasters: pl.DataFrame, rung: str | None) -> pl.DataFrame:
    """The forecasters of a cutoff, none of them above `rung`; all of them when it is None.

    A dearer group is served by the statistical rung, with methods chosen for another group's
    demand classes (or its default where none was trained); under the floor by nobody, so that the
    floor's rows stand. Rows that are no rung (shapes, spreads) stay, except under the floor.
    """
    if rung is None or rung not in RUNGS:
        return forecasters
    most = RUNGS.index(rung)
    known = pl.col("rung").is_in(RUNGS)
    above = pl.col("rung").is_in(RUNGS[most + 1 :])
    if rung == "floor":
        return forecasters.filter(known & ~above)
    if rung != "statistical":
        return forecasters.filter(~above)
    chosen = forecasters.filter(rung="statistical")["artefact"].to_list()
    artefact = chosen[0] if chosen else statistical.artefact({})
    return forecasters.with_columns(
        artefact=pl.when(above).then(pl.lit(artefact, pl.Binary)).otherwise("artefact"),
        rung=pl.when(above).then(pl.lit("statistical")).otherwise("rung"),
    )


def said(rows: pl.DataFrame, segments: pl.DataFrame, rung: str | None, reason: str) -> pl.DataFrame:
    """Say on each forecast whose segment earns more than `rung` that it was degraded, and why."""
    if rung is None or rung not in RUNGS:
        return rows
    most = RUNGS.index(rung)
    earned = segments.select("item_id", earned="rung")
    text = pl.format(
        "degraded from rung {} to {} by admission: {}", "earned", pl.lit(rung), pl.lit(reason)
    )
    above = pl.col("earned").is_in(RUNGS[most + 1 :])
    return (
        rows.join(earned, on="item_id", how="left", maintain_order="left")
        .with_columns(reason=pl.when(above).then(text).otherwise("reason"))
        .drop("earned")
    )
