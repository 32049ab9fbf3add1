"""Cost explorer: any cut of the ledger, its trend, and what a unit costs."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import costs
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.stores import NothingYet
from dashboard.words import amount, money, share


def page(live: Live) -> None:
    """One range of days and one cut govern the first half; units and marts follow."""
    currency = live.policy.currency
    with section():
        _explorer(live, currency)
    with section("Unit costs", "Money of one item-store at reference prices, by day and series"):
        _units(live, currency)
    with section("Marts", "What dbt built of the ledger; sums equal the ledger's"):
        _marts(live, currency)


def _explorer(live: Live, currency: str) -> None:
    days = costs.span(live)
    if days is None:
        raise NothingYet("no charge yet; `make demo` or `forecast run` writes the first ones")
    first, last = days
    a, b, c = st.columns([2, 1, 1])
    start = max(first, last - timedelta(days=90))
    chosen = a.date_input("Days (UTC)", (start, last), min_value=first, max_value=last)
    by = b.selectbox("Cut by", list(costs.CUTS))
    then = c.selectbox("and by", ["nothing else", *(name for name in costs.CUTS if name != by)])
    picked: tuple[date, ...] = tuple(chosen) if isinstance(chosen, (tuple, list)) else (chosen,)
    if len(picked) < 2:
        picked = (picked[0], picked[0]) if picked else (first, last)
    rows = costs.cube(live, picked[0], picked[1])
    if rows.is_empty():
        raise NothingYet(f"no charge from {picked[0]} to {picked[1]}")
    _totals(rows, currency)
    _trend(live, rows, by, picked, currency)
    names = [by] if then == "nothing else" else [by, then]
    found = costs.cut(rows, names)
    percent = st.column_config.ProgressColumn("share", format="%.1f %%", min_value=0, max_value=100)
    table(
        found,
        f"Cost by {' and '.join(names)}, dearest first",
        {"cost": money_column("cost", currency), "share": percent},
    )
    st.download_button(
        "Download this cut",
        found.with_columns(pl.col("cost").cast(pl.String)).write_csv(),
        f"cost_{picked[0]}_{picked[1]}.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )


def _totals(rows: pl.DataFrame, currency: str) -> None:
    whole, parts = costs.total(rows), costs.classes(rows)
    told: list[tuple[str, str, str | None]] = [
        ("Total", money(whole, currency), f"exactly {whole.normalize():f} {currency}")
    ]
    meaning = {
        "workload": "steps of runs",
        "idle": "paid for and not used",
        "overhead": "daemon, webserver, and processes between steps",
    }
    for name, value in parts.items():
        label = f"{name} ({share(float(value), float(whole))})"
        told.append((label, money(value, currency), meaning[name]))
    figures(told)


def _trend(
    live: Live, rows: pl.DataFrame, by: str, picked: tuple[date, ...], currency: str
) -> None:
    if rows["day"].n_unique() > 1:
        drawn = charts.stacked(
            costs.trend(rows, by).rename({by: "name"}),
            ("day", "T", "day (UTC)"),
            ("cost", f"cost, {currency}"),
            ("name", by),
        )
        chart(drawn, f"Cost by day and {by}, {amount(costs.total(rows))} {currency} in all")
        return
    day = rows["day"][0]
    fine = costs.within_a_day(live, day, by).rename({by: "name"})
    drawn = charts.stacked(
        fine, ("at", "T", f"{day}, by quarter of an hour (UTC)"), ("cost", f"cost, {currency}"),
        ("name", by),
    )  # fmt: skip
    chart(drawn, f"Cost within {day} by {by}, {amount(costs.total(rows))} {currency} in all")


def _units(live: Live, currency: str) -> None:
    found = costs.unit_costs(live)
    if found.is_empty():
        raise NothingYet("no charge with a volume in the last 90 days")
    spent = found.group_by("series").agg(pl.col("cost").sum()).sort("cost", descending=True)
    names = spent["series"].to_list()
    chosen = st.multiselect(
        "Series: pipeline / forecaster / segment group", names, names[:5], key="unit series"
    )
    shown = found.filter(pl.col("series").is_in(chosen))
    if shown.is_empty():
        st.info("Choose a series.", icon=":material/touch_app:")
        return
    title = f"an item-store, {currency}"
    if shown["day"].n_unique() > 1:
        drawn = charts.lines(shown, ("day", "T", "day (UTC)"), ("unit", title), ("series", ""))
    else:
        drawn = charts.ranked(
            shown.sort("unit", descending=True).select("series", "unit", "volume", "cost"),
            ("series", ""),
            ("unit", title),
        )
    chart(drawn, f"Unit cost of {len(chosen)} series")


def _marts(live: Live, currency: str) -> None:
    batches, versions, dear, items = st.tabs(
        ["Forecast batches", "Forecaster versions", "Dearest operations", "Dearest item-stores"]
    )
    with batches, section():
        rows = costs.per_batch(live)
        table(rows, "Forecast batches by cutoff and what they cost", _money(rows, currency))
    with versions, section():
        rows = costs.per_version(live)
        table(rows, "Forecaster versions and what they cost to fit and use", _money(rows, currency))
    with dear, section():
        rows = costs.dearest(live)
        table(rows, "Operations, dearest first", _money(rows, currency))
    with items, section():
        rows = costs.item_stores(live)
        table(rows, "Item-stores, dearest first", _money(rows, currency))


def _money(rows: pl.DataFrame, currency: str) -> dict[str, object]:
    """Columns of money: the exact decimals, and money an item-store."""
    exact = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.Decimal)]
    held = {name: money_column(name.replace("_", " "), currency) for name in exact}
    if "cost_per_item_store" in rows.columns:
        held["cost_per_item_store"] = st.column_config.NumberColumn(
            f"an item-store, {currency}", format="%.9f"
        )
    return held
