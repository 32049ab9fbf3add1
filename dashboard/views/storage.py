"""Storage tiers: bytes, money, and the moves that would pay."""

from __future__ import annotations

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import storage
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.words import amount, money, size


def page(live: Live) -> None:
    """What lies where, what it costs, what should move and what did."""
    currency = live.policy.currency
    with section("What is stored", "By the newest version of each table"):
        _stored(live)
    with section("What it costs", "Charged by the day: GiB-months of each tier"):
        _charged(live, currency)
    with section("Planned moves", "A dry run: the reads that assets declare and those measured"):
        _planned(live, currency)
    with section("Moves made", "Each one commit, read back and compared"):
        _made(live)


def _stored(live: Live) -> None:
    rows = storage.stored(live)
    if rows.is_empty():
        st.info("Nothing is stored yet: `make demo` writes the first tables.",
                icon=":material/hourglass_empty:")  # fmt: skip
        return
    by = dict(rows.group_by("tier").agg(pl.col("bytes").sum()).iter_rows())
    counted = int(rows["rows"].sum())
    whole = int(rows["bytes"].sum())
    told: list[tuple[str, str, str | None]] = [
        ("Stored", size(whole), f"{counted:,} rows in {int(rows['files'].sum()):,} files")
    ]
    tiers = dict.fromkeys((*charts.TIERS, *sorted(by)))
    told += [(tier, size(by.get(tier, 0)), None) for tier in tiers]
    figures(told)
    order = rows.group_by("table").agg(pl.col("bytes").sum()).sort("bytes", descending=True)
    names = order["table"].to_list()
    shown = rows.with_columns(
        mib=pl.col("bytes") / 2**20,
        place=pl.col("table").replace_strict(names, range(len(names)), return_dtype=pl.Int64),
    ).sort("place", "tier")
    drawn = charts.ranked(
        shown.select("table", "mib", "tier", "files", "rows"),
        ("table", ""),
        ("mib", "MiB"),
        ("tier", "tier"),
        charts.TIERS,
    )
    chart(drawn, f"{size(whole)} by table and tier; the largest is {names[0]}")
    with st.expander("In figures"):
        each = rows.with_columns(bytes_a_row=pl.col("bytes") / pl.col("rows"))
        a_row = st.column_config.NumberColumn("bytes a row", format="%.2f")
        table(each, "Files, bytes and rows by table and tier", {"bytes_a_row": a_row})


def _charged(live: Live, currency: str) -> None:
    rows = storage.charged(live)
    if rows.is_empty():
        st.info("No day of storage is charged yet: the asset `cost_storage` charges one.",
                icon=":material/hourglass_empty:")  # fmt: skip
        return
    by_tier = rows.group_by("day", "tier").agg(
        pl.col("cost").sum().cast(pl.Float64), pl.col("gib").sum()
    )
    newest = by_tier.filter(pl.col("day") == pl.col("day").max())
    money_a_day = float(newest["cost"].sum())
    st.caption(f"On {newest['day'][0]}: {money(money_a_day, currency)}; at that pace"
               f" {money(365.25 * money_a_day, currency)} a year. Upkeep is the work of looking"
               " after it.")  # fmt: skip
    if by_tier["day"].n_unique() > 1:
        title = f"cost, {currency}"
        drawn = charts.stacked(
            by_tier.sort("day"), ("day", "T", "day (UTC)"), ("cost", title), ("tier", "tier"),
            charts.TIERS,
        )  # fmt: skip
    else:
        drawn = charts.ranked(newest.sort("tier").select("tier", "cost", "gib"), ("tier", "tier"),
                              ("cost", f"cost of the day, {currency}"))  # fmt: skip
    chart(drawn, f"Money of stored bytes by day and tier, {amount(money_a_day)} {currency} a day")


def _planned(live: Live, currency: str) -> None:
    with st.spinner("Putting every part before the planner…"):
        rows = storage.planned(live)
    if rows.is_empty():
        st.success("Every part lies where it is cheapest.", icon=":material/check_circle:")
        return
    saving = float(rows["saving"].sum())
    st.caption(
        f"{rows.height:,} parts would move and save {money(saving, currency)} over"
        f" {storage.HORIZON_DAYS} days, the moves paid for; as of {storage.as_of(live)}."
        " `forecast lake plan --apply` makes them."
    )
    flows = (
        rows.group_by("table", "from", "to")
        .agg(parts=pl.len(), mib=pl.col("bytes").sum() / 2**20, saving=pl.col("saving").sum())
        .with_columns(move=pl.col("from") + " → " + pl.col("to"))
        .sort("saving", descending=True)
    )
    known = {"warm → cold": charts.TIERS["cold"], "hot → warm": charts.TIERS["warm"],
             "hot → cold": charts.WHEEL[4], "warm → hot": charts.TIERS["hot"],
             "cold → hot": charts.WHEEL[8], "cold → warm": charts.WHEEL[9]}  # fmt: skip
    chart(
        charts.ranked(flows.select("table", "saving", "move", "parts", "mib"), ("table", ""),
                      ("saving", f"saving, {currency}"), ("move", "move"), known),
        f"Planned moves: {rows.height} parts save {amount(saving)} {currency}",
    )  # fmt: skip
    columns = {name: money_column(name.replace("_", " "), currency)
               for name in ("saving", "move_cost")}  # fmt: skip
    with st.expander("Part by part"):
        table(rows.head(500), "Planned moves part by part, the most saving first", columns)


def _made(live: Live) -> None:
    rows = storage.made(live)
    if rows.is_empty():
        st.info("No part was moved yet.", icon=":material/hourglass_empty:")
    else:
        table(rows, "Moves on record, newest first")
    holds = storage.held(live)
    if holds.height:
        st.markdown("**Holds**")
        table(holds, "Holds on versions and parts")
