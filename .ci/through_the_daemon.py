"""Launch a job and a partitioned backfill with the dagster CLI, run them by a real daemon."""

import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

BIN = Path(sys.executable).parent
MODULE = ["-m", "forecast_assets.definitions"]
DONE = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def dagster(*arguments: str) -> str:
    """Run the dagster CLI; its output."""
    done = subprocess.run([str(BIN / "dagster"), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(
            f"dagster {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def wait_for(instance: dg.DagsterInstance, count: int, seconds: float) -> None:
    """Until `count` runs beyond those before have ended; all must have succeeded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runs = instance.get_runs(limit=count)
        if len(runs) == count and all(run.status in DONE for run in runs):
            bad = [run for run in runs if run.status is not dg.DagsterRunStatus.SUCCESS]
            if bad:
                raise SystemExit(
                    f"run {bad[0].run_id} ended as {bad[0].status.value}: {why(instance, bad[0])}"
                )
            return
        time.sleep(2)
    raise SystemExit(f"runs still not done after {seconds:.0f} s")


def why(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The last words of a run: its tags of admission and the errors in its log."""
    errors = [
        str(event.dagster_event.event_specific_data)[-2000:]
        for event in instance.all_logs(run.run_id)
        if event.dagster_event is not None and event.dagster_event.is_failure
    ]
    return "\n".join([str({k: v for k, v in run.tags.items() if "admission" in k}), *errors])


def main() -> None:
    first, last, store, other = sys.argv[1:]
    daemon = subprocess.Popen(
        [str(BIN / "dagster-daemon"), "run", *MODULE],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with dg.DagsterInstance.get() as instance:
            before = instance.get_runs_count()
            dagster(
                "job", "backfill", *MODULE, "--job", "segments_job", "--noprompt",
                "--partitions", f"{first},{last}",
            )  # fmt: skip
            wait_for(instance, instance.get_runs_count() - before, 300)
            launched = instance.get_runs_count() - before
            print(f"segments_job: {launched} runs through the daemon")
            if launched != 2:
                raise SystemExit(f"two partitions were asked for, {launched} runs were made")
            dagster(
                "job", "launch", *MODULE, "--job", "landing_job", "--tags",
                f'{{"dagster/asset_partition_range_start": "{last}|{store}", '
                f'"dagster/asset_partition_range_end": "{last}|{other}"}}',
            )  # fmt: skip
            wait_for(instance, 1, 300)
            print("landing_job: 1 run through the daemon")
    finally:
        daemon.terminate()
        daemon.wait(30)
    for table in ("demand_segments", "cleaned_sales"):
        subprocess.run([str(BIN / "forecast"), "lake", "count", table], check=True)


if __name__ == "__main__":
    main()
