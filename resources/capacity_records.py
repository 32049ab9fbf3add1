"""Records of plans: files beside the lake, actual months from the ledger, reviews and signatures.

Belongs here: saving, comparing with the ledger, signing. Does not: figures and wording
(`forecast_core.capacity`), the append-only table (`plan_store`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from forecast_core.capacity.calendar import add_months
from forecast_core.capacity.outcomes import STORED, Outcome
from forecast_core.capacity.plan import Plan, price_index
from forecast_core.capacity.report import plain
from forecast_core.capacity.review import due, markdown, missing
from forecast_core.capacity.variance import Flow, Key, Variance, variance
from forecast_core.cost.price_card import Rates as Prices
from resources import Settings
from resources.capacity_inputs import Inputs, steps_of
from resources.ledger import Ledger, open_ledger
from resources.plan_store import OUTCOME, REVIEW, SIGNED, PlanStore
from resources.price_card import load_price_card

UNPLANNED = "unplanned "  # before the pipeline of what no work of the plan names


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
    """What the ledger says of a month, by work and rung; units are series x runs, each stage of
    a work being its share of a run.

    A stage belongs to the first work of its pipeline that names it; what no work names is a work of
    its own. The overhead of a run goes to the works of its steps, by money. Storage is a work whose
    units are GiB-months. Prices are beside those of the price card on the plan's first day.
    """
    first = date.fromisoformat(f"{month}-01")
    last = date.fromordinal(add_months(first, 1).toordinal() - 1)
    ledger = ledger or open_ledger(settings.ledger)
    steps = steps_of(ledger, first, last)
    steps = steps.filter(pl.col("x_environment") == plan.environment)
    by = ("x_environment", "x_pipeline", "SkuId", "ListUnitPrice")
    lines = [
        _Line(str(pipeline), str(sku), float(price or 0), float(cost))
        for (place, pipeline, sku, price), cost in ledger.totals(by, first=first, last=last).items()
        if place == plan.environment
    ]
    card = load_price_card(settings.price_card).on(plan.first, plan.environment)
    of_pipeline: dict[str, list[_Line]] = {}
    for line in lines:
        if not line.is_storage:
            of_pipeline.setdefault(line.pipeline, []).append(line)
    index = {pipeline: _price_index(found, card) for pipeline, found in of_pipeline.items()}
    flows: dict[Key, Flow] = {}
    for work, rung, units, money in _by_work(steps, plan).iter_rows() if steps.height else ():
        known = plan.work.get(work)
        pipeline = known.pipeline if known else work.removeprefix(UNPLANNED)
        flows[work, rung] = Flow(units, money, index.get(pipeline, 1.0))
    stored = [line for line in lines if line.is_storage]
    if stored:
        money, gib_months = sum(x.cost for x in stored), sum(x.quantity for x in stored)
        flows[STORED, ""] = Flow(gib_months, money, _price_index(stored, card))
    return flows


@dataclass(frozen=True)
class _Line:
    """What a month's charges of one pipeline, price line and unit price add up to."""

    pipeline: str
    sku: str
    unit_price: float
    cost: float

    @property
    def is_storage(self) -> bool:
        return self.sku.startswith("gib_month")

    @property
    def quantity(self) -> float:
        return self.cost / self.unit_price if self.unit_price else 0.0


def _price_index(lines: Sequence[_Line], card: Prices) -> float:
    """What the lines cost over what they would at the card's prices; 1 where neither can tell."""
    known = [line for line in lines if line.sku in card.prices and line.unit_price]
    planned = sum(line.quantity * float(card.of(line.sku)) for line in known)
    actual = sum(line.cost for line in known)
    return actual / planned if planned > 0 < actual else 1.0


def _by_work(steps: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    work_of = {
        (stage, work.pipeline): name
        for name, work in reversed(plan.work.items())
        for stage in work.stages
    }
    names = [
        work_of.get((stage or "", pipeline or ""), f"{UNPLANNED}{pipeline or 'work'}")
        for stage, pipeline in steps.select(
            pl.coalesce("x_asset", "x_step_key"), "x_pipeline"
        ).iter_rows()
    ]
    overhead = pl.col("x_cost_class") == "overhead"
    parts = {name: len(work.stages) for name, work in plan.work.items()}
    told = steps.with_columns(
        pl.Series("work", names, pl.String),
        stage=pl.coalesce("x_asset", "x_step_key"),
        rung=pl.col("x_forecaster").fill_null(""),
        money=pl.col("money").cast(pl.Float64),
    )
    whole = steps["x_series"].max() or plan.base.series  # who names no stores served them all
    runs = (
        told.filter(~overhead)
        .group_by("x_run_id", "work", "rung", "stage")
        .agg(pl.col("x_series").max().fill_null(whole), pl.col("money").sum())
        .group_by("x_run_id", "work", "rung")
        .agg(units=pl.col("x_series").cast(pl.Float64).sum(), money=pl.col("money").sum())
        .with_columns(units=pl.col("units") / pl.col("work").replace_strict(parts, default=1))
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


def planned_month(outcome: Mapping[str, Any], month: str, price: float) -> dict[Key, Flow]:
    """What an outcome on record foretold of a month, by work and rung, at its price index."""
    flows = {}
    for key, (units, money) in outcome["tally"].items():
        when, work, rung = key.split("/", 2)
        if when == month:
            flows[work, "" if rung == "asked" else rung] = Flow(units, money, price)
    return flows


def variances(
    settings: Settings, store: PlanStore, plan: Plan, until: date, ledger: Ledger | None = None
) -> dict[str, Variance]:
    """Each whole or begun month of the plan up to `until` that has charges, against the outcome
    that was on record when it began (else the first there is). A begun month is set against the
    share of its plan that its days so far are."""
    outcomes = store.notes(plan.name, OUTCOME)
    price = price_index(plan.mids()["price_change"])
    found: dict[str, Variance] = {}
    month = plan.first.replace(day=1)
    while outcomes and month <= until and month <= plan.last:
        told = [o for o in outcomes if o.at.date() <= month] or outcomes[:1]
        name = month.isoformat()[:7]
        actual = actual_month(settings, plan, name, ledger)
        if actual:
            planned = planned_month(told[-1].details, name, price)
            found[name] = variance(_so_far(planned, month, until), actual)
        month = add_months(month, 1)
    return found


def _so_far(planned: Mapping[Key, Flow], month: date, until: date) -> dict[Key, Flow]:
    """The plan of a month up to and with `until`, as if it were spread evenly over its days."""
    days = (add_months(month, 1) - month).days
    share = min(1.0, ((until - month).days + 1) / days)
    return {key: Flow(f.units * share, f.money * share, f.price) for key, f in planned.items()}


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
