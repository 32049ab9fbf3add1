"""Which code and which configuration did the work: what a change of unit cost is looked up by.

Belongs here: digests of the installed sources and of the policies in force. Does not: the version
of a forecaster (its artefact's) or of a price card (it has a name).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from resources import PROJECT_ROOT, Settings

PACKAGES = ("forecast_core", "resources", "forecast_assets")
_DIGITS = 12


@lru_cache(maxsize=1)
def code_version() -> str:
    """A digest of every source file of this installation: equal sources, equal versions."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((PROJECT_ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(PROJECT_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def config_version(settings: Settings, levers: str = "") -> str:
    """A digest of what decides how much work is done: policies, horizon and data set.

    `levers`: the segment policy's effective version, by which levers in force are told.
    """
    digest = hashlib.sha256(f"{settings.dataset} {settings.horizon} {levers}".encode())
    for policy in (settings.segment_policy, settings.admission_policy):
        digest.update(_content(policy))
    return digest.hexdigest()[:_DIGITS]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # whoever needs the file says what is wrong with it
        return b""
