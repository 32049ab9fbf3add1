"""A finished main job on generated data, shared by the tests that look at its results."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCALE = {
    "FORECAST_DEMO_SERIES": "100",
    "FORECAST_DEMO_STORES": "2",
    "FORECAST_DEMO_DAYS": "420",
}


@dataclass(frozen=True)
class Installation:
    """A data root and a Dagster home of their own, and the programs run against them."""

    root: Path
    environment: dict[str, str]

    def program(self, name: str, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a console script of the environment; the caller looks at its exit code."""
        return subprocess.run(
            [str(Path(sys.executable).with_name(name)), *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**self.environment, **extra},
            timeout=600,
        )

    def forecast(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `forecast ...`."""
        return self.program("forecast", *arguments, **extra)


Install = Callable[[Path], Installation]


def install(root: Path) -> Installation:
    """An empty installation under `root`, on a small demo."""
    home = root / "dagster"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "dagster.yaml", home / "dagster.yaml")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FORECAST_", "DAGSTER_"))}
    return Installation(
        root,
        {
            **kept,
            **SCALE,
            "DAGSTER_HOME": str(home),
            "FORECAST_DATA": str(root / "data"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "DAGSTER_EVENT_BATCH_SIZE": "200",
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "200",
        },
    )


@pytest.fixture(scope="session")
def empty_installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Nothing has run here yet."""
    return install(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def own_installation(tmp_path: Path) -> Installation:
    """An installation for one test alone."""
    return install(tmp_path / "installation")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Installation, str]:
    """`forecast demo` has run here; its output beside it."""
    installation = install(tmp_path_factory.mktemp("finished"))
    done = installation.forecast("demo")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return installation, done.stdout
