"""Forecast viewer: history, quantiles, stock-out risk and explanation of any series."""

from __future__ import annotations

from typing import Any

import polars as pl
import streamlit as st

from dashboard import charts, words
from dashboard.figures import forecasts
from dashboard.figures.forecasts import ITEM_STORE, Series
from dashboard.live import Live
from dashboard.show import chart, figures, section, table
from dashboard.words import DASH, code, plain

_FACTS = {
    "segment": "segment: value - demand - life stage",
    "dept_id": "department",
    "level": "level",
    "rung": "served by",
    "reason": "why this rung",
    "on_hand": "on hand, units",
    "on_order": "on order, units",
    "lead_time_days": "lead time, days",
    "lead_time_demand": "expected demand in the lead time, units",
    "reorder_point": "reorder point, units",
    "stockout_if_late": "runs out if the delivery is late",
}


def page(live: Live) -> None:
    """Choose a series; below it those most likely to run out."""
    with section():
        cutoff = _cutoff(live)
        found = _chosen(live, cutoff)
        if found is not None:
            _series(found)
    with section("Most likely to run out", "Before the next delivery; choose a row to see it"):
        _at_risk(live)


def _cutoff(live: Live) -> Any:
    known = forecasts.cutoffs(live)
    return st.session_state.get("cutoff") if st.session_state.get("cutoff") in known else known[0]


def _chosen(live: Live, cutoff: Any) -> Series | None:
    known = forecasts.cutoffs(live)
    a, b, c, d = st.columns([1, 1, 1, 2])
    cutoff = a.selectbox("Cutoff", known, key="cutoff")
    names = forecasts.levels(live, cutoff)
    level = b.selectbox("Level", names, key="level", format_func=words.level)
    if level != ITEM_STORE:
        nodes = forecasts.nodes(live, cutoff, level)
        name = d.selectbox("Series", nodes, key=f"node of {level}")
        return None if name is None else forecasts.node(live, cutoff, level, name)
    wanted = st.session_state.pop("wanted", None)
    stores = forecasts.stores(live, cutoff)
    if wanted and wanted[0] in stores:
        st.session_state["store"] = wanted[0]
    store = c.selectbox("Store", stores, key="store")
    items = forecasts.items(live, cutoff, store)
    if wanted and wanted[1] in items:
        st.session_state["item"] = wanted[1]
    item = d.selectbox("Item (most units first)", items, key="item")
    return None if item is None else forecasts.item_store(live, cutoff, store, item)


def _series(found: Series) -> None:
    st.subheader(code(found.name), anchor=False)
    total, about = float(found.forecast["mean"].sum()), found.about
    days = found.forecast.height
    told: list[tuple[str, str, str | None]] = [
        (f"Forecast, next {days} days", f"{total:,.1f} units", "sum of the daily means")
    ]
    risk = about.get("stockout_probability")
    if "rung" in about:
        told.append(("Rung", str(about["rung"]), "the forecaster that serves it"))
        told.append(("Stock-out risk", DASH if risk is None else f"{risk:.1%}",
                     "probability of running out before delivery; lead time below"))  # fmt: skip
        hand = about.get("on_hand")
        told.append(("On hand", DASH if hand is None else f"{hand:,.0f} units", None))
        order = about.get("order_units")
        told.append(("To order now", DASH if order is None else f"{order:,.0f} units", None))
    figures(told)
    low, high = (found.bands[0][0], found.bands[0][1]) if found.bands else ("mean", "mean")
    chart(
        charts.fan(found.history, found.forecast, found.bands, found.cutoff, "units a day"),
        f"{found.name}: sales since {found.history['date'].min()!s}, forecast of {total:,.1f} units"
        f" over {days} days after {found.cutoff}; the widest band runs from"
        f" {float(found.forecast[low].sum()):,.1f} to {float(found.forecast[high].sum()):,.1f}",
    )
    if found.bands:
        shares = ", ".join(f"{s:.0%}" for *_, s in found.bands)
        st.caption(f"Bands hold {shares} of outcomes; the dashed line is the cutoff.")
    if about.get("reason"):
        st.caption(f"Why this rung: {plain(about['reason'])}")
    left, right = st.columns(2, gap="large")
    with left, section("Explanation"):
        _explanation(found)
    with right, section("Facts"):
        facts = [
            (label, _fact(name, about[name]))
            for name, label in _FACTS.items()
            if about.get(name) is not None
        ]
        table(pl.DataFrame(facts, schema=["fact", "value"], orient="row"), "Facts of the series")


def _fact(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1%}" if name == "stockout_if_late" else f"{value:,.1f}"


def _explanation(found: Series) -> None:
    if found.explanation.is_empty():
        st.info(
            "Not explained: only class A item-stores of the shared model whose forecast changed"
            " are, within a budget of rows. `forecast explain` does it.",
            icon=":material/hourglass_empty:",
        )
        return
    buckets = found.explanation["bucket"].unique(maintain_order=True).to_list()
    bucket = st.segmented_control("Days ahead", buckets, default=buckets[0], key="bucket",
                                  format_func=lambda b: str(b).replace("_", " "))  # fmt: skip
    rows = found.explanation.filter(bucket=bucket or buckets[0]).drop("bucket")
    order = rows.sort(pl.col("contribution").abs(), descending=True).with_columns(
        way=pl.when(pl.col("contribution") > 0).then(pl.lit("raises")).otherwise(pl.lit("lowers"))
    )
    known = {"raises": charts.GOOD, "lowers": charts.BAD}
    drawn = charts.ranked(order, ("feature", ""), ("contribution", "to the log of the mean"),
                          ("way", ""), known)  # fmt: skip
    said = ", ".join(f"{f} {c:+.2f}" for f, c, _ in order.iter_rows())
    chart(drawn, f"Contributions to the log of the mean: {said}")


def _at_risk(live: Live) -> None:
    cutoff = st.session_state.get("cutoff") or forecasts.cutoffs(live)[0]
    rows = forecasts.at_risk(live, cutoff)
    if rows.is_empty():
        st.info("No stock is known for this cutoff.", icon=":material/hourglass_empty:")
        return
    percent = {
        name: st.column_config.ProgressColumn(label, format="percent", min_value=0, max_value=1)
        for name, label in (
            ("stockout_probability", "runs out"),
            ("stockout_if_late", "if the delivery is late"),
        )
    }

    def show() -> None:
        picked = st.session_state["risky"]["selection"]["rows"]
        if picked:
            row = rows.row(picked[0], named=True)
            st.session_state["wanted"] = (row["store_id"], row["item_id"])
            st.session_state["level"] = ITEM_STORE

    counts = {
        name: st.column_config.NumberColumn(label, format="localized")
        for name, label in (
            ("on_hand", "on hand, units"),
            ("on_order", "on order, units"),
            ("lead_time_days", "lead time, days"),
            ("order_units", "to order, units"),
        )
    }
    columns = {"store_id": "store", "item_id": "item", **percent, **counts}
    table(rows, "Item-stores by probability of running out", columns, key="risky",
          on_select=show, selection_mode="single-row")  # fmt: skip
