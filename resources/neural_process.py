"""The neural rung in a process of its own: pinned threads, its own memory, its own import.

Belongs here: handing a panel over, waiting, and taking weights or forecasts back. Does not: any
network (`forecast_core.rungs.neural`).

torch and its threads never enter the process of the graph: a crash or a leak stays outside, the
meter charges the child's CPU to the step that waits for it, and what is exchanged are Parquet,
JSON and safetensors in a folder that is thrown away. Run as `python -m resources.neural_process
FOLDER` it is the child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path

import polars as pl

from forecast_core.rungs import neural
from forecast_core.rungs.gbm import Fitted
from forecast_core.rungs.neural import NeuralError, NeuralSpec

_TIMEOUT_S = 3600
_ROOT = Path(__file__).resolve().parent.parent


def fit(
    history: pl.DataFrame, cutoff: date, spec: NeuralSpec, start: bytes | None = None
) -> Fitted:
    """`neural.fit` in a child.

    Raises:
        NeuralError: what the child says, or that it died.
    """
    job: dict[str, object] = {"cutoff": cutoff.isoformat(), "spec": asdict(spec)}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        if start is not None:
            (at / "start.bin").write_bytes(start)
        _run(at, job, history, spec.threads)
        drivers = json.loads((at / "drivers.json").read_text())
        return Fitted((at / "model.bin").read_bytes(), drivers)


def predict(artefact: bytes, history: pl.DataFrame, cutoff: date, threads: int = 1) -> pl.DataFrame:
    """`neural.predict` in a child; raises as `fit`."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "model.bin").write_bytes(artefact)
        _run(at, {"cutoff": cutoff.isoformat()}, history, threads)
        return pl.read_parquet(at / "forecast.parquet")


def _run(folder: Path, job: dict[str, object], history: pl.DataFrame, threads: int) -> None:
    (folder / "job.json").write_text(json.dumps(job))
    history.write_parquet(folder / "history.parquet")
    # Set before the child starts: torch and BLAS read them once, on import.
    pinned = [f"{name}={threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    child = ["env", *pinned, f"POLARS_MAX_THREADS={threads}", sys.executable, "-W", "ignore"]
    try:
        done = subprocess.run(
            [*child, "-m", "resources.neural_process", str(folder)],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise NeuralError(f"the network took longer than {_TIMEOUT_S} s; use fewer steps") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it died without a word"])[-1]
        raise NeuralError(f"the network's process failed: {said}")


def _child(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    history = pl.read_parquet(folder / "history.parquet")
    cutoff = date.fromisoformat(job["cutoff"])
    if "spec" not in job:
        rows = neural.predict((folder / "model.bin").read_bytes(), history, cutoff)
        rows.write_parquet(folder / "forecast.parquet")
        return
    started = folder / "start.bin"
    start = started.read_bytes() if started.is_file() else None
    fitted = neural.fit(history, cutoff, NeuralSpec(**job["spec"]), start)
    (folder / "model.bin").write_bytes(fitted.artefact)
    (folder / "drivers.json").write_text(json.dumps(fitted.drivers))


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
