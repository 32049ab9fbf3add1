"""Capacity: the plan with its bands, what breaks it, and how it compares with what happened."""

from __future__ import annotations

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import capacity
from dashboard.figures.capacity import COMMAND, Record
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.stores import NothingYet
from dashboard.words import amount, moment, money, plain


def page(live: Live) -> None:
    """One plan: figures, bands, stress, variance, assumptions."""
    found = None
    with section():
        found = _chosen(live)
        _headlines(found)
    if found is None:
        return
    left, right = st.columns(2, gap="large")
    with left, section("Money by month", "Bands from the 10th to the 90th percentile"):
        _money(live, found)
    with right, section("By pipeline", "Medians"):
        rows = capacity.pipelines(found)
        title = f"money, {found.currency}"
        by = ("pipeline", "pipeline")
        drawn = charts.stacked(_named(rows), ("month", "O", "month"), ("mid", title), by)
        chart(drawn, "Planned money by month and pipeline")
    with left, section("Storage", "Medians, GiB by tier"):
        rows = capacity.stored(found)
        drawn = charts.stacked(
            _named(rows), ("month", "O", "month"), ("mid", "GiB"), ("tier", "tier"), charts.TIERS
        )
        chart(drawn, "Planned storage by month and tier")
    with right, section("What breaks", "Budgets and quotas that run short, earliest first"):
        _breaks(found)
    with section("Stress", "The worst of the nights, on the money of a calm one"):
        _stress(live, found)
    with section("Plan against actual", "Parts that sum to the difference"):
        _variance(live, found)
    with section("Assumptions", "What the plan believes, who answers for it, when to ask again"):
        _assumptions(live, found)


def _chosen(live: Live) -> Record:
    known = capacity.names(live)
    if not known:
        raise NothingYet(f"No capacity plan is on record: {COMMAND} draws one")
    name = st.selectbox("Plan", known, key="plan") if len(known) > 1 else known[0]
    return capacity.record(live, name or known[0])


def _headlines(found: Record) -> None:
    o, plan = found.outcome, found.plan
    st.caption(
        f"Plan {plain(plan.name)}, version {found.version}, {plan.first} to {plan.last},"
        f" environment {plan.environment}; owner {plain(plan.owner)}; {o['draws']} futures drawn"
        f" {moment(found.drawn_at)}."
    )
    low, mid, high = o["total"]
    figures([
        ("Money of the plan", money(mid, found.currency), f"{amount(low)} to {amount(high)}"),
        ("Every item, every night", f"{100 * o['p_every_item_always']:.0f} %",
         "share of the futures in which no item ever misses its deadline"),
        ("A budget runs short", f"{100 * o['p_over_budget']:.0f} %", "share of the futures"),
        ("Skill kept", f"{o['kept'][1]:.0f} %", f"{o['kept'][0]:.0f} to {o['kept'][2]:.0f}"),
        ("Monitoring in time", f"{o['watched_min']:.1f} %", "in the worst future"),
    ])  # fmt: skip
    notes = o.get("notes", ())
    if notes:
        with st.expander(f"{len(notes)} figures rest on little or no measurement"):
            st.markdown("\n".join(f"- {plain(note)}" for note in notes))


def _money(live: Live, found: Record) -> None:
    rows = capacity.money(found)
    limit = capacity.budget(live, found.plan.environment)
    drawn = charts.band(_named(rows), ("month", "O", "month"), f"money, {found.currency}", limit)
    low, high = float(rows["low"].min() or 0), float(rows["high"].max() or 0)  # type: ignore[arg-type]
    chart(drawn, f"Money by month between {amount(low)} and {amount(high)} {found.currency}")
    if limit:
        st.caption(f"Budget of {plain(found.plan.environment)}: {money(limit, found.currency)} a"
                   " month.")  # fmt: skip


def _named(rows: pl.DataFrame) -> pl.DataFrame:
    """Months by name: each has its own place on the axis."""
    return rows.with_columns(pl.col("month").dt.strftime("%Y-%m"))


def _breaks(found: Record) -> None:
    rows = capacity.breaks(found)
    if rows.is_empty():
        st.success("Nothing runs short in any future.", icon=":material/check_circle:")
    else:
        share = st.column_config.ProgressColumn(
            "of the futures", format="%.0f %%", min_value=0, max_value=100
        )
        alt = "What runs short, from which month, in which share of the futures"
        table(rows, alt, {"share": share})
    for reason, count in found.outcome.get("rejected", {}).items():
        st.caption(f"Rejected {count} times: {plain(reason)}")
    delays = capacity.delays(found)
    if delays.height:
        st.caption("Queue delay by class, minutes, 95th percentile of the nights:")
        table(delays, "Queue delay by class in minutes, 95th percentile")


def _stress(live: Live, found: Record) -> None:
    at, nights, rows = capacity.stress(live, found.plan.name)
    st.caption(f"Nights drawn for each stress: {nights}; {moment(at)}.")
    measures = {
        "items_forecast_pct_min": "items forecast, worst night",
        "monitoring_done_pct_min": "monitoring done, worst night",
        "accuracy_kept_pct_mean": "skill kept, mean",
        "overshoot_pct_max": "spent over budget, worst night",
    }
    percent = {
        name: st.column_config.ProgressColumn(
            f"{label}, %", format="%.1f", min_value=0, max_value=100
        )
        for name, label in measures.items()
    }
    alt = "Items forecast, monitoring done, skill kept and overspending under each stress"
    table(rows.select("stress", *measures), alt, percent)


def _variance(live: Live, found: Record) -> None:
    months = capacity.against_actual(live, found)
    if not months:
        raise NothingYet(
            "no month of the plan has charges yet: actuals appear as the ledger fills"
            f" (the plan begins {found.plan.first})"
        )
    names = list(months)
    name = st.selectbox("Month", names, index=len(names) - 1, key="variance month")
    one = months[name]
    rows = capacity.parts(one)
    chart(
        charts.bridge(rows, f"money, {found.currency}"),
        f"{name}: planned {amount(one.planned)}, actual {amount(one.actual)} {found.currency}",
    )
    table(rows, "Parts of the difference", {"amount": money_column("amount", found.currency)})


def _assumptions(live: Live, found: Record) -> None:
    rows = capacity.assumptions(found, live.today)
    overdue = rows.filter(pl.col("overdue"))
    if overdue.height:
        st.warning(f"{overdue.height} are overdue for review.", icon=":material/event_busy:")
    table(rows, "Assumptions of the plan")
