"""Today: did every item get its forecast, at what cost, what is left, what waits."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import today
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.stores import NothingYet, Unreadable
from dashboard.words import DASH, amount, money, plain, share
from resources.admission_store import StoreError
from resources.ledger import LedgerError


def page(live: Live) -> None:
    """Headlines first, then each of them in full."""
    currency = live.policy.currency
    with section():
        figures(_headlines(live, currency))
    left, right = st.columns(2, gap="large")
    with left, section("Every item has a forecast", "Item-stores by store and rung"):
        _coverage(live)
    with right, section("The month", "Spent so far, and where it ends: expected within 90 %"):
        _month(live, currency)
    with section("Budgets", "Of the period in which each is kept"):
        _budgets(live, currency)
    with section("Held", "Runs that wait for money, room or their hour"):
        _held(live)
    with section("What did not succeed", "Attempts of today and yesterday, with what they cost"):
        _failures(live, currency)


Told = tuple[str, str, str | None]


def _headlines(live: Live, currency: str) -> list[Told]:
    """Five figures; one that cannot be told yet says why, and leaves the others standing."""
    told: list[Told] = []
    lacking: list[Exception] = []
    parts: tuple[tuple[str, Callable[[], tuple[str, str]]], ...] = (
        ("Items forecast", lambda: _served(live)),
        ("Cost of that batch", lambda: _batch(live, currency)),
        ("Tightest budget left", lambda: _tightest(live, currency)),
        ("Month ends at", lambda: _ends(live, currency)),
        ("Held runs", lambda: _waiting(live)),
    )
    for label, tell in parts:
        try:
            told.append((label, *tell()))
        except (LookupError, LedgerError, Unreadable, StoreError) as error:
            lacking.append(error)
            told.append((label, DASH, plain(error)))
    if len(lacking) == len(told):
        raise lacking[0]
    return told


def _served(live: Live) -> tuple[str, str]:
    known = today.coverage(live)
    about = f"Item-stores with a forecast for each of {known.days} days after {known.cutoff}"
    return f"{known.forecast:,} of {known.known:,}", about


def _batch(live: Live, currency: str) -> tuple[str, str]:
    cutoff = today.coverage(live).cutoff
    batch = today.batch(live, cutoff)
    about = f"{amount(batch.each)} {currency} an item-store, {batch.runs} runs, cutoff {cutoff}"
    return money(batch.cost, currency), about


def _tightest(live: Live, currency: str) -> tuple[str, str]:
    node = today.tightest(today.budgets(live))
    if node is None:
        raise NothingYet("the policy names no budget of this environment")
    free, limit = float(str(node["free"])), float(str(node["limit"]))
    about = f"{node['budget']}: {amount(free)} of {amount(limit)} {currency} a {node['period']}"
    return share(free, limit), about


def _ends(live: Live, currency: str) -> tuple[str, str]:
    month = today.month(live)
    spend = month.spend
    about = f"spent by {month.last}; between {amount(spend.low)} and {amount(spend.high)} with 90 %"
    return money(spend.expected, currency), about


def _waiting(live: Live) -> tuple[str, str]:
    held = today.held(live)
    late = held.filter("late").height
    return f"{held.height:,}", f"{late} of them late" if late else "none late"


def _coverage(live: Live) -> None:
    known = today.coverage(live)
    if known.complete:
        st.success(
            f"All {known.known:,} item-stores have a forecast for each of {known.days} days after"
            f" {known.cutoff}.",
            icon=":material/check_circle:",
        )
    elif known.missing.height:
        st.error(
            f"{known.missing.height:,} of {known.known:,} item-stores have no forecast at"
            f" {known.cutoff}.",
            icon=":material/error:",
        )
        table(known.missing.head(200), "Item-stores without a forecast", height=180)
    else:
        st.warning("Some item-stores lack days of the horizon.", icon=":material/warning:")
    drawn = charts.stacked(
        known.served,
        ("store_id", "N", "store"),
        ("item_stores", "item-stores"),
        ("rung", "rung"),
        charts.RUNGS,
    )
    parts = ", ".join(f"{n:,} {rung} in {store}" for store, rung, n in known.served.iter_rows())
    chart(drawn, f"Item-stores by store and rung: {parts}")
    if known.reasons.height:
        given = int(known.reasons["item_stores"].sum())
        with st.expander(f"Why {given:,} are not by their rung alone"):
            table(known.reasons, "Reasons given for the rung of a forecast")


def _month(live: Live, currency: str) -> None:
    month = today.month(live)
    spend = month.spend
    if month.days.is_empty():
        raise NothingYet("no charge this month yet")
    drawn = charts.month_end(
        month.days,
        live.today,
        month.last,
        (spend.low, spend.expected, spend.high),
        month.limit,
        currency,
    )
    chart(
        drawn,
        f"Spent {amount(spend.spent)} {currency}; by {month.last} {amount(spend.expected)} is"
        f" expected, between {amount(spend.low)} and {amount(spend.high)}",
    )
    if month.limit:
        chance = spend.chance_over(month.limit)
        st.caption(
            f"Budget {amount(month.limit)} {currency}; the month ends over it with"
            f" {share(chance, 1)} chance."
        )
    for note in sorted(set(spend.notes.values())):
        names = sorted(name for name, own in spend.notes.items() if own == note)
        st.caption(f"{plain(', '.join(names))}: {plain(note)}.")


def _budgets(live: Live, currency: str) -> None:
    nodes = today.budgets(live)
    if nodes.is_empty():
        raise NothingYet("the admission policy names no budget of this environment")
    shares = nodes.unpivot(
        ["spent", "held", "free"], index=["budget", "limit"], variable_name="part"
    ).with_columns(percent=100 * pl.col("value") / pl.col("limit"))
    drawn = charts.ranked(
        shares.select("budget", "percent", "part", "value"),
        ("budget", ""),
        ("percent", "% of the limit"),
        ("part", "money"),
        charts.MONEY,
    )
    left = ", ".join(f"{row[0]} {amount(row[5])} of {amount(row[2])}" for row in nodes.iter_rows())
    chart(drawn, f"Budgets, free of limit in {currency}: {left}")
    columns = {name: money_column(name, currency) for name in ("limit", "spent", "held", "free")}
    with st.expander("In figures"):
        table(nodes, "Budgets: limit, spent, held and free", columns)


def _held(live: Live) -> None:
    held = today.held(live)
    if held.is_empty():
        st.success("Nothing waits.", icon=":material/check_circle:")
    else:
        table(held, "Held runs with their reason, next chance and latest start")
    told = today.decisions(live)
    if told.height:
        sums = told.group_by("state").agg(pl.col("runs").sum()).sort("state")
        words = ", ".join(f"{runs:,} {state}" for state, runs in sums.iter_rows())
        st.caption(f"Runs submitted in the last 7 days: {words}.")


def _failures(live: Live, currency: str) -> None:
    failed = today.failures(live)
    if failed.is_empty():
        st.success("Every attempt succeeded.", icon=":material/check_circle:")
        return
    table(failed, "Failed attempts", {"cost": money_column("cost", currency)})
