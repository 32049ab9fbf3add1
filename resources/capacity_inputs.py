"""What the planner looks at: the plan and policy files, the ledger's steps, what the lake stores.

Belongs here: reading them, and giving the twin its jobs. Does not: fitting or drawing
(`forecast_core.capacity`), files of records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates, fit
from forecast_core.capacity.measured import Scores, believed
from forecast_core.capacity.outcomes import Job
from forecast_core.capacity.plan import Plan, PlanError
from forecast_core.capacity.premises import contradictions
from forecast_core.capacity.storage import Bytes, measured
from forecast_core.capacity.stress import CALM, Stress
from forecast_core.cost.price_card import Rates as Prices
from resources import Settings
from resources.ledger import Ledger, open_ledger
from resources.policies import load_policy
from resources.price_card import load_price_card

HISTORY = timedelta(days=400)


@dataclass(frozen=True)
class Inputs:
    """Everything a draw rests on but its seed; PlanError where its parts contradict each other.

    `stated`: figures of the plan that nothing has measured yet, a line each.
    """

    plan: Plan
    policy: Policy
    rates: Rates
    prices: Prices
    stored: Bytes
    stress: Stress = CALM
    stated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = contradictions(self.plan, self.policy, self.rates, self.prices.currency)
        if problems := list(found):
            raise PlanError(problems)

    def jobs(self, draws: int, days: int | None = None, first_seed: int = 0) -> list[Job]:
        """One job a draw; equal seeds draw equal assumptions and equal luck."""
        whole = (self.plan.last - self.plan.first).days + 1
        return [
            Job(self.plan, self.policy, self.rates, self.prices, self.stored, seed,
                min(days or whole, whole), self.stress, notes=self.stated)
            for seed in range(first_seed, first_seed + draws)
        ]  # fmt: skip

    def under(self, **changes: Plan | Policy | Stress) -> Inputs:
        """The same inputs with some replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]  # names are checked by replace


def read_plan(path: Path) -> Plan:
    """The plan file.

    Raises:
        PolicyError: no file, no YAML, or a plan that must not be believed; names the file.
    """
    return load_policy(path, Plan.parse)


def read_policy(path: Path) -> Policy:
    """The admission policy; raises as `read_plan` does."""
    return load_policy(path, Policy.parse)


def read_inputs(settings: Settings, plan_path: Path | None = None) -> Inputs:
    """The plan with what was measured of it, policy, rates by the ledger, prices, stored bytes.

    Raises:
        PolicyError: a file is missing or refused.
        PlanError: the plan contradicts the policy, the rates or the price card.
    """
    plan, stated = believed(read_plan(plan_path or settings.capacity_plan), scored(settings))
    rates = fitted(settings, plan)
    card = load_price_card(settings.price_card)
    return Inputs(
        plan,
        read_policy(settings.admission_policy),
        rates,
        card.on(plan.first, plan.environment),
        stored_bytes(settings, plan),
        stated=stated,
    )


def fitted(settings: Settings, plan: Plan, until: date | None = None) -> Rates:
    """Rates from the last `HISTORY` of the ledger; none while there is no ledger."""
    if not _has_ledger(settings):
        return Rates()
    last = until or datetime.now(UTC).date()
    steps = steps_of(open_ledger(settings.ledger), last - HISTORY, last)
    return fit(steps, settings.demo_series if settings.source == "demo" else plan.base.series)


def steps_of(ledger: Ledger, first: date, last: date) -> pl.DataFrame:
    """The settlements of those days with `x_series`, the item-stores that each asset of a run
    served; null where the run names no stores, as one that serves them all at once."""
    steps = ledger.settlements(first=first, last=last)
    served = ledger.item_stores(first=first, last=last)
    return steps.join(served, on=["x_run_id", "x_asset"], how="left", maintain_order="left")


def scored(settings: Settings) -> Scores:
    """What the lake knows of accuracy: scored cutoffs, the last backtests of rungs and levers."""
    from resources.wiring import lake_of

    if "://" not in settings.lake_root and not Path(settings.lake_root).is_dir():
        return Scores()
    lake = lake_of(settings)

    def rows(name: str, *, last: str | None = None) -> pl.DataFrame:
        table = lake.table(name)
        if not table.exists():
            return table.empty()
        found = table.read().frame.collect()
        return found if last is None else found.filter(pl.col(last) == pl.col(last).max())

    return Scores(
        rows("eval_accuracy"),
        rows("eval_backtest", last="as_of"),
        rows("eval_levers", last="as_of"),
    )


def _has_ledger(settings: Settings) -> bool:
    path = settings.ledger.partition("sqlite:///")[2]
    return not path or Path(path).is_file()


def stored_bytes(settings: Settings, plan: Plan) -> Bytes:
    """Bytes a series and day by tier as the lake holds them, else as the plan states them."""
    stated = Bytes(
        {"hot": plan.storage.hot, "warm": plan.storage.warm, "cold": plan.storage.cold},
        plan.storage.source,
    )
    if "://" in settings.lake_root or not Path(settings.lake_root).is_dir():
        return stated
    from resources.ledger_history import stored_files
    from resources.wiring import data_span, lake_of

    files = stored_files(lake_of(settings))
    sizes = dict(files.group_by("tier").agg(pl.col("bytes").sum()).iter_rows())
    if not sum(sizes.values()):
        return stated
    span, values = data_span(settings), plan.mids()
    series = settings.demo_series if settings.source == "demo" else plan.base.series
    days = (span.last - span.first).days + 1
    return measured(sizes, series, days, values["hot_days"], values["warm_days"])
