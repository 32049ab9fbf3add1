"""The answer to costs above expectation: a proposal opens by itself, and is followed up.

Belongs here: one look at incidents, the period's end and the levers in force. Does not: choosing
levers (`forecast_core.levers`), logging them (`resources.lever_proposals`), or asking by hand
(`commands.levers`).
"""

import calendar
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import polars as pl

from forecast_assets.assets.incidents import cost_incidents, cost_policy
from forecast_core.cost.spend_forecast import Spend
from forecast_core.evaluation.live_accuracy import ALL
from forecast_core.events import Event, Refusal
from forecast_core.levers.decisions import why_propose
from forecast_core.levers.tracking import Tracked, review_of, tracked
from forecast_core.segments import SegmentPolicy
from resources import Settings
from resources.decision_store import DecisionStore
from resources.escrow import Escrow
from resources.lake import Lake
from resources.meter import Meter, metered
from resources.policies import load_policy

HISTORY_DAYS = 84
MOST = 0.5  # of what the levers act on, asked for at once


@dg.asset(deps=[cost_incidents], pool="monitoring")
@metered
def cost_levers(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    meter: dg.ResourceParam[Meter],
    escrow: dg.ResourceParam[Escrow],
) -> dg.MaterializeResult[None]:
    """Opens a proposal where an incident is open or the month heads over budget; reviews old ones.

    What the policy approves beforehand is applied at once; the rest waits for `levers approve`.
    """
    now = datetime.now(UTC)
    store = DecisionStore(settings.ledger)
    followed = _follow(store, lake, meter, now)
    spend, budget = _month_end(meter, now.date()), _budget(escrow, settings.environment)
    said, decision = _answer(settings, store, spend, budget, now)
    context.log.info(said)
    return dg.MaterializeResult(
        metadata={
            "month_spent": spend.spent,
            "month_expected": spend.expected,
            "month_low": spend.low,
            "month_high": spend.high,
            "chance_over_budget": spend.chance_over(budget) if budget is not None else 0.0,
            **({"budget": budget} if budget is not None else {}),
            "answer": said,
            **({"decision": decision} if decision else {}),
            "tracking": dg.MetadataValue.json([asdict(one) for one in followed]),
            "notes": dg.MetadataValue.json(dict(spend.notes)),
        }
    )


def _answer(
    settings: Settings, store: DecisionStore, spend: Spend, budget: float | None, now: datetime
) -> tuple[str, str | None]:
    """What was done about costs, in words, and the decision that it opened."""
    from resources import lever_proposals
    from resources.incident_store import IncidentStore

    decisions = store.all()
    incidents = {
        i.incident_id: i
        for i in IncidentStore(settings.ledger).all(active_only=True)
        if i.state in ("open", "acknowledged")
        and not lever_proposals.answered(decisions, i.incident_id)
    }
    reason = why_propose(incidents, spend.expected, spend.low, budget)
    if reason is None:
        return "no new cost incident, and the month ends within its budget", None
    if open_ := lever_proposals.waiting(decisions):
        return f"{reason}; proposal {open_[0]} waits for an answer already", None
    path = settings.state_dir / "lever_backtests.parquet"
    if not path.is_file():
        return f"{reason}; the levers are not measured: run `forecast backtest`", None
    backtests = pl.read_parquet(path)
    acts_on = backtests.filter(level=0).group_by("group").agg(pl.mean("cost"))["cost"].sum()
    rises = [float(i.evidence.get("rise", 0.0)) for i in incidents.values()]
    shares = [rise / (1 + rise) for rise in rises if rise > 0]
    if budget is not None and spend.expected > budget:
        shares.append((spend.expected - budget) / spend.expected)
    wanted = min(max(shares, default=0.1), MOST) * float(acts_on)
    base = load_policy(settings.segment_policy, SegmentPolicy.parse).version
    found = lever_proposals.propose(store, cost_policy(), base, backtests, wanted, reason, now)
    if isinstance(found, Refusal):
        return f"{reason}; no proposal: {found.reason}", None
    saves = f"saves {found.saving_expected:.6f} of {float(acts_on):.6f}"
    return f"{reason}; {found.decision_id} is {found.state}, {saves}", found.decision_id


def _follow(store: DecisionStore, lake: Lake, meter: Meter, now: datetime) -> list[Tracked]:
    """Levers in force against the books; those with a whole period behind them are reviewed."""
    first = (now - timedelta(days=400)).date()
    totals = meter.ledger.totals(("x_segment_group", "date"), first=first)
    costs = pl.DataFrame(
        [(group, day, float(cost)) for (group, day), cost in totals.items() if group is not None],
        schema={"group": pl.String, "day": pl.Date, "cost": pl.Float64},
        orient="row",
    )
    found = tracked(store.all(), costs, _errors(lake), _values(lake), now.date())
    for one in found:
        details = review_of(one)
        if details is not None:
            store.append(Event(one.decision_id, now, "reviewed", details))
    return found


def _errors(lake: Lake) -> pl.DataFrame:
    table = lake.table("monitor_accuracy")
    rows = table.read().frame.collect() if table.exists() else table.empty()
    whole = rows.filter(pl.all_horizontal(pl.col("store_id", "forecaster", "horizon") == ALL))
    return whole.select(group="segment_group", day="cutoff", error="wape").drop_nulls()


def _values(lake: Lake) -> dict[str, float]:
    table = lake.table("eval_levers")
    rows = table.read().frame.collect() if table.exists() else table.empty()
    newest = rows.filter(pl.col("as_of") == pl.col("as_of").max())
    return dict(newest.group_by("group").agg(pl.mean("value")).iter_rows())


def _month_end(meter: Meter, today: date) -> Spend:
    from resources.lever_proposals import period_end

    last = today.replace(day=calendar.monthrange(today.year, today.month)[1])
    first = today.replace(day=1) - timedelta(days=HISTORY_DAYS)
    return period_end(meter.ledger.totals(("x_pipeline", "date"), first=first), today, last)


def _budget(escrow: Escrow, environment: str) -> float | None:
    """The month's money of an environment as a whole; None where the policy gives none."""
    for name, budget in escrow.policy.budgets.items():
        whole = budget.pipeline is None and budget.work_class is None
        if whole and budget.environment == environment and budget.period == "month":
            return float(escrow.balance()[name]["limit"])
    return None
