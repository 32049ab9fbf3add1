"""A month of the ledger set against the plan: a dearer price is price, more bytes are volume."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from forecast_core.capacity.outcomes import STORED
from forecast_core.capacity.plan import Plan
from forecast_core.capacity.variance import variance
from forecast_core.cost.charges import Usage
from forecast_core.cost.price_card import PriceCard
from forecast_core.cost.settlement import Owner, Settlement, charge_set_of, ledger_rows
from resources import Settings
from resources.capacity_records import actual_month, planned_month, variances
from resources.ledger import Ledger
from resources.plan_store import OUTCOME, PlanStore
from resources.storage_usage import Stored, charge

POLICIES = Path(__file__).parents[2] / "policies"
PLAN = Plan.parse(yaml.safe_load((POLICIES / "capacity.yaml").read_text()))
CARD = PriceCard.parse(yaml.safe_load((POLICIES / "price_card.yaml").read_text()))
MONTH = "2026-12"
DAY = date(2026, 12, 9)


def dearer(times: str) -> PriceCard:
    """The shipped card with every price times so much."""
    entries = {
        name: tuple(
            replace(r, prices={k: v * Decimal(times) for k, v in r.prices.items()}) for r in rates
        )
        for name, rates in CARD.entries.items()
    }
    return replace(CARD, entries=entries)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    monkeypatch.setenv("FORECAST_ENV", "prod")
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    return Settings.from_environment()


def lived(folder: Path, card: PriceCard, *, gib: float = 4.0) -> Ledger:
    """A month with two runs of the floor and a day of stored bytes, rated by that card."""
    ledger = Ledger(f"sqlite:///{folder / 'lived.db'}")
    start = datetime(DAY.year, DAY.month, DAY.day, 3, tzinfo=UTC)
    for run in ("a", "b"):
        owner = Owner("prod", pipeline="inference", asset="prediction_floor", run_id=run,
                      store_id="CA_1", forecaster="floor", step_key="s", attempt=1,
                      series=1000)  # fmt: skip
        usage = Usage(cpu_s=60, rss_gib_s=30, wall_s=60)
        name = charge_set_of(run, "s", 1, 0)
        end = start + timedelta(seconds=60)
        settled = Settlement(name, owner, start, end, usage, 0, True)
        ledger.record(*ledger_rows(settled, card.on(DAY, "prod")))
    held = [Stored("live", "t", "hot", "S", 1, (int(gib * 2**30),))]
    charge(ledger, held, DAY, card.on(DAY, "prod"), "prod", "demo")
    return ledger


def as_planned(settings: Settings, ledger: Ledger) -> dict[str, object]:
    """An outcome that foretold just what that ledger says."""
    flows = actual_month(settings, PLAN, MONTH, ledger)
    return {"tally": {f"{MONTH}/{w}/{r}": [f.units, f.money] for (w, r), f in flows.items()}}


def test_every_charge_of_the_month_is_in_it(settings: Settings, tmp_path: Path) -> None:
    ledger = lived(tmp_path, CARD)
    flows = actual_month(settings, PLAN, MONTH, ledger)
    assert flows["floor", "floor"].units == 2000
    assert flows[STORED, ""].units == pytest.approx(4 / 31)
    total = float(ledger.totals()[()])
    assert sum(flow.money for flow in flows.values()) == pytest.approx(total, rel=1e-12)
    elsewhere = PLAN.changed(environment="dev")
    assert actual_month(settings, elsewhere, MONTH, ledger) == {}


def test_a_dearer_card_is_price_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "then").mkdir()
    foretold = as_planned(settings, lived(tmp_path / "then", CARD))
    actual = actual_month(settings, PLAN, MONTH, lived(tmp_path, dearer("1.25")))
    found = variance(planned_month(foretold, MONTH, 1.0), actual)
    assert found.actual == pytest.approx(1.25 * found.planned)
    assert found.parts["price"] == pytest.approx(found.actual - found.planned)
    expected = variance(planned_month(foretold, MONTH, 1.25), actual)
    assert expected.parts["price"] == pytest.approx(0.0, abs=1e-12), "a foreseen rise is no news"


def test_more_bytes_at_the_same_price_are_no_rate(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "then").mkdir()
    foretold = as_planned(settings, lived(tmp_path / "then", CARD))
    actual = actual_month(settings, PLAN, MONTH, lived(tmp_path, CARD, gib=8.0))
    found = variance(planned_month(foretold, MONTH, 1.0), actual)
    assert found.parts["rate"] == pytest.approx(0.0, abs=1e-12)
    assert found.parts["volume"] + found.parts["mix"] == pytest.approx(found.actual - found.planned)


def test_a_begun_month_is_set_against_its_share(settings: Settings, tmp_path: Path) -> None:
    ledger = lived(tmp_path, CARD)
    store = PlanStore(f"sqlite:///{tmp_path / 'plans.db'}")
    store.note(PLAN.name, OUTCOME, as_planned(settings, ledger))
    begun = variances(settings, store, PLAN, date(2026, 12, 10), ledger)[MONTH]
    whole = variances(settings, store, PLAN, date(2027, 1, 5), ledger)[MONTH]
    assert whole.planned == pytest.approx(whole.actual)
    assert begun.planned == pytest.approx(whole.planned * 10 / 31)
