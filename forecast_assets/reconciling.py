"""Reconciliation as the platform runs it: sales from the lake, factors from the nights before.

Belongs here: what a policy's method needs of the lake and of the cache, and what is said of it
beside the rows. Does not: the arithmetic (`forecast_core.reconcile`,
`forecast_core.node_forecasts`).
"""

import zipfile
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from forecast_core.cells import Cells
from forecast_core.frequency import DAILY, Frequency
from forecast_core.hierarchy import Floats, Hierarchy, HierarchyError
from forecast_core.node_forecasts import (
    DAYS,
    WEEKS,
    NodeSales,
    error_variance,
    forecast_nodes,
    node_sales,
)
from forecast_core.reconcile import (
    Mint,
    as_rows,
    bottom_matrix,
    coherence_residual,
    structural_variance,
)
from forecast_core.reconciliation_policy import Reconciliation
from resources.factor_cache import FactorCache
from resources.meter_share import cpu_clock
from resources.table_view import TableView

SOLD = ["item_id", "store_id", "date", "units"]


@dataclass(frozen=True)
class Reconciled:
    """`prediction_reconciled` rows and how they came about."""

    rows: pl.DataFrame
    facts: dict[str, Any]


@dataclass(frozen=True)
class Reconciler:
    """One night's reconciliation by a policy, of data that speaks so `often`."""

    policy: Reconciliation
    hierarchy: Hierarchy
    cleaned_sales: TableView
    cache: FactorCache
    often: Frequency = DAILY

    def run(self, prediction: pl.DataFrame) -> Reconciled:
        """Reconcile one cutoff of `prediction_daily` rows, their dates numbered by period.

        Raises:
            HierarchyError: as `forecast_core.reconcile.bottom_matrix`.
        """
        began = cpu_clock()
        bottom, cutoff, days = bottom_matrix(prediction, self.hierarchy)
        method = self.policy.method
        facts: dict[str, Any] = {}
        if method != "bottom_up":
            bottom, facts = self._moved(bottom, self.often.dated_day(cutoff))
        rows = as_rows(self.hierarchy.aggregate(bottom), self.hierarchy, cutoff, days)
        told = {"method": method, "nodes": self.hierarchy.n_nodes, "cpu_s": cpu_clock() - began}
        return Reconciled(rows, {f"reconciliation/{k}": v for k, v in (told | facts).items()})

    def _moved(self, bottom: Floats, cutoff: date) -> tuple[Floats, dict[str, Any]]:
        """The item-stores moved by what the coarse levels forecast of themselves."""
        coarse = self.hierarchy.coarse(self.policy.own_nodes)
        nodes = forecast_nodes(self._sales(coarse, cutoff), coarse, bottom.shape[1])
        factor, kept = self._factor(coarse, self.often.start(self.policy.since(cutoff)))
        base = np.empty((coarse.n_nodes, bottom.shape[1]))
        base[: len(nodes.mean)] = nodes.mean
        base[coarse.bottom] = bottom
        moved = factor.reconcile(base)[coarse.bottom]
        return moved, {
            "own_forecasts": len(nodes.mean),
            "own_methods": dict(nodes.methods),
            "factor": "kept" if kept else "made",
            "residual_before_projection": coherence_residual(factor.adjust(base), coarse),
            "units_moved": float(np.abs(moved - bottom).sum()),
        }

    def _sales(self, coarse: Hierarchy, cutoff: date) -> NodeSales:
        rhythm, often = WEEKS if self.often.weekly else DAYS, self.often
        window = Cells(often.after(cutoff, 1 - rhythm.history), cutoff)
        sold = self.cleaned_sales.by_store(window, SOLD)
        numbered = sold.map(lambda rows: often.numbered(rows, "date"))
        return node_sales(numbered.frames(), coarse, often.numbered_day(cutoff), rhythm)

    def _factor(self, coarse: Hierarchy, since: date) -> tuple[Mint, bool]:
        """The factor of this hierarchy, and whether an earlier night had made it."""
        varied = self.policy.method == "wls_var"
        key = f"{coarse.fingerprint}-{self.policy.method}{f'-{since}' if varied else ''}"
        held = self.cache.get(key)
        if held is not None:
            try:
                return Mint.from_bytes(coarse, held), True
            except (HierarchyError, ValueError, KeyError, zipfile.BadZipFile):
                pass  # a damaged file is made again
        made = Mint.factor(coarse, self._variance(coarse, since))
        self.cache.put(key, made.to_bytes())
        return made, False

    def _variance(self, coarse: Hierarchy, since: date) -> Floats:
        if self.policy.method == "wls_struct":
            return structural_variance(coarse)
        sales = self._sales(coarse, since)
        return error_variance(sales, forecast_nodes(sales, coarse, 1), coarse)
