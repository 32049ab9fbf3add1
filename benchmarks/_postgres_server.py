"""A real Postgres server of its own on loopback.

Belongs here: finding, starting and ending it. Does not: what is kept in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa


class NoPostgres(LookupError):
    """No server is installed here."""


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The SQLAlchemy URL of its database `postgres`; the data lie in `folder`.

    Raises:
        NoPostgres: no server is installed, with what to install.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    where = os.pathsep.join([os.environ.get("PATH", ""), *map(str, debian)])
    found = [shutil.which(name, path=where) for name in ("initdb", "postgres")]
    if None in found:
        raise NoPostgres("no Postgres server: install the package `postgresql`")
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # the server refuses to run as root
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and parent.stat().st_mode & 1 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
    data = str(folder / "data")
    initdb, server_program = (os.path.realpath(name or "") for name in found)
    subprocess.run(
        [initdb, "-D", data, "-U", "forecast", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **user,
    )  # fmt: skip
    for _ in range(3):
        url, server = _started(server_program, folder, user)
        if _answers(url, server):
            break
        server.kill()
        server.wait()
    else:
        raise RuntimeError(f"Postgres did not start: {(folder / 'log').read_text()[-2000:]}")
    try:
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # fast: a forgotten client does not hold it up
        server.wait(timeout=30)


def _started(
    program: str, folder: Path, user: Mapping[str, Any]
) -> tuple[str, subprocess.Popen[bytes]]:
    """On a port that was free a moment ago: another process may have taken it since."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)]
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-F"], cwd=folder, stdout=log, stderr=log, **user
        )
    return f"postgresql+psycopg://forecast@127.0.0.1:{port}/postgres", server


def _answers(url: str, server: subprocess.Popen[bytes], patience_s: float = 120.0) -> bool:
    """Whether it came up: False once it has ended, or where it does not in time."""
    engine = sa.create_engine(url)
    until = time.monotonic() + patience_s
    try:
        while server.poll() is None and time.monotonic() < until:
            try:
                engine.connect().close()
                return True
            except sa.exc.OperationalError:
                time.sleep(0.1)
        return False
    finally:
        engine.dispose()


def new_database(url: str, name: str) -> str:
    """Make an empty database on the server of `url`; its URL."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
    engine.dispose()
    return str(sa.make_url(url).set(database=name))
