"""Loading the graph says nothing that a user could do nothing about."""

import os
import subprocess
import sys


def test_the_graph_loads_without_a_word(project_root) -> None:
    script = "import forecast_assets.definitions as d; d.defs.get_repository_def()"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=project_root, env=kept
    )
    assert done.returncode == 0 and done.stdout + done.stderr == ""


def test_the_threads_of_a_fit_sleep_while_they_wait(project_root) -> None:
    """OpenMP reads it when LightGBM loads it, so the graph must have said it before."""
    script = "import forecast_assets.definitions, lightgbm"
    kept = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}

    def told(**said: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=project_root,
            env={**kept, **said, "OMP_DISPLAY_ENV": "true"},
        )  # fmt: skip
        return {line.strip() for line in done.stderr.splitlines() if "OMP_WAIT_POLICY" in line}

    assert told() == {"OMP_WAIT_POLICY = 'PASSIVE'"}
    assert told(OMP_WAIT_POLICY="active") == {"OMP_WAIT_POLICY = 'ACTIVE'"}
