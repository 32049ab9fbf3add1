"""A quote names what a backfill takes before it runs; cold sources are brought up once."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecast_core.cells import Cells
from forecast_core.cost.charges import Usage
from forecast_core.cost.price_card import Rates
from forecast_core.cost.settlement import Owner, Settlement, ledger_rows
from forecast_core.schema import TABLES
from forecast_core.storage.lifecycle import LifecyclePolicy, Stay, rollover
from forecast_core.storage.placement import Reader
from forecast_core.storage.tiers import Tier
from resources.backfill_quotes import BackfillQuoter
from resources.lake import Lake
from resources.ledger import Ledger, open_ledger
from resources.lifecycle import Mover, parts_of
from resources.placements import apply, due_of, plan
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
def rates(project_root: Path) -> Rates:
    return load_price_card(project_root / "policies" / "price_card.yaml").on(date(2026, 1, 1))


@pytest.fixture
def ledger(tmp_path: Path, rates: Rates) -> Ledger:
    """Six runs of the asset, a second of CPU a partition."""
    found = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
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
def quoter(mover: Mover, ledger: Ledger, rates: Rates) -> BackfillQuoter:
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


def test_a_quote_counts_the_start_and_end_of_its_run(
    quoter: BackfillQuoter, ledger: Ledger, mover: Mover, rates: Rates
) -> None:
    for n in range(1, 7):
        start = datetime.now(UTC) - timedelta(days=n)
        for gap in range(2):
            around = Owner("dev", cost_class="overhead", pipeline=None, run_id=f"r{n}")
            used = Settlement(f"o{n}:{gap}", around, start, start, Usage(cpu_s=10.0, wall_s=10.0))
            ledger.record(*ledger_rows(used, rates))
    again = BackfillQuoter(ledger, mover, rates, "dev", READERS)
    before, after = (q.quote("feature_sales", KEYS) for q in (quoter, again))
    assert after.cpu_s == pytest.approx(before.cpu_s + 20, rel=0.2)
    assert after.money_upper > before.money_upper


def test_what_was_rehydrated_returns_by_itself_and_once(
    quoter: BackfillQuoter, mover: Mover, rates: Rates
) -> None:
    """The nightly plan goes by cost, which for small files says stay: the return is made anyway."""
    until = AS_OF + timedelta(days=14)
    quoter.prefetch("feature_sales", KEYS, until)

    def night(as_of: date) -> list[str]:
        lake = Lake(mover.lake.root, as_of=as_of, books=mover.books)
        tonight = Mover(lake, mover.books, mover.policy)
        found = plan(tonight, tonight.tables(), READERS, rates, as_of)
        due = due_of(found)
        assert not apply(tonight, due).failed
        return [f"{one.kind} to {one.tier}" for one in due]

    assert night(until) == []
    assert night(until + timedelta(days=1)) == ["return to cold"] * 3
    table = mover.table("cleaned_sales")
    assert {part.tier for part in parts_of(table)} == {Tier.COLD}
    assert mover.books.stays(table.uri) == []


def test_a_later_stay_goes_before_one_that_is_over(mover: Mover) -> None:
    (part,) = parts_of(mover.table("cleaned_sales"))
    warm = replace(part, tier=Tier.WARM)
    over, still = (
        Stay(part.table, part.first, part.last, "S", Tier.WARM, AS_OF + timedelta(days=n), "test")
        for n in (-1, 1)
    )
    due, waiting = rollover([warm], mover.policy.tiers, AS_OF, stays=[over, still])
    assert (due, [w.part for w in waiting]) == ([], [warm])


def test_what_cannot_be_quoted_says_so(quoter: BackfillQuoter, mover: Mover) -> None:
    with pytest.raises(ValueError, match="no dataset is named 'nonsense'"):
        quoter.windows("nonsense", KEYS)
    with pytest.raises(ValueError, match="is not after 2017-12-31"):
        quoter.prefetch("feature_sales", KEYS, AS_OF)
