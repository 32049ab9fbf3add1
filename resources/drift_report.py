"""Evidently's distances between two frames, and its report where there is something to see.

Belongs here: the one place that knows pandas and Evidently. Does not: which columns, which
thresholds, or what follows (`forecast_core.evaluation.drift`).

Current data go first in Evidently's call, the reference second. A report is megabytes of HTML, so
it is written when asked for only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from forecast_core.evaluation.drift import RULERS, comparable, role_of

if TYPE_CHECKING:
    from evidently.core.report import Snapshot


class Comparison:
    """One group's columns, compared once: `scores` by column, and the report on demand."""

    def __init__(self, reference: pl.DataFrame, current: pl.DataFrame) -> None:
        """Columns are numeric; nulls are left out column by column."""
        why = comparable(reference, current)
        self._columns = [name for name in reference.columns if why[name] is None]
        self._snapshot: Snapshot | None = None
        same = reference.equals(current)
        self.scores: dict[str, float] = dict.fromkeys(self._columns, 0.0) if same else {}
        if self._columns and not same:
            self.scores = self._run(reference, current)

    def save(self, path: Path) -> Path | None:
        """Write the report to `path`; None where nothing was compared."""
        if self._snapshot is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._snapshot.save_html(str(path))
        return path

    def _run(self, reference: pl.DataFrame, current: pl.DataFrame) -> dict[str, float]:
        from evidently import Report
        from evidently.metrics import ValueDrift

        rulers = {name: RULERS[role_of(name)] for name in self._columns}
        report = Report(
            [
                ValueDrift(column=name, method=ruler.method, threshold=ruler.threshold)
                for name, ruler in rulers.items()
            ]
        )
        sides = [_pandas(side.select(self._columns)) for side in (current, reference)]
        self._snapshot = report.run(sides[0], sides[1])
        found = self._snapshot.dict()["metrics"]
        return {metric["config"]["column"]: float(metric["value"]) for metric in found}


def _pandas(frame: pl.DataFrame) -> Any:
    import pandas as pd

    return pd.DataFrame({name: frame[name].cast(pl.Float64).to_numpy() for name in frame.columns})
