"""What a demo does not bring about by itself: months of charges, a rise of cost, a held run.

Run in an installation's environment. Everything goes in through the platform's own stores.
"""

import json
from datetime import UTC, datetime, timedelta

import polars as pl

from forecast_core.admission import Quote, Request, Shape
from forecast_core.events import Event
from resources import Settings
from resources.coordinator import build_escrow
from resources.incident_store import IncidentStore
from resources.ledger import open_ledger

DAYS = 40
RISE = 6  # days ago


def main() -> None:
    settings = Settings.from_environment()
    _months(settings)
    _incident(settings)
    _held(settings)


def _months(settings: Settings) -> None:
    """The day's charges again on each of the days before, dearer since the rise."""
    ledger = open_ledger(settings.ledger)
    today = ledger.charges()
    for back in range(1, DAYS):
        scale = 9 if back <= RISE else 4 + back % 3
        rows = today.with_columns(
            (pl.col("x_charge_id") + f"-{back}").alias("x_charge_id"),
            pl.col("date") - pl.duration(days=back),
            pl.col("ChargePeriodStart") - pl.duration(days=back),
            pl.col("ChargePeriodEnd") - pl.duration(days=back),
            pl.col("BilledCost") * scale,
            pl.col("PricingQuantity") * scale,
        ).filter(pl.col("x_pipeline") != "backtest")
        ledger.append(rows.to_dicts())


def _incident(settings: Settings) -> None:
    now = datetime.now(UTC)
    start = (now - timedelta(days=RISE)).date().isoformat()
    store = IncidentStore(settings.ledger)
    opened = {
        "kind": "step", "series": f"features/-/-/{settings.environment}", "start": start,
        "detected": (now - timedelta(days=2)).date().isoformat(),
        "owner": "forecasting-platform", "severity": "high",
        "evidence": {
            "unit_cost_expected": 1e-6,
            "causes": [{"asset": "feature_sales", "factor": "cpu_a_row", "amount": "0.0041",
                        "share": 0.82, "change": "code version"}],
            "bridge": {"volume": "0.0003", "cpu a row": "0.0041", "price": "0.0001"},
        },
    }  # fmt: skip
    for action, details in (
        ("opened", opened),
        ("acknowledged", {"by": "platform-engineer"}),
        ("explained", {"root_cause": "a join was evaluated for every store"}),
    ):
        done = store.append(Event("0123456789ab", now, action, details))
        assert not hasattr(done, "reason"), done


def _held(settings: Settings) -> None:
    """A run that the policy cannot place waits for someone to release it, with its reason."""
    escrow = build_escrow(settings)
    quote = Quote("asked", (("training", 10**7),), 3600.0)
    shape = Shape("training", "training", (quote,), "no rule names the pipeline of asset 'trial'")
    decision = escrow.submit(Request("a-run-that-waits", shape, datetime.now(UTC).timestamp()))
    assert decision.action == "hold", decision
    print(json.dumps({"held": decision.reason}))


main()
