"""The storage ledger as the lake is told of it: opened at the first write, never failing one.

Belongs here: what happens to a file between its commit and its record. Does not: the record.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sqlalchemy.exc import DBAPIError

from forecast_core.storage.lifecycle import LifecyclePolicy
from resources.commits import Commit
from resources.ledger import LedgerError
from resources.s3 import ObjectClasses, is_s3
from resources.storage_ledger import WRITE, StorageLedger, open_storage_ledger
from resources.traffic import Place, Traffic

_log = logging.getLogger(__name__)


class LateBooks:
    """Records what is written, and on S3 gives it the class of its tier.

    The ledger being away does not fail a write that is committed already: the next scrub reads the
    files whole and records them.
    """

    def __init__(self, url: str, policy: LifecyclePolicy) -> None:
        self._url, self._policy = url, policy

    @property
    def ledger(self) -> StorageLedger:
        """The storage ledger behind it."""
        return open_storage_ledger(self._url)

    def wrote(self, uri: str, done: Commit) -> None:
        """These files were added to the table at `uri`."""
        try:
            self.ledger.wrote(uri, done, WRITE)
        except (LedgerError, DBAPIError) as error:
            _log.warning("%s: files not recorded, the next scrub will: %s", uri, error)
        if is_s3(uri):  # last: an archived object could not be hashed any more
            ObjectClasses(self._policy).set(uri, done.added)

    def read(self, uri: str, parts: Mapping[Place, Traffic]) -> None:
        """An asset read these parts of the table at `uri`: what the placement planner counts."""
        try:
            self.ledger.read(uri, parts)
        except (LedgerError, DBAPIError) as error:
            _log.warning("%s: a read was not counted: %s", uri, error)
