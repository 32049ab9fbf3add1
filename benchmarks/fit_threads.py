"""What the threads of a fit cost: one or two, asleep or spinning while they wait.

`cpu_s_SIZE_THREADS` and `wall_s_...` of a fit of so many examples, made at random in the gbm's
shape, each in a process of its own since OpenMP reads its policy once; `busy_` beside a process
that holds a core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from forecast_core.rungs.gbm import GbmSpec

COLUMNS, ROUNDS = 45, 60
SIZES, QUICK_SIZES = (70_000, 300_000, 1_500_000), (20_000,)
# Name -> threads, and what OpenMP is told ("" is its own default: they spin).
WAYS = {"one": (1, "passive"), "two_asleep": (2, "passive"), "two_spinning": (2, "")}


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU- and wall-seconds of every way, on free cores and beside a busy process."""
    figures: dict[str, float | int | str] = {"rounds": ROUNDS}
    for size in QUICK_SIZES if quick else SIZES:
        for name, (threads, policy) in WAYS.items():
            figures |= _named(f"{size}_{name}", _fitted(size, threads, policy))
            if size < 1_000_000:
                with _busy():
                    figures |= _named(f"busy_{size}_{name}", _fitted(size, threads, policy))
    return figures


def _named(name: str, taken: dict[str, float]) -> dict[str, float]:
    return {f"{unit}_{name}": value for unit, value in taken.items()}


def _fitted(size: int, threads: int, policy: str) -> dict[str, float]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    told = {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-m", "benchmarks.fit_threads", str(size), str(threads)]
    done = subprocess.run(command, env=env | told, capture_output=True, text=True, check=True)
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken


@contextmanager
def _busy() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


def _fit(size: int, threads: int) -> dict[str, float]:
    import lightgbm as lgb
    import numpy as np

    from forecast_core.rungs import gbm

    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, COLUMNS)).astype(np.float32)
    y = rng.poisson(np.exp(x[:, 0] * 0.3)).astype(np.float32)
    parameters = gbm._parameters(GbmSpec(), size) | {"num_threads": threads}
    data = lgb.Dataset(x, y, params=parameters).construct()
    wall, cpu = time.perf_counter(), time.process_time()
    lgb.train(parameters, data, ROUNDS)
    return {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}


if __name__ == "__main__":
    print(json.dumps(_fit(int(sys.argv[1]), int(sys.argv[2]))))
