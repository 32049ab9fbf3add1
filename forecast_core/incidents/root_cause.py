"""Why the cost changed between two windows: an exact bridge, and the cause ranked over the graph.

Belongs here: splitting a change of cost into price, volume, mix, efficiency and waste, and laying
each part at the asset whose behaviour changed, not at the one that paid. Does not: noticing the
change (`regressions`) or acting on it (`incidents`, `levers`).

The cost of an asset is a product over its cells (forecaster x environment):
volume x rows made upstream per unit of volume x share of the cell x useful quantity per row
x (all quantity / useful quantity) x price. Each is weighed by the logarithmic mean (LMDI-I; Ang,
Energy Policy 33, 2005), which needs no order of substitution and leaves no residual. Rows fed in
by an upstream asset are in turn its own rows in times its fan-out, so growth in the input is passed
up the graph until it meets the asset that began to make more, or the volume itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

import numpy as np
import polars as pl

from forecast_core.incidents import unit_costs

Factor = Literal["price", "volume", "mix", "fanout", "efficiency", "waste"]
EVERYWHERE = "*"
_TINY = 1e-12
_QUANTUM = Decimal("1e-9")
# A change of version beside the start of a rise makes its asset this much likelier the cause.
_VERSION_WEIGHT = 1.6

USE_COLUMNS = ("asset", "forecaster", "environment", "cost", "real", "useful", "rows", "volume")


@dataclass(frozen=True)
class Cause:
    """One part of the change: `amount` in money, `change`: a version that moved at its asset."""

    asset: str
    factor: Factor
    amount: Decimal
    share: float
    change: str | None = None


@dataclass(frozen=True)
class Bridge:
    """`parts` sum to `change` exactly; `causes` are the same money by asset, likeliest first."""

    before: Decimal
    after: Decimal
    parts: Mapping[str, Decimal]
    causes: tuple[Cause, ...]

    @property
    def change(self) -> Decimal:
        """Money after less money before."""
        return self.after - self.before


def uses(
    ledger: pl.DataFrame, first: date, last: date, rows: Mapping[str, float] | None = None
) -> pl.DataFrame:
    """What each asset used in a window, by forecaster and environment: USE_COLUMNS and `version`.

    `useful` is `real` less failed attempts and idle time; `rows` are those an asset made (from
    `x_rows`, or given by asset), null where unknown; `volume` the series served.
    """
    charges, _ = unit_costs.charges(ledger)
    window = charges.filter(pl.col("day").is_between(first, last))
    attempt = ["run", "asset", "step"]
    failed = pl.col("status").is_in(["failure", "retry", "killed", "canceled"])
    known = (pl.col("status") != unit_costs.NONE).any()
    superseded = pl.col("attempt") < pl.col("attempt").max().over(attempt)
    wasted = pl.when(known).then(failed).otherwise(superseded) | (pl.col("cost_class") == "idle")
    marked = window.with_columns(useful=pl.when(wasted).then(0.0).otherwise(pl.col("real")))
    cells = ["asset", "forecaster", "environment"]
    batch = marked.group_by(*cells, "run", "day", "place", "segment_group").agg(
        pl.col("volume").max(), pl.col("rows").max()
    )
    served = batch.group_by(cells).agg(
        pl.col("volume").sum(), pl.when(pl.col("rows").count() > 0).then(pl.col("rows").sum())
    )
    totals = marked.group_by(cells).agg(
        pl.col("cost", "real", "useful").sum(),
        pl.concat_str("version", "change", separator="|").sort_by("day").last().alias("version"),
    )
    found = totals.join(served, on=cells)
    if rows is not None:
        given = pl.DataFrame({"asset": list(rows), "given": [float(v) for v in rows.values()]})
        share = pl.col("volume") / pl.col("volume").sum().over("asset")
        found = found.join(given, on="asset", how="left").with_columns(
            rows=pl.coalesce(pl.col("given") * share, pl.col("rows"))
        )
    return found.select(*USE_COLUMNS, "version").sort(cells)


def explain(
    before: pl.DataFrame, after: pl.DataFrame, upstream: Mapping[str, Sequence[str]]
) -> Bridge:
    """Split the change between two windows of equal length (frames of `uses`).

    `upstream`: asset -> the assets it reads; assets without an entry are sources, whose input is
    the volume itself. Cycles are refused.

    Raises:
        ValueError: a cycle in the graph, or a column of USE_COLUMNS missing.
    """
    for frame in (before, after):
        missing = [c for c in USE_COLUMNS if c not in frame.columns]
        if missing:
            raise ValueError(f"the uses have no column {missing[0]!r}; they have {frame.columns}")
    graph = _Graph(before, after, upstream)
    parts: dict[tuple[str, Factor], float] = defaultdict(float)
    for row in _paired(before, after).iter_rows(named=True):
        _split(row, graph, parts)
    total_before, total_after = _money(before), _money(after)
    exact = _sum_exactly(parts, total_after - total_before)
    moved = _versions_moved(before, after)
    causes = [
        Cause(asset, factor, amount, _share(amount, total_after - total_before), moved.get(asset))
        for (asset, factor), amount in exact.items()
    ]
    causes.sort(key=lambda c: -_weight(c, total_after - total_before))
    by_factor = dict.fromkeys(("price", "volume", "mix", "efficiency", "waste"), Decimal(0))
    for cause in causes:
        # Rows made per row read are efficiency too, of the asset that makes them.
        by_factor["efficiency" if cause.factor == "fanout" else cause.factor] += cause.amount
    return Bridge(total_before, total_after, by_factor, tuple(causes))


def _money(frame: pl.DataFrame) -> Decimal:
    total = sum((Decimal(str(v)) for v in frame["cost"].to_list()), Decimal(0))
    return total.quantize(_QUANTUM)


def _share(amount: Decimal, change: Decimal) -> float:
    return float(amount / change) if change else 0.0


def _weight(cause: Cause, change: Decimal) -> float:
    """Money in the direction of the change, more where a version moved; the rest comes last."""
    toward = float(cause.amount) * (1.0 if change >= 0 else -1.0)
    local = cause.factor in ("efficiency", "fanout", "waste") and cause.change is not None
    return toward * _VERSION_WEIGHT if local and toward > 0 else toward


def _versions_moved(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, str]:
    if "version" not in before.columns or "version" not in after.columns:
        return {}
    old, new = (
        {a: v for a, v in f.group_by("asset").agg(pl.col("version").max()).iter_rows()}
        for f in (before, after)
    )
    return {a: f"{old[a]} -> {v}" for a, v in new.items() if a in old and old[a] != v}


# -- the graph -------------------------------------------------------------------------------------


class _Graph:
    """Log growth of what each asset reads, told as shares of the assets (and volume) that made it.

    `input_growth(asset)` maps (asset, "fanout") and (EVERYWHERE, "volume") to log changes; their
    sum is the log change of the rows that the asset reads.
    """

    def __init__(
        self, before: pl.DataFrame, after: pl.DataFrame, upstream: Mapping[str, Sequence[str]]
    ) -> None:
        self.made = [self._rows(f) for f in (before, after)]
        self.volume = tuple(self._volume(f) for f in (before, after))
        self.upstream = upstream
        self._memo: dict[str, dict[tuple[str, Factor], float]] = {}
        self._visiting: set[str] = set()

    @staticmethod
    def _rows(frame: pl.DataFrame) -> dict[str, float]:
        made = frame.group_by("asset").agg(pl.col("rows").sum())
        return {a: float(r) for a, r in made.iter_rows() if r}

    @staticmethod
    def _volume(frame: pl.DataFrame) -> float:
        """Series served: the assets serve the same ones, so the busiest asset counts."""
        by_asset = frame.group_by("asset").agg(pl.col("volume").sum())["volume"]
        return float(by_asset.max() or 0.0) or 1.0  # type: ignore[arg-type]

    def read(self, asset: str, when: int) -> float:
        """Rows that the asset reads before (0) or after (1); the volume for a source."""
        fed = [self.made[when][u] for u in self._known(asset)]
        return sum(fed) if fed else self.volume[when]

    def _known(self, asset: str) -> list[str]:
        return [u for u in self.upstream.get(asset, ()) if all(u in made for made in self.made)]

    def input_growth(self, asset: str) -> dict[tuple[str, Factor], float]:
        """Log growth of the rows read, by who made it grow."""
        if asset in self._memo:
            return self._memo[asset]
        if asset in self._visiting:
            raise ValueError(f"the asset graph has a cycle through {asset!r}")
        self._visiting.add(asset)
        growth: dict[tuple[str, Factor], float] = defaultdict(float)
        known = self._known(asset)
        if not known:
            growth[(EVERYWHERE, "volume")] = float(np.log(self.volume[1] / self.volume[0]))
        whole = _log_mean(self.read(asset, 0), self.read(asset, 1))
        for u in known:
            old, new = self.made[0][u], self.made[1][u]
            weight = _log_mean(old, new) / whole
            inherited = self.input_growth(u)
            for key, value in inherited.items():
                growth[key] += weight * value
            growth[(u, "fanout")] += weight * float(np.log(new / old) - sum(inherited.values()))
        self._visiting.discard(asset)
        self._memo[asset] = dict(growth)
        return self._memo[asset]


# -- the split -------------------------------------------------------------------------------------


def _log_mean(a: float, b: float) -> float:
    if a == b:
        return a
    return float((b - a) / np.log(b / a)) if a > 0 and b > 0 else 0.0


def _paired(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Cells of both windows side by side, nulls where a cell is in one of them only."""
    cells = ["asset", "forecaster", "environment"]
    keep = [*cells, "cost", "real", "useful", "volume"]
    both = before.select(keep).join(after.select(keep), on=cells, how="full", coalesce=True)
    totals = [pl.col(c).sum().over("asset").alias(f"asset_{c}") for c in ("volume", "volume_right")]
    return both.with_columns(totals).sort(cells)


def _split(
    row: dict[str, float | str | None], graph: _Graph, parts: dict[tuple[str, Factor], float]
) -> None:
    """Add the parts of one cell's change; they sum to it."""
    asset = str(row["asset"])
    old = _ratios(row, "", graph.read(asset, 0))
    new = _ratios(row, "_right", graph.read(asset, 1))
    if old is None and new is None:
        return
    if old is None or new is None:
        # A cell that came or went: others of its asset took over (mix), or the asset is new.
        alone = not (row["asset_volume"] and row["asset_volume_right"])
        whole = float(row["cost_right"] or 0.0) - float(row["cost"] or 0.0)
        parts[(asset, "efficiency") if alone else (EVERYWHERE, "mix")] += whole
        return
    weight = _log_mean(old["cost"], new["cost"])
    moves = {k: float(np.log(new[k] / old[k])) for k in ("share", "efficiency", "waste", "price")}
    for key, growth in graph.input_growth(asset).items():
        parts[key] += weight * growth
    parts[(EVERYWHERE, "mix")] += weight * moves["share"]
    parts[(EVERYWHERE, "price")] += weight * moves["price"]
    parts[(asset, "efficiency")] += weight * moves["efficiency"]
    parts[(asset, "waste")] += weight * moves["waste"]


def _ratios(
    row: dict[str, float | str | None], suffix: str, read: float
) -> dict[str, float] | None:
    """cost = read x share x efficiency x waste x price; None where the cell used nothing."""
    cost, real, useful = (float(row[f"{c}{suffix}"] or 0.0) for c in ("cost", "real", "useful"))
    if cost <= 0 or real <= 0:
        return None
    volume, whole = (float(row[f"{c}{suffix}"] or 0.0) for c in ("volume", "asset_volume"))
    share = volume / whole if volume > 0 and whole > 0 else 1.0
    useful = max(useful, _TINY * real)
    return {
        "cost": cost,
        "share": share,
        "efficiency": useful / (max(read, _TINY) * share),
        "waste": real / useful,
        "price": cost / real,
    }


def _sum_exactly(
    parts: Mapping[tuple[str, Factor], float], change: Decimal
) -> dict[tuple[str, Factor], Decimal]:
    """Round to money that sums to the change; the rounding goes to the largest part."""
    exact = {k: Decimal(str(v)).quantize(_QUANTUM) for k, v in parts.items()}
    rest = change - sum(exact.values(), Decimal(0))
    if exact and rest:
        largest = max(exact, key=lambda k: abs(exact[k]))
        exact[largest] += rest
    elif rest:
        exact[(EVERYWHERE, "mix")] = rest
    return exact
