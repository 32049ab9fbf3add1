"""What a cycle made, how good it is and what it cost: the closing tables of a command.

Belongs here: reading the results back and laying them out for a terminal. Does not: computing
any of them.
"""

from collections.abc import Iterator, Sequence
from datetime import date

import polars as pl
from rich.table import Table

from forecast_core.cells import Cells
from forecast_core.cost.report import summary
from forecast_core.rungs import floor
from forecast_core.schema import TABLES
from resources import Settings
from resources.lake import Lake
from resources.ledger import open_ledger
from resources.traffic import stored_by_tier
from resources.wiring import data_span, lake_of


def tables(settings: Settings, runs: Sequence[str], scored: date | None) -> Iterator[Table]:
    """The closing tables: forecasts, accuracy (where actuals exist), cost, storage."""
    lake = lake_of(settings)
    yield _forecasts(lake, data_span(settings).as_of)
    if scored is not None and lake.table("eval_accuracy").exists():
        accuracy = lake.table("eval_accuracy").read(Cells(scored, scored)).frame.collect()
        if accuracy.height:
            yield _accuracy(accuracy, scored)
    yield _cost(settings, runs)
    if settings.marts.exists():
        yield _dearest(settings)
    yield _storage(lake)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    return table


def _forecasts(lake: Lake, cutoff: date) -> Table:
    rows = lake.table("prediction_daily").read(Cells(cutoff, cutoff)).frame
    by_rung = (
        rows.group_by("rung")
        .agg(pl.len().alias("forecasts"), pl.col("unique_id").n_unique(), pl.col("mean").sum())
        .sort("rung")
        .collect()
    )
    table = _table(f"Forecasts of {cutoff}", "rung", "item-stores", "forecasts", "units")
    for rung, forecasts, series, units in by_rung.iter_rows():
        table.add_row(rung, f"{series:,}", f"{forecasts:,}", f"{units:,.0f}")
    total = by_rung.select(pl.exclude("rung").sum()).row(0)
    table.add_row("all", f"{total[1]:,}", f"{total[0]:,}", f"{total[2]:,.0f}")
    unsold = rows.filter(reason=floor.UNSOLD).select(pl.col("unique_id").n_unique())
    if count := unsold.collect().item():
        table.caption = f"{count:,} item-stores: {floor.UNSOLD}"
    return table


def _accuracy(accuracy: pl.DataFrame, cutoff: date) -> Table:
    wanted = ["Total", "store_id", "store_id/dept_id", "item_id/store_id", "Average"]
    table = _table(
        f"Accuracy after {cutoff}", "level", "forecaster", "WRMSSE", "WAPE", "bias", "series"
    )
    for level in wanted:
        for row in accuracy.filter(level=level).sort("forecaster").iter_rows(named=True):
            table.add_row(
                level,
                row["forecaster"],
                *(_figure(row[name]) for name in ("wrmsse", "wape", "bias")),
                f"{row['series']:,}" if row["series"] else "",
            )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cost(settings: Settings, runs: Sequence[str]) -> Table:
    ledger = open_ledger(settings.ledger)
    charges = pl.concat([ledger.charges(run_id=run) for run in runs])
    steps = pl.concat([ledger.settlements(run_id=run) for run in runs])
    by = ["x_cost_class", "x_pipeline", "x_forecaster"]
    cost = charges.group_by(by).agg(pl.col("BilledCost").sum()).sort(by, nulls_last=True)
    table = _table("Cost of this command", "class", "pipeline", "forecaster", "USD")
    for row in cost.iter_rows():
        table.add_row(*(text or "-" for text in row[:3]), f"{row[3]:.6f}")
    whole = summary(charges)
    cpu = steps["cpu_s"].sum() if "cpu_s" in steps.columns else 0
    table.add_row("all", f"{cpu:,.0f} CPU-s", "", f"{whole.total:.6f}")
    table.caption = (
        f"workload {whole.workload:.6f} + idle {whole.idle:.6f} + overhead {whole.overhead:.6f};"
        f" unattributed {whole.unattributed_pct:.2f} % of compute"
    )
    return table


def _dearest(settings: Settings, rows: int = 5) -> Table:
    """The head of the mart that ranks operations, and what an item-store has cost."""
    import duckdb

    table = _table("Dearest operations (dbt mart)", "operation", "asset", "USD", "share %")
    with duckdb.connect(str(settings.marts), read_only=True) as marts:
        ranked = marts.execute(
            "select kind, coalesce(asset, step_key), billed_cost, share_pct"
            " from high_cost_operations order by place limit ?",
            [rows],
        )
        for kind, asset, cost, share in ranked.fetchall():
            table.add_row(kind, asset, f"{cost:.6f}", f"{share:.1f}")
        # Without item-stores one row without an item bears it all.
        items = "select count(item_id), max(billed_cost) from cost_per_item_store"
        ((count, most),) = marts.execute(items).fetchall()
    table.caption = f"{count:,} item-stores, the dearest has cost {most or 0:.6f}"
    return table


def _storage(lake: Lake) -> Table:
    table = _table("Storage", "table", "tier", "files", "bytes", "rows", "bytes a row")
    for name in TABLES:
        handle = lake.table(name)
        if not handle.exists():
            continue
        actions = pl.DataFrame(handle.pin().get_add_actions(flatten=True))
        for tier, files, size, rows in stored_by_tier(actions).iter_rows():
            each = f"{size / rows:.2f}" if rows else ""
            table.add_row(name, tier, f"{files:,}", f"{size:,}", f"{rows:,}", each)
    return table
