"""Money is held, settled, corrected and given back; in SQLite, and in Postgres where one is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
import yaml

from forecast_core.admission import Load, Override, Quote, Request, Shape
from forecast_core.admission.policy import NANO, Policy
from forecast_core.admission.request import AssetFacts, RunFacts, Work, request_of
from forecast_core.cost.focus import STEP_COLUMNS
from resources.admission_log import active_overrides, add_override
from resources.admission_store import AdmissionStore, StoreError
from resources.admission_tables import metadata
from resources.escrow import Escrow, replay
from resources.measured_quotes import MeasuredQuoter

POLICY = yaml.safe_load((Path(__file__).parents[2] / "policies" / "admission.yaml").read_text())
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC).timestamp()


class Spent:
    """A ledger of the test's own."""

    def __init__(self) -> None:
        self.costs: dict[str, dict[str, Decimal]] = {}
        self.loose: dict[tuple[date, str | None], dict[str, Decimal]] = {}

    def of_run(self, run_id: str) -> dict[str, Decimal]:
        return self.costs.get(run_id, {})

    def recent(self, since: float) -> dict[tuple[date, str | None], dict[str, Decimal]]:
        day = datetime.fromtimestamp(since, UTC).date()
        held = {(day, run_id): costs for run_id, costs in self.costs.items()}
        return {**held, **self.loose}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AdmissionStore]:
    if request.param == "sqlite":
        made = AdmissionStore(f"sqlite:///{tmp_path / 'admission.db'}", timeout_s=5)
        yield made
        made.close()
        return
    made = AdmissionStore(request.getfixturevalue("postgres_server"))
    yield made
    with made.alone() as connection:
        metadata.drop_all(connection)
    made.close()


def escrow_on(store: AdmissionStore, **changes: Any) -> Escrow:
    mapping = {**POLICY, "peaks": [], "throttles": [], **changes}
    made = Escrow(store, Policy.parse(mapping), "prod", Spent(), load=Load)
    made.clock = lambda: NOON
    return made


def work(name: str, money: float = 0.5, work_class: str = "backfill", covers: int = 0) -> Request:
    stage, pipeline = ("ingest", "ingest") if work_class == "backfill" else ("inference",) * 2
    quote = Quote("asked", ((pipeline, int(money * NANO)),), 60.0)
    return Request(name, Shape(work_class, stage, (quote,)), NOON, covers=covers)


def spent_of(escrow: Escrow) -> Spent:
    spending = escrow._spending
    assert isinstance(spending, Spent)
    return spending


def test_a_hold_becomes_what_it_cost(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    assert escrow.submit(work("r1")).starts
    assert escrow.balance()["prod/backfill"]["held"] == Decimal("0.5")
    spent_of(escrow).costs["r1"] = {"ingest": Decimal("0.2")}
    assert escrow.settle("r1") and not escrow.settle("r1")
    node = escrow.balance()["prod/backfill"]
    assert (node["held"], node["spent"]) == (Decimal(0), Decimal("0.2"))


def test_a_stage_that_is_renamed_wedges_nothing(store: AdmissionStore) -> None:
    before = escrow_on(store)
    states = [before.submit(work(f"r{n}")).action for n in range(5)]
    assert "admit" in states and "hold" in states
    stages = dict(POLICY["stages"])
    stages["landing"] = stages.pop("ingest")
    after = escrow_on(store, stages=stages)
    decisions = after.decide()
    assert {d.action for d in decisions.values()} == {"hold"}, "its lanes are still taken"
    assert all("stage landing" in d.reason for d in decisions.values())
    for number in range(5):
        after.settle(f"r{number}")
    assert any(d.starts for d in after.decide().values())
    assert not replay(store).differing


def test_a_failed_run_gives_its_money_back(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    escrow.submit(work("r1"))
    assert escrow.sweep(lambda _: "failed") == ["r1"]
    assert escrow.balance()["prod/backfill"]["free"] == Decimal(60)


def test_submitting_twice_holds_once(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    assert escrow.submit(work("r1")).starts and escrow.submit(work("r1")).starts
    assert escrow.balance()["prod/backfill"]["held"] == Decimal("0.5")


def test_money_of_a_dead_holder_expires_and_of_a_living_one_does_not(
    store: AdmissionStore,
) -> None:
    escrow = escrow_on(store)
    escrow.submit(work("dead"))
    escrow.submit(work("alive"))
    assert escrow.sweep(lambda _: "unknown") == []
    escrow.clock = lambda: NOON + 3600
    fates: Any = {"dead": "unknown", "alive": "running"}
    assert escrow.sweep(fates.__getitem__) == ["dead"]
    assert [name for name, *_ in store.holders("prod")] == ["alive"]


def test_late_and_unheld_charges_are_booked_once(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    escrow.submit(work("r1"))
    escrow.settle("r1")
    spent = spent_of(escrow)
    spent.costs["r1"] = {"ingest": Decimal("0.3")}
    spent.loose[date(2026, 3, 4), None] = {"unattributed": Decimal("0.1")}
    assert escrow.book_late_charges() == 2
    assert escrow.book_late_charges() == 0
    assert escrow.balance()["prod/day"]["spent"] == Decimal("0.4")
    assert escrow.balance()["prod/backfill"]["spent"] == Decimal("0.3")


def test_a_run_is_charged_to_the_period_that_admitted_it(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    midnight = escrow.policy.period("day", NOON)[1]
    escrow.clock = lambda: midnight - 1
    escrow.submit(work("r1"))
    escrow.clock = lambda: midnight + 1
    assert escrow.balance()["prod/day"]["held"] == 0
    spent_of(escrow).costs["r1"] = {"ingest": Decimal("0.5")}
    escrow.settle("r1")
    assert escrow.balance()["prod/day"]["spent"] == 0
    assert escrow.balance()["prod"]["spent"] == Decimal("0.5")


def test_threads_of_many_stores_never_pass_the_budget(store: AdmissionStore) -> None:
    room = {"runs": 99, "cpu": 99.0, "memory_gib": 99.0}
    stages = {**POLICY["stages"], "ingest": {**POLICY["stages"]["ingest"], **room, "cpu": 80}}
    stages["ingest"]["memory_gib"] = 80
    changes = {"host": {**room, "gpu": 1}, "stages": stages}

    def race(worker: int) -> int:
        own = escrow_on(AdmissionStore(store.url.render_as_string(False)), **changes)
        return sum(own.submit(work(f"{worker}-{n}", 2.0)).starts for n in range(12))

    with ThreadPoolExecutor(4) as pool:
        started = sum(pool.map(race, range(4)))
    # 20 a day, of which 5 + 1 are kept for serving and monitoring: 7 runs of 2 fit
    assert started == 7
    assert replay(store).differing == ()


def test_the_reserve_shrinks_as_items_are_forecast(store: AdmissionStore) -> None:
    escrow = escrow_on(store)
    escrow.open_cycle(1000)
    assert escrow.submit(work("floor", 0.01, "serving", covers=1000)).starts
    escrow.settle("floor", succeeded=False)
    with store.reading() as connection:
        assert store.fact(connection, "prod", "items_due") == 1000
    assert escrow.submit(work("again", 0.01, "serving", covers=1000)).starts
    escrow.settle("again")
    with store.reading() as connection:
        assert store.fact(connection, "prod", "items_due") == 0


def test_overrides_are_kept_for_ever_and_act_until_they_expire(store: AdmissionStore) -> None:
    add_override(store, Override("block", "backfill", "ops", "incident", NOON + 60), NOON)
    escrow = escrow_on(store)
    held = escrow.submit(work("r1"))
    assert held.code == "blocked" and "ops: incident" in held.reason
    escrow.clock = lambda: NOON + 61
    assert escrow.decide()["r1"].starts
    with store.reading() as connection:
        assert active_overrides(connection, NOON) != ()


def test_environments_share_the_root_but_not_their_rooms(store: AdmissionStore) -> None:
    tight = {**POLICY["budgets"]["organisation"], "limit": 440.0}
    escrow = escrow_on(store, budgets={**POLICY["budgets"], "organisation": tight})
    other = escrow_on(store)
    other.environment = "dev"
    other.submit(work("d1", 1.5))
    assert escrow.balance()["organisation"]["spent"] == Decimal("1.5"), "held elsewhere"
    assert len(store.holders("prod")) == 0


def test_a_store_that_is_locked_says_so_and_nothing_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'admission.db'}"
    blocker, store = AdmissionStore(url), AdmissionStore(url, timeout_s=0.1)
    with blocker.alone(), pytest.raises(StoreError, match="another process"):
        escrow_on(store).submit(work("r1"))
    assert store.find("r1") is None


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'admission.db'}"
    with AdmissionStore(url).alone() as connection:
        connection.execute(sa.text("INSERT INTO admission_version VALUES (99)"))
    with pytest.raises(StoreError, match="newer"):
        AdmissionStore(url)
    with pytest.raises(StoreError, match="SQLite or Postgres"):
        AdmissionStore("mysql://nowhere/x")


class Prices:
    """A quoter of the test's own: what it says may change while runs wait."""

    def __init__(self, **money: float) -> None:
        self.money = money
        self.pipeline = "storage"

    def quotes(self, work: Work) -> tuple[Quote, ...]:
        money = self.money.get(work.assets[0].key)
        if money is None:
            return ()
        return (Quote("asked", ((self.pipeline, int(money * NANO)),), 60.0),)


def asks(name: str, asset: str) -> RunFacts:
    return RunFacts(name, "schedule", (AssetFacts(asset, "storage"),), NOON)


def only(money: float) -> dict[str, Any]:
    return {**POLICY["budgets"], "prod/backfill": {**POLICY["budgets"]["prod/backfill"],
            "limit": money}}  # fmt: skip


def test_a_held_run_is_quoted_again_and_starts_when_it_is_known_to_be_cheaper(
    store: AdmissionStore,
) -> None:
    escrow = escrow_on(store, budgets=only(1.0))
    escrow.quoter = prices = Prices(first=0.6, second=0.8, third=0.8)
    assert escrow.submit(asks("r1", "first")).starts
    assert escrow.submit(asks("r2", "second")).code == "money"
    assert escrow.submit(asks("r3", "third")).code == "money"
    prices.money["second"] = 0.15
    decisions = escrow.decide()
    assert (decisions["r2"].action, decisions["r3"].action) == ("admit", "hold")
    assert escrow.balance()["prod/backfill"]["held"] == Decimal("0.75")
    assert not replay(store).differing, "the quote that was used is on record"


def test_a_held_run_is_not_let_in_at_a_quote_that_is_known_to_be_too_low(
    store: AdmissionStore,
) -> None:
    escrow = escrow_on(store, budgets=only(1.0))
    escrow.quoter = prices = Prices(first=0.9, second=0.2)
    escrow.submit(asks("r1", "first"))
    assert "needs up to 0.2" in escrow.submit(asks("r2", "second")).reason
    prices.money["second"] = 0.7
    escrow.decide()
    row = store.find("r2")
    assert row and "needs up to 0.7" in row["reason"] and not row["told"], "and is told so"
    spent_of(escrow).costs["r1"] = {"storage": Decimal("0.5")}
    escrow.settle("r1")
    assert escrow.decide()["r2"].action == "hold", "0.5 are left, it may need 0.7"
    prices.money["second"], prices.pipeline = 0.4, "training"
    assert escrow.decide()["r2"].starts
    with store.reading() as connection:
        (_, holding), *_ = store.admitted(connection, "prod")
    assert (holding.quote.money, holding.request.shape.stage) == (4 * NANO // 10, "training")
    assert not replay(store).differing


def test_what_nobody_can_price_any_more_has_the_stated_bound(store: AdmissionStore) -> None:
    escrow = escrow_on(store, budgets=only(1.0))
    escrow.quoter = prices = Prices(first=0.99, second=0.8)
    escrow.submit(asks("r1", "first"))
    escrow.submit(asks("r2", "second"))
    prices.money.clear()
    assert "needs up to 0.05" in escrow.decide()["r2"].reason


def test_a_store_of_an_older_schema_is_brought_up(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    store = AdmissionStore(url)
    escrow_on(store).submit(work("r1"))
    with store.alone() as connection:
        for statement in (
            "ALTER TABLE admission_runs DROP COLUMN work", "DROP TABLE admission_works",
            "UPDATE admission_version SET version = 1",
        ):  # fmt: skip
            connection.exec_driver_sql(statement)
    store.close()
    again = escrow_on(AdmissionStore(url))
    assert again.balance()["prod/backfill"]["held"] == Decimal("0.5")
    assert again.submit(asks("r2", "new")).starts


class History:
    """A ledger with thirty equal runs of one asset."""

    def settlements(self, *, first: date | None = None) -> pl.DataFrame:
        at = datetime.fromtimestamp(NOON, UTC)
        rows = [
            {
                "x_run_id": f"h{n}", "x_step_key": "trained", "x_attempt": 1, "x_part": 0,
                "x_asset": "trained", "x_environment": "prod", "x_cost_class": "workload",
                "x_status": "success", "x_estimated": False, "x_final": True, "partitions": 1,
                "x_forecaster": "gbm", "rows": 100, "wall_s": 50.0 + n % 5, "peak_rss_gib": 0.5,
                "money": Decimal("0.001") * (1 + n % 3), 
                "ChargePeriodStart": at - timedelta(hours=n),
            }
            for n in range(30)
        ]  # fmt: skip
        blank = dict.fromkeys(STEP_COLUMNS)
        return pl.DataFrame([blank | row for row in rows], schema=dict(STEP_COLUMNS))


def test_a_measured_run_is_quoted_from_its_history_and_an_unknown_one_by_the_bound() -> None:
    policy = Policy.parse(POLICY)
    quoter = MeasuredQuoter(History(), policy, "prod", clock=lambda: NOON)  # type: ignore[arg-type]

    def request(asset: str) -> Request:
        facts = RunFacts("r", "schedule", (AssetFacts(asset, "training", ("gbm",)),), NOON)
        return request_of(facts, policy, quoter)

    known, unknown = request("trained").shape.quotes[0], request("new").shape.quotes[0]
    assert 0.003 * NANO <= known.money < 0.02 * NANO
    assert 54 <= known.wall_s < 120 and known.memory_gib == pytest.approx(0.6)
    assert unknown.money == policy.default_bound.money * 0.4


def test_no_wall_is_quoted_above_what_ends_a_run_of_the_stage() -> None:
    stages = {**POLICY["stages"], "training": {**POLICY["stages"]["training"], "max_runtime": 53}}
    policy = Policy.parse({**POLICY, "stages": stages})
    quoter = MeasuredQuoter(History(), policy, "prod", clock=lambda: NOON)  # type: ignore[arg-type]
    facts = RunFacts("r", "schedule", (AssetFacts("trained", "training", ("gbm",)),), NOON)
    assert quoter.quotes(facts.work)[0].wall_s == 53
