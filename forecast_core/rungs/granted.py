"""What forecasters may serve when admission or a lever says a rung below their own.

Belongs here: which fitted forecaster serves a group under a granted rung, and the reason that each
forecast then carries. Does not: granting (`forecast_core.admission`, `forecast_core.segments`),
forecasting (the rungs).
"""

from __future__ import annotations

from collections.abc import Mapping

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
    kept = _at_most(forecasters, rung, _methods(forecasters))
    return kept.filter(pl.col("rung").is_in(RUNGS)) if rung == "floor" else kept


def by_group(forecasters: pl.DataFrame, rungs: Mapping[str, str]) -> pl.DataFrame:
    """The forecasters, those of each group not above its rung: what a policy that became cheaper
    since they were fit lets serve. A group without a rung here stays as it is.
    """
    methods = _methods(forecasters)
    parts = [
        _at_most(part, rungs[str(name)], methods) if name in rungs else part
        for (name,), part in forecasters.group_by("segment_group", maintain_order=True)
    ]
    return pl.concat([forecasters.clear(), *parts])


def _methods(forecasters: pl.DataFrame) -> bytes:
    fitted = forecasters.filter(rung="statistical")["artefact"].to_list()
    return next(filter(statistical.chosen, fitted), statistical.artefact({}))


def _at_most(forecasters: pl.DataFrame, rung: str, artefact: bytes) -> pl.DataFrame:
    above = pl.col("rung").is_in(RUNGS[RUNGS.index(rung) + 1 :])
    if rung != "statistical":
        return forecasters.filter(~above)
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
