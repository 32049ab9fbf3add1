"""What was landed of a mapped source, and what of it is different now.

Belongs here: the record beside the staged files, the state of a source, and the parts to land
again. Does not: comparing two states (`forecast_core.source.changes`), or landing (`batch`).

The record names the lake's tables by their ids: a lake that was thrown away or put elsewhere is
landed whole again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from forecast_core.source.changes import Change, State
from forecast_core.source.landing import changed, fingerprints
from forecast_core.source.rows import columns_of
from forecast_core.storage.content import content_hash
from forecast_core.storage.tiers import month_end, next_month
from resources.lake import Lake
from resources.mapped_source import LANDED, MappedSource
from resources.source_stage import tables

Months = Mapping[str, Mapping[date, int]]
_SERIES = "landed_series.parquet"
_TABLES = ("raw_sales", "raw_prices")


@dataclass(frozen=True)
class Survey:
    """A source as it stands: its state, prices and calendar, and the stage they were read from.

    `known` is the last day for which prices were asked.
    """

    stage: str
    span: tuple[date, date]
    known: date
    state: State
    prices: Months
    calendar: int


@dataclass(frozen=True)
class Parts:
    """What to land: store -> months. `calendar`: the days too."""

    sales: Mapping[str, set[date]] = field(default_factory=dict)
    prices: Mapping[str, set[date]] = field(default_factory=dict)
    calendar: bool = False

    @property
    def none(self) -> bool:
        """Nothing to do."""
        return not (self.calendar or any(self.sales.values()) or any(self.prices.values()))

    @property
    def count(self) -> int:
        """Months of stores whose sales are made again."""
        return sum(map(len, self.sales.values()))


def survey(source: MappedSource, known: date) -> Survey:
    """Read it all, a store at a time; `known` is the last day for which prices are planned."""
    first, last = source.span()
    salt = content_hash(
        pl.DataFrame({"how": [source.policy.model_dump_json() + str(source.frequency)]})
    )
    # In the last month cleaning fills gaps up to the last day, whatever rows the month has.
    ending = last.toordinal() if last < month_end(last) else 0
    whole = source.mapping.delivery == "whole"
    months: dict[str, dict[date, int]] = {}
    rows: dict[str, dict[date, int]] = {}
    prices: dict[str, dict[date, int]] = {}
    for store in source.stores():
        sales = source.sales(store, first, last).drop("store_id")
        found = fingerprints(sales, salt)
        held = dict(sales.group_by(pl.col("date").dt.month_start()).len().iter_rows())
        within = months_of(first, last) if whole else sorted(held)
        months[store] = {month: found.get(month, salt) for month in within}
        if last.replace(day=1) in months[store]:
            months[store][last.replace(day=1)] += ending
        rows[store] = {month: held.get(month, 0) for month in within}
        spans = source.prices(store, first, known).drop("store_id")
        cost = fingerprints(spans)
        begin = first if whole else min(held, default=first)
        prices[store] = {month: cost.get(month, 0) for month in months_of(begin, known)}
    calendar = content_hash(source.calendar())
    state = State(_kinds(source), _mapped(source), source.series(), months, rows)
    return Survey(stage_of(source), (first, last), known, state, prices, calendar)


def over(now: Survey, before: Survey) -> Survey:
    """The record of what is landed where `now` brought changes only."""
    series = pl.concat([before.state.series, now.state.series]).unique(
        ["item_id", "store_id"], keep="last", maintain_order=True
    )
    state = State(
        {**before.state.kinds, **now.state.kinds},
        now.state.mapped,
        series,
        _merged(before.state.months, now.state.months),
        _merged(before.state.rows, now.state.rows),
    )
    span = min(before.span[0], now.span[0]), max(before.span[1], now.span[1])
    prices = _merged(before.prices, now.prices)
    return Survey(now.stage, span, max(before.known, now.known), state, prices, now.calendar)


def _merged(before: Months, now: Months) -> dict[str, dict[date, int]]:
    stores = {**before, **now}
    return {store: {**before.get(store, {}), **now.get(store, {})} for store in stores}


def stage_of(source: MappedSource) -> str:
    """What the source is read from: another name for other files, or another mapping of them."""
    return f"{pl.__version__} {source.reading}"


def months_of(first: date, last: date) -> list[date]:
    """First days of the months from that of `first` to that of `last`."""
    found = [first.replace(day=1)]
    while next_month(found[-1]) <= last:
        found.append(next_month(found[-1]))
    return found


class Landed:
    """The record of one source in one lake; `read` finds none before the first landing.

    `mapping` is the file that the source is mapped by: a lake is called after it, and those of one
    name must not mix.
    """

    def __init__(self, root: Path, lake: Lake, mapping: Path) -> None:
        self._root, self._lake, self._mapping = root, lake, mapping

    def another(self) -> Change | None:
        """That the lake holds what another mapping of this name landed."""
        held = self._held()
        theirs = held.get("mapping") if held is not None else None
        if theirs is None or theirs == str(self._mapping):
            return None
        return Change(
            f"the lake {self._lake.root} holds what {theirs} landed: call this mapping otherwise, "
            "for a lake of its own, unless it is the same one in another place",
            holds=True,
        )

    def read(self) -> Survey | None:
        """What was landed last, if this lake still has it."""
        held = self._held()
        if held is None:
            return None
        state = State(
            held["kinds"],
            {table: frozenset(columns) for table, columns in held["mapped"].items()},
            pl.read_parquet(self._root / _SERIES),
            _dated(held["months"]),
            _dated(held["rows"]),
        )
        span = (date.fromisoformat(held["span"][0]), date.fromisoformat(held["span"][1]))
        known = date.fromisoformat(held["known"])
        prices = _dated(held["prices"])
        return Survey(held["stage"], span, known, state, prices, held["calendar"])

    def write(self, survey: Survey) -> None:
        """Remember what has just been landed."""
        state = survey.state
        record = {
            "mapping": str(self._mapping),
            "stage": survey.stage,
            "known": survey.known.isoformat(),
            "span": [day.isoformat() for day in survey.span],
            "lake": self._ids(),
            "kinds": state.kinds,
            "mapped": {table: sorted(columns) for table, columns in state.mapped.items()},
            "months": _written(state.months),
            "rows": _written(state.rows),
            "prices": _written(survey.prices),
            "calendar": survey.calendar,
        }
        self._root.mkdir(parents=True, exist_ok=True)
        state.series.write_parquet(self._root / _SERIES)
        aside = self._root / f"{LANDED}.aside"
        aside.write_text(json.dumps(record))
        aside.replace(self._root / LANDED)

    def _held(self) -> dict[str, Any] | None:
        try:
            held: dict[str, Any] = json.loads((self._root / LANDED).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return held if held["lake"] == self._ids() else None

    def _ids(self) -> list[str]:
        tables = [self._lake.table(name) for name in _TABLES]
        return [self._lake.root] + [
            str(table.pin().metadata().id) if table.exists() else "" for table in tables
        ]


def parts(now: Survey, before: Survey | None) -> Parts:
    """What `now` has that `before` had otherwise or not at all; everything without a `before`.

    Sales are cleaned with their prices, so a month whose prices changed is cleaned again.
    """
    was = before.state.months if before else {}
    was_priced = before.prices if before else {}
    if before is not None and before.stage.split()[0] != now.stage.split()[0]:
        was, was_priced = {}, {}  # hashes of another version of polars are other hashes
    prices = {
        store: changed(found, was_priced.get(store, {}), found)
        for store, found in now.prices.items()
    }
    sales = {
        store: changed(found, was.get(store, {}), found) | (prices[store] & set(found))
        for store, found in now.state.months.items()
    }
    calendar = before is None or before.calendar != now.calendar or not was
    return Parts(sales, prices, calendar)


def _kinds(source: MappedSource) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for file in source.manifest.files:
        mine = found.setdefault(file.table, {})
        for column, kind in zip(file.columns, file.kinds, strict=True):
            if mine.get(column, "empty") == "empty":
                mine[column] = kind
    return found


def _mapped(source: MappedSource) -> dict[str, frozenset[str]]:
    return {name: frozenset(columns_of(table)) for name, table in tables(source.mapping).items()}


def _dated(held: Mapping[str, Any]) -> dict[str, dict[date, int]]:
    return {
        store: {date.fromisoformat(month): value for month, value in months.items()}
        for store, months in held.items()
    }


def _written(months: Months) -> dict[str, dict[str, int]]:
    return {
        store: {month.isoformat(): value for month, value in found.items()}
        for store, found in months.items()
    }
