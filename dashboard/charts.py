"""The charts: Vega-Lite specifications over small frames.

Belongs here: marks, scales and colours, the same for one thing on every page. Does not: data.

Names of data stand in values only, never in field names: a hostile name is text wherever it goes.
Colours keep a contrast of 3:1 on white and on the dark background alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    import altair as alt

HEIGHT = 260
WHEEL = ("#3f88c5", "#d1495b", "#2a9d8f", "#b07d12", "#8661c1", "#6b7a8f", "#c8553d", "#4c956c",
         "#a23b72", "#7d8597")  # fmt: skip
GOOD, BAD, QUIET, BUDGET = "#2a9d8f", "#d1495b", "#7d8597", "#b07d12"
RUNGS = {
    "floor": "#7d8597",
    "statistical": "#3f88c5",
    "gbm": "#2a9d8f",
    "neural": "#8661c1",
    "governed": "#c8553d",
    "seasonal_naive": "#b07d12",
}
TIERS = {"hot": "#d1495b", "warm": "#b07d12", "cold": "#3f88c5"}
MONEY = {"spent": "#3f88c5", "held": "#b07d12", "free": "#8a9aa8"}
NUMBER = ",.4~g"
LEGEND = {"orient": "top", "title": None, "columns": 4, "symbolLimit": 60, "labelLimit": 150}


def colour(field: str, title: str, known: Mapping[str, str] | None, names: Sequence[str]) -> Any:
    """A colour for each name: the one it always has, or one of the wheel."""
    import altair as alt

    fixed = known or {}
    free = iter(WHEEL * (1 + len(names) // len(WHEEL)))
    chosen = [fixed.get(name) or next(free) for name in names]
    scale = alt.Scale(domain=list(names), range=chosen)
    return alt.Color(f"{field}:N", title=title, scale=scale,
                     legend=LEGEND if len(names) > 1 else None)  # fmt: skip


def stacked(
    rows: pl.DataFrame,
    x: tuple[str, str, str],
    y: tuple[str, str],
    by: tuple[str, str],
    known: Mapping[str, str] | None = None,
) -> alt.Chart:
    """Bars of `y` over `x` (field, Vega type, title), stacked by a name."""
    import altair as alt

    rows = _as_written(rows)
    names = sorted(rows[by[0]].unique().to_list())
    across: Any = alt.X(f"{x[0]}:{x[1]}", title=x[2], axis=alt.Axis(labelAngle=0))
    if x[1] == "T":
        daily = rows.schema[x[0]] == pl.Date
        slot = alt.TimeUnitParams(unit="yearmonthdate" if daily else "yearmonthdatehoursminutes",
                                  step=1 if daily else 15)  # fmt: skip
        across = alt.X(f"{x[0]}:T", title=x[2], timeUnit=slot, axis=_days(rows[x[0]].n_unique()))
    return (
        alt.Chart(rows)
        .mark_bar(cornerRadius=1)
        .encode(
            x=across,
            y=alt.Y(f"{y[0]}:Q", title=y[1], axis=alt.Axis(format=NUMBER)),
            color=colour(by[0], by[1], known, names),
            tooltip=_tips(rows, (x[0], by[0], y[0])),
        )
        .properties(height=HEIGHT + 20 * ((len(names) - 1) // 4))
    )


def ranked(
    rows: pl.DataFrame,
    name: tuple[str, str],
    value: tuple[str, str],
    by: tuple[str, str] | None = None,
    known: Mapping[str, str] | None = None,
) -> alt.Chart:
    """Horizontal bars, in the order of the rows."""
    import altair as alt

    order = rows[name[0]].unique(maintain_order=True).to_list()
    bar = alt.Chart(rows).mark_bar(cornerRadius=1, color=WHEEL[0])
    encoding: dict[str, Any] = {
        "y": alt.Y(f"{name[0]}:N", title=name[1], sort=order, axis=alt.Axis(labelLimit=220)),
        "x": alt.X(
            f"{value[0]}:Q",
            title=value[1],
            axis=alt.Axis(format=NUMBER, tickCount=8),
            scale=alt.Scale(nice=False),
        ),
        "tooltip": _tips(rows, rows.columns),
    }
    if by is not None:
        names = rows[by[0]].unique(maintain_order=True).to_list()
        encoding["color"] = colour(by[0], by[1], known, names)
    return bar.encode(**encoding).properties(height=26 * len(order) + (70 if by is None else 140))


def lines(
    rows: pl.DataFrame,
    x: tuple[str, str, str],
    y: tuple[str, str],
    by: tuple[str, str],
    known: Mapping[str, str] | None = None,
    *,
    zero: bool = True,
) -> alt.Chart:
    """Lines with points, one a name."""
    import altair as alt

    names = sorted(rows[by[0]].unique().to_list())
    return (
        alt.Chart(rows)
        .mark_line(point=True)
        .encode(
            x=alt.X(
                f"{x[0]}:{x[1]}", title=x[2], axis=alt.Axis(format="%d %b", labelOverlap=True)
            ),
            y=alt.Y(f"{y[0]}:Q", title=y[1], scale=alt.Scale(zero=zero),
                    axis=alt.Axis(format=NUMBER)),
            color=colour(by[0], by[1], known, names),
            tooltip=_tips(rows, (x[0], by[0], y[0])),
        )
        .properties(height=HEIGHT)
    )  # fmt: skip


def band(
    rows: pl.DataFrame, x: tuple[str, str, str], title: str, limit: float | None = None
) -> alt.LayerChart:
    """low, mid, high over `x`, and a limit as a dashed line where it is near enough to be seen."""
    import altair as alt

    base = alt.Chart(rows).encode(x=alt.X(f"{x[0]}:{x[1]}", title=x[2]))
    tips = _tips(rows, (x[0], "low", "mid", "high"))
    parts: list[Any] = [
        base.mark_area(opacity=0.25, color=WHEEL[0]).encode(
            y=alt.Y("low:Q", title=title, axis=alt.Axis(format=NUMBER)), y2="high:Q", tooltip=tips
        ),
        base.mark_line(point=True, color=WHEEL[0]).encode(y="mid:Q", tooltip=tips),
    ]
    highest = rows["high"].max()
    if limit is not None and isinstance(highest, float) and highest > 0.2 * limit:
        parts.append(rule(limit, "budget"))
    return alt.layer(*parts).properties(height=HEIGHT)


def rule(at: float, label: str) -> Any:
    """A dashed horizontal line with its name."""
    import altair as alt

    rows = pl.DataFrame({"at": [at], "label": [label]})
    return (
        alt.Chart(rows)
        .mark_rule(strokeDash=[6, 4], color=BUDGET, strokeWidth=2)
        .encode(y="at:Q", tooltip=["label:N", alt.Tooltip("at:Q", format=NUMBER)])
    )


def month_end(
    days: pl.DataFrame,
    today: date,
    last: date,
    ends: tuple[float, float, float],
    limit: float | None,
    currency: str,
) -> alt.LayerChart:
    """Money of a month so far (day, cost) and where it will end: expected within a band."""
    import altair as alt

    sofar = days.with_columns(total=pl.col("cost").cum_sum())
    spent = float(sofar["total"].tail(1).sum())
    low, expected, high = ends
    cone = pl.DataFrame(
        {"day": [today, last], "low": [spent, low], "mid": [spent, expected], "high": [spent, high]}
    )
    x = alt.X("day:T", title="day (UTC)", axis=alt.Axis(format="%d %b", labelOverlap=True))
    y = alt.Y("total:Q", title=f"spent this month, {currency}", axis=alt.Axis(format=NUMBER))
    tips = _tips(cone, ("day", "low", "mid", "high"))
    parts: list[Any] = [
        alt.Chart(cone).mark_area(opacity=0.25, color=WHEEL[0]).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", tooltip=tips),
        alt.Chart(cone).mark_line(strokeDash=[4, 3], color=WHEEL[0], point=True).encode(
            x=x, y="mid:Q", tooltip=tips),
        alt.Chart(sofar).mark_line(point=True, color=WHEEL[2], interpolate="step-after").encode(
            x=x, y=y, tooltip=_tips(sofar, ("day", "cost", "total"))),
    ]  # fmt: skip
    if limit is not None and high > 0.2 * limit:
        parts.append(rule(limit, "budget of the month"))
    return alt.layer(*parts).properties(height=HEIGHT)


def fan(
    history: pl.DataFrame,
    forecast: pl.DataFrame,
    bands: Sequence[tuple[str, str, float]],
    cutoff: date,
    unit: str,
) -> alt.LayerChart:
    """History, forecast mean, and quantile bands that darken towards the median."""
    import altair as alt

    x = alt.X("ds:T", title="day", axis=alt.Axis(format="%d %b %Y", tickCount=10))
    y = {"title": unit, "axis": alt.Axis(format=NUMBER)}
    parts: list[Any] = []
    for low, high, share in bands:
        rows = forecast.select("ds", low=pl.col(low), high=pl.col(high)).with_columns(
            band=pl.lit(f"{share:.0%}")
        )
        parts.append(
            alt.Chart(rows).mark_area(opacity=0.17, color=WHEEL[0], interpolate="monotone").encode(
                x=x, y=alt.Y("low:Q", **y), y2="high:Q", tooltip=_tips(rows, rows.columns)
            )
        )  # fmt: skip
    parts.append(
        alt.Chart(forecast).mark_line(color=WHEEL[0], strokeWidth=2.5).encode(
            x=x, y=alt.Y("mean:Q", **y), tooltip=_tips(forecast, ("ds", "mean")))
    )  # fmt: skip
    past = history.select(pl.col("date").alias("ds"), "units").with_columns(
        kind=pl.when(pl.col("ds") <= cutoff)
        .then(pl.lit("known at the cutoff"))
        .otherwise(pl.lit("sold since"))
    )
    shades = alt.Color(
        "kind:N",
        title="sales",
        scale=alt.Scale(domain=["known at the cutoff", "sold since"], range=[QUIET, BAD]),
        legend=LEGEND,
    )
    tips = _tips(past, past.columns)
    sales = alt.Chart(past).encode(x=x, y=alt.Y("units:Q", **y), color=shades, tooltip=tips)
    parts += [sales.mark_line(strokeWidth=1.3), sales.mark_circle(size=14)]
    edge = pl.DataFrame({"ds": [cutoff]})
    parts.append(alt.Chart(edge).mark_rule(strokeDash=[3, 3], color=BUDGET).encode(x=x))
    return alt.layer(*parts).properties(height=380)


def frontier(rows: pl.DataFrame, cost: str, error: str, currency: str) -> alt.LayerChart:
    """Error against cost of each rung; the efficient ones joined from cheap to dear."""
    import altair as alt

    x = alt.X(f"{cost}:Q", title=f"cost of a forecast window, {currency} (log)",
              scale=alt.Scale(type="log"), axis=alt.Axis(format="~e"))  # fmt: skip
    y = alt.Y(f"{error}:Q", title="WRMSSE (lower is better)", scale=alt.Scale(zero=False))
    names = sorted(rows["forecaster"].unique().to_list())
    points = (
        alt.Chart(rows)
        .mark_point(filled=True, size=130, opacity=0.9)
        .encode(
            x=x, y=y, color=colour("forecaster", "forecaster", RUNGS, names),
            shape=alt.Shape("efficient:N", title="on the frontier", legend=None,
                            scale=alt.Scale(domain=[True, False], range=["circle", "cross"])),
            tooltip=_tips(rows, rows.columns),
        )
    )  # fmt: skip
    best = rows.filter(pl.col("efficient")).sort(cost)
    line = alt.Chart(best).mark_line(color=QUIET, strokeDash=[4, 3]).encode(x=x, y=y)
    return alt.layer(line, points).properties(height=320)


def bridge(rows: pl.DataFrame, title: str) -> alt.Chart:
    """A waterfall of part, amount: the first and last rows are totals when so named."""
    import altair as alt

    totals, running, drawn = {"planned", "actual", "before", "after"}, 0.0, []
    for part, value in rows.iter_rows():
        whole = part in totals
        start = 0.0 if whole else running
        end = value if whole else running + value
        kind = "total" if whole else "more" if value > 0 else "less"
        drawn.append((part, start, end, value, kind))
        running = end
    columns = ["part", "start", "end", "amount", "kind"]
    frame = pl.DataFrame(drawn, schema=columns, orient="row")
    scale = alt.Scale(domain=["total", "more", "less"], range=[WHEEL[0], BAD, GOOD])
    return (
        alt.Chart(frame)
        .mark_bar(size=34, cornerRadius=1)
        .encode(
            x=alt.X("part:N", sort=frame["part"].to_list(), title=None,
                    axis=alt.Axis(labelAngle=-25, labelLimit=160)),
            y=alt.Y("start:Q", title=title, axis=alt.Axis(format=NUMBER)),
            y2="end:Q",
            color=alt.Color("kind:N", title=None, scale=scale, legend=LEGEND),
            tooltip=_tips(frame, ("part", "amount")),
        )
        .properties(height=HEIGHT)
    )  # fmt: skip


def _days(count: int) -> Any:
    """The axis of days or hours: the year is told by the page."""
    import altair as alt

    return alt.Axis(labelOverlap=True, tickCount=min(count, 12), grid=False)


def _as_written(rows: pl.DataFrame) -> pl.DataFrame:
    """Moments as they stand: a browser would show those with a zone in its own."""
    return rows.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None))


def _tips(rows: pl.DataFrame, columns: Sequence[str]) -> list[Any]:
    import altair as alt

    found = []
    for name in columns:
        dtype = rows.schema[name]
        if dtype == pl.Date:
            found.append(alt.Tooltip(f"{name}:T", format="%Y-%m-%d"))
        elif isinstance(dtype, pl.Datetime):
            found.append(alt.Tooltip(f"{name}:T", format="%Y-%m-%d %H:%M"))
        elif dtype.is_numeric():
            found.append(alt.Tooltip(f"{name}:Q", format=NUMBER))
        else:
            found.append(alt.Tooltip(f"{name}:N"))
    return found
