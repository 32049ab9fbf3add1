"""Delta tables as dbt sources: what dbt-duckdb loads when a model names one.

Belongs here: the plugin that profiles.yml names. Does not: any model.

A source is read at one pinned version, by DuckDB itself, from the files that the Delta log names:
no DuckDB extension is downloaded, and a reader never sees half a commit.
"""

from __future__ import annotations

from typing import Any

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import SourceConfig

from resources.lake import Lake
from resources.ledger_history import COST_LEDGER, COST_STEPS

_TABLES = {table.name: table for table in (COST_LEDGER, COST_STEPS)}


class Plugin(BasePlugin):
    """`config.root`: the lake; a source's identifier is the name of its dataset."""

    def initialize(self, config: dict[str, Any]) -> None:
        """Remember the lake."""
        self._root = str(config.get("root", ""))
        self._pinned: dict[str, Any] = {}

    def load(self, source_config: SourceConfig) -> Any:
        """The rows as an Arrow table; a table that was never written has its columns and no row."""
        name = str(source_config.identifier)
        table = Lake(self._root).table(_TABLES.get(name, name))
        if not table.exists():
            return table.empty().to_arrow()
        files = table.pin().file_uris()
        if not files:
            return table.empty().to_arrow()
        with duckdb.connect() as connection:
            relation = connection.read_parquet(files, hive_partitioning=True)
            columns = [duckdb.ColumnExpression(column) for column in table.table.columns]
            return relation.select(*columns).to_arrow_table()
