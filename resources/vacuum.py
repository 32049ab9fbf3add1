"""Deleting the files that no version in use names, and what that costs.

Belongs here: which versions are kept, the deletion, the minimum-duration charges that it brings.
Does not: moves (`lifecycle`), prices (`forecast_core.cost.price_card`).

Kept are: the newest version, whatever was removed less than the retention ago (never shorter than
the longest job), every held version, and the version that an unsettled move started from. Files
that no version names (a killed writer left them) go by their own age.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from forecast_core.cost.charges import early_deletion_charge
from forecast_core.cost.price_card import Rates
from resources.lake import LakeTable
from resources.lifecycle import Mover
from resources.storage_ledger import FileRecord
from resources.table_files import files_of


class RetentionTooShort(ValueError):
    """A retention below the longest job: a reader could lose its files."""


@dataclass(frozen=True)
class Vacuumed:
    """What was (or, dry, would be) deleted from one table."""

    table: str
    files: int
    bytes: int
    kept_versions: tuple[int, ...]
    early_deletion: Decimal
    dry_run: bool


def vacuum(
    mover: Mover,
    table: LakeTable,
    rates: Rates,
    *,
    hours: int | None = None,
    dry_run: bool = True,
) -> Vacuumed:
    """Delete what nobody can ask for any more; dry unless told otherwise.

    Raises:
        RetentionTooShort: `hours` are fewer than the policy's longest job takes.
    """
    policy, books = mover.policy, mover.books
    hours = policy.vacuum_after_hours if hours is None else hours
    if hours < policy.longest_job_hours:
        raise RetentionTooShort(
            f"{table.table.name}: {hours} hours are less than the longest job "
            f"({policy.longest_job_hours} hours): it could lose the files that it reads. Use "
            "--hours of at least that, or lower longest_job_hours in the lifecycle policy"
        )
    if not dry_run:
        mover.settle(table)
    kept = {hold.version for hold in books.holds(table.uri)}
    kept |= {move.base_version for move in books.open_moves(table.uri)}
    handle = table.pin()
    sizes = files_of(table.uri).sizes()
    gone = handle.vacuum(
        retention_hours=hours,
        dry_run=dry_run,
        enforce_retention_duration=False,  # ours is enforced above, against the longest job
        full=True,
        keep_versions=sorted(kept) or None,
    )
    known = books.files(table.uri)
    if not dry_run:
        books.deleted(table.uri, gone)
    owed = sum((_owed(known[path], rates) for path in gone if path in known), Decimal(0))
    return Vacuumed(
        table.table.name,
        len(gone),
        sum(sizes.get(path, 0) for path in gone),
        tuple(sorted(kept)),
        owed,
        dry_run,
    )


def _owed(record: FileRecord, rates: Rates) -> Decimal:
    """What is left to pay of the minimum duration of the file's tier."""
    now = datetime.now(UTC)
    age = (now - record.recorded_at).days
    tier = record.tier or "hot"
    return early_deletion_charge(record.bytes, tier, age, now.date(), rates).cost
