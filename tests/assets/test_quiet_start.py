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
