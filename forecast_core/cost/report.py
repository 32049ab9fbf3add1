"""Charges summed by whoever pays: the figures of a cost report.

Belongs here: cuts and their shares. Does not: printing them or reading the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from forecast_core.cost.focus import CHARGE_COLUMNS, COST_CLASSES
from forecast_core.cost.settlement import UNATTRIBUTED

COMPUTE = ("vcpu_s", "gib_s", "gpu_s")
ALIASES = {
    **{name.removeprefix("x_"): name for name in CHARGE_COLUMNS if name.startswith("x_")},
    "class": "x_cost_class",
    "store": "x_store_id",
    "segment": "x_segment_group",
    "run": "x_run_id",
    "sku": "SkuId",
    "day": "date",
}


@dataclass(frozen=True)
class Summary:
    """A total and what it is made of. The three classes sum to the total exactly.

    `unattributed_pct`: share of the workload's compute that no pipeline owns. `estimated_pct`:
    share of the total that was never measured (steps that died).
    """

    total: Decimal
    currency: str | None
    workload: Decimal
    idle: Decimal
    overhead: Decimal
    unattributed_pct: float
    estimated_pct: float
    corrections: Decimal
    charges: int


def summary(charges: pl.DataFrame) -> Summary:
    """The summary of `charges` (`CHARGE_COLUMNS`)."""
    total = _sum(charges)
    by_class = {name: _sum(charges.filter(pl.col("x_cost_class") == name)) for name in COST_CLASSES}
    compute = charges.filter(
        pl.col("SkuId").is_in(COMPUTE) & (pl.col("x_cost_class") == "workload")
    )
    unowned = compute.filter(pl.col("x_pipeline").fill_null(UNATTRIBUTED) == UNATTRIBUTED)
    return Summary(
        total=total,
        currency=charges["BillingCurrency"][0] if charges.height else None,
        **by_class,
        unattributed_pct=_percent(_sum(unowned), _sum(compute)),
        estimated_pct=_percent(_sum(charges.filter("x_estimated")), total),
        corrections=_sum(charges.filter(pl.col("ChargeClass").is_not_null())),
        charges=charges.height,
    )


def column(name: str) -> str:
    """The ledger's column behind a short name such as `pipeline`, `store` or `day`.

    Raises:
        ValueError: there is none; the message lists them.
    """
    found = ALIASES.get(name, name)
    if found not in CHARGE_COLUMNS:
        raise ValueError(f"no cut by {name!r}; use {', '.join(sorted(ALIASES))}")
    return found


def by(charges: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Cost and share by the columns `names`, dearest first; the costs sum to the total exactly."""
    columns = [column(name) for name in names]
    total = float(_sum(charges))
    return (
        charges.group_by(columns)
        .agg(pl.col("BilledCost").sum().alias("cost"))
        .with_columns((100 * pl.col("cost").cast(pl.Float64) / (total or 1.0)).alias("share_pct"))
        .sort(["cost", *columns], descending=[True, *(False for _ in columns)], nulls_last=True)
    )


def _sum(charges: pl.DataFrame) -> Decimal:
    return Decimal(charges["BilledCost"].sum() or 0)


def _percent(part: Decimal, whole: Decimal) -> float:
    return 100 * float(part / whole) if whole else 0.0
