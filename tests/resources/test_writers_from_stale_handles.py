"""Our real writers, each pair from stale handles: what is left is what some serial order gives.

Both read the same version before either commits: the second is made to start inside the first's
commit, after it pinned its handle.
"""

from collections.abc import Callable
from datetime import date, timedelta
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from forecast_core.cells import Cells
from forecast_core.schema import Table
from forecast_core.storage.content import content_hash
from forecast_core.storage.lifecycle import Due, LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources import lake as lake_module
from resources.commits import LakeConflict
from resources.lake import Lake, LakeTable
from resources.lifecycle import MoveFailed, Mover, parts_of
from resources.price_card import load_price_card
from resources.storage_ledger import StorageLedger
from resources.vacuum import vacuum

STOCK = Table(
    "stock",
    {"date": pl.Date, "item_id": pl.String, "store_id": pl.String, "units": pl.Float64},
    key=("date", "item_id", "store_id"),
    cut="month_store",
)
JAN, FEB = date(2016, 1, 1), date(2016, 2, 1)
CARD = Path(__file__).parents[2] / "policies" / "price_card.yaml"


def rows(first: date, days: int, units: float) -> pl.DataFrame:
    span = pl.date_range(first, first + timedelta(days=days - 1), eager=True).alias("date")
    return span.to_frame().with_columns(
        item_id=pl.lit("i"), store_id=pl.lit("S"), units=pl.lit(units)
    )


class Writers:
    """Every writer that the project has, on one table of two months."""

    def __init__(self, root: Path) -> None:
        self.books = StorageLedger(f"sqlite:///{root / 'ledger.db'}")
        self.mover = Mover(Lake(root / "lake", books=self.books), self.books, LifecyclePolicy())
        self.table: LakeTable = self.mover.lake.table(STOCK)
        for day in range(0, 28, 14):
            first = JAN + timedelta(days=day)
            self.table.replace(
                rows(first, 14, 1.0), Cells(first, first + timedelta(days=13), ("S",))
            )
        self.table.replace(rows(FEB, 20, 1.0), Cells(FEB, date(2016, 2, 20), ("S",)))

    def nightly(self) -> None:
        day = date(2016, 2, 21)
        self.table.replace(rows(day, 1, 5.0), Cells(day, day, ("S",)))

    def late_correction(self) -> None:
        day = date(2016, 1, 5)
        self.table.replace(rows(day, 1, 9.0), Cells(day, day, ("S",)))

    def move(self) -> None:
        self._make(Tier.WARM, "move")

    def widening(self) -> None:
        self._make(Tier.COLD, "move")

    def compaction(self) -> None:
        self._make(None, "compact")

    def rehydrate(self) -> None:
        try:
            whole = Cells(JAN, date(2016, 2, 29), ("S",))
            self.mover.rehydrate(self.table, whole, Tier.HOT, date(2030, 1, 1), "test")
        except MoveFailed:
            pass

    def delete(self) -> None:
        self.table.replace(rows(JAN, 1, 0.0).clear(), Cells(JAN, date(2016, 1, 31), ("S",)))

    def vacuum(self) -> None:
        vacuum(self.mover, self.table, load_price_card(CARD).on(JAN), dry_run=False)

    def _make(self, tier: Tier | None, kind: str) -> None:
        for part in parts_of(self.table):
            wanted = tier or part.tier
            if kind == "move" and wanted is part.tier:
                continue
            try:
                due = Due(part, wanted, kind, "test")  # type: ignore[arg-type]
                self.mover.make(self.table, due)
            except (MoveFailed, LakeConflict):
                continue  # gone meanwhile: the other writer emptied it

    @property
    def content(self) -> tuple[int, int]:
        found = self.table.read().frame.collect()
        assert found.height == found.select("date", "item_id", "store_id").unique().height
        return found.height, content_hash(found)


NAMES = (
    "nightly", "late_correction", "move", "widening", "compaction", "rehydrate", "delete", "vacuum",
)  # fmt: skip


_KNOWN: dict[tuple[str, str], tuple[int, int]] = {}


def in_order(factory: pytest.TempPathFactory, *order: str) -> tuple[int, int]:
    """What the table holds after the writers came one after the other."""
    first, second = order
    if (first, second) not in _KNOWN:
        writers = Writers(factory.mktemp("in-order"))
        for name in order:
            getattr(writers, name)()
        _KNOWN[first, second] = writers.content
    return _KNOWN[first, second]


@pytest.mark.parametrize(("first", "second"), list(product(NAMES, NAMES)))
def test_two_writers_from_stale_handles_end_as_in_some_order(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
) -> None:
    serial = {in_order(tmp_path_factory, *order) for order in ((first, second), (second, first))}
    folder = tmp_path / "together"
    folder.mkdir()
    writers = Writers(folder)
    real: Callable[..., None] = lake_module.write_deltalake
    intruded: list[str] = []

    def intrude(handle: DeltaTable, *args: object, **kwargs: object) -> None:
        if not intruded:
            intruded.append(second)
            getattr(writers, second)()  # commits while `first` holds its handle
        real(handle, *args, **kwargs)

    monkeypatch.setattr(lake_module, "write_deltalake", intrude)
    getattr(writers, first)()
    if not intruded:  # the first writes nothing by itself
        getattr(writers, second)()
    assert writers.content in serial
    assert not writers.books.open_moves()
