"""Records of plans: files beside the lake, actual months from the ledger, reviews and signatures.

Belongs here: saving, comparing with the ledger, signing. Does not: figures and wording
(`forecast_core.capacity`), the append-only table (`plan_store`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from forecast_core.capacity.calendar import add_months
from forecast_core.capacity.outcomes import Outcome
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.report import plain
from forecast_core.capacity.review import due, markdown, missing
from forecast_core.capacity.variance import Flow, Key, Variance, variance
from resources import Settings
from resources.capacity_inputs import Inputs
from resources.ledger import Ledger, open_ledger
from resources.plan_store import OUTCOME, REVIEW, SIGNED, PlanStore


def folder_of(settings: Settings, plan: Plan) -> Path:
    """Where the records of a plan are."""
    return settings.state_dir / "capacity" / plan.name


def save(settings: Settings, plan: Plan, version: int, text: str, outcome: Outcome) -> Path:
    """Write a version's record: Markdown, figures and plot; the folder."""
    from resources.capacity_plots import plot

    folder = folder_of(settings, plan) / f"v{version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.md").write_text(text, encoding="utf-8")
    (folder / "outcome.json").write_text(json.dumps(plain(outcome), indent=1), encoding="utf-8")
    (folder / "outcome.png").write_bytes(plot(outcome, plan.currency))
    return folder


def actual_month(
    settings: Settings, plan: Plan, month: str, ledger: Ledger | None = None
) -> dict[Key, Flow]:
    """What the ledger says of a month, by work and rung; units are series x runs.

    A stage belongs to the first work of its pipeline that names it; what no work names is a work of
    its own. The overhead of a run goes to the works of its steps, by money.
    """
    first = date.fromisoformat(f"{month}-01")
    last = date.fromordinal(add_months(first, 1).toordinal() - 1)
    ledger = ledger or open_ledger(settings.ledger)
    steps = ledger.settlements(first=first, last=last)
    steps = steps.filter(pl.col("x_environment") == plan.environment)
    flows: dict[Key, list[float]] = {}
    if steps.height:
        for work, rung, units, money in _by_work(steps, plan).iter_rows():
            flow = flows.setdefault((work, rung), [0.0, 0.0])
            flow[0] += units
            flow[1] += money
    charges = ledger.totals(("x_pipeline", "SkuId"), first=first, last=last)
    stored = sum(
        float(cost)
        for (pipeline, sku), cost in charges.items()
        if pipeline == "storage" and str(sku).startswith("gib_month")
    )
    if stored:
        flows["storage", ""] = [1.0, stored]
    return {key: Flow(units, money) for key, (units, money) in flows.items()}


def _by_work(steps: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    work_of = {
        (stage, work.pipeline): name
        for name, work in reversed(plan.work.items())
        for stage in work.stages
    }
    names = [
        work_of.get((stage or "", pipeline or ""), f"unplanned {pipeline or 'work'}")
        for stage, pipeline in steps.select(
            pl.coalesce("x_asset", "x_step_key"), "x_pipeline"
        ).iter_rows()
    ]
    overhead = pl.col("x_cost_class") == "overhead"
    series = pl.col("x_series") if "x_series" in steps.columns else pl.lit(None, pl.Int64)
    told = steps.with_columns(
        pl.Series("work", names),
        series.cast(pl.Float64).fill_null(0.0).alias("series"),
        pl.col("money").cast(pl.Float64),
    )
    runs = (
        told.filter(~overhead)
        .group_by("x_run_id", "work", pl.col("x_forecaster").fill_null("").alias("rung"))
        .agg(units=pl.col("series").max(), money=pl.col("money").sum())
        .with_columns(units=pl.when(pl.col("units") > 0).then("units").otherwise(1.0))
    )
    extra = told.filter(overhead).group_by("x_run_id").agg(extra=pl.col("money").sum())
    shared = runs.join(extra, on="x_run_id", how="left").with_columns(
        money=pl.col("money")
        + pl.col("extra").fill_null(0.0)
        * (pl.col("money") / pl.col("money").sum().over("x_run_id")).fill_nan(0.0)
    )
    return (
        shared.group_by("work", "rung")
        .agg(pl.col("units").sum(), pl.col("money").sum())
        .sort("work", "rung")
    )


def planned_month(outcome: Mapping[str, Any], month: str) -> dict[Key, Flow]:
    """What an outcome on record foretold of a month, by work and rung."""
    flows = {}
    for key, (units, money) in outcome["tally"].items():
        when, work, rung = key.split("/", 2)
        if when == month:
            flows[work, "" if rung == "asked" else rung] = Flow(units, money)
    storage = outcome["pipelines"].get(f"{month}/storage")
    if storage and storage[1]:
        flows["storage", ""] = Flow(1.0, storage[1])
    return flows


def variances(
    settings: Settings, store: PlanStore, plan: Plan, until: date, ledger: Ledger | None = None
) -> dict[str, Variance]:
    """Each whole or begun month of the plan up to `until` that has charges, against the outcome
    that was on record when it began (else the first there is)."""
    outcomes = store.notes(plan.name, OUTCOME)
    found: dict[str, Variance] = {}
    month = plan.first.replace(day=1)
    while outcomes and month <= until and month <= plan.last:
        told = [o for o in outcomes if o.at.date() <= month] or outcomes[:1]
        name = month.isoformat()[:7]
        actual = actual_month(settings, plan, name, ledger)
        if actual:
            found[name] = variance(planned_month(told[-1].details, name), actual)
        month = add_months(month, 1)
    return found


def write_review(settings: Settings, store: PlanStore, inputs: Inputs, today: date) -> Path:
    """Write the review of a plan as of `today`; its file."""
    plan = inputs.plan
    version = store.put(plan).number
    months = variances(settings, store, plan, today)
    open_ones = missing(plan, written(store, plan.name), today) or due(plan, today)[-1:]
    text = markdown(plan, version, today, months, open_ones)
    path = folder_of(settings, plan) / "reviews" / f"{today}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    store.note(plan.name, REVIEW, {"on": today.isoformat(), "version": version, "text": text})
    return path


def written(store: PlanStore, name: str) -> list[date]:
    """The days on which a review of the plan was held."""
    return [date.fromisoformat(entry.details["on"]) for entry in store.notes(name, REVIEW)]


def unsigned(store: PlanStore, name: str) -> list[date]:
    """Reviews that nobody has signed."""
    signed = {entry.details["on"] for entry in store.notes(name, SIGNED)}
    return [day for day in written(store, name) if day.isoformat() not in signed]


def sign_review(store: PlanStore, name: str, role: str, decision: str) -> str:
    """Sign the last review; its day.

    Raises:
        LookupError: there is none to sign.
    """
    open_ones = unsigned(store, name)
    if not open_ones:
        raise LookupError(f"no unsigned review of plan {name!r}: write one first")
    day = open_ones[-1].isoformat()
    now = datetime.now(UTC).isoformat()
    store.note(name, SIGNED, {"on": day, "by": role, "decision": decision, "at": now})
    return day
