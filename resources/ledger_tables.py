"""The ledger's tables in SQLite and Postgres, and the guard that keeps them append-only.

Belongs here: columns, types, triggers and the schema version. Does not: queries (`ledger`).

Amounts are exact in both: NUMERIC in Postgres, canonical text in SQLite with a sum of its own
(`exact_sum`), since SQLite's numbers are binary floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator

from forecast_core.cost.allocate import EXACT
from forecast_core.cost.focus import CHARGE_COLUMNS, STEP_COLUMNS

SCHEMA_VERSION = 2  # 2: x_series, x_rows, x_code_version, x_config_version
APPEND_ONLY = ("charges", "settlements")
_REFUSAL = "the ledger is append-only: correct a charge with another row, never by changing one"


class ExactDecimal(TypeDecorator[Decimal]):
    """A Decimal that comes back digit for digit."""

    impl = sa.Numeric(38, 18)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        return dialect.type_descriptor(
            sa.Text() if dialect.name == "sqlite" else sa.Numeric(38, 18)
        )

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> Any:
        return format(value, "f") if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC; SQLite keeps it without its zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class exact_sum(GenericFunction[Decimal]):  # rendered as SQL under this very name
    """Sum of an `ExactDecimal` column without a rounding."""

    type = ExactDecimal()
    inherit_cache = True


@compiles(exact_sum)
def _native_sum(element: Any, compiler: Any, **options: Any) -> str:
    return f"sum({compiler.process(element.clauses, **options)})"


@compiles(exact_sum, "sqlite")
def _python_sum(element: Any, compiler: Any, **options: Any) -> str:
    return f"exact_sum({compiler.process(element.clauses, **options)})"


class ExactSum:
    """The aggregate behind `exact_sum` in SQLite."""

    def __init__(self) -> None:
        self.total = Decimal(0)

    def step(self, value: str | None) -> None:
        if value is not None:
            self.total = EXACT.add(self.total, Decimal(value))

    def finalize(self) -> str:
        return format(self.total, "f")


def _column_type(dtype: pl.DataType) -> sa.types.TypeEngine[Any]:
    if isinstance(dtype, pl.Decimal):
        return ExactDecimal()
    if isinstance(dtype, pl.Datetime):
        return Instant()
    plain: Mapping[type[pl.DataType], sa.types.TypeEngine[Any]] = {
        pl.String: sa.Text(),
        pl.Date: sa.Date(),
        pl.Int64: sa.BigInteger(),
        pl.Float64: sa.Double(),
        pl.Boolean: sa.Boolean(),
    }
    return plain[type(dtype)]


def _columns(declared: Mapping[str, pl.DataType], key: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(name, _column_type(dtype), primary_key=name == key)
        for name, dtype in declared.items()
    ]


metadata = sa.MetaData()
charges = sa.Table(
    "charges",
    metadata,
    *_columns(CHARGE_COLUMNS, "x_charge_id"),
    sa.Column("recorded_at", Instant(), nullable=False),
    sa.Index("charges_by_date", "date"),
    sa.Index("charges_by_run", "x_run_id"),
    sa.Index("charges_by_corrected", "x_corrects"),
)
settlements = sa.Table(
    "settlements",
    metadata,
    *_columns(STEP_COLUMNS, "x_charge_set"),
    sa.Column("recorded_at", Instant(), nullable=False),
    # One settlement a part of an attempt: the guarantee that nothing is charged twice.
    sa.UniqueConstraint("x_run_id", "x_step_key", "x_attempt", "x_part", name="one_settlement"),
    sa.Index("settlements_by_date", "date"),
)
cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    sa.Column("value", sa.Text(), nullable=False),
)
version = sa.Table("schema_version", metadata, sa.Column("version", sa.Integer(), primary_key=True))


def missing_columns(connection: sa.Connection, wanted: sa.MetaData = metadata) -> list[str]:
    """DDL that adds what tables of an older schema lack; their rows have no value there."""
    found = sa.inspect(connection)
    lacking = [
        (table.name, column)
        for table in wanted.sorted_tables
        if found.has_table(table.name)
        for column in table.columns
        if column.name not in {existing["name"] for existing in found.get_columns(table.name)}
    ]
    quoted = connection.dialect.identifier_preparer.quote
    return [
        f"ALTER TABLE {quoted(table)} ADD COLUMN {quoted(column.name)}"
        f" {column.type.compile(connection.dialect)}"
        for table, column in lacking
    ]


def guards(dialect: str) -> list[str]:
    """DDL that makes the database itself refuse to change or remove a row. Safe to run again."""
    return _sqlite_guards() if dialect == "sqlite" else _postgres_guards()


def _sqlite_guards() -> list[str]:
    keys = {"charges": "x_charge_id", "settlements": "x_charge_set"}
    statements = []
    for table in APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            statements.append(
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
        # INSERT OR REPLACE deletes without firing a DELETE trigger, so it is stopped on its way in.
        statements.append(
            f"CREATE TRIGGER IF NOT EXISTS {table}_no_replace BEFORE INSERT ON {table}"
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {keys[table]} = NEW.{keys[table]})"
            " BEGIN SELECT RAISE(IGNORE); END"
        )
    return statements


def _postgres_guards() -> list[str]:
    statements = [
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
    ]
    for table in APPEND_ONLY:
        statements += [
            f"CREATE OR REPLACE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            f"CREATE OR REPLACE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
        ]
    return statements
