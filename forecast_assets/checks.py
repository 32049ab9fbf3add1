"""Asset checks: what must hold for the tables that people rely on.

Belongs here: one check a promise. Does not: fixing anything.

A check that runs in the run of its asset looks at the partitions of that run; run by itself it
looks at the whole table.
"""

from collections.abc import Sequence
from itertools import pairwise

import dagster as dg
import polars as pl

from forecast_core.cells import Cells
from forecast_core.schema import TABLES
from forecast_core.source.item_stores import item_stores
from resources.lake import Lake
from resources.partition_keys import decode
from resources.sources import Source

LakeResource = dg.ResourceParam[Lake]


def _cells(context: dg.AssetCheckExecutionContext, name: str) -> Cells | None:
    op = context.op_execution_context
    if op.has_partition_key_range or op.has_partition_key:
        return decode(op.partition_keys, TABLES[name].cut).cells
    return None


def _scan(lake: Lake, name: str, cells: Cells | None) -> pl.LazyFrame:
    table = lake.table(name)
    return table.read(cells).frame if table.exists() else table.empty().lazy()


def _count(lake: Lake, name: str, cells: Cells | None) -> int:
    return int(_scan(lake, name, cells).select(pl.len()).collect().item())


@dg.asset_check(asset="cleaned_sales", additional_deps=["raw_sales", "quarantined_sales"])
def rows_conserved(
    context: dg.AssetCheckExecutionContext, lake: LakeResource
) -> dg.AssetCheckResult:
    """Rows in = rows kept + rows merged + rows quarantined: nothing is lost."""
    cells = _cells(context, "cleaned_sales")
    rows_in, quarantined = (
        _count(lake, name, cells) for name in ("raw_sales", "quarantined_sales")
    )
    stands_for = pl.col("source_rows")
    counted = _scan(lake, "cleaned_sales", cells).select(
        kept=(stands_for > 0).sum(),
        merged=(stands_for - 1).filter(stands_for > 1).sum(),
        filled=(stands_for == 0).sum(),
    )
    figures = {name: int(value) for name, value in counted.collect().row(0, named=True).items()}
    return dg.AssetCheckResult(
        passed=rows_in == figures["kept"] + figures["merged"] + quarantined,
        metadata={"rows_in": rows_in, "quarantined": quarantined, **figures},
    )


@dg.asset_check(asset="demand_segments")
def every_item_store_classified(
    context: dg.AssetCheckExecutionContext, lake: LakeResource, source: dg.ResourceParam[Source]
) -> dg.AssetCheckResult:
    """Every item of every store that the source names is in the newest classification."""
    named = source.series()
    found = _expected_series(lake, _cells(context, "demand_segments"))
    missing = found.clear()
    if named is not None:
        missing = item_stores(named).join(found, on=["item_id", "store_id"], how="anti")
    return dg.AssetCheckResult(
        passed=missing.is_empty(),
        metadata={
            "item_stores": found.height,
            "not_classified": missing.height,
            "examples": dg.MetadataValue.json(missing.head(5).to_dicts()),
        },
    )


def _every_item_store_forecast(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=name, name="every_item_store_forecast", additional_deps=["demand_segments"]
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        """Every item of every store has a forecast for every day of the horizon."""
        cells = _cells(context, name)
        days = (
            _scan(lake, name, cells)
            .group_by("cutoff", "item_id", "store_id")
            .agg(pl.len().alias("days"), pl.col("ds").n_unique().alias("distinct"))
            .collect()
        )
        expected = _expected_series(lake, cells)
        served = days.select("item_id", "store_id").unique()
        missing = expected.join(served, on=["item_id", "store_id"], how="anti")
        uneven = days.filter(
            (pl.col("days") != pl.col("days").max()) | (pl.col("days") != pl.col("distinct"))
        )
        return dg.AssetCheckResult(
            passed=missing.is_empty() and uneven.is_empty() and not days.is_empty(),
            metadata={
                "item_stores": expected.height,
                "without_forecast": missing.height,
                "uneven_horizon": uneven.height,
                "examples": dg.MetadataValue.json(missing.head(5).to_dicts()),
            },
        )

    return check


def _expected_series(lake: Lake, cells: Cells | None) -> pl.DataFrame:
    segments = _scan(lake, "demand_segments", None)
    if cells is not None:
        segments = segments.filter(pl.col("as_of") <= cells.last)
        if cells.stores is not None:
            segments = segments.filter(pl.col("store_id").is_in(cells.stores))
    newest = segments.filter(pl.col("as_of") == pl.col("as_of").max())
    return newest.select("item_id", "store_id").unique().collect()


def _forecasts_are_sound(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="forecasts_are_sound")
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        """No forecast is negative or undefined, and quantiles are in order where present."""
        rows = _scan(lake, name, _cells(context, name))
        quantiles = sorted(c for c in rows.collect_schema().names() if _is_quantile(c))
        unordered = pl.lit(False)
        for low, high in pairwise(quantiles):
            unordered |= pl.col(low) > pl.col(high)
        found = rows.select(
            negative=(pl.col("mean") < 0).sum(),
            undefined=(~pl.col("mean").is_finite()).sum() + pl.col("mean").null_count(),
            unordered=unordered.sum(),
        ).collect()
        figures = found.row(0, named=True)
        return dg.AssetCheckResult(
            passed=not any(figures.values()),
            metadata={**figures, "quantiles": len(quantiles)},
        )

    return check


def _is_quantile(column: str) -> bool:
    return column[:1] == "q" and column[1:].isdigit()


ALL: Sequence[dg.AssetChecksDefinition] = [
    rows_conserved,
    every_item_store_classified,
    *(
        make(name)
        for name in ("prediction_floor", "prediction_daily")
        for make in (_every_item_store_forecast, _forecasts_are_sound)
    ),
]
