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
from collections.abc import Iterator
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = str(folder / "data")
    initdb, server_program = (os.path.realpath(name or "") for name in found)
    subprocess.run(
        [initdb, "-D", data, "-U", "forecast", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **user,
    )  # fmt: skip
    server = subprocess.Popen(
        [server_program, "-D", data, "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    url = f"postgresql+psycopg://forecast@127.0.0.1:{port}/postgres"
    engine = sa.create_engine(url)
    try:
        for _ in range(600):
            try:
                engine.connect().close()
                break
            except sa.exc.OperationalError:
                time.sleep(0.1)
        yield url
    finally:
        engine.dispose()
        server.send_signal(signal.SIGINT)  # fast: a forgotten client does not hold it up
        server.wait(timeout=30)


def new_database(url: str, name: str) -> str:
    """Make an empty database on the server of `url`; its URL."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
    engine.dispose()
    return str(sa.make_url(url).set(database=name))
