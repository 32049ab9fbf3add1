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

    def load(self, source_config: SourceConfig) -> Any:
        """The declared columns as an Arrow table; no row where nothing was ever written.

        Files written before a column was declared have no value in it.
        """
        name = str(source_config.identifier)
        table = Lake(self._root).table(_TABLES.get(name, name))
        nothing = table.empty().to_arrow()
        files = table.pin().file_uris() if table.exists() else []
        if not files:
            return nothing
        with duckdb.connect() as connection:
            stored = connection.read_parquet(files, hive_partitioning=True, union_by_name=True)
            declared = connection.from_arrow(nothing)
            columns = [
                duckdb.ColumnExpression(column)
                if column in stored.columns
                else duckdb.ConstantExpression(None).cast(dtype).alias(column)
                for column, dtype in zip(declared.columns, declared.types, strict=True)
            ]
            return stored.select(*columns).to_arrow_table()
