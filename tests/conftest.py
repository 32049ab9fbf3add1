"""Fixtures shared by every test: where the real data is, and threads that leave room."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
