"""The admission store's tables, and how a database is opened for them.

Belongs here: columns, the schema version, the engine. Does not: queries (`admission_store`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

SCHEMA_VERSION = 2  # 2: works, admission_runs.work
SLOT_S = 900.0  # budget periods start on a quarter of an hour, whatever the offset of the policy

metadata = sa.MetaData()
version = sa.Table(
    "admission_version", metadata, sa.Column("version", sa.Integer, primary_key=True)
)
shapes = sa.Table(
    "admission_shapes",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
# What waiting runs will do: they are quoted from it again while they wait.
works = sa.Table(
    "admission_works",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
runs = sa.Table(
    "admission_runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("work_class", sa.Text, nullable=False),
    sa.Column("shape", sa.Text, nullable=False),  # with the quotes of the last word on it
    sa.Column("work", sa.Text),  # hash; none where nobody can quote it again
    sa.Column("submitted", sa.Double, nullable=False),
    sa.Column("deadline", sa.Double),
    sa.Column("launch", sa.Text, nullable=False),
    sa.Column("covers", sa.Integer, nullable=False),
    # waiting -> admitted -> settled | waiting -> rejected | waiting -> withdrawn
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("told", sa.Boolean, nullable=False),  # the queue knows the last decision
    sa.Column("pass_id", sa.Integer),
    sa.Column("rung", sa.Text),
    sa.Column("quote", sa.Text),  # what is held, as JSON
    sa.Column("admitted", sa.Double),
    sa.Column("expires", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("code", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("earliest", sa.Double),
    sa.Column("latest", sa.Double),
    sa.Index("admission_runs_open", "state", "environment"),
)
# Settled money by run and pipeline; the sum over a run is what it cost, whatever was held for it.
spent = sa.Table(
    "admission_spent",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("work_class", sa.Text, nullable=False),
    sa.Column("slot", sa.BigInteger, nullable=False),  # quarter of an hour of admission
    sa.Column("nanos", sa.BigInteger, nullable=False),
    sa.Index("admission_spent_slot", "slot"),
)
passes = sa.Table(
    "admission_passes",
    metadata,
    sa.Column("pass_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("environment", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),  # hash
    sa.Column("snapshot_hash", sa.Text, nullable=False),
    sa.Column("snapshot", sa.LargeBinary, nullable=False),  # zlib of canonical JSON
    sa.Column("decisions", sa.LargeBinary, nullable=False),
)
policies = sa.Table(
    "admission_policies",
    metadata,
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
overrides = sa.Table(
    "admission_overrides",
    metadata,
    sa.Column("override_id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("effect", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("made", sa.Double, nullable=False),
    sa.Column("expires", sa.Double, nullable=False),
)
facts = sa.Table(
    "admission_facts",
    metadata,
    sa.Column("environment", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Double, nullable=False),
)


def insert_once(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> int:
    """Insert the rows whose key is not taken; how many were. A batch does not tell, nor does
    Postgres unless it is asked to keep the count."""
    insert: Any
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert
    statement = insert(table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return sum(connection.execute(statement, row).rowcount for row in rows)


def open_engine(url: sa.URL, timeout_s: float) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        options = f"-c lock_timeout={int(timeout_s * 1000)} -c timezone=UTC"
        return sa.create_engine(url, pool_pre_ping=True, connect_args={"options": options})
    if url.get_backend_name() != "sqlite":
        shown = url.render_as_string(hide_password=True)
        raise ValueError(f"{shown}: admission is kept in SQLite or Postgres")
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": timeout_s})
    sa.event.listen(engine, "connect", _on_sqlite_connect)
    sa.event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = dbapi_connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # money that was held stays held after a power cut
    cursor.close()


def _on_sqlite_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
