"""Who is champion of a segment group: what the decision log has in force.

Belongs here: reading and writing promotions. Does not: the verdict
(`forecast_core.evaluation.tuning`).
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from forecast_core.evaluation.tuning import Comparison, promoted
from forecast_core.events import Event, Refusal
from resources import Settings
from resources.decision_store import DecisionStore


def champions(settings: Settings, group: str) -> dict[str, Any]:
    """Settings that a promotion in force gives the group's forecaster; none by default."""
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return promoted(DecisionStore(settings.ledger).all(), group)


def promote(settings: Settings, group: str, changed: Mapping[str, Any], verdict: Comparison) -> str:
    """Log a promotion with its figures and put it in force; the decision's id.

    Raises:
        RuntimeError: the log refused it, in its own words.
    """
    store = DecisionStore(settings.ledger)
    now = datetime.now(UTC)
    option = verdict.option(group, changed)
    text = json.dumps(option, sort_keys=True)
    key = hashlib.sha256(f"{now.isoformat()}{text}".encode()).hexdigest()[:12]
    reason = (
        f"challenger of {group}: error lower by {verdict.gain:.4f} over {verdict.windows} windows, "
        f"worth {verdict.worth:.4f} a period for {verdict.dearer:+.4f}"
    )
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("proposed", {"reason": reason, "options": [option]}),
        ("approved", {"by": "policy"}),
        ("applied", {"by": "policy", "policy_version": version}),
    ]
    for action, details in steps:
        result = store.append(Event(key, now, action, details))
        if isinstance(result, Refusal):
            raise RuntimeError(f"promotion {key}: {result.reason}")
    return key
