"""A step works only for a run that admission let in, and only within what it was granted."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from forecast_assets.batch import _first_failure
from forecast_core.admission import Load, Override
from forecast_core.admission.policy import NANO, Policy, units
from forecast_core.admission.request import AssetFacts, RunFacts, request_of
from resources.admission_log import add_override
from resources.admission_store import AdmissionStore
from resources.escrow import Escrow, replay
from resources.family import GIB
from resources.gate import RUNG, Gate, granted
from resources.holders import HOLDER, lives, this_process
from resources.ledger import open_ledger
from resources.meter import Meter, metered
from resources.quotas import Limits, guarded
from resources.spending import LedgerSpending

ROOT = Path(__file__).parents[2]
WORKED: list[str] = []


def policy(**changes: Any) -> Policy:
    mapping = yaml.safe_load((ROOT / "policies" / "admission.yaml").read_text())
    mapping |= {"peaks": [], "throttles": []}
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = mapping
        for name in parents:
            node = node[name.replace("_of_", "/")]
        node[last] = value
    return Policy.parse(mapping)


class Rig:
    """An instance, a ledger and a gate on a store of their own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, rules: Policy) -> None:
        ledger = f"sqlite:///{folder / 'ledger.db'}"
        self.instance = instance
        self.meter = Meter(ledger, ROOT / "policies" / "price_card.yaml", "dev")
        store = AdmissionStore(f"sqlite:///{folder / 'admission.db'}", timeout_s=5)
        self.escrow = Escrow(store, rules, "dev", LedgerSpending(open_ledger(ledger)), load=Load)
        self.slept: list[float] = []
        self.meter.gate = Gate(lambda: self.escrow, patience_s=3600, sleep=self._sleep)
        self.meanwhile: Any = lambda: None

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.meanwhile()

    def run(self, *assets: dg.AssetsDefinition, **tags: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            assets,
            instance=self.instance,
            resources={"meter": self.meter},
            tags={k.replace("__", "/"): v for k, v in tags.items()},
            raise_on_error=False,
        )

    def hold(self, name: str, pipeline: str) -> None:
        """Another run that has been admitted."""
        facts = RunFacts(name, "schedule", (AssetFacts("a", pipeline),), self.escrow.clock())
        assert self.escrow.submit(request_of(facts, self.escrow.policy)).starts

    def statuses(self) -> set[str]:
        return set(self.meter.ledger.settlements()["x_status"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    WORKED.clear()
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, instance: dg.DagsterInstance) -> Rig:
    return Rig(tmp_path, instance, policy())


@dg.asset(metadata={"cost/pipeline": "training"}, retry_policy=dg.RetryPolicy(max_retries=3))
@metered
def trained(context: dg.AssetExecutionContext) -> None:
    WORKED.append(context.run.run_id)


@dg.asset(metadata={"cost/pipeline": "inference", "cost/rungs": "governed, statistical, floor"})
@metered
def served(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    terms = granted(context.instance, context.run)
    return dg.MaterializeResult(metadata={"rung": terms.rung or "all", "why": terms.reason})


@dg.asset(metadata={"cost/pipeline": "inference", "cost/rungs": "governed, statistical, floor"})
@metered
def upgraded(
    context: dg.AssetExecutionContext, meter: dg.ResourceParam[Meter]
) -> dg.MaterializeResult[Any]:
    grants = {"left": meter.grant(context), "more": meter.grant(context, more=True)}
    return dg.MaterializeResult(
        metadata={name: asdict(grant) if grant else {} for name, grant in grants.items()}
    )


def grants_of(result: dg.ExecuteInProcessResult) -> tuple[dict[str, Any], dict[str, Any]]:
    (event,) = result.get_asset_materialization_events()
    told = event.materialization.metadata
    return told["left"].value, told["more"].value


def message_of(result: dg.ExecuteInProcessResult) -> str:
    failed = [e for e in result.all_events if e.is_step_failure]
    assert len(failed) == 1, "one attempt, no retry"
    error = failed[0].step_failure_data.error
    assert error is not None
    return error.to_string()


def test_over_budget_is_one_clear_failure_before_work(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    rig = Rig(tmp_path, instance, policy(budgets__dev__limit=6.52))  # 6.5 are floors
    result = rig.run(trained)
    assert not result.success and WORKED == []
    said = message_of(result)
    assert "dev never has more than 0.02 for training" in said and "budget status" in said
    rig.meter.flush()
    assert rig.escrow.balance()["dev"]["held"] == 0


def test_money_that_is_gone_refuses_and_money_that_comes_back_lets_in(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    rig = Rig(tmp_path, instance, policy(budgets__dev__limit=6.56))
    rig.hold("other", "training")
    result = rig.run(trained)
    assert "dev has 0.01 left for training, this needs up to 0.05 (money)" in message_of(result)
    assert rig.slept == [], "nobody waits for money"
    now = rig.escrow.clock()
    raised = Override("raise", "dev", "ops", "month end", now + 60, 1 * NANO)
    add_override(rig.escrow.store, raised, now)
    assert rig.run(trained).success and len(WORKED) == 1
    assert replay(rig.escrow.store).differing == ()


def test_an_admitted_run_says_its_terms_and_is_settled_by_whoever_asks_next(rig: Rig) -> None:
    first = rig.run(trained)
    run = rig.instance.get_run_by_id(first.run_id)
    assert run and run.tags["admission/class"] == "training"
    assert run.tags[HOLDER] == this_process()
    assert Decimal(run.tags["admission/money"]) == Decimal("0.05")
    assert rig.run(trained).success
    row = rig.escrow.store.find(first.run_id)
    assert row and row["state"] == "settled"
    assert 0 < rig.escrow.balance()["dev"]["spent"] < Decimal("0.01")


def test_a_degraded_run_learns_its_rung_and_the_reason(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    # serving may take what monitoring's floor leaves: not the whole bound, but a share of it
    tight = {
        "default_bound__money": 1,
        "budgets__dev__limit": 1.9,
        "budgets__dev__floors": {"serving": 0.2, "monitoring": 1},
    }
    rig = Rig(tmp_path, instance, policy(**tight))
    result = rig.run(served)
    assert result.success
    metadata = result.get_asset_materialization_events()[0].materialization.metadata
    assert metadata["rung"].value == "statistical"
    assert "dev never has more than" in str(metadata["why"].value)
    run = rig.instance.get_run_by_id(result.run_id)
    assert run and run.tags[RUNG] == "statistical"


def test_it_waits_for_room(rig: Rig) -> None:
    for name in ("a", "b", "c"):  # the lanes of the stage
        rig.hold(name, "training")
    rig.meanwhile = lambda: rig.escrow.settle("b")
    assert rig.run(trained).success
    assert len(rig.slept) == 1


def test_room_of_a_process_that_died_is_free_at_once(rig: Rig) -> None:
    defs = dg.Definitions([trained], resources={"meter": rig.meter})
    for _ in range(3):
        run = rig.instance.create_run_for_job(
            defs.resolve_implicit_global_asset_job_def(),
            tags={HOLDER: this_process().replace(f":{os.getpid()}:", ":999999:")},
            status=dg.DagsterRunStatus.STARTED,
        )
        rig.hold(run.run_id, "training")
    assert rig.run(trained).success and rig.slept == []


def test_a_process_is_known_by_its_start_and_its_machine() -> None:
    mine = this_process()
    assert lives(mine) is True
    host, pid, began = mine.rsplit(":", 2)
    assert lives(f"{host}:{pid}:{float(began) - 60:.2f}") is False, "its number was used again"
    assert lives(f"elsewhere:{pid}:{began}") is None


def test_a_leak_is_stopped_and_charged(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    tight = policy(
        default_bound__memory_gib=0.1, stages__training__step={"cpu": 1, "memory_gib": 0.15}
    )
    rig = Rig(tmp_path, instance, tight)

    @dg.asset(metadata={"cost/pipeline": "training"})
    @metered
    def leaky() -> None:
        held = []
        while sum(map(len, held)) < GIB:
            held.append(bytearray(os.urandom(1 << 20)) * 8)
            time.sleep(0.01)

    began = time.monotonic()
    result = rig.run(leaky, trained)
    assert time.monotonic() - began < 10
    assert not result.success and "its quota is" in message_of(result)
    # The figure holds what this process had before: much, after some tests.
    said = _first_failure(result)
    assert re.search(r"leaky: uses \d\.\d\d GiB, its quota is \d\.\d\d GiB; stopped", said), said
    assert len(WORKED) == 1, "the neighbour is spared"
    assert "failure" in rig.statuses()


def test_a_hold_that_is_used_up_grows_or_stops_the_step(rig: Rig) -> None:
    rig.hold("r", "training")
    assert rig.escrow.grow("r", NANO) == 2 * NANO
    assert rig.escrow.balance()["dev"]["held"] == 2
    assert rig.escrow.grow("r", 60 * NANO) is None
    assert rig.escrow.grow("nobody", 1) is None
    assert replay(rig.escrow.store).differing == (), "growing is on record like any pass"
    asked: list[Decimal] = []

    def more(spent: Decimal) -> Decimal | None:
        asked.append(spent)
        return Decimal("0.2") if len(asked) == 1 else None

    began = time.monotonic()
    quota = Limits(
        money=Decimal("0.1"),
        spent=lambda: Decimal(str(time.monotonic() - began)),
        more=more,
        interval_s=0.02,
    )
    with pytest.raises(RuntimeError, match="no budget has room"), guarded(quota, "dear"):
        time.sleep(5)
    assert len(asked) == 2 and asked[1] > Decimal("0.2")


def test_a_run_of_checks_alone_is_monitoring(rig: Rig) -> None:
    @dg.asset_check(asset=trained)
    @metered
    def sound() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    checks_only = dg.define_asset_job("c", dg.AssetSelection.checks(sound))
    defs = dg.Definitions(
        [trained], asset_checks=[sound], jobs=[checks_only], resources={"meter": rig.meter}
    )
    result = defs.resolve_job_def("c").execute_in_process(
        instance=rig.instance, raise_on_error=False
    )
    assert result.success
    row = rig.escrow.store.find(result.run_id)
    assert row and row["work_class"] == "monitoring"


def test_what_is_left_beyond_the_cheapest_rung_is_of_the_hold_and_grows_where_budgets_have_room(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    rig = Rig(tmp_path, instance, policy())
    bound = rig.escrow.policy.default_bound
    floor = int(bound.money * bound.rungs["floor"])
    left, more = grants_of(rig.run(upgraded, admission__deadline="2100-01-01T06:00:00"))
    assert left["held"] == bound.money and left["money"] == bound.money - floor > 0
    assert more["held"] == 2 * bound.money and more["money"] == 2 * bound.money - floor
    ends = datetime(2100, 1, 1, 6, tzinfo=UTC).timestamp() - rig.escrow.policy.offset_s
    assert left["deadline"] == ends and 0 < left["seconds"] < ends - rig.escrow.clock()
    assert left["cpu_s_price"] > 0


def test_where_no_budget_has_room_nothing_more_is_left_and_without_a_deadline_time_has_no_end(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    money = str(units(policy().default_bound.money))
    of_inference = {
        "parent": "dev", "environment": "dev", "pipeline": "inference", "period": "month",
        "limit": money, "floors": {"serving": 0.01},
    }  # fmt: skip
    rig = Rig(tmp_path, instance, policy(**{"budgets__dev/inference": of_inference}))
    left, more = grants_of(rig.run(upgraded))
    assert left["money"] > 0 and left["seconds"] is None and more == {}
    assert rig.escrow.balance()["dev/inference"]["held"] <= Decimal(money)
