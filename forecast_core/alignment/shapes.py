"""The calendar shape of store-departments: weekday, SNAP, day of month, events, time of year.

Belongs here: learning shapes from daily totals, keeping them as text, and the curve that they give
for any days. Does not: levels and bending forecasts to them (`alignment`).

A shape is a ridge regression of the log of daily sales on the calendar beside a slowly moving
level.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

NODE = ("store_id", "dept_id")
HISTORY_DAYS = 1278  # three and a half years: every yearly event three times
EVENT = "event_name_1"
CLOSED = 0.1  # a day below this part of the median is a closed one, and teaches nothing
_NEAR_EVENT = (-2, -1, 0, 1)  # the days around an event that it may move
_HARMONICS = 4
_YEAR = 365.25
_LEAST_DAYS = 180
_LEAST_UNITS = 5.0  # a day, on average: below that a node has no shape to speak of
_KNOT_DAYS = 91
WEEKDAY_WEEKS = 26  # of which a weekday's own sales are known
_IDLE = 0.9  # of those weeks without a sale: a weekday on which nothing is sold
_RIDGE = 1.0
_RIDGE_YEARLY = 20.0
_RIDGE_LEVEL = 0.01

Floats = NDArray[np.float64]


class AlignmentError(ValueError):
    """Shapes that cannot be read or used; the message says what to do."""


@dataclass(frozen=True)
class Shapes:
    """Calendar coefficients of nodes, and the events that they were learnt with.

    `closed` are the events on which nothing has been sold, `idle` the weekdays (0 is Monday) on
    which a node sells nothing: a shop that is shut on Sundays. `state_of` names the SNAP column of
    a store, `booster` the model of all nodes where one was fitted, `growth` by what factor a
    store's sales grow in a year. Kept as JSON (`to_bytes`), never as a pickle.
    """

    events: tuple[str, ...]
    closed: tuple[str, ...]
    state_of: Mapping[str, str]
    coefficients: Mapping[tuple[str, str], tuple[float, ...]]
    booster: str | None = None
    growth: Mapping[str, float] = field(default_factory=dict)
    idle: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The same shapes give the same bytes."""
        content = {
            "kind": "shapes",
            "events": list(self.events),
            "closed": list(self.closed),
            "state_of": dict(self.state_of),
            "nodes": [[*node, list(of)] for node, of in sorted(self.coefficients.items())],
            "booster": self.booster,
            "growth": dict(self.growth),
            "idle": [[*node, list(weekdays)] for node, weekdays in sorted(self.idle.items())],
        }
        return json.dumps(content, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, artefact: bytes) -> Shapes:
        """Read back what `to_bytes` wrote.

        Raises:
            AlignmentError: it is no such artefact; fit the shapes again.
        """
        try:
            content: dict[str, Any] = json.loads(artefact)
            nodes = {(store, dept): tuple(of) for store, dept, of in content["nodes"]}
            events, closed = tuple(content["events"]), tuple(content["closed"])
            booster, growth = content.get("booster"), content.get("growth", {})
            idle = {(store, dept): tuple(of) for store, dept, of in content.get("idle", ())}
            return cls(events, closed, content["state_of"], nodes, booster, growth, idle)
        except (ValueError, KeyError, TypeError) as error:
            raise AlignmentError(f"no shapes to read ({error}); fit them again") from None


def node_totals(sales: pl.DataFrame) -> pl.DataFrame:
    """Daily units of each store-department: (date, store_id, state_id, dept_id, units).

    `sales`: cleaned_sales rows of one store.
    """
    return (
        sales.group_by("date", "store_id", "state_id", "dept_id")
        .agg(pl.col("units").fill_nan(None).sum())
        .sort("store_id", "dept_id", "date")
    )


def fit_shapes(totals: pl.DataFrame, calendar: pl.DataFrame, cutoff: date) -> Shapes:
    """Learn each node's shape from `node_totals` of any stores, using nothing after `cutoff`.

    A node with too short or too thin a history gets no shape, and is left as it is by `align`.
    """
    first = cutoff - timedelta(days=HISTORY_DAYS - 1)
    recent = totals.filter(pl.col("date").is_between(first, cutoff))
    events = _events(calendar, first, cutoff)
    designs: dict[tuple[str, date], Floats] = {}
    found, idle = {}, {}
    for (store, dept), rows in recent.group_by(NODE, maintain_order=True):
        since = rows["date"].min()
        assert isinstance(since, date)
        days = (cutoff - since).days + 1
        units = np.zeros(days)
        at = (rows["date"] - since).dt.total_days().to_numpy()
        units[at] = rows["units"].to_numpy()
        if days < _LEAST_DAYS or units.mean() < _LEAST_UNITS:
            continue
        state = str(rows["state_id"][0])
        if (state, since) not in designs:
            designs[state, since] = _design(calendar, events, state, since, cutoff)
        found[str(store), str(dept)] = _coefficients(units, designs[state, since])
        if weekdays := _idle(units, since):
            idle[str(store), str(dept)] = weekdays
    state_of = dict(recent.select("store_id", "state_id").unique().sort("store_id").iter_rows())
    return Shapes(events, _closed(recent, calendar), state_of, found, idle=idle)


def curves(
    shapes: Shapes, calendar: pl.DataFrame, stores: Sequence[str], first: date, last: date
) -> pl.DataFrame:
    """(store_id, dept_id, ds, curve) of the nodes of `stores` that have a shape."""
    days = [first + timedelta(days=k) for k in range((last - first).days + 1)]
    shut_days = calendar.filter(pl.col(EVENT).is_in(shapes.closed))["date"]
    shut = np.isin(np.array(days, dtype="datetime64[D]"), shut_days.to_numpy())
    weekdays = np.array([day.weekday() for day in days])
    designs: dict[str, Floats] = {}
    frames = [
        pl.DataFrame(
            schema={"store_id": pl.String, "dept_id": pl.String, "ds": pl.Date, "curve": pl.Float64}
        )
    ]
    for (store, dept), of in shapes.coefficients.items():
        if store not in stores:
            continue
        state = shapes.state_of[store]
        if state not in designs:
            designs[state] = _design(calendar, shapes.events, state, first, last)
        resting = np.isin(weekdays, shapes.idle.get((store, dept), ()))
        curve = np.where(shut | resting, 0, np.exp(designs[state] @ np.array(of)))
        frames.append(
            pl.DataFrame({"store_id": store, "dept_id": dept, "ds": days, "curve": curve})
        )
    return pl.concat(frames)


def open_from(units: Floats) -> Floats:
    """What each day must sell not to be a closed one [..., days]: a part of what is usual, and of
    what is usual on its weekday where that is less."""
    days = units.shape[-1]
    recent = units[..., -7 * WEEKDAY_WEEKS :]
    weeks = recent[..., recent.shape[-1] % 7 :]
    week = np.median(weeks.reshape(*units.shape[:-1], -1, 7), axis=-2)
    own = week[..., (np.arange(days) - days) % 7]
    least: Floats = CLOSED * np.minimum(np.median(units, axis=-1, keepdims=True), own)
    return least


def _idle(units: Floats, since: date) -> tuple[int, ...]:
    """The weekdays on which next to never anything was sold of late."""
    recent = units[-7 * WEEKDAY_WEEKS :]
    weekday = (since.weekday() + np.arange(len(units)))[-len(recent) :] % 7
    return tuple(day for day in range(7) if (recent[weekday == day] <= 0).mean() > _IDLE)


def _events(calendar: pl.DataFrame, first: date, last: date) -> tuple[str, ...]:
    within = calendar.filter(pl.col("date").is_between(first, last))
    return tuple(sorted(within[EVENT].drop_nulls().unique().to_list()))


def _closed(totals: pl.DataFrame, calendar: pl.DataFrame) -> tuple[str, ...]:
    """Events on whose every occurrence a day's sales were as good as nothing."""
    daily = totals.group_by("date").agg(pl.col("units").sum())
    usual = daily["units"].median()
    named = daily.join(calendar.unique("date"), on="date").drop_nulls(EVENT)
    if not isinstance(usual, float) or usual <= 0 or named.is_empty():
        return ()
    most = named.group_by(EVENT).agg(pl.col("units").max())
    return tuple(most.filter(pl.col("units") < CLOSED * usual)[EVENT].sort())


def _design(
    calendar: pl.DataFrame, events: Sequence[str], state: str, first: date, last: date
) -> Floats:
    """The calendar as columns, a row a day; the yearly harmonics stand last."""
    reach = max(abs(near) for near in _NEAR_EVENT)
    days = (last - first).days + 1
    around = pl.DataFrame(
        {"date": [first + timedelta(days=k - reach) for k in range(days + 2 * reach)]}
    )
    known = around.join(calendar.unique("date"), on="date", how="left", maintain_order="left")
    inside = slice(reach, reach + days)
    stamp = known["date"].dt
    weekday = np.eye(7)[stamp.weekday().to_numpy() - 1][inside]
    day_of_month = np.eye(31)[stamp.day().to_numpy() - 1][inside]
    snap = np.zeros((days, 1))
    if f"snap_{state}" in known.columns:
        flags = known[f"snap_{state}"].cast(pl.Float64).fill_null(0).to_numpy()
        snap = flags[inside, None]
    names = known[EVENT]
    on = (
        np.stack([(names == name).fill_null(False).to_numpy() for name in events], axis=1)
        if events
        else np.zeros((len(names), 0))
    )
    near = [on[reach - k : reach - k + days] for k in _NEAR_EVENT]
    phase = 2 * np.pi * stamp.ordinal_day().to_numpy()[inside] / _YEAR
    yearly = [f(k * phase)[:, None] for k in range(1, _HARMONICS + 1) for f in (np.sin, np.cos)]
    parts = [weekday, snap * weekday, day_of_month, *near, *yearly]
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _coefficients(units: Floats, design: Floats) -> tuple[float, ...]:
    """Ridge of log units on the calendar, beside a level that bends every quarter of a year."""
    open_days = units >= open_from(units)
    logs = np.log(np.maximum(units, 1))
    days, wide = design.shape
    knots = np.arange(days - 1, -_KNOT_DAYS, -_KNOT_DAYS)
    level = np.maximum(0, 1 - np.abs(np.arange(days)[:, None] - knots) / _KNOT_DAYS)
    x = np.concatenate([design, level], axis=1)[open_days]
    y = logs[open_days] - np.median(logs[open_days])
    penalty = np.full(x.shape[1], _RIDGE)
    penalty[wide - 2 * _HARMONICS : wide] = _RIDGE_YEARLY
    penalty[wide:] = _RIDGE_LEVEL
    solved = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y)
    return tuple(round(float(b), 6) for b in solved[:wide])
