"""Dagster's SQLite event log with its connections kept and its batches written as batches.

Belongs here: how the events of a Dagster home reach its SQLite files. Does not: what is in them,
nor their schema and upgrades, which stay Dagster's own (`SqliteEventLogStorage`).

A range of partitions is hundreds of events, and Dagster's own class opens an engine, a connection
and a transaction for each of them, twice; a step would cost more in events than in work. The files
are the same: either class reads what the other wrote.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._config import StringSource
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData

from resources import write_events_in_batches

KEPT = 16  # shards: the index and the runs at hand; a daemon sees thousands go by


class KeptSqliteEventLogStorage(SqliteEventLogStorage):
    """For `event_log_storage` of a dagster.yaml; `home` is the Dagster home, its files are where
    Dagster puts them by itself (`history/runs`)."""

    def __init__(self, home: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._pid = os.getpid()
        self._tables: set[str] = set()
        write_events_in_batches()
        super().__init__(os.path.join(home, "history", "runs"), inst_data)

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        """What dagster.yaml says."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> KeptSqliteEventLogStorage:
        """As Dagster makes it."""
        return cls(inst_data=inst_data, **config_value)

    def has_table(self, table_name: str) -> bool:
        """Asked at every event; a table that is there stays there."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Events of assets in one transaction a file, the rest one by one; in the order given."""
        for (run_id, of_assets), group in groupby(events, lambda e: (e.run_id, _of_asset(e))):
            if of_assets:
                self._store_asset_events(run_id, list(group))
            else:
                for event in group:
                    self.store_event(event)

    def _store_asset_events(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(run_id) as conn:
            conn.execute(SqlEventLogStorageTable.insert(), rows)
        with self.index_transaction() as conn:
            made = SqlEventLogStorageTable.insert().returning(
                SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
            )
            ids: list[int] = list(conn.execute(made, rows).scalars())
            self._store_asset_event_tags(conn, events, ids)
            # An asset's row keeps the last event of each kind.
            last = {_kind(event): (event, at) for event, at in zip(events, ids, strict=True)}
            for event, at in last.values():
                self._store_asset_event(conn, event, at)

    def wipe(self) -> None:
        """Delete every event; kept connections would go on in files that are gone."""
        self._forget()
        super().wipe()

    def dispose(self) -> None:
        """Close what is kept."""
        self._forget()
        super().dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock, self._engine(shard).begin() as conn:
            yield conn

    def _engine(self, shard: str) -> sa.Engine:
        if self._pid != os.getpid():
            # A fork must neither use its parent's connections nor close them.
            self._inherited, self._engines, self._pid = self._engines, OrderedDict(), os.getpid()
        if shard not in self._engines:
            self._engines[shard] = self._open(shard)
            if len(self._engines) > KEPT:
                self._engines.popitem(last=False)[1].dispose()
        self._engines.move_to_end(shard)
        return self._engines[shard]

    def _open(self, shard: str) -> sa.Engine:
        engine = sa.create_engine(
            self.conn_string_for_shard(shard),
            # One connection, passed from thread to thread under the lock.
            poolclass=sa.StaticPool,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine

    def _forget(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _of_asset(event: dg.EventLogEntry) -> bool:
    return event.is_dagster_event and event.get_dagster_event().event_type in ASSET_EVENTS


def _kind(event: dg.EventLogEntry) -> tuple[Any, str]:
    of_dagster = event.get_dagster_event()
    return of_dagster.asset_key, of_dagster.event_type_value
