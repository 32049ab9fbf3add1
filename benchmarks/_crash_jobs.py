"""The runs that `ledger_crash` kills: short steps of every shape, metered like any other.

`python -m benchmarks._crash_jobs MODE` runs one; MODE is `in_process` or `multiprocess`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg

from resources.meter import Meter, metered

LEDGER, CARD = "CRASH_LEDGER", "CRASH_CARD"
STEP_S = 0.12


def work(seconds: float = STEP_S) -> None:
    """Keep the processor and the clock busy."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        sum(range(1000))


class LazyIO(dg.IOManager):
    """Does half of the work while writing, as the project's IO managers do."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Work, then settle."""
        self.meter.opened(context)
        work(STEP_S / 2)
        self.meter.wrote(context, 1000, 1)
        for metadata in self.meter.settle(context, {"": 1}).values():
            context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> Any:
        """Count a read."""
        self.meter.opened(context)
        self.meter.read(context, 1000, 1)
        return 1


@dg.asset(metadata={"cost/pipeline": "ingest"})
@metered
def first() -> int:
    """A plain step."""
    work()
    return 1


@dg.multi_asset(outs={"left": dg.AssetOut(), "right": dg.AssetOut()})
@metered
def pair(first: int) -> tuple[int, int]:
    """A step with two outputs, charged in two parts."""
    work()
    return first, first


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
@metered
def flaky(context: dg.AssetExecutionContext, first: int) -> int:
    """A step that succeeds at its second attempt."""
    work()
    if context.op_execution_context.retry_number == 0:
        raise ValueError("the first attempt fails")
    return 1


@dg.asset
@metered
def last(left: int, flaky: int) -> None:
    """A step without a value."""
    work()


def crash_job() -> dg.JobDefinition:
    """The job, rebuilt in each process."""
    meter = Meter(os.environ[LEDGER], Path(os.environ[CARD]), "dev")
    definitions = dg.Definitions(
        assets=[first, pair, flaky, last],
        jobs=[dg.define_asset_job("crash")],
        resources={"meter": meter, "io_manager": LazyIO(meter)},
    )
    return definitions.resolve_job_def("crash")


def main(mode: str) -> None:
    """Run the job once on the instance of DAGSTER_HOME."""
    fork = {"start_method": {"forkserver": {"preload_modules": ["benchmarks._crash_jobs"]}}}
    executors = {"in_process": {}, "multiprocess": {**fork, "max_concurrent": 2}}
    config = {"execution": {"config": {mode: executors[mode]}}}
    with dg.DagsterInstance.get() as instance:
        print("ready", flush=True)
        job = dg.reconstructable(crash_job)
        dg.execute_job(job, instance, run_config=config)


if __name__ == "__main__":
    main(sys.argv[1])
