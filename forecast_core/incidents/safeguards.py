"""Safeguards at work: what a closed incident promised to hold, against the ledger of today.

Belongs here: reading a safeguard's limit, and the figure that it is held against. Does not: the
incident that it belongs to (`incidents`), or raising the alarm (`checks_incidents`).

| kind | the setting is | held against |
|---|---|---|
| `quota` | vCPU-hours a day | the most of the last `DAYS` days |
| `budget` | money a month | what the current month has cost so far |
| `asset_check` | unit cost (money for each series served) | the median of the last `DAYS` days |

The target is a pipeline, or a series `pipeline/forecaster/segment_group/environment` or its first
parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import polars as pl

from forecast_core.incidents import Safeguard, unit_costs

DAYS = 7
CPU_SKU = "vcpu_s"


@dataclass(frozen=True)
class Held:
    """One safeguard today; `figure` is null where the ledger says nothing of its target yet."""

    safeguard: Safeguard
    figure: float | None

    @property
    def holds(self) -> bool:
        """Whether the figure is within the limit; what is not known does no harm."""
        return self.figure is None or self.figure <= self.safeguard.limit

    @property
    def reason(self) -> str:
        """The figure beside the limit, in words."""
        if self.figure is None:
            return f"{self.safeguard}: the ledger has no charge of it in this time"
        return f"{self.safeguard}: {self.figure:.6g} of {self.safeguard.limit:.6g}"


def held(safeguard: Safeguard, charges: pl.DataFrame, today: date) -> Held:
    """The figure that a safeguard is held against.

    `charges`: FOCUS rows with our `x_` columns, of this month and the last `DAYS` days at least.
    """
    own = charges.filter(_target(safeguard.target))
    day = pl.col("ChargePeriodStart").cast(pl.Date)
    newest = own.filter(day.is_between(today - timedelta(days=DAYS - 1), today))
    figure = {"quota": _cpu_hours, "budget": _money, "asset_check": _unit_cost}[safeguard.kind](
        own.filter(day.is_between(today.replace(day=1), today))
        if safeguard.kind == "budget"
        else newest
    )
    return Held(safeguard, figure)


def _target(target: str) -> pl.Expr:
    named = zip(unit_costs.SERIES, target.split("/"), strict=False)
    return pl.all_horizontal(
        pl.col(f"x_{column}").fill_null(unit_costs.NONE) == value for column, value in named
    )


def _cpu_hours(rows: pl.DataFrame) -> float | None:
    cpu = rows.filter(SkuId=CPU_SKU).group_by(pl.col("ChargePeriodStart").cast(pl.Date))
    most = cpu.agg(pl.col("PricingQuantity").cast(pl.Float64).sum())["PricingQuantity"].max()
    return float(most) / 3600 if most is not None else None  # type: ignore[arg-type]


def _money(rows: pl.DataFrame) -> float | None:
    return float(rows["BilledCost"].cast(pl.Float64).sum()) if rows.height else None


def _unit_cost(rows: pl.DataFrame) -> float | None:
    middle = unit_costs.daily(rows).frame["unit"].median()
    return float(middle) if middle is not None else None  # type: ignore[arg-type]
