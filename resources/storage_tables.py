"""The storage ledger's tables in SQLite and Postgres.

Belongs here: columns and keys. Does not: queries (`storage_ledger`).
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

files = sa.Table(
    "storage_files",
    metadata,
    sa.Column("uri", sa.Text, primary_key=True),
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("tier", sa.Text),
    sa.Column("version", sa.BigInteger, nullable=False),
    # How it came here: 'write', the kind of a move, or 'scrub' for what was found unrecorded.
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("deleted_at", sa.DateTime(timezone=True)),
)

moves = sa.Table(
    "storage_moves",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("first", sa.Date, nullable=False),
    sa.Column("last", sa.Date, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("from_tier", sa.Text, nullable=False),
    sa.Column("to_tier", sa.Text, nullable=False),
    # begun: nothing is known yet. verified: what was written reads as before. restored: it did not,
    # and the rows of before were put back; overtaken: or had been replaced by another writer.
    # abandoned: it never committed.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("base_version", sa.BigInteger, nullable=False),
    sa.Column("version", sa.BigInteger),
    sa.Column("rows", sa.BigInteger),
    sa.Column("bytes_read", sa.BigInteger),
    sa.Column("bytes_written", sa.BigInteger),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("closed_at", sa.DateTime(timezone=True)),
)

holds = sa.Table(
    "storage_holds",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("table", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("first", sa.Date),
    sa.Column("last", sa.Date),
    sa.Column("owner", sa.Text),
    sa.Column("until", sa.Date),
    sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
)

stays = sa.Table(
    "storage_stays",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("table", sa.Text, nullable=False),
    sa.Column("first", sa.Date, nullable=False),
    sa.Column("last", sa.Date, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("until", sa.Date, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

reads = sa.Table(
    "storage_reads",
    metadata,
    sa.Column("uri", sa.Text, primary_key=True),
    sa.Column("tier", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("reads", sa.BigInteger, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
