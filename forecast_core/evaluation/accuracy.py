"""How good a forecast is: WAPE, bias, (W)RMSSE, scaled pinball, coverage, value added.

Belongs here: scores over a `Hierarchy` and the scales and weights that they need, computed a
store at a time. Does not: making forecasts or choosing between them.

WRMSSE is the M5 competition's: each node's root mean squared error over the horizon, scaled by
its own mean squared one-day change since its first sale, weighted by its share of the last 28
days' revenue, summed within a level and averaged over the levels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from forecast_core.hierarchy import Codes, Floats, Hierarchy, HierarchyError, level_name
from forecast_core.schema import TABLES

Mask = npt.NDArray[np.bool_]

WEIGHT_DAYS = 28
AVERAGE = "Average"


@dataclass(frozen=True, eq=False)
class Scales:
    """What errors of each node are divided by and weighted with; arrays of [n_nodes].

    Attributes:
        squared: mean squared one-day change after the first sale (0: it never changed).
        absolute: mean absolute one-day change after the first sale, for pinball loss.
        weight: share of the level's revenue in the last days of history; sums to 1 in a level.
    """

    hierarchy: Hierarchy
    cutoff: date
    squared: Floats
    absolute: Floats
    weight: Floats


def scales(
    history: Iterable[tuple[str, pl.DataFrame]],
    hierarchy: Hierarchy,
    first: date,
    cutoff: date,
    weight_days: int = WEIGHT_DAYS,
) -> Scales:
    """Scales and weights from history, holding one store and the nodes that cross stores.

    Args:
        history: (store, rows with the key columns, `date, units, sell_price`): `ByStore.frames()`
            of cleaned sales. A day without a row, and a null price, count as nothing sold.
        first: first day of history; `cutoff`: its last day.

    Raises:
        HierarchyError: a series in no node, or a series-day twice.
    """
    changes = _Changes(hierarchy, (cutoff - first).days + 1)
    revenue = np.zeros(hierarchy.n_series)
    for _, frame in history:
        rows = np.sort(hierarchy.rows_of(frame.select(hierarchy.key).unique()))
        if not len(rows):
            continue
        part, where = hierarchy.take(rows)
        units = part.matrix(frame, "units", first, cutoff)
        changes.add(rows, where, part.aggregate(np.nan_to_num(units, copy=False)))
        revenue[rows] += _revenue(frame, part, cutoff, weight_days)
        del frame, units  # or two stores are held while the next is read
    squared, absolute = changes.finished()
    totals = hierarchy.aggregate(revenue[:, None])[:, 0]
    weight = np.zeros(hierarchy.n_nodes)
    if revenue.any():
        for span in hierarchy.spans:
            weight[span] = totals[span] / totals[span].sum()
    return Scales(hierarchy, cutoff, squared, absolute, weight)


def _revenue(frame: pl.DataFrame, part: Hierarchy, cutoff: date, days: int) -> Floats:
    since = cutoff - timedelta(days=days - 1)
    recent = frame.filter(pl.col("date").is_between(since, cutoff))
    sold = recent.group_by(part.key).agg(
        revenue=(pl.col("units") * pl.col("sell_price").fill_null(0.0)).sum()
    )
    out = np.zeros(part.n_series)
    out[part.rows_of(sold)] = sold["revenue"].to_numpy()
    return out


class _Changes:
    """Mean one-day changes of nodes whose series arrive in parts.

    A node that is whole within one part is finished there; only the others keep a history.
    """

    def __init__(self, hierarchy: Hierarchy, n_days: int) -> None:
        self._hierarchy, self._n_days = hierarchy, n_days
        self._size = hierarchy.aggregate(np.ones((hierarchy.n_series, 1)))[:, 0]
        self._open: dict[int, Floats] = {}
        self._squared = np.zeros(hierarchy.n_nodes)
        self._absolute = np.zeros(hierarchy.n_nodes)

    def add(self, rows: Codes, where: Codes, history: Floats) -> None:
        mine = np.zeros((self._hierarchy.n_series, 1))
        mine[rows] = 1.0
        whole = (self._hierarchy.aggregate(mine)[:, 0] == self._size)[where]
        self._squared[where[whole]], self._absolute[where[whole]] = mean_changes(history[whole])
        for level, span in enumerate(self._hierarchy.spans):
            at = np.nonzero(~whole & (where >= span.start) & (where < span.stop))[0]
            if len(at):
                shape = (span.stop - span.start, self._n_days)
                kept = self._open.setdefault(level, np.zeros(shape))
                kept[where[at] - span.start] += history[at]

    def finished(self) -> tuple[Floats, Floats]:
        for level in list(self._open):
            span, history = self._hierarchy.spans[level], self._open.pop(level)
            touched = history.any(axis=1)
            at = np.nonzero(touched)[0]
            squared, absolute = mean_changes(history[at])
            self._squared[span.start + at], self._absolute[span.start + at] = squared, absolute
        return self._squared, self._absolute


def mean_changes(history: Floats) -> tuple[Floats, Floats]:
    """Mean squared and mean absolute one-day change of each row since its first non-zero day.

    Rows that never sell, or first sell on the last day, have no change to take a mean of: 0.
    """
    n, days = history.shape
    if not n or not days:
        return np.zeros(n), np.zeros(n)
    sold = history != 0
    first = sold.argmax(axis=1)
    # Before the first sale every change is zero but the last, the step up to the sale itself.
    step = np.where(first > 0, np.abs(history[np.arange(n), first]), 0.0)
    counted = np.maximum(days - 1 - first, 1)
    squared, absolute = np.empty(n), np.empty(n)
    for block in range(0, n, 1024):  # bounds the memory of the differences
        part = slice(block, block + 1024)
        change = np.diff(history[part], axis=1)
        squared[part] = np.einsum("ij,ij->i", change, change)
        absolute[part] = np.abs(change, out=change).sum(axis=1)
    alone = first == days - 1
    return (
        np.where(alone, 0.0, np.maximum(squared - step**2, 0.0) / counted),
        np.where(alone, 0.0, np.maximum(absolute - step, 0.0) / counted),
    )


def score(forecast: Floats, actual: Floats, by: Scales) -> pl.DataFrame:
    """Score forecasts of the series at every level of the hierarchy.

    Args:
        forecast, actual: [n_series, horizon]; a cell whose actual is NaN counts in neither.

    Returns:
        `level, series, wape, bias, rmsse, wrmsse, unscored`, one row a level and one named
        `Average`, the plain mean over levels. `wape` = sum |F - Y| / sum Y and `bias` =
        sum (F - Y) / sum Y over nodes and days, null where nothing sold. `rmsse` is the plain
        mean over nodes. `unscored` nodes have no scale (they never changed before the cutoff);
        they are left out and the weights of the others in their level add up to 1 without them.
    """
    known = np.isfinite(actual)
    truth = by.hierarchy.aggregate(np.where(known, actual, 0.0))
    error = by.hierarchy.aggregate(np.where(known, forecast, 0.0)) - truth
    rows = []
    for level, span in zip(by.hierarchy.levels, by.hierarchy.spans, strict=True):
        sold = float(truth[span].sum())
        scaled, weight, has_scale = _scaled(error[span], by, span)
        rows.append(
            {
                "level": level_name(level),
                "series": span.stop - span.start,
                "wape": float(np.abs(error[span]).sum()) / sold if sold else None,
                "bias": float(error[span].sum()) / sold if sold else None,
                "rmsse": float(scaled.mean()) if len(scaled) else None,
                "wrmsse": float(weight @ scaled) if weight.any() else None,
                "unscored": int((~has_scale).sum()),
            }
        )
    levels = pl.DataFrame(rows, schema=_SCORES)
    average = levels.select(
        pl.lit(AVERAGE).alias("level"),
        pl.col("series").sum(),
        pl.col("wape", "bias", "rmsse", "wrmsse").mean(),
        pl.col("unscored").sum(),
    )
    return pl.concat([levels, average])


_SCORES: dict[str, type[pl.DataType]] = {
    "level": pl.String,
    "series": pl.Int64,
    "wape": pl.Float64,
    "bias": pl.Float64,
    "rmsse": pl.Float64,
    "wrmsse": pl.Float64,
    "unscored": pl.Int64,
}


def _scaled(error: Floats, by: Scales, span: slice) -> tuple[Floats, Floats, Mask]:
    """RMSSE of the nodes of a level that have a scale, their weights, and which they are."""
    has_scale = by.squared[span] > 0
    mse = np.einsum("ij,ij->i", error, error)[has_scale] / error.shape[1]
    weight = by.weight[span][has_scale]
    return np.sqrt(mse / by.squared[span][has_scale]), weight / (weight.sum() or 1.0), has_scale


def wrmsse(forecast: Floats, actual: Floats, by: Scales) -> float:
    """The M5 competition's score: [n_series, horizon] forecasts against actuals."""
    return float(score(forecast, actual, by).filter(level=AVERAGE)["wrmsse"].item())


def evaluate(
    prediction: pl.DataFrame, actual: pl.DataFrame, by: Scales, forecaster: str
) -> pl.DataFrame:
    """Score published item-store forecasts against what was sold, level by level.

    Args:
        prediction: one cutoff of `prediction_daily` rows; quantile columns (`q10`..) are scored
            where they are there.
        actual: rows with the key columns, `date, units`; days outside the horizon are ignored.
        forecaster: the name these rows are filed under.

    Returns:
        `eval_accuracy` rows (see `score`), with `days` scored, `unknown` (item-store-days without
        an actual, left out), `scaled_pinball` and `coverage80` of the item-stores. Empty when no
        day of the horizon has an actual yet.

    Raises:
        HierarchyError: a series in no node, a series-day twice, or a scored series-day without
            a finite forecast.
    """
    cutoff, first = by.cutoff, by.cutoff + timedelta(days=1)
    ahead = actual.filter(pl.col("date").is_between(first, _latest(prediction, "ds", cutoff)))
    if ahead.is_empty():
        return TABLES["eval_accuracy"].schema.to_frame()
    last = _latest(ahead, "date", cutoff)
    truth = by.hierarchy.matrix(ahead, "units", first, last)
    laid = by.hierarchy.matrix(prediction, "mean", first, last, day="ds")
    _refuse_unforecast(laid, truth, by.hierarchy, first)
    levels = score(laid, truth, by).with_columns(
        cutoff=pl.lit(cutoff),
        forecaster=pl.lit(forecaster),
        days=pl.lit((last - cutoff).days),
        unknown=pl.lit(int(np.isnan(truth).sum())),
    )
    columns = {level: name for name, level in quantile_levels(prediction.columns).items()}
    if columns:
        laid_out = {
            level: by.hierarchy.matrix(prediction, name, first, last, day="ds")
            for level, name in columns.items()
        }
        bottom = level_name(by.hierarchy.levels[-1])
        levels = levels.join(
            pl.DataFrame(
                {
                    "level": [bottom],
                    "scaled_pinball": [scaled_pinball(laid_out, truth, by)],
                    "coverage80": [
                        coverage(laid_out[0.1], laid_out[0.9], truth)
                        if {0.1, 0.9} <= laid_out.keys()
                        else None
                    ],
                },
                schema_overrides={"coverage80": pl.Float64},
            ),
            on="level",
            how="left",
            maintain_order="left",
        )
    return TABLES["eval_accuracy"].conform(levels)


def _latest(frame: pl.DataFrame, column: str, otherwise: date) -> date:
    latest = frame[column].max()
    return latest if isinstance(latest, date) else otherwise


def _refuse_unforecast(laid: Floats, truth: Floats, hierarchy: Hierarchy, first: date) -> None:
    missing = np.isfinite(truth) & ~np.isfinite(laid)
    if missing.any():
        row, column = (int(at[0]) for at in np.nonzero(missing))
        raise HierarchyError(
            f"{hierarchy.names[-1][hierarchy.codes[-1][row]]} sold on "
            f"{first + timedelta(days=column)} but has no finite forecast for it "
            f"({int(missing.sum())} such cells); publish the floor for it"
        )


def quantile_levels(columns: Iterable[str]) -> dict[str, float]:
    """The quantile columns among `columns` and their levels: `q10` is .10, `q975` is .975."""
    found = [name for name in columns if name[:1] == "q" and name[1:].isdigit()]
    return {name: float(f"0.{name[1:]}") for name in found}


def pinball(quantile: Floats, actual: Floats, level: float) -> Floats:
    """Pinball loss of each cell: under-forecasts cost `level`, over-forecasts 1 - `level`."""
    short = actual - quantile
    return np.asarray(np.maximum(level * short, (level - 1.0) * short))


def scaled_pinball(quantiles: Mapping[float, Floats], actual: Floats, by: Scales) -> float:
    """Mean pinball loss of the series over their mean absolute change, weighted by revenue.

    The M5 uncertainty score of the last level, for the quantile levels that are given.

    Args:
        quantiles: level -> [n_series, horizon]; `actual`: the same shape, NaN where unknown.
    """
    bottom = by.hierarchy.bottom
    scale, weight = by.absolute[bottom], by.weight[bottom]
    known = np.isfinite(actual)
    for at in quantiles.values():  # a series that publishes fewer levels is not compared
        known = known & np.isfinite(at)
    days = known.sum(axis=1)
    usable = (scale > 0) & (days > 0)
    losses = [
        np.where(known, pinball(at, actual, level), 0.0).sum(axis=1)[usable]
        for level, at in quantiles.items()
    ]
    scaled = np.mean(losses, axis=0) / days[usable] / scale[usable]
    return float(scaled @ weight[usable] / (weight[usable].sum() or 1.0))


def coverage(lower: Floats, upper: Floats, actual: Floats) -> float:
    """Share of the known actuals that lie in [lower, upper]."""
    known = np.isfinite(actual) & np.isfinite(lower) & np.isfinite(upper)
    inside = (actual >= lower) & (actual <= upper) & known
    return float(inside.sum() / known.sum()) if known.any() else float("nan")


def fva(evaluated: pl.DataFrame, floor: str) -> pl.DataFrame:
    """Forecast value added: add `fva_wrmsse`, `fva_wape` = 1 - error / error of the floor.

    Args:
        evaluated: `eval_accuracy` rows of several forecasters, `floor` among them.

    Raises:
        ValueError: the floor was not scored.
    """
    if floor not in evaluated["forecaster"].unique():
        raise ValueError(
            f"no rows of the floor {floor!r}; scored: {sorted(evaluated['forecaster'].unique())}"
        )
    base = evaluated.filter(forecaster=floor).select(
        "cutoff", "level", pl.col("wrmsse").alias("_wrmsse"), pl.col("wape").alias("_wape")
    )
    return (
        evaluated.join(base, on=["cutoff", "level"], how="left", maintain_order="left")
        .with_columns(
            fva_wrmsse=_added("wrmsse"),
            fva_wape=_added("wape"),
        )
        .drop("_wrmsse", "_wape")
    )


def _added(column: str) -> pl.Expr:
    floor = pl.col(f"_{column}")
    return pl.when(floor > 0).then(1.0 - pl.col(column) / floor)


def by_group(forecast: Floats, actual: Floats, by: Scales, group: pl.Series) -> pl.DataFrame:
    """Score the series by a label of theirs (a segment, a rung), not by the hierarchy.

    Args:
        forecast, actual: [n_series, horizon]; `group`: one label a series, in series order.

    Returns:
        `group, series, units, weight, wape, bias, wrmsse`, sorted by group. `weight` is the
        group's share of revenue; `wrmsse` weights RMSSE within the group, so that
        sum(weight x wrmsse) is the last level's WRMSSE when every series has a scale.
    """
    bottom = by.hierarchy.bottom
    scale, weight = by.squared[bottom], by.weight[bottom]
    known = np.isfinite(actual)
    truth = np.where(known, actual, 0.0)
    error = np.where(known, forecast, 0.0) - truth
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.sqrt(np.einsum("ij,ij->i", error, error) / error.shape[1] / scale)
    usable = scale > 0
    cells = pl.DataFrame(
        {
            "group": group,
            "units": truth.sum(axis=1),
            "weight": weight,
            "_absolute": np.abs(error).sum(axis=1),
            "_error": error.sum(axis=1),
            "_scaled": np.where(usable, weight * scaled, 0.0),
            "_usable": np.where(usable, weight, 0.0),
        }
    )
    grouped = cells.group_by("group").agg(pl.len().cast(pl.Int64).alias("series"), pl.all().sum())
    sold = pl.when(pl.col("units") > 0).then(pl.col("units"))
    return grouped.sort("group").select(
        "group",
        "series",
        "units",
        "weight",
        wape=pl.col("_absolute") / sold,
        bias=pl.col("_error") / sold,
        wrmsse=pl.col("_scaled") / pl.when(pl.col("_usable") > 0).then(pl.col("_usable")),
    )
