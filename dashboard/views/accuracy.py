"""Accuracy and forecast value added against cost: the frontier, by segment and rung."""

from __future__ import annotations

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import accuracy
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.words import DASH, amount, level, plain

_ALL = "every segment together"


def page(live: Live) -> None:
    """Scores first, then what they cost, then how they hold."""
    currency = live.policy.currency
    with section("Forecast value added", "The published forecast beside the floor, by level"):
        _scores(live)
    with section("Value against cost", "What one more unit of money bought, by cutoff and level"):
        _value(live, currency)
    with section("The frontier", "Every rung at past cutoffs: its error beside its cost"):
        _frontier(live, currency)
    with section("As actuals arrive", "Published forecasts of the last weeks against sales"):
        _monitored(live)


def _scores(live: Live) -> None:
    scores = accuracy.scores(live)
    cutoffs = scores["cutoff"].unique().sort(descending=True).to_list()
    a, b = st.columns([1, 1])
    cutoff = a.selectbox("Cutoff", cutoffs, key="scored cutoff")
    measure = b.segmented_control(
        "Measure", list(accuracy.MEASURES), default="wrmsse", key="measure",
        format_func=accuracy.MEASURES.__getitem__,
    ) or "wrmsse"  # fmt: skip
    rows = scores.filter(cutoff=cutoff).with_columns(_spoken())
    average = {r["forecaster"]: r for r in rows.filter(level="Average").iter_rows(named=True)}
    told: list[tuple[str, str, str | None]] = []
    for name in ("governed", "floor", "seasonal_naive"):
        if name in average:
            value = average[name]["wrmsse"]
            label = f"WRMSSE, {name.replace('_', ' ')}"
            told.append((label, DASH if value is None else f"{value:.3f}", "mean of all levels"))
    if "governed" in average and "floor" in average and average["floor"]["wrmsse"]:
        gain = 1 - average["governed"]["wrmsse"] / average["floor"]["wrmsse"]
        told.append(("Value added over the floor", f"{gain:+.1%}", "1 - WRMSSE / WRMSSE of floor"))
    if told:
        figures(told)
    order = sorted(rows["level"].unique().to_list(), key=lambda n: (n != "Average", n != "Total",
                                                                    n.count(" x "), n))  # fmt: skip
    shown = rows.select("level", "forecaster", pl.col(measure).alias("value"), "series").drop_nulls(
        "value"
    )
    chart(
        _by_level(shown, order, accuracy.MEASURES[measure]),
        f"{accuracy.MEASURES[measure]} by level and forecaster at {cutoff}",
    )
    with st.expander("In figures"):
        table(rows, "Scores by level and forecaster")


def _spoken() -> pl.Expr:
    """Levels as people say them."""
    return pl.col("level").map_elements(level, return_dtype=pl.String)


def _by_level(rows: pl.DataFrame, order: list[str], title: str) -> object:
    import altair as alt

    names = rows["forecaster"].unique().sort().to_list()
    return (
        alt.Chart(rows)
        .mark_point(filled=True, size=90)
        .encode(
            y=alt.Y("level:N", sort=order, title="level", axis=alt.Axis(labelLimit=180, grid=True)),
            x=alt.X("value:Q", title=title, scale=alt.Scale(zero=False)),
            color=charts.colour("forecaster", "forecaster", charts.RUNGS, names),
            tooltip=["level:N", "forecaster:N", alt.Tooltip("value:Q", format=".4f"), "series:Q"],
        )
        .properties(height=26 * len(order) + 70)
    )


def _value(live: Live, currency: str) -> None:
    rows = accuracy.value_per_cost(live)
    if rows.is_empty():
        st.info("No scored cutoff is in the marts yet.", icon=":material/hourglass_empty:")
        return
    rows = rows.with_columns(_spoken())
    newest = rows.filter(pl.col("cutoff") == pl.col("cutoff").max())
    cost = float(newest["billed_cost"].cast(pl.Float64).max() or 0)  # type: ignore[arg-type]
    st.caption(
        f"The upgrades of {newest['cutoff'][0]} cost {amount(cost)} {currency}; that one sum stands"
        " beside each level, never to be added up."
    )
    bars = newest.select("level", pl.col("fva_wrmsse"), "fva_wape", "series").drop_nulls(
        "fva_wrmsse"
    )
    order = bars.sort("fva_wrmsse", descending=True).with_columns(
        (100 * pl.col("fva_wrmsse")).alias("percent")
    )
    chart(
        charts.ranked(
            order.select("level", "percent", "series"),
            ("level", "level"),
            ("percent", "value added over the floor, % of WRMSSE"),
        ),
        "Forecast value added over the floor by level",
    )
    with st.expander("In figures"):
        columns = {
            name: money_column(name.replace("_", " "), currency)
            for name in ("inference_cost", "training_cost", "billed_cost")
        }
        table(rows, "Forecast value added by cutoff and level beside its cost", columns)


def _frontier(live: Live, currency: str) -> None:
    by_segment = accuracy.segment_frontier(live)
    totals = accuracy.rung_totals(live)
    segments = by_segment["segment"].unique().sort().to_list()
    chosen = st.selectbox("Segment: value - demand - life stage", [_ALL, *segments], key="segment")
    rows = _efficient(totals) if chosen == _ALL else by_segment.filter(segment=chosen)
    shown = rows.filter(pl.col("usd") > 0).select(
        "forecaster", "usd", "wrmsse", "fva_wrmsse", "cpu_s", "series", "efficient"
    ).drop_nulls("wrmsse")  # fmt: skip
    chart(
        charts.frontier(shown, "usd", "wrmsse", currency),
        "; ".join(f"{r['forecaster']}: WRMSSE {r['wrmsse']:.3f} for {amount(r['usd'])} {currency}"
                  for r in shown.iter_rows(named=True)),
    )  # fmt: skip
    windows = rows["windows"].to_list()
    st.caption(
        "Dots joined by the line are efficient: no rung is both cheaper and better. Mean of"
        f" {max(windows, default=0)} past windows; {plain(chosen)}."
    )
    with st.expander("Every segment in figures"):
        table(
            by_segment.drop("segment_group"),
            "Every rung in every segment with its cost and error",
            {"usd": money_column("cost", currency)},
        )


def _efficient(totals: pl.DataFrame) -> pl.DataFrame:
    """Mark the rungs that none is both cheaper and better than."""
    ranked = totals.sort("usd", "wrmsse")
    best = pl.col("wrmsse").cum_min().shift(1)
    return ranked.with_columns(efficient=(pl.col("wrmsse") < best) | best.is_null())


_LIVE = (
    ("series", "series", "localized"),
    ("wape", "WAPE", "%.3f"),
    ("floor_wape", "WAPE of the floor", "%.3f"),
    ("bias", "bias", "%.3f"),
    ("coverage80", "inside the 80 % band", "percent"),
    ("fva_wape", "value added over the floor", "percent"),
)


def _monitored(live: Live) -> None:
    rows = accuracy.monitored(live)
    both = rows.select("cutoff", "segment_group", "wape", "floor_wape").unpivot(
        ["wape", "floor_wape"], index=["cutoff", "segment_group"], variable_name="of"
    )
    named = both.with_columns(
        of=pl.col("of").replace({"wape": "governed", "floor_wape": "floor"}),
        segment_group=pl.col("segment_group").replace({"*": "all"}),
    ).drop_nulls("value")
    if rows["cutoff"].n_unique() > 1:
        groups = named["segment_group"].unique().sort().to_list()
        group = st.selectbox("Segment group", groups, key="monitored group")
        drawn = charts.lines(
            named.filter(segment_group=group), ("cutoff", "T", "day"), ("value", "WAPE"),
            ("of", ""), charts.RUNGS, zero=False,
        )  # fmt: skip
        chart(drawn, f"WAPE of {group} as actuals arrived, beside the floor")
    table(
        rows.with_columns(pl.col("segment_group").replace({"*": "all"})),
        "Live accuracy by day and segment group",
        {name: st.column_config.NumberColumn(label, format=form) for name, label, form in _LIVE},
    )
