"""What a source holds, in figures: for a person to look at before money is spent on it.

Belongs here: counting over one store at a time and adding up. Does not: printing
(`forecast_assets.commands.source`) or reading.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from forecast_core.frequency import Frequency
from forecast_core.source.clean import Cleaned

DEAD_PERIODS = 12  # without a sale at the end: an item is dead
EXAMPLES = 20  # of a rule and store
OUTLIER = 10.0  # times an item's own 99th percentile


@dataclass
class Report:
    """Sums over stores; `examples` are quarantined rows, a few of each rule."""

    frequency: Frequency
    last: date
    stores: int = 0
    series: int = 0
    rows: int = 0
    kept: int = 0
    merged: int = 0
    filled: int = 0
    units: float = 0.0
    zeros: int = 0
    holes: int = 0
    outliers: int = 0
    dead: int = 0
    priced: int = 0
    planned: int = 0  # beside `rows`: past the last sale, with a price, a covariate or a closure
    rules: Counter[str] = field(default_factory=Counter)
    price_rules: Counter[str] = field(default_factory=Counter)
    examples: list[pl.DataFrame] = field(default_factory=list)
    price_examples: list[pl.DataFrame] = field(default_factory=list)

    @property
    def quarantined(self) -> int:
        """Rows that broke a rule."""
        return sum(self.rules.values())

    @property
    def refused_prices(self) -> int:
        """Price rows that gave no price."""
        return sum(self.price_rules.values())

    @property
    def conserved(self) -> bool:
        """Rows in = kept + merged + quarantined."""
        return self.rows == self.kept + self.merged + self.quarantined

    def add(self, sales: pl.DataFrame, cleaned: Cleaned) -> None:
        """Count one store."""
        kept = cleaned.kept
        real = kept.filter(pl.col("source_rows") > 0)
        self.stores += 1
        self.rows += sales.height
        self.kept += real.height
        self.merged += int(real["source_rows"].sum()) - real.height
        self.filled += kept.height - real.height
        self.units += float(kept["units"].sum())
        self.zeros += int((real["units"] == 0).sum())
        self.priced += int(kept["sell_price"].is_not_null().sum())
        by_item = kept.group_by("item_id").agg(
            first=pl.col("date").min(),
            last_sale=pl.col("date").filter(pl.col("units") > 0).max(),
            high=pl.col("units").quantile(0.99),
            most=pl.col("units").max(),
            rows=pl.len(),
        )
        self.series += by_item.height
        step = self.frequency.step
        spanned = ((pl.lit(self.last) - pl.col("first")).dt.total_days() // step + 1).sum()
        quiet = (pl.lit(self.last) - pl.col("last_sale")).dt.total_days() >= DEAD_PERIODS * step
        figures = by_item.select(
            holes=spanned - pl.col("rows").sum(),
            dead=quiet.fill_null(True).sum(),
            outliers=(pl.col("most") > OUTLIER * pl.max_horizontal("high", pl.lit(1.0))).sum(),
        ).row(0, named=True)
        self.holes += max(int(figures["holes"] or 0), 0)
        self.dead += int(figures["dead"])
        self.outliers += int(figures["outliers"])
        _count(cleaned.quarantined, self.rules, self.examples)
        # A price row is cut at month ends: the pieces are one row of the source.
        origin = [c for c in ("source_file", "source_row") if c in cleaned.refused_prices.columns]
        once = cleaned.refused_prices.unique([*origin, "rule", "item_id"], maintain_order=True)
        _count(once, self.price_rules, self.price_examples)


def _count(rows: pl.DataFrame, rules: Counter[str], examples: list[pl.DataFrame]) -> None:
    rules.update(dict(rows["rule"].value_counts().iter_rows()))
    if not rows.is_empty():
        examples.append(rows.group_by("rule", maintain_order=True).head(EXAMPLES))
