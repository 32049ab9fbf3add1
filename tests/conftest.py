"""Fixtures shared by every test: where the real data is, and threads that leave room."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")

import pytest
import sqlalchemy as sa

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


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Postgres server of its own on loopback; the URL of its `postgres` database."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    where = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
    found = [shutil.which(name, path=where) for name in ("initdb", "postgres")]
    if None in found:
        pytest.skip("no Postgres server: install the package `postgresql` to run these tests")
    folder = tmp_path_factory.mktemp("postgres")
    user: dict[str, object] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and parent.stat().st_mode & 1 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    initdb, postgres = (os.path.realpath(name or "") for name in found)
    subprocess.run(
        [initdb, "-D", data, "-U", "forecast", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **user,
    )  # fmt: skip
    server = subprocess.Popen(
        [postgres, "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    url = f"postgresql+psycopg://forecast@127.0.0.1:{port}/postgres"
    engine = sa.create_engine(url)
    try:
        for _ in range(100):
            try:
                engine.connect().close()
                break
            except sa.exc.OperationalError:
                threading.Event().wait(0.1)
        yield url
    finally:
        engine.dispose()
        server.send_signal(signal.SIGINT)  # fast: a forgotten client does not hold it up
        server.wait(timeout=30)
