"""A step is charged once, by what it used, whatever way it ends."""

import inspect
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import psutil
import pytest

from forecast_core.cost.charges import CostRecord
from forecast_core.cost.price_card import PriceCard, PriceCardError, Rates
from resources.meter import Meter, Share, metered, record_in
from resources.meter_probe import Descendants, ProcessProbe, held_gpus, probe
from resources.meter_share import Laps

MONTH_STORE = dg.MultiPartitionsDefinition(
    {
        "month": dg.MonthlyPartitionsDefinition(start_date="2016-01-01", end_date="2016-05-01"),
        "store": dg.StaticPartitionsDefinition(["CA_1", "TX_2"]),
    }
)
GROUPS = dg.StaticPartitionsDefinition(["A_smooth", "B_lumpy"])


class LazyIO(dg.IOManager):
    """Computes while writing, as the project's IO managers do."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        self.meter.opened(context)
        obj = obj() if callable(obj) else obj
        self.meter.wrote(context, 1000, 1)
        keys = list(context.asset_partition_keys) if context.has_asset_partitions else [""]
        rows = {key: 10 * (index + 1) for index, key in enumerate(keys)}
        for key, metadata in self.meter.settle(context, rows).items():
            if key:
                event = dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata)
                context.log_event(event)
            else:
                context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> int:
        self.meter.opened(context)
        self.meter.read(context, 2**20, 2, "cold")
        return 1


def burn(seconds: float) -> None:
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass


Run = Callable[..., tuple[dg.ExecuteInProcessResult, Meter]]


@pytest.fixture
def run(tmp_path: Path, project_root: Path) -> Iterator[Run]:
    """Run assets in process; the result and the meter that charged it."""
    card = project_root / "policies" / "price_card.yaml"
    meter = Meter(f"sqlite:///{tmp_path / 'ledger.db'}", card, "staging")
    with dg.DagsterInstance.ephemeral() as instance:

        def execute(
            *assets: Any, tags: dict[str, str] | None = None, key: str | None = None
        ) -> Any:
            checks = [a for a in assets if isinstance(a, dg.AssetChecksDefinition)]
            defs = dg.Definitions(
                assets=[a for a in assets if a not in checks],
                asset_checks=checks,
                resources={"io_manager": LazyIO(meter), "meter": meter},
            )
            job = defs.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(
                instance=instance, raise_on_error=False, tags=tags, partition_key=key
            )
            meter.flush()
            return result, meter

        yield execute


def steps(meter: Meter) -> pl.DataFrame:
    return meter.ledger.settlements().filter(pl.col("x_cost_class") == "workload")


@dg.asset(metadata={"cost/pipeline": "ingest", "cost/forecaster": "gbm"})
@metered
def made(context: dg.AssetExecutionContext) -> int:
    """A body."""
    burn(0.05)
    return 1


def test_a_step_is_charged_what_it_used(run: Run) -> None:
    result, meter = run(made)
    assert result.success
    (row,) = steps(meter).to_dicts()
    assert row["x_run_id"] == result.run_id
    assert (row["x_step_key"], row["x_attempt"], row["x_part"]) == ("made", 1, 0)
    assert (row["x_pipeline"], row["x_forecaster"]) == ("ingest", "gbm")
    assert (row["x_environment"], row["x_status"], row["x_final"]) == ("staging", "success", True)
    assert 0.05 <= row["cpu_s"] < 2
    assert row["peak_rss_gib"] > 0.03
    assert row["rss_gib_s"] == pytest.approx(row["peak_rss_gib"] * row["wall_s"], rel=0.5)
    assert (row["bytes_written"], row["files_written"], row["rows"]) == (1000, 1, 10)
    assert row["money"] == meter.ledger.totals(["x_cost_class"])[("workload",)]


def test_the_body_keeps_its_face() -> None:
    def body(context: dg.AssetExecutionContext, upstream: int, **rest: int) -> int:
        """Doc."""
        return upstream

    wrapped = metered(body)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.__module__) == ("body", "Doc.", __name__)
    assert list(inspect.signature(wrapped).parameters) == ["context", "upstream", "meter", "rest"]
    assert wrapped(None, 3) == 3  # outside a run it is the body alone
    assert made.required_resource_keys == {"meter", "io_manager"}


def test_work_done_while_writing_belongs_to_the_step(run: Run) -> None:
    @dg.asset
    @metered
    def lazy() -> Any:
        return lambda: burn(0.05)

    _, meter = run(lazy)
    assert steps(meter)["cpu_s"].item() >= 0.05


def test_the_metadata_is_one_typed_record(run: Run) -> None:
    result, meter = run(made)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    record = record_in(metadata)
    assert isinstance(record, CostRecord)
    assert record.money == steps(meter)["money"].item()
    assert float(record.money) == metadata["cost/money"].value
    for name in ("cost/cpu_s", "cost/peak_gib", "cost/bytes_read", "cost/bytes_written"):
        assert isinstance(metadata[name].value, float | int)


def test_reads_are_priced_by_tier(run: Run) -> None:
    @dg.asset
    @metered
    def reader(made: int) -> int:
        return made

    _, meter = run(made, reader)
    lines = meter.ledger.totals(["SkuId", "x_asset"])
    assert lines[("read_request/cold", "reader")] == 2 * Decimal("0.00001")
    assert ("read_request/hot", "reader") not in lines


def test_a_raising_body_is_charged(run: Run) -> None:
    @dg.asset(metadata={"cost/pipeline": "training"})
    @metered
    def fails() -> None:
        burn(0.05)
        raise ValueError("no")

    result, meter = run(fails)
    assert not result.success
    (row,) = steps(meter).to_dicts()
    assert row["cpu_s"] >= 0.05
    assert (row["x_status"], row["x_pipeline"], row["x_final"]) == ("failure", "training", True)


def test_a_raising_write_is_charged_to_the_asset(run: Run) -> None:
    @dg.asset(metadata={"cost/pipeline": "training"})
    @metered
    def fails_late() -> Any:
        def work() -> None:
            burn(0.05)
            raise ValueError("no")

        return work

    _, meter = run(fails_late)
    (row,) = steps(meter).to_dicts()
    assert row["cpu_s"] >= 0.05
    assert (row["x_status"], row["x_asset"]) == ("unsettled", "fails_late")


def test_every_attempt_is_charged_on_its_own(run: Run) -> None:
    tries: list[int] = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    @metered
    def flaky() -> None:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("no")
        if len(tries) < 3:
            raise dg.RetryRequested(max_retries=2)

    result, meter = run(flaky)
    assert result.success
    found = steps(meter).sort("x_attempt")
    assert found["x_attempt"].to_list() == [1, 2, 3]
    assert found["x_status"].to_list() == ["failure", "retry", "success"]


def test_whatever_a_body_returns_it_is_charged_once(run: Run) -> None:
    @dg.asset
    @metered
    def nothing() -> None: ...

    @dg.asset
    @metered
    def result_alone() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"a": 1})

    @dg.asset
    @metered
    def result_with_value() -> dg.MaterializeResult:
        return dg.MaterializeResult(value=1)

    @dg.multi_asset(specs=[dg.AssetSpec("s1"), dg.AssetSpec("s2")])
    @metered
    def specs(meter: dg.ResourceParam[Meter]) -> Iterator[dg.MaterializeResult]:
        yield dg.MaterializeResult(asset_key="s1")
        yield dg.MaterializeResult(asset_key="s2")

    @dg.asset_check(asset=nothing)
    @metered
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    result, meter = run(nothing, result_alone, result_with_value, specs, check)
    assert result.success
    found = {row["x_step_key"]: row for row in steps(meter).to_dicts()}
    assert len(found) == steps(meter).height == 5
    assert all(row["x_final"] and row["x_status"] == "success" for row in found.values())
    assert found["nothing_check"]["x_pipeline"] == "monitoring"


@pytest.mark.parametrize("as_generator", [False, True])
def test_a_step_with_two_outputs_is_charged_in_parts(run: Run, as_generator: bool) -> None:
    outs = {"m1": dg.AssetOut(metadata={"cost/pipeline": "ingest"}), "m2": dg.AssetOut()}

    @dg.multi_asset(outs=outs)
    @metered
    def returned() -> tuple[int, Any]:
        return 1, lambda: burn(0.05)

    @dg.multi_asset(outs=outs)
    @metered
    def yielded() -> Iterator[Any]:
        yield dg.Output(1, output_name="m1")
        burn(0.05)
        yield dg.Output(1, output_name="m2")

    _, meter = run(yielded if as_generator else returned)
    found = steps(meter).sort("x_part")
    assert found["x_asset"].to_list()[:2] == ["m1", "m2"]
    assert found["x_final"].to_list() == [False] * (found.height - 1) + [True]
    assert found["cpu_s"][0] < 0.05 <= found["cpu_s"][1]
    assert found["x_charge_set"].n_unique() == found.height == (3 if as_generator else 2)


def test_a_range_is_split_by_rows_and_sums_to_the_step(run: Run) -> None:
    @dg.asset(partitions_def=MONTH_STORE, backfill_policy=dg.BackfillPolicy.single_run())
    @metered
    def ranged(context: dg.AssetExecutionContext) -> int:
        burn(0.05)
        return 1

    tags = {
        "dagster/asset_partition_range_start": "2016-01-01|CA_1",
        "dagster/asset_partition_range_end": "2016-04-01|TX_2",
    }
    result, meter = run(ranged, tags=tags)
    assert result.success
    (row,) = steps(meter).to_dicts()
    assert (row["partitions"], row["rows"]) == (8, 360)
    kept = {}
    for event in result.get_asset_materialization_events():
        record = record_in(event.materialization.metadata)
        if record is not None:
            kept[event.partition] = record
    assert len(kept) == 8
    assert sum(record.money for record in kept.values()) == row["money"]
    assert sum(record.rows for record in kept.values()) == 360
    by_store = meter.ledger.totals(["x_store_id"])
    assert {"CA_1", "TX_2"} <= {store for (store,) in by_store}
    charges = meter.ledger.charges(run_id=result.run_id).filter(pl.col("x_asset") == "ranged")
    assert set(charges["x_partition"]) == {
        "2016-01-01|CA_1...2016-04-01|CA_1",
        "2016-01-01|TX_2...2016-04-01|TX_2",
    }
    assert charges["BilledCost"].sum() == row["money"]


def test_a_segment_group_is_named_by_its_partition(run: Run) -> None:
    @dg.asset(partitions_def=GROUPS, metadata={"cost/segment_group": "other"})
    @metered
    def grouped() -> int:
        return 1

    _, meter = run(grouped, key="B_lumpy")
    assert set(meter.ledger.charges()["x_segment_group"]) == {"B_lumpy", None}


def test_a_body_may_split_its_cost_by_a_measured_driver(run: Run) -> None:
    @dg.asset
    @metered
    def serves_two(context: dg.AssetExecutionContext, meter: dg.ResourceParam[Meter]) -> int:
        weights = {
            Share(segment_group="A", forecaster="gbm", forecaster_version="v1"): 3.0,
            Share(segment_group="B"): 1.0,
        }
        meter.share(context, weights, method="fit_seconds")
        return 1

    _, meter = run(serves_two)
    charges = meter.ledger.charges().filter(pl.col("x_asset") == "serves_two")
    assert set(charges["x_method"]) == {"fit_seconds"}
    cpu = charges.filter(pl.col("SkuId") == "vcpu_s").sort("x_segment_group")
    quantities = [float(q) for q in cpu["PricingQuantity"]]
    assert quantities[0] == pytest.approx(3 * quantities[1], rel=1e-6)
    assert cpu["x_forecaster_version"].to_list() == ["v1", None]
    assert charges["BilledCost"].sum() == steps(meter)["money"].item()


def test_laps_split_a_step_by_cpu_and_shared_time_by_series(run: Run) -> None:
    def work(seconds: float) -> None:
        began = time.process_time()
        while time.process_time() - began < seconds:
            pass

    seen = {}

    @dg.asset
    @metered
    def serves_two(context: dg.AssetExecutionContext, meter: dg.ResourceParam[Meter]) -> int:
        laps = Laps(meter, context, "predict_seconds")
        a, b = (
            Share("gbm", segment_group="A", series=30),
            Share("floor", segment_group="B", series=10),
        )
        work(0.04)
        laps.lap(a, b)
        work(0.06)
        laps.lap(a)
        seen.update(laps.seconds)
        return 1

    _, meter = run(serves_two)
    charges = meter.ledger.charges().filter(pl.col("x_asset") == "serves_two")
    cpu = charges.filter(pl.col("SkuId") == "vcpu_s").sort("x_forecaster", descending=True)
    assert cpu["x_series"].to_list() == [30, 10]
    assert set(charges["x_method"]) == {"predict_seconds"}
    gbm, floor = (float(quantity) for quantity in cpu["PricingQuantity"])
    assert gbm / floor == pytest.approx(9.0, rel=0.3)
    assert [round(s, 2) for s in seen.values()] == pytest.approx([0.09, 0.01], abs=0.03)


def test_a_charge_says_by_which_code_and_configuration(tmp_path: Path, project_root: Path) -> None:
    card = project_root / "policies" / "price_card.yaml"
    url = f"sqlite:///{tmp_path / 'versions.db'}"
    meter = Meter(url, card, "dev", code_version="c1", config_version="p1")
    assert dg.materialize([made], resources={"meter": meter, "io_manager": dg.mem_io_manager})
    meter.flush()
    charges = meter.ledger.charges()
    assert set(charges["x_code_version"]) == {"c1"}
    assert set(charges["x_config_version"]) == {"p1"}


def test_the_process_between_steps_is_overhead_and_the_parts_leave_no_hole(run: Run) -> None:
    began = probe().charged
    result, meter = run(made)
    overhead = meter.ledger.settlements().filter(pl.col("x_cost_class") == "overhead")
    assert overhead.height >= 2  # before the first step and after the last
    assert set(overhead["x_run_id"]) == {result.run_id}
    grown = probe().charged.since(began)
    charged = meter.ledger.settlements()
    assert charged["cpu_s"].sum() == pytest.approx(grown.cpu_s)
    assert charged["rss_gib_s"].sum() == pytest.approx(grown.rss_gib_s)
    assert charged["wall_s"].sum() == pytest.approx(grown.clock)


def test_a_card_without_todays_rates_fails_a_step_before_its_work(run: Run, monkeypatch) -> None:
    worked: list[int] = []

    @dg.asset
    @metered
    def early(meter: dg.ResourceParam[Meter]) -> None:
        worked.append(1)

    def ended(self: PriceCard, day: date, environment: str = "default") -> Rates:
        raise PriceCardError(f"no entry of {environment!r} covers {day}")

    with monkeypatch.context() as patch:
        patch.setattr(PriceCard, "on", ended)
        result, _ = run(early)
    assert not result.success and worked == []
    (failure,) = [e for e in result.all_events if e.event_type_value == "STEP_FAILURE"]
    assert "no entry of 'staging' covers" in str(failure.step_failure_data.error)


def test_a_lost_ledger_does_not_lose_the_forecast(run: Run, monkeypatch) -> None:
    from resources.ledger import Ledger, LedgerLocked

    def locked(*_: object) -> None:
        raise LedgerLocked("held")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record_all", locked)
        result, meter = run(made)
    assert result.success
    assert meter.ledger.settlements().is_empty()


def test_the_run_tags_name_the_cycle(run: Run) -> None:
    _, meter = run(made, tags={"cost/cycle": "weekly-2016-17"})
    assert set(meter.ledger.charges()["x_cycle"]) == {"weekly-2016-17"}


def test_memory_is_integrated_and_the_peak_is_seen() -> None:
    measured = ProcessProbe()
    before, mark = measured.read(), measured.restart_peak()
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    measured.sample()
    time.sleep(0.2)
    after = measured.read()
    grown = after.since(before)
    assert measured.peak_gib(mark) >= 0.195
    assert grown.rss_gib_s >= 0.195 * 0.2
    assert grown.meter_cpu_s > 0


def test_children_are_measured_while_they_live_and_after() -> None:
    measured = ProcessProbe()
    before = measured.read()
    spin = "import time\nwhile time.process_time() < .3: pass\nprint(1, flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        alive = measured.read().since(before).cpu_s
        child.communicate(b"\n")
    reaped = measured.read().since(before).cpu_s
    assert 0.27 <= alive <= reaped + 0.02  # clock ticks of 10 ms on a live child


def test_the_family_is_what_psutil_lists_whoever_comes_and_goes() -> None:
    """Against psutil's reading of the whole machine: children, theirs, and those that ended."""
    me = psutil.Process()
    family = Descendants(me)
    waiting = "import sys; sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waiting!r}])"

    def listed() -> set[int]:
        return {process.pid for process in family.living()}

    def grown_to(size: int) -> set[int]:
        until = time.monotonic() + 30
        while len(me.children(recursive=True)) < size and time.monotonic() < until:
            time.sleep(0.02)
        return {process.pid for process in me.children(recursive=True)}

    before = grown_to(0)
    assert listed() == before
    started = []
    for index, body in enumerate((waiting, parent, waiting, parent)):
        started.append(subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE))
        # A grandchild comes with its parent; every second look sees two generations at once.
        expected = grown_to(len(before) + (1, 3, 4, 6)[index])
        if index % 2:
            assert listed() == expected
    for process in started:
        process.communicate(timeout=30)
        assert listed() == {child.pid for child in me.children(recursive=True)}
    assert listed() == before


def test_gpus_are_counted_while_a_process_holds_them(monkeypatch) -> None:
    assert held_gpus() == 0
    cuda = types.SimpleNamespace(is_initialized=lambda: True, device_count=lambda: 2)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    measured = ProcessProbe()
    before = measured.read()
    time.sleep(0.05)
    grown = measured.read().since(before)
    assert grown.gpu_s == pytest.approx(2 * grown.clock, rel=0.05)


def test_metadata_survives_json() -> None:
    record = CostRecord(
        run_id="r", step_key="s", attempt=1, money=Decimal("0.000000000000000001"), currency="USD",
        price_card="t", cpu_s=1, rss_gib_s=1, peak_rss_gib=1, wall_s=1,
    )  # fmt: skip
    assert CostRecord.parse(json.loads(json.dumps(record.metadata()))) == record
