"""What a store-department will sell each day ahead, learnt by boosting over all of them.

Belongs here: examples of node totals (an origin, a day ahead, sales over the node's recent level),
fitting and predicting. Does not: bending item forecasts to it (`alignment`), items at all.

One small LightGBM shared by every node: what Christmas, a first of the month or the turn of a
season did to seventy departments says more than what it did to one. The target is relative to the
node's recent level, so large and small nodes teach each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from forecast_core.alignment.shapes import EVENT, NODE, open_from
from forecast_core.rungs import target_days
from forecast_core.rungs.target_days import TargetDays

_YEAR = 364
_LEVEL_DAYS = 60  # of which a level is made, older days weighing less
_LEVEL_MEMORY = 14.0
_WEEKS = (4, 8, 26, 52)
BACK_DAYS = _YEAR + _LEVEL_DAYS  # of totals that a prediction looks at
_ORIGIN_DAYS = 7
_LEAST_ORIGINS = 20
_LEAST_UNITS = 5.0  # a day: below that a node has no shape to speak of
_NEAR_EVENT = (-1, 0, 1, 2)  # days on which an event is looked for, from the day forecast
ROUNDS = 300
_PARAMETERS = {
    "objective": "l2",
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.6,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "cat_smooth": 50,
    "cat_l2": 20,
    "min_data_per_group": 200,
    "seed": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Names:
    """What the codes of the model stand for."""

    events: tuple[str, ...]
    stores: tuple[str, ...]
    departments: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Panel:
    """Units of nodes by day; `units` [nodes, days], the first day `first`."""

    nodes: pl.DataFrame  # store_id, dept_id, state_id
    first: date
    units: Floats

    @classmethod
    def of(cls, totals: pl.DataFrame, last: date) -> _Panel:
        first = totals["date"].min()
        assert isinstance(first, date)
        days = (last - first).days + 1
        nodes = totals.select(*NODE, "state_id").unique().sort(*NODE).with_row_index("node")
        known = totals.filter(pl.col("date") <= last).join(nodes, on=[*NODE, "state_id"])
        units = np.zeros((nodes.height, days))
        at = (known["date"] - first).dt.total_days().to_numpy()
        units[known["node"].to_numpy(), at] = known["units"].to_numpy()
        return cls(nodes.drop("node"), first, units)

    def levels(self) -> Floats:
        """By node and day: mean of the open days up to it, newer ones weighing more; 0 if none."""
        weight = np.exp(-np.arange(_LEVEL_DAYS) / _LEVEL_MEMORY)
        opened = self.opened()
        days = self.units.shape[1]
        sold, seen = (
            np.stack([np.convolve(row, weight)[:days] for row in values])
            for values in (self.units * opened, opened.astype(np.float64))
        )
        level: Floats = sold / np.maximum(seen, 1e-9)
        return level

    def opened(self) -> NDArray[np.bool_]:
        """Days on which the node sold more than next to nothing."""
        return self.units >= np.maximum(open_from(self.units), 1)


def fit(totals: pl.DataFrame, calendar: pl.DataFrame, cutoff: date, horizon: int) -> str | None:
    """The model of all nodes as text; None where there is too little history to learn from.

    Args:
        totals: `alignment.node_totals` of all stores; nothing after `cutoff` is looked at.
        horizon: days ahead that it is to answer for.
    """
    import lightgbm as lgb

    if totals.is_empty():
        return None
    panel = _Panel.of(totals, cutoff)
    days = panel.units.shape[1]
    origins = range(days - horizon, BACK_DAYS - 1, -_ORIGIN_DAYS)
    if len(origins) < _LEAST_ORIGINS or horizon > _YEAR // 2:
        return None
    names = _Names(
        tuple(sorted(calendar[EVENT].drop_nulls().unique().to_list())),
        tuple(panel.nodes["store_id"].unique().sort()),
        tuple(panel.nodes["dept_id"].unique().sort()),
    )
    ahead = _Ahead.of(panel, calendar, names, days)
    opened, parts = panel.opened(), []
    for origin in origins:
        x, level = ahead.rows(origin, horizon)
        units = panel.units[:, origin : origin + horizon]
        known = opened[:, origin : origin + horizon] & (level >= _LEAST_UNITS)[:, None]
        of_row = np.broadcast_to(level[:, None], units.shape)[known]
        parts.append((x[known.ravel()], np.log(units[known] / of_row), np.sqrt(of_row)))
    x, y, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(y):
        return None
    data = lgb.Dataset(x, y, weight=weight, feature_name=_COLUMNS, categorical_feature=_CATEGORICAL)
    booster = lgb.train({**_PARAMETERS, "num_threads": 1}, data, ROUNDS)
    return json.dumps(
        {
            "horizon": horizon,
            "events": names.events,
            "stores": names.stores,
            "departments": names.departments,
            "model": booster.model_to_string(),
        }
    )


def predict(
    text: str, totals: pl.DataFrame, calendar: pl.DataFrame, cutoff: date, horizon: int
) -> pl.DataFrame:
    """(store_id, dept_id, ds, units) of nodes that sold enough of late, in the order of the key.

    Args:
        totals: `alignment.node_totals` of whole stores, `BACK_DAYS` before the cutoff. Without a
            year of them there are no rows.
        horizon: no longer than the model was fitted for; what is beyond has no rows.
    """
    import lightgbm as lgb

    said: Mapping[str, Any] = json.loads(text)
    names = _Names(*(tuple(said[name]) for name in ("events", "stores", "departments")))
    horizon = min(horizon, int(said["horizon"]))
    nothing = pl.DataFrame(
        schema={"store_id": pl.String, "dept_id": pl.String, "ds": pl.Date, "units": pl.Float64}
    )
    if totals.is_empty():
        return nothing
    panel = _Panel.of(totals, cutoff)
    days = panel.units.shape[1]
    if days < BACK_DAYS:
        return nothing
    x, level = _Ahead.of(panel, calendar, names, days + horizon).rows(days, horizon)
    ratio = np.exp(np.asarray(lgb.Booster(model_str=said["model"]).predict(x, num_threads=1)))
    units = ratio.reshape(-1, horizon) * level[:, None]
    kept = level >= _LEAST_UNITS
    nodes = panel.nodes.filter(pl.Series(kept)).select(NODE)
    ahead = pl.DataFrame({"ds": [cutoff + timedelta(days=k) for k in range(1, horizon + 1)]})
    return nodes.join(ahead, how="cross", maintain_order="left_right").with_columns(
        units=pl.Series(units[kept].ravel(), dtype=pl.Float64)
    )


@dataclass(frozen=True, eq=False)
class _Ahead:
    """Makes the model's rows of any origin of a panel."""

    panel: _Panel
    level: Floats  # [nodes, days]
    known: Mapping[str, NDArray[np.generic]]  # of the calendar, by day
    snap: Floats  # [nodes, days]
    codes: Sequence[Floats]  # of the nodes

    @classmethod
    def of(cls, panel: _Panel, calendar: pl.DataFrame, names: _Names, days: int) -> _Ahead:
        reach = max(_NEAR_EVENT)
        last = panel.first + timedelta(days=days + reach - 1)
        vocabulary = {event: list(names.events) for event in target_days.EVENTS}
        states = panel.nodes["state_id"].unique().sort().to_list()
        by_state = {
            state: TargetDays.of(calendar, vocabulary, state, panel.first, last).by_column
            for state in states
        }
        snap = np.stack([by_state[state]["snap"] for state in panel.nodes["state_id"]])
        codes = [
            _coded(panel.nodes[column], of)
            for column, of in (("store_id", names.stores), ("dept_id", names.departments))
        ]
        return cls(panel, panel.levels(), by_state[states[0]], snap.astype(np.float64), codes)

    def rows(self, origin: int, horizon: int) -> tuple[NDArray[np.float32], Floats]:
        """The columns of days `origin`.. of every node, from what was known before; the levels.

        Shapes: [nodes x horizon, columns], node by node, and [nodes].
        """
        units, level = self.panel.units, self.level[:, origin - 1]
        at = np.arange(origin, origin + horizon)
        safe = np.maximum(level, 1.0)[:, None]
        then = self.level[:, max(origin - 1 - _YEAR, 0)]
        then_safe = np.maximum(then, 1.0)[:, None]
        year_ago = units[:, at - _YEAR]
        event = self.known[EVENT].astype(np.float64)
        event = np.where(event < 0, np.nan, event)
        by_node = [
            level / np.maximum(_mean(units, origin, 56), 1.0),
            _mean(units, origin, 56) / np.maximum(_mean(units, origin, 182), 1.0),
            level / then_safe[:, 0],
            year_ago.mean(axis=1) / then_safe[:, 0],
            *self.codes,
        ]
        by_day = [
            at - origin + 1.0,
            *(self.known[name][at] for name in ("weekday", "day", "week", "month")),
            *(event[at + near] for near in _NEAR_EVENT),
            event[at - _YEAR],
        ]
        of_both = [
            *(_same_weekday(units, origin, horizon, weeks) / safe for weeks in _WEEKS),
            year_ago / then_safe,
            self.snap[:, at],
        ]
        shape = (len(units), horizon)
        spread = [
            *of_both,
            *(np.broadcast_to(values[:, None], shape) for values in by_node),
            *(np.broadcast_to(values[None, :], shape) for values in by_day),
        ]
        return np.stack([v.ravel() for v in spread], axis=1).astype(np.float32), level


_COLUMNS = [
    *(f"same_weekday_{weeks}" for weeks in _WEEKS),
    "year_ago", "snap", "recent", "season", "growth", "turn", "store", "department",
    "horizon", "weekday", "day", "week", "month",
    *(f"event_{near}" for near in range(len(_NEAR_EVENT))), "event_year_ago",
]  # fmt: skip
_CATEGORICAL = ["store", "department", "weekday", *(c for c in _COLUMNS if c.startswith("event"))]


def _coded(names: pl.Series, known: Sequence[str]) -> Floats:
    codes = {name: float(at) for at, name in enumerate(known)}
    coded = names.replace_strict(codes, default=None, return_dtype=pl.Float64)
    return coded.to_numpy().astype(np.float64)


def _mean(units: Floats, origin: int, days: int) -> Floats:
    mean: Floats = units[:, max(origin - days, 0) : origin].mean(axis=1)
    return mean


def _same_weekday(units: Floats, origin: int, horizon: int, weeks: int) -> Floats:
    """Mean of the same weekday in the weeks before the origin, by day ahead [nodes, horizon]."""
    past = units[:, max(origin - 7 * weeks, origin % 7) : origin]
    week = past.reshape(len(units), -1, 7).mean(axis=1)
    chosen: Floats = week[:, np.arange(horizon) % 7]
    return chosen
