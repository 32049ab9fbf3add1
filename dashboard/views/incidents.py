"""Incidents and decisions: what went wrong, why, and what was decided about it."""

from __future__ import annotations

from datetime import date

import polars as pl
import streamlit as st

from dashboard import charts
from dashboard.figures import incidents
from dashboard.live import Live
from dashboard.show import chart, figures, money_column, section, table
from dashboard.words import amount, money, plain
from forecast_core.incidents import Incident
from forecast_core.levers.decisions import Decision

_STATES = {"open": "red", "acknowledged": "orange", "mitigated": "blue", "closed": "green",
           "withdrawn": "gray", "proposed": "orange", "approved": "blue", "applied": "violet",
           "reviewed": "green", "rejected": "gray", "reverted": "gray"}  # fmt: skip


def page(live: Live) -> None:
    """Incidents, then levers, then admission."""
    currency = live.policy.currency
    with section("Cost incidents", "Unit costs that rose and stayed up, found in the ledger"):
        _incidents(live, currency)
    with section("Levers", "Savings proposed, promised and realised, a period of 28 days"):
        _levers(live, currency)
    with section("Admission", "What was decided last about each run"):
        _admission(live)


def _incidents(live: Live, currency: str) -> None:
    found = incidents.incidents(live)
    if not found:
        st.success("No cost incident is on record.", icon=":material/check_circle:")
        return
    active = [i for i in found if i.active]
    figures([
        ("Active", str(len(active)), "neither closed nor withdrawn"),
        ("Open", str(sum(i.state == "open" for i in found)), "nobody has acknowledged them"),
        ("On record", str(len(found)), None),
    ])  # fmt: skip
    table(incidents.incident_table(found), "Cost incidents")
    by_id = {i.incident_id: i for i in found}
    chosen = st.selectbox(
        "Incident",
        list(by_id),
        key="incident",
        format_func=lambda k: f"{k}  {by_id[k].kind}  {by_id[k].series}",
    )
    if chosen:
        _incident(live, by_id[chosen], currency)


def _incident(live: Live, incident: Incident, currency: str) -> None:
    st.badge(incident.state, color=_STATES.get(incident.state, "gray"))  # type: ignore[arg-type]
    st.markdown(
        f"**{plain(incident.kind)}** of {plain(incident.series)} since {plain(incident.start)},"
        f" detected {plain(incident.detected)}; owner {plain(incident.owner)}, severity"
        f" {plain(incident.severity)}."
    )
    for label, said in (("Root cause", incident.root_cause), ("Mitigation", incident.mitigation),
                        ("Safeguard", incident.safeguard)):  # fmt: skip
        if said:
            st.markdown(f"**{label}:** {plain(said)}")
    left, right = st.columns(2, gap="large")
    with left, section():
        _rise(live, incident, currency)
    with right, section():
        _causes(incident, currency)
    table(incidents.history(incident.history), "What happened to the incident")


def _rise(live: Live, incident: Incident, currency: str) -> None:
    import altair as alt

    rows = incidents.series_of(live, incident)
    if rows.is_empty():
        st.info("The ledger holds no unit cost of this series.", icon=":material/hourglass_empty:")
        return
    line = charts.lines(rows.with_columns(of=pl.lit("unit cost")), ("day", "T", "day (UTC)"),
                        ("unit", f"an item-store, {currency}"), ("of", ""))  # fmt: skip
    since = pl.DataFrame({"day": [date.fromisoformat(incident.start)]})
    mark = alt.Chart(since).mark_rule(strokeDash=[4, 3], color=charts.BAD).encode(x="day:T")
    chart(alt.layer(line, mark), f"Unit cost of the series; it rose on {incident.start}")


def _causes(incident: Incident, currency: str) -> None:
    parts = incidents.bridge(incident)
    if parts.height:
        chart(
            charts.bridge(parts, f"change of cost, {currency}"),
            "Why money changed: " + ", ".join(f"{p} {a:+.6f}" for p, a in parts.iter_rows()),
        )
    causes = incidents.causes(incident)
    if causes.height:
        table(causes, "Computed causes", {"amount": money_column("amount", currency)})
    else:
        st.info("No cause is computed yet: the asset `cost_incidents` does.",
                icon=":material/hourglass_empty:")  # fmt: skip


def _levers(live: Live, currency: str) -> None:
    found = incidents.decisions(live)
    if not found:
        st.info("No lever was proposed yet: `forecast levers propose --save 20%`.",
                icon=":material/hourglass_empty:")  # fmt: skip
        return
    columns = {name: money_column(name, currency) for name in ("saving", "saving realised")}
    table(incidents.decision_table(found), "Proposals of levers", columns)
    by_id = {d.decision_id: d for d in found}
    chosen = st.selectbox("Proposal", list(by_id), key="decision",
                          format_func=lambda k: f"{k}  {by_id[k].reason}")  # fmt: skip
    if chosen:
        _decision(by_id[chosen], currency)


def _decision(decision: Decision, currency: str) -> None:
    st.badge(decision.state, color=_STATES.get(decision.state, "gray"))  # type: ignore[arg-type]
    st.markdown(
        f"{plain(decision.reason)}: saves {plain(money(decision.saving_expected, currency))} a"
        f" period for {plain(amount(decision.loss_expected))} {plain(currency)} of value-weighted"
        " error."
    )
    options = pl.DataFrame(
        [(str(o["group"]), str(o["lever"]), int(o["level"]), float(o["saving"]), float(o["loss"]))
         for o in decision.options],
        schema=["group", "lever", "level", "saving", "loss"], orient="row",
    )  # fmt: skip
    table(options, "Levers of the proposal", {"saving": money_column("saving", currency)})
    table(incidents.history(decision.history), "What happened to the proposal")


def _admission(live: Live) -> None:
    rows = incidents.admissions(live)
    if rows.is_empty():
        st.info("Admission has decided nothing yet.", icon=":material/hourglass_empty:")
        return
    states = sorted(rows["state"].unique().to_list())
    picked = st.pills("State", states, selection_mode="multi", key="admission state")
    table(rows.filter(pl.col("state").is_in(picked)) if picked else rows,
          "Runs and what admission decided of them, newest first", height=300)  # fmt: skip
    exceptions = incidents.overrides(live)
    if exceptions.height:
        st.markdown("**Exceptions**")
        table(exceptions, "Exceptions to the policy: by whom, why, until when")
