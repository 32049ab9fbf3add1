"""What is different about a source since it was last landed, and which of it needs a person's word.

Belongs here: comparing two states of a source: columns and their kinds, stores, departments, how
far the data reaches. Does not: finding them out (`resources.landed`), or printing.

Safe by default: what could lose or double history (a store that vanished or was renamed, data that
is gone, a mapped column that changed its kind) holds a load until the mapping says what is meant or
a person accepts it. What only adds (a column, a store, a department) goes on and is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import polars as pl

from forecast_core.source.guess_values import FORMATS

SHRUNK = 0.8  # of the rows that a store had in the months both know: fewer are missing
ALIKE = 0.5  # of the items, or of the months, that two names share: one store renamed
_SHOWN = 5


@dataclass(frozen=True)
class Change:
    """`holds`: nothing is landed until somebody says what is meant."""

    text: str
    holds: bool = False


@dataclass(frozen=True)
class State:
    """What a source looked like.

    `kinds`: table -> column -> number, date, text or empty; `mapped`: table -> columns that the
    mapping reads; `series`: the five attributes; `months`, `rows`: store -> month -> fingerprint,
    and number of rows.
    """

    kinds: Mapping[str, Mapping[str, str]]
    mapped: Mapping[str, frozenset[str]]
    series: pl.DataFrame
    months: Mapping[str, Mapping[date, int]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[date, int]] = field(default_factory=dict)

    @property
    def stores(self) -> set[str]:
        """Stores with sales."""
        return set(self.series["store_id"].drop_nulls())


class SourceChanged(RuntimeError):
    """The source differs from what was landed in a way that could lose or double history."""

    def __init__(self, found: Sequence[Change]) -> None:
        self.changes = tuple(found)
        super().__init__("; ".join(change.text for change in found if change.holds))


def kind_of(values: pl.Series, decimal: str = ".", missing: Sequence[str] = ("",)) -> str:
    """What a column holds, by a sample of it: number, date, text, or empty.

    `missing`: words that stand for nothing.
    """
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return "number" if values.null_count() < len(values) else "empty"
    if values.dtype.is_temporal():
        return "date"
    text = values.drop_nulls().cast(pl.String).str.strip_chars()
    text = text.filter(~text.is_in(list(missing)))
    if text.is_empty():
        return "empty"
    plain = text.str.replace(",", ".", literal=True) if decimal == "," else text
    if plain.cast(pl.Float64, strict=False).is_not_null().mean() >= 0.9:  # type: ignore[operator]
        return "number"
    for form in FORMATS:
        if text.str.to_date(form, strict=False).is_not_null().mean() >= 0.9:  # type: ignore[operator]
            return f"date ({form})"
    return "text"


def changes(before: State, now: State, whole: bool = True) -> list[Change]:
    """What is different, gravest first. Not `whole`: what is absent now is no news."""
    found = [*_columns(before, now), *_stores(before, now, whole)]
    found += [*_departments(before, now, whole), *(_shrunk(before, now) if whole else ())]
    return sorted(found, key=lambda change: not change.holds)


def _columns(before: State, now: State) -> Iterator[Change]:
    for table, kinds in now.kinds.items():
        old = before.kinds.get(table)
        if old is None:
            continue
        mapped = now.mapped.get(table, frozenset())
        for column in kinds:
            if column not in old and column not in mapped:
                yield Change(f"{table}: new column {column!r}, not mapped: left out")
        for column in old:
            if column not in kinds:
                yield Change(f"{table}: column {column!r} is gone", holds=column in mapped)
        for column, kind in kinds.items():
            was = old.get(column, kind)
            if kind != was and "empty" not in (kind, was):
                read = column in mapped
                said = (
                    f"{table}: column {column!r} was {was} and is {kind} now"
                    + ("; rows that cannot be read would be quarantined. " if read else "")
                    + ("Correct the file, or its `format` or `csv` in the mapping" if read else "")
                )
                yield Change(said, holds=read)


def _stores(before: State, now: State, whole: bool) -> Iterator[Change]:
    new = sorted(now.stores - before.stores)
    gone = sorted(before.stores - now.stores) if whole or new else []
    renamed: set[str] = set()
    for store in gone:
        likely = max(new, key=lambda other: _alike(before, now, store, other), default=None)
        alike = _alike(before, now, store, likely) if likely is not None else 0.0
        if likely is not None and alike >= ALIKE:
            renamed.add(likely)
            yield Change(
                f"stores: {store!r} is gone and {likely!r} is new, {alike:.0%} alike: it looks "
                f"renamed, and would be forecast twice. Map `store_id: {{column: ..., values: "
                f"{{{likely}: {store}}}}}` to keep one history under the old name",
                holds=True,
            )
        elif whole:
            yield Change(
                f"stores: {store!r} is gone; what was landed of it stays and is forecast on. Map "
                "its new name to it in `values` if it was renamed",
                holds=True,
            )
    for store in new:
        if store not in renamed:
            yield Change(f"stores: {store!r} is new; it starts without a history of its own")


def _alike(before: State, now: State, gone: str, new: str) -> float:
    """How much of a store that is gone stands in a new one: months of the very same sales, else
    items, where the new one begins no earlier than the old one ended."""
    was, is_now = before.months.get(gone, {}), now.months.get(new, {})
    both = [month for month in was if month in is_now]
    if both:
        same = sum(was[month] == is_now[month] for month in both)
        return same / len(both)
    items = [
        set(state.series.filter(pl.col("store_id") == store)["item_id"])
        for state, store in ((before, gone), (now, new))
    ]
    every = items[0] | items[1]
    return len(items[0] & items[1]) / len(every) if every else 0.0


def _departments(before: State, now: State, whole: bool) -> Iterator[Change]:
    was, is_now = (
        state.series.group_by("item_id").agg(pl.col("dept_id").last()).drop_nulls()
        for state in (before, now)
    )
    old, new = set(was["dept_id"]), set(is_now["dept_id"])
    both = was.join(is_now, on="item_id", suffix="_now")
    moved = both.filter(pl.col("dept_id") != pl.col("dept_id_now"))
    told: set[str] = set()
    for (before_name, after), rows in moved.group_by("dept_id", "dept_id_now", maintain_order=True):
        whole = rows.height == (both["dept_id"] == before_name).sum()
        if whole and before_name not in new and after not in old:
            told |= {str(before_name), str(after)}
            yield Change(
                f"departments: {before_name!r} is called {after!r} now ({rows.height} items)"
            )
        else:
            some = ", ".join(rows["item_id"].sort().head(3))
            yield Change(
                f"departments: {rows.height} items moved from {before_name!r} to {after!r} ({some})"
            )
    for name in sorted(new - old - told):
        count = is_now.filter(pl.col("dept_id") == name).height
        yield Change(f"departments: {name!r} is new, with {count} items")
    for name in sorted(old - new - told) if whole else ():
        yield Change(f"departments: {name!r} is gone from the files")


def _shrunk(before: State, now: State) -> Iterator[Change]:
    """Data that was there and is not any more: a file cut between two lines looks so."""
    found = []
    for store in sorted(before.stores & now.stores):
        was, is_now = before.rows.get(store, {}), now.rows.get(store, {})
        lost = [month for month, rows in was.items() if is_now.get(month, 0) < SHRUNK * rows]
        if lost:
            found.append(
                f"store {store!r} had {sum(was[m] for m in lost):,} rows from {min(lost):%Y-%m} to "
                f"{max(lost):%Y-%m} and has {sum(is_now.get(m, 0) for m in lost):,}"
            )
    for said in found[:_SHOWN]:
        yield Change(
            f"rows: {said}. Deliver the files whole, or set `delivery: changes` if each holds "
            "only what is new",
            holds=True,
        )
    if len(found) > _SHOWN:
        yield Change(f"rows: {len(found) - _SHOWN} more stores have lost rows", holds=True)
