"""Fixtures shared by every test: where the real data is, a finished demo, a Postgres server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # workers share the cores
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCALE = {
    "FORECAST_DEMO_SERIES": "100",
    "FORECAST_DEMO_STORES": "2",
    "FORECAST_DEMO_DAYS": "420",
}


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout under test."""
    return ROOT


def _data_folder(variable: str, name: str) -> Path:
    beside = ROOT.parent / "shared" / "data" / name
    folder = Path(os.environ.get(variable, beside if beside.is_dir() else ROOT / "data" / name))
    if not folder.is_dir():
        pytest.skip(f"real data not found: set {variable} to the folder of {name}")
    return folder.resolve()


@pytest.fixture(scope="session")
def m5_dir() -> Path:
    """The official M5 files (30,490 series); skips where they are absent."""
    return _data_folder("M5_DIR", "m5")


@pytest.fixture(scope="session")
def m5_small_dir() -> Path:
    """A long cut of M5 (1,095 series); skips where it is absent."""
    return _data_folder("M5_SMALL_DIR", "m5_small")


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Postgres server of its own on loopback; the URL of its `postgres` database."""
    from benchmarks._postgres_server import NoPostgres, postgres

    try:
        with postgres(tmp_path_factory.mktemp("postgres")) as url:
            yield url
    except NoPostgres as missing:
        pytest.skip(f"{missing} to run these tests")


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
            timeout=1800,
        )

    def forecast(self, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `forecast ...`."""
        return self.program("forecast", *arguments, **extra)

    def copied(self, root: Path) -> "Installation":
        """The same installation under another root, to be changed without the others' notice."""
        shutil.copytree(self.root, root)
        moved = {"FORECAST_DATA": str(root / "data"), "DAGSTER_HOME": str(root / "dagster")}
        return Installation(root, {**self.environment, **moved})


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
