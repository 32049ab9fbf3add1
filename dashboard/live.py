"""Everything that a page may read, of one installation.

Belongs here: the ledger, admission, marts and lake behind one object, and the answers kept for all
readers. Does not: queries (`dashboard.figures`), nor anything of the browser.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache, partial
from typing import Any, TypeVar

import polars as pl
from deltalake import DeltaTable

from dashboard.kept import Kept
from dashboard.marts import Marts
from dashboard.stores import (
    NothingYet,
    ReadAdmission,
    ReadLedger,
    ReadLog,
    ReadPlans,
    ReadStorage,
    file_of,
    file_stamp,
    stamp_of,
)
from forecast_core.admission.policy import Policy
from forecast_core.storage.lifecycle import LifecyclePolicy
from resources import Settings
from resources.escrow import Escrow
from resources.lake import Lake, LakeTable
from resources.policies import load_policy

T = TypeVar("T")


@lru_cache(maxsize=4)
def opened(settings: Settings) -> Live:
    """One installation for all readers of this process."""
    return Live(settings)


class Live:
    """One installation, read-only. Stores that are missing are looked for again each time."""

    def __init__(
        self, settings: Settings, *, kept: Kept | None = None, today: date | None = None
    ) -> None:
        """`today`: the UTC day of budgets and charges; the wall clock's by default."""
        self.settings, self._today = settings, today
        self.kept = kept or Kept()
        self.marts = Marts(settings.marts)
        self._stores: dict[str, tuple[int, Any]] = {}
        self._lock = threading.Lock()

    @property
    def today(self) -> date:
        """The UTC day."""
        return self._today or datetime.now(UTC).date()

    # ---- stores ------------------------------------------------------------------------------

    @property
    def ledger(self) -> ReadLedger:
        """The cost ledger; raises `NothingYet` or `LedgerVersionError`."""
        return self._opened("ledger", self.settings.ledger, ReadLedger)

    @property
    def admission(self) -> ReadAdmission:
        """Admission; raises `NothingYet` before its first decision."""
        return self._opened("admission", self.settings.admission, ReadAdmission)

    @property
    def storage(self) -> ReadStorage:
        """The books of storage, beside the ledger."""
        return ReadStorage(self.ledger.engine)

    @property
    def plans(self) -> ReadPlans:
        """Capacity plans, beside the ledger."""
        return ReadPlans(self.ledger.engine)

    def log(self, name: str) -> ReadLog:
        """A log of events beside the ledger."""
        return ReadLog(self.ledger.engine, name)

    @property
    def policy(self) -> Policy:
        """The admission policy in force."""
        path = self.settings.admission_policy
        read = partial(load_policy, path, Policy.parse)
        return self.kept.get("policy", lambda: file_stamp(path), read)

    @property
    def escrow(self) -> Escrow:
        """Admission's arithmetic over the read-only store: balances, never decisions."""
        return Escrow(self.admission, self.policy, self.settings.environment)

    @cached_property
    def lake(self) -> Lake:
        """The lake, without books: what a page reads is nobody's work."""
        policy = load_policy(self.settings.lifecycle_policy, LifecyclePolicy.parse)
        return Lake(self.settings.lake_root, policy.tiers)

    def _opened(self, name: str, url: str, open_it: Callable[[str], T]) -> T:
        """The store at `url`; another file in its place is another store."""
        with self._lock:
            known = self._stores.get(name)
            if known is None or known[0] != file_of(url):
                self._stores[name] = known = (file_of(url), open_it(url))
            found: T = known[1]
            return found

    # ---- tables ------------------------------------------------------------------------------

    def table(self, name: str, made_by: str) -> tuple[LakeTable, DeltaTable]:
        """A table of the lake at its newest version.

        Raises:
            NothingYet: it was never written; `made_by` is the command that does.
        """
        table = self.lake.table(name)
        if not table.exists():
            raise NothingYet(f"{name} has no rows yet: {made_by} writes them")
        return table, table.pin()

    def newest(self, name: str, made_by: str) -> date:
        """The newest date of a table, by its log alone."""
        table, handle = self.table(name, made_by)
        files = pl.DataFrame(handle.get_add_actions(flatten=True))
        column = f"max.{table.table.date_column}"
        found = files[column].max() if column in files.columns and files.height else None
        if not isinstance(found, date):
            raise NothingYet(f"{name} has no rows yet: {made_by} writes them")
        return found

    # ---- what answers rest on ----------------------------------------------------------------

    def mark(self) -> tuple[Hashable, ...]:
        """A value that changes when anything that a page shows may have changed."""

        def ask() -> tuple[Hashable, ...]:
            found: list[Hashable] = [self.marts.stamp(), self.today]
            for store in ("ledger", "admission"):
                try:
                    found.append(stamp_of(getattr(self, store).engine))
                except (LookupError, RuntimeError) as error:
                    found.append(str(error))
            found.append(self.versions(("prediction_daily", "eval_accuracy")))
            return tuple(found)

        return self.kept.get("mark", time.monotonic, ask)  # looked at again each time it may be

    def of_ledger(self, key: Hashable, compute: Callable[[], T]) -> T:
        """An answer of the ledger, of today's date."""
        return self.kept.get(key, lambda: (stamp_of(self.ledger.engine), self.today), compute)

    def of_admission(self, key: Hashable, compute: Callable[[], T]) -> T:
        """An answer of admission."""
        return self.kept.get(key, lambda: (stamp_of(self.admission.engine), self.today), compute)

    def of_marts(self, key: Hashable, compute: Callable[[], T]) -> T:
        """An answer of the marts."""
        return self.kept.get(key, self.marts.stamp, compute)

    def of_tables(self, key: Hashable, names: Sequence[str], compute: Callable[[], T]) -> T:
        """An answer of some tables of the lake; changes with any of their versions."""
        return self.kept.get(key, lambda: self.versions(names), compute)

    def versions(self, names: Sequence[str]) -> tuple[int, ...]:
        """The newest version of each table; -1 where there is none."""
        tables = (self.lake.table(name) for name in names)
        return tuple(table.version() if table.exists() else -1 for table in tables)
