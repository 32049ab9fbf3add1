"""A quote names what a backfill takes before it runs; cold sources are brought up once."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecast_core.cells import Cells
from forecast_core.cost import Usage
from forecast_core.lifecycle import LifecyclePolicy
from forecast_core.placement import Reader
from forecast_core.schema import TABLES
from forecast_core.settlement import Owner, Settlement, ledger_rows
from forecast_core.tiers import Tier
from resources.backfill_quotes import BackfillQuoter
from resources.lake import Lake
from resources.ledger import Ledger, open_ledger
from resources.lifecycle import Mover, parts_of
from resources.price_card import load_price_card
from resources.storage_ledger import StorageLedger

AS_OF = date(2017, 12, 31)
READERS = [Reader("cleaned_sales", "feature_sales", 60, 1)]
KEYS = ["2016-02-01|S", "2016-03-01|S"]


def sales(first: date) -> pl.DataFrame:
    days = pl.date_range(first, first.replace(day=28), eager=True).alias("date").to_frame()
    filler = {pl.String: "x", pl.Float64: 1.0, pl.Int64: 1, pl.Boolean: True}
    columns = TABLES["cleaned_sales"].columns
    others = {
        name: pl.lit("S" if name == "store_id" else filler.get(dtype), dtype)  # type: ignore[arg-type]
        for name, dtype in columns.items()
        if name != "date"
    }
    return days.with_columns(**others)


@pytest.fixture
def mover(tmp_path: Path) -> Mover:
    """Three months of 2016, cold by age."""
    books = StorageLedger(f"sqlite:///{tmp_path / 'ledger.db'}")
    lake = Lake(tmp_path / "lake", as_of=AS_OF, books=books)
    for month in (1, 2, 3):
        first = date(2016, month, 1)
        cells = Cells(first, first.replace(day=28), ("S",))
        lake.table("cleaned_sales").replace(sales(first), cells)
    return Mover(lake, books, LifecyclePolicy())


@pytest.fixture
def ledger(tmp_path: Path, project_root: Path) -> Ledger:
    """Six runs of the asset, a second of CPU a partition."""
    found = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    rates = load_price_card(project_root / "policies" / "price_card.yaml").on(date(2026, 1, 1))
    now = datetime.now(UTC)
    for n in range(1, 7):
        start = now - timedelta(days=n)
        owner = Owner(
            "dev", asset="feature_sales", run_id=f"r{n}", step_key="feature_sales", attempt=1
        )
        used = Usage(cpu_s=float(n), wall_s=2.0 * n)
        done = Settlement(f"s{n}", owner, start, start, used, rows=28 * n, partitions=n)
        found.record(*ledger_rows(done, rates))
    return found


@pytest.fixture
def quoter(mover: Mover, ledger: Ledger, project_root: Path) -> BackfillQuoter:
    rates = load_price_card(project_root / "policies" / "price_card.yaml").on(date(2026, 1, 1))
    return BackfillQuoter(ledger, mover, rates, "dev", READERS)


def test_a_quote_names_everything_and_changes_nothing(quoter: BackfillQuoter, mover: Mover) -> None:
    version = mover.table("cleaned_sales").version()
    quote = quoter.quote("feature_sales", KEYS)
    cold = sum(part.bytes for part in parts_of(mover.table("cleaned_sales")))
    assert (quote.partitions, quote.bytes_to_rehydrate) == (2, cold)
    assert 0.5 < quote.cpu_s < 8 and quote.minutes > 0
    assert quote.money_upper >= quote.money > 0
    retrieval = cold / 2**30 * 0.03
    assert quote.money - quoter.quote("feature_sales", KEYS, rehydrate=False).money >= retrieval
    for word in ("2 partitions", "bytes to rehydrate", "CPU-s", "USD", "minutes"):
        assert word in quote.line()
    assert mover.table("cleaned_sales").version() == version


def test_cold_sources_are_brought_up_once_for_all_partitions(
    quoter: BackfillQuoter, mover: Mover
) -> None:
    table = mover.table("cleaned_sales")
    before = table.read().frame.collect().height
    (moved,) = quoter.prefetch("feature_sales", KEYS, AS_OF + timedelta(days=14))
    assert moved.rows == before == table.read().frame.collect().height
    assert {part.tier for part in parts_of(table)} == {Tier.WARM}
    assert quoter.prefetch("feature_sales", KEYS, AS_OF + timedelta(days=14)) == []
    assert quoter.quote("feature_sales", KEYS).bytes_to_rehydrate == 0


def test_what_cannot_be_quoted_says_so(quoter: BackfillQuoter, mover: Mover) -> None:
    with pytest.raises(ValueError, match="no dataset is named 'nonsense'"):
        quoter.windows("nonsense", KEYS)
    with pytest.raises(ValueError, match="is not after 2017-12-31"):
        quoter.prefetch("feature_sales", KEYS, AS_OF)
