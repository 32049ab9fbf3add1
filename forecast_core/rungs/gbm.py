"""The gbm rung: one LightGBM shared by many series, direct for every day of the horizon.

Belongs here: examples (an origin, a day ahead, what was sold), fitting and predicting. Does not:
features of the past (`origin_features`) and choosing who is served (`forecast_core.segments`).

The horizon is a feature, so one model answers for all days ahead and errors do not feed back as
they do in a recursive model. The loss is one for counts that are mostly zero, Poisson's unless
`forecast tune` found the other to serve a segment better.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from forecast_core.rungs import target_days
from forecast_core.rungs.frames import means
from forecast_core.rungs.grid import Floats, Grid
from forecast_core.rungs.origin_features import FEATURE_SETS, STRIDE_DAYS, YEAR_AGO_WEEKS
from forecast_core.rungs.target_days import TargetDays

Loss = Literal["poisson", "tweedie"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
_TWEEDIE_POWER = 1.1  # between Poisson's variance and the gamma's
TRAINING_DAYS = 280
EXAMPLES = 3_400_000  # about what all of M5 gives with two days ahead an origin
LEVELS = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
_CATEGORICAL = (
    "weekday", "month", *target_days.EVENTS, "event_before", "event_after",
    "dept_id", "cat_id", "store_id", "state_id",
)  # fmt: skip
_MIN_AGE_DAYS = 28
# Of fewer examples a second thread waits more than it works: `python -m benchmarks fit_threads`.
_ALONE = 1_000_000
# What is known of the day forecast, and of the day's like in the past.
_AHEAD = (
    "same_weekday_4", "same_weekday_8", "year_ago", "year_ago_change", "horizon",
    *target_days.COLUMNS, "price_change", "price_to_mean",
)  # fmt: skip
_MINIMAL = frozenset(
    ("same_weekday_8", "horizon", "weekday", "snap", "price_change", "dept_id", "store_id")
)
_REDUCED = _MINIMAL | {
    "same_weekday_4", "month", "day", "event_name_1", "event_before", "event_after",
    "price_to_mean", "cat_id", "state_id",
}  # fmt: skip
_KEPT_AHEAD: Mapping[str, frozenset[str]] = {
    "minimal": _MINIMAL,
    "reduced": _REDUCED,
    "full": frozenset((*_AHEAD, *LEVELS)),
}


class NoExamplesError(ValueError):
    """Nothing to learn from; the message says why."""


@dataclass(frozen=True)
class GbmSpec:
    """How a shared model is fitted; the defaults were chosen on M5 windows before d_1886."""

    features: str = "full"
    loss: Loss = "poisson"
    per_origin: int = 2  # days ahead drawn for each item and origin, see `of_size`
    rounds: int = 250
    learning_rate: float = 0.06
    num_leaves: int = 96
    min_data_in_leaf: int = 200
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.6
    lambda_l2: float = 1.0
    max_bin: int = 127
    threads: int = 2  # at most
    seed: int = 1

    @classmethod
    def of_size(cls, features: str, series: int) -> GbmSpec:
        """Draw more days ahead where series are few, so that a small shop learns as well."""
        origins = series * TRAINING_DAYS // STRIDE_DAYS
        per_origin = min(14, max(2, EXAMPLES // max(origins, 1)))
        leaf = min(cls.min_data_in_leaf, max(20, origins * per_origin // 40))
        return cls(features, per_origin=per_origin, min_data_in_leaf=leaf)


@dataclass(frozen=True)
class Coding:
    """The codes that a model was fitted with: names of events and of every level."""

    events: dict[str, list[str]]
    levels: dict[str, list[str]]
    covariates: tuple[str, ...] = ()  # columns of sales and prices that are known ahead

    @classmethod
    def of(
        cls, calendar: pl.DataFrame, series: pl.DataFrame, covariates: Sequence[str] = ()
    ) -> Coding:
        """From the calendar and one row a series (all stores)."""
        return cls(
            target_days.vocabulary(calendar),
            {level: sorted(series[level].unique().to_list()) for level in LEVELS},
            tuple(covariates),
        )

    def codes(self, series: pl.DataFrame) -> Floats:
        """Level codes of each row [rows, levels]; what the model never saw is NaN."""
        coded = [
            series[level]
            .replace_strict(
                {name: float(at) for at, name in enumerate(self.levels[level])},
                default=None,
                return_dtype=pl.Float32,
            )
            .to_numpy()
            for level in LEVELS
        ]
        return np.stack(coded, axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Examples:
    """`x` float32 [rows, columns of the spec], `y` float32 [rows] units sold."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Fitted:
    """A model as text, and what drove its cost."""

    artefact: bytes
    drivers: dict[str, float]


def columns(spec: GbmSpec, covariates: Sequence[str] = ()) -> list[str]:
    """Names of the model's columns, in order."""
    ahead = [name for name in (*_AHEAD, *LEVELS) if name in _KEPT_AHEAD[spec.features]]
    return [*FEATURE_SETS[spec.features], *ahead, *covariates]


def examples(
    features: pl.DataFrame,
    sales: pl.DataFrame,
    series: pl.DataFrame,
    calendar: pl.DataFrame,
    coding: Coding,
    cutoff: date,
    horizon: int,
    spec: GbmSpec,
    step: int = 1,
) -> Examples:
    """Examples of one store: `per_origin` random days ahead of each origin, none past `cutoff`.

    Args:
        features: `feature_sales` rows of the store, origins before the cutoff.
        sales: `cleaned_sales` rows from the first origin to the cutoff.
        series: the store's items that this model serves, with the `LEVELS` columns.
        step: days in a period; only whole periods ahead are drawn.
    """
    origins = (
        features.filter(
            (pl.col("age_days") >= _MIN_AGE_DAYS)
            & (pl.col("mean_112") > 0)
            & (pl.col("date") < cutoff)
        )
        .join(series.select(LEVELS), on=["item_id", "store_id"], how="inner")
        .sort("item_id", "date")  # days are drawn by row, and a lake promises no order of rows
    )
    if origins.is_empty():
        return Examples(
            *(np.empty(s, np.float32) for s in ((0, len(columns(spec, coding.covariates))), 0))
        )
    store_id, state_id = series["store_id"][0], series["state_id"][0]
    rng = np.random.default_rng([spec.seed, zlib.crc32(store_id.encode())])
    ahead = step * rng.integers(1, horizon // step + 1, origins.height * spec.per_origin)
    row = np.repeat(np.arange(origins.height), spec.per_origin)
    first = origins["date"].min()
    assert isinstance(first, date)
    grid = Grid.of(sales, ["units", "sell_price", *coding.covariates], first, cutoff)
    at = (origins["date"] - first).dt.total_days().to_numpy()[row] + ahead
    item = _positions(origins["item_id"], grid.items)[row]
    inside = (at < grid.n_days) & (item >= 0)
    row, ahead, at, item = row[inside], ahead[inside], at[inside], item[inside]
    sold = grid.values["units"][item, at]
    known = np.isfinite(sold)
    row, ahead, at, item, sold = row[known], ahead[known], at[known], item[known], sold[known]
    days = TargetDays.of(calendar, coding.events, state_id, first, cutoff)
    price = grid.values["sell_price"][item, at]
    x = _design(origins, row, ahead, price, days, at, coding, columns(spec))
    return Examples(_beside(x, grid, item, at, coding), sold)


def fit(parts: Sequence[Examples], coding: Coding, spec: GbmSpec) -> Fitted:
    """Fit one model on the examples of all stores.

    Raises:
        NoExamplesError: none at all.
    """
    import lightgbm as lgb

    names = columns(spec, coding.covariates)
    x = np.concatenate([part.x for part in parts])
    y = np.concatenate([part.y for part in parts])
    if not len(y):
        raise NoExamplesError("no example to learn from: too little history before the cutoff")
    data = lgb.Dataset(
        x,
        y,
        feature_name=names,
        categorical_feature=[name for name in _CATEGORICAL if name in names],
        free_raw_data=True,
    )
    booster = lgb.train(_parameters(spec, len(y)), data, spec.rounds)
    text = {
        "kind": "gbm",
        "spec": asdict(spec),
        "events": coding.events,
        "levels": coding.levels,
        "covariates": list(coding.covariates),
        "model": booster.model_to_string(),
    }
    drivers = {
        "rows": float(len(y)),
        "columns": float(len(names)),
        "trees": float(booster.num_trees()),
        "units": float(y.sum()),
    }
    return Fitted(json.dumps(text).encode(), drivers)


class Model:
    """A fitted model, read from its text once and used store by store."""

    def __init__(self, artefact: bytes) -> None:
        import lightgbm as lgb

        text = json.loads(artefact)
        self.spec = GbmSpec(**text["spec"])
        self.coding = Coding(text["events"], text["levels"], tuple(text.get("covariates", ())))
        self.booster = lgb.Booster(model_str=text["model"])
        names = self.booster.feature_name()  # its own: what a set keeps may have changed since
        self.columns = names[: len(names) - len(self.coding.covariates)]

    def predict(
        self,
        features: pl.DataFrame,
        prices: pl.DataFrame,
        series: pl.DataFrame,
        calendar: pl.DataFrame,
        cutoff: date,
        horizon: int,
    ) -> pl.DataFrame:
        """(item_id, ds, mean) of one store's items that have features at the cutoff.

        Args:
            features: `feature_sales` rows dated `cutoff`.
            prices: known future prices (item_id, date, sell_price) a day; a missing one is taken
                to stay as it was at the cutoff. Covariates stand beside them.
            series: the items to serve, with the `LEVELS` columns.
        """
        items, x = self.inputs(features, prices, series, calendar, cutoff, horizon)
        if not items:
            return means([], cutoff, np.empty((0, horizon)))
        mean = self.booster.predict(x, num_threads=self.spec.threads)
        return means(items, cutoff, np.asarray(mean).reshape(len(items), horizon))

    def inputs(
        self,
        features: pl.DataFrame,
        prices: pl.DataFrame,
        series: pl.DataFrame,
        calendar: pl.DataFrame,
        cutoff: date,
        horizon: int,
    ) -> tuple[list[str], Floats]:
        """Items and their rows [items x horizon, columns], day by day; arguments as `predict`."""
        origins = features.filter(pl.col("date") == cutoff).join(
            series.select(LEVELS), on=["item_id", "store_id"], how="inner", maintain_order="left"
        )
        if origins.is_empty():
            return [], np.empty((0, 0), np.float32)
        row = np.repeat(np.arange(origins.height), horizon)
        ahead = np.tile(np.arange(1, horizon + 1), origins.height)
        first, last = cutoff + timedelta(days=1), cutoff + timedelta(days=horizon)
        items = origins["item_id"].to_list()
        known = [name for name in self.coding.covariates if name in prices.columns]
        grid = Grid.of(prices, ["sell_price", *known], first, last, items)
        item = _positions(origins["item_id"], grid.items)[row]
        price = grid.values["sell_price"][item, ahead - 1]
        days = TargetDays.of(calendar, self.coding.events, series["state_id"][0], first, last)
        x = _design(origins, row, ahead, price, days, ahead - 1, self.coding, self.columns)
        return items, _beside(x, grid, item, ahead - 1, self.coding)


def _beside(x: Floats, grid: Grid, item: np.ndarray, at: np.ndarray, coding: Coding) -> Floats:
    """The design with its covariates; NaN where one is not known."""
    if not coding.covariates:
        return x
    unknown = np.full(len(at), np.nan, np.float32)
    extra = [
        grid.values[name][item, at] if name in grid.values else unknown
        for name in coding.covariates
    ]
    return np.concatenate([x, np.stack(extra, axis=1)], axis=1, dtype=np.float32)


def _positions(wanted: pl.Series, items: tuple[str, ...]) -> np.ndarray:
    return (
        wanted.replace_strict(
            {item: at for at, item in enumerate(items)}, default=-1, return_dtype=pl.Int64
        )
        .to_numpy()
        .astype(np.intp)
    )


def _design(
    origins: pl.DataFrame,
    row: np.ndarray,
    ahead: np.ndarray,
    price: np.ndarray,
    days: TargetDays,
    at: np.ndarray,
    coding: Coding,
    names: Sequence[str],
) -> Floats:
    """Those columns, as `columns` orders them, for each (origin row, day ahead)."""

    def same_weekday(weeks: int) -> Floats:
        weekday = days.by_column["weekday"][at].astype(np.intp)
        return _chosen(origins, f"weekday_{weeks}_", range(7), row, weekday)

    def year_ago() -> Floats:
        week = np.minimum((ahead - 1) // 7, YEAR_AGO_WEEKS - 1)
        return _chosen(origins, "year_ago_", range(1, YEAR_AGO_WEEKS + 1), row, week)

    def relative(base: str) -> Floats:
        today = _column(origins, "price")[row]
        planned = np.where(np.isfinite(price), price, today)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Floats = planned / _column(origins, base)[row]
        return ratio

    made: dict[str, Callable[[], np.ndarray]] = {
        "same_weekday_4": lambda: same_weekday(4),
        "same_weekday_8": lambda: same_weekday(8),
        "year_ago": year_ago,
        "year_ago_change": lambda: year_ago() - _column(origins, "year_ago_28")[row],
        "horizon": lambda: ahead,
        "price_change": lambda: relative("price"),
        "price_to_mean": lambda: relative("price_mean_365"),
    }
    kept = [name for name in names if name not in made and name in origins.columns]
    kept = [name for name in kept if name not in LEVELS]
    past = origins.select(kept).to_numpy().astype(np.float32)
    told = [name for name in names if name in target_days.COLUMNS]
    known = dict(zip(told, days.at(at, told), strict=True))
    tail = [
        made[name]() if name in made else known[name]
        for name in names
        if name in made or name in known
    ]
    levels = [place for place, level in enumerate(LEVELS) if level in names]
    stacked = np.stack([np.asarray(column, dtype=np.float32) for column in tail], axis=1)
    return np.concatenate([past[row], stacked, coding.codes(origins)[row][:, levels]], axis=1)


def _column(frame: pl.DataFrame, name: str) -> Floats:
    values: Floats = frame[name].to_numpy().astype(np.float32)
    return values


def _chosen(
    frame: pl.DataFrame, prefix: str, numbers: range, row: np.ndarray, which: np.ndarray
) -> Floats:
    table = frame.select([f"{prefix}{k}" for k in numbers]).to_numpy()
    picked: Floats = table[row, which].astype(np.float32)
    return picked


def _parameters(spec: GbmSpec, examples: int) -> dict[str, Any]:
    return {
        "objective": spec.loss,
        "tweedie_variance_power": _TWEEDIE_POWER,  # of the other losses it is no parameter
        "learning_rate": spec.learning_rate,
        "num_leaves": spec.num_leaves,
        "min_data_in_leaf": spec.min_data_in_leaf,
        "feature_fraction": spec.feature_fraction,
        "bagging_fraction": spec.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": spec.lambda_l2,
        "max_bin": spec.max_bin,
        "num_threads": spec.threads if examples >= _ALONE else 1,
        "seed": spec.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
