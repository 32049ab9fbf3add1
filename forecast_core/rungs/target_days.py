"""What is known beforehand of the days to be forecast: calendar, events, SNAP.

Belongs here: the calendar as arrays by day, coded by a vocabulary that travels with the model.
Does not: prices (they differ by item) and anything read off sales.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

EVENTS = ("event_name_1", "event_type_1", "event_name_2")
_CODED = (*EVENTS, "event_before", "event_after")
COLUMNS = ("weekday", "month", "day", "week", *_CODED, "snap")


def vocabulary(calendar: pl.DataFrame) -> dict[str, list[str]]:
    """The event names and types of a calendar, sorted: their positions are their codes."""
    return {c: sorted(calendar[c].drop_nulls().unique().to_list()) for c in EVENTS}


@dataclass(frozen=True, eq=False)
class TargetDays:
    """Arrays by day from `first` on; codes are -1 for no event and for an unknown one."""

    first: date
    by_column: Mapping[str, np.ndarray]

    @classmethod
    def of(
        cls,
        calendar: pl.DataFrame,
        vocabulary: Mapping[str, Sequence[str]],
        state_id: str,
        first: date,
        last: date,
    ) -> TargetDays:
        """The days `first`..`last`; a day that the calendar lacks has no event."""
        span = pl.DataFrame(
            {"date": [first + timedelta(days=k - 1) for k in range((last - first).days + 3)]}
        )
        days = span.join(calendar, on="date", how="left", maintain_order="left")
        coded = {
            c: days[c]
            .replace_strict(
                {name: code for code, name in enumerate(vocabulary[c])},
                default=-1,
                return_dtype=pl.Int32,
            )
            .fill_null(-1)
            .to_numpy()
            for c in EVENTS
        }
        snap = f"snap_{state_id}"
        flags = days[snap].cast(pl.Int32).fill_null(0) if snap in days.columns else None
        stamp = days["date"].dt
        columns = {
            "weekday": (stamp.weekday() - 1).to_numpy()[1:-1],
            "month": stamp.month().to_numpy()[1:-1],
            "day": stamp.day().to_numpy()[1:-1],
            "week": stamp.week().to_numpy()[1:-1],
            **{c: codes[1:-1] for c, codes in coded.items()},
            "event_before": coded[EVENTS[0]][:-2],
            "event_after": coded[EVENTS[0]][2:],
            "snap": np.zeros(span.height - 2) if flags is None else flags.to_numpy()[1:-1],
        }
        return cls(first, columns)

    def at(self, offsets: np.ndarray, names: Sequence[str] = COLUMNS) -> list[np.ndarray]:
        """Those columns, in their order, of days given by their distance from `first`.

        No event is NaN here: as a code, LightGBM would warn of it on every fit.
        """
        chosen = (self.by_column[name][offsets].astype(np.float32) for name in names)
        return [
            np.where(values < 0, np.nan, values) if name in _CODED else values
            for name, values in zip(names, chosen, strict=True)
        ]
