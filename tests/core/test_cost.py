"""Usage becomes charges, charges are split, and no cent is made or lost on the way."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.cost.charges import (
    CostRecord,
    TierIO,
    Usage,
    allocate,
    early_deletion_charge,
    price,
    quantity,
    storage_charge,
)
from forecast_core.cost.price_card import SKUS, Rates
from forecast_core.cost.settlement import Owner, Settlement, Share, by_share, ledger_rows, records

GIB = 2**30
RATES = Rates(
    name="t",
    effective_from=date(2020, 1, 1),
    currency="USD",
    prices={sku: Decimal(i + 1) / 1000 for i, sku in enumerate(SKUS)},
    minimum_bytes={"cold": GIB},
    minimum_days={"cold": 90},
)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)

weights = st.dictionaries(
    st.text(max_size=4),
    st.floats(0, 1e12, allow_nan=False) | st.just(0.0),
    min_size=1,
    max_size=12,
)
amounts = st.decimals(-(10**6), 10**6, places=9, allow_nan=False)
seconds = st.floats(0, 1e6)
counts = st.integers(0, 10**12)
usages = st.builds(
    Usage,
    cpu_s=seconds,
    rss_gib_s=seconds,
    wall_s=seconds,
    gpu_s=seconds,
    bytes_read=counts,
    bytes_written=counts,
    files_read=st.integers(0, 10**4),
    files_written=st.integers(0, 10**4),
)


@given(amounts, weights)
def test_allocation_conserves_money(total: Decimal, of: dict[str, float]) -> None:
    parts = allocate(total, of)
    assert sum(parts.values()) == total
    assert parts.keys() == of.keys()


@given(amounts, weights, st.randoms())
def test_allocation_does_not_depend_on_the_order(total, of, random) -> None:
    shuffled = list(of.items())
    random.shuffle(shuffled)
    assert allocate(total, dict(shuffled)) == allocate(total, of)


@given(st.decimals(0, 10**6, places=9), weights)
def test_each_part_is_within_a_quantum_of_its_share(total: Decimal, of: dict[str, float]) -> None:
    from fractions import Fraction

    whole = sum(map(Fraction, of.values()))
    for key, part in allocate(total, of).items():
        share = Fraction(of[key]) / whole if whole else Fraction(1, len(of))
        assert abs(Fraction(part) - Fraction(total) * share) < Fraction(1, 10**9)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_allocation_refuses_a_weight_that_is_none(weight: float) -> None:
    with pytest.raises(ValueError, match="'b'"):
        allocate(Decimal(1), {"a": 1.0, "b": weight})
    with pytest.raises(ValueError, match="at least one"):
        allocate(Decimal(1), {})


def test_price_charges_each_line_at_its_rate() -> None:
    usage = Usage(
        cpu_s=2.0,
        rss_gib_s=3.0,
        gpu_s=0.5,
        bytes_read=3 * GIB,
        files_read=5,
        files_written=1,
        tiers={"cold": TierIO(bytes_read=GIB, files_read=2)},
    )
    found = {charge.sku: charge.quantity for charge in price(usage, RATES)}
    assert found == {
        "vcpu_s": Decimal(2),
        "gib_s": Decimal(3),
        "gpu_s": Decimal("0.5"),
        "read_request/hot": Decimal(3),
        "read_request/cold": Decimal(2),
        "retrieval_gib/hot": Decimal(2),
        "retrieval_gib/cold": Decimal(1),
        "write_request/hot": Decimal(1),
    }
    for charge in price(usage, RATES):
        assert charge.cost == charge.quantity * RATES.prices[charge.sku]


def test_a_step_that_used_nothing_still_has_a_charge() -> None:
    assert [charge.sku for charge in price(Usage(), RATES)] == ["vcpu_s"]


@given(usages, usages)
def test_usage_adds_up(one: Usage, other: Usage) -> None:
    both = one + other
    assert both.cpu_s == one.cpu_s + other.cpu_s
    assert both.bytes_read == one.bytes_read + other.bytes_read
    assert both.peak_rss_gib == max(one.peak_rss_gib, other.peak_rss_gib)


def test_storage_is_paid_by_the_day_with_the_minimum_size_and_duration() -> None:
    may = date(2026, 5, 9)
    assert storage_charge([GIB, GIB], "hot", may, RATES).quantity == quantity(2 / 31)
    assert storage_charge([10, 10], "cold", may, RATES).quantity == quantity(2 / 31)
    owed = early_deletion_charge(GIB, "cold", 80, may, RATES)
    assert owed.quantity == quantity(10 / 31)
    assert early_deletion_charge(GIB, "cold", 90, may, RATES).quantity == 0


def _settlement(usage: Usage) -> Settlement:
    owner = Owner(environment="dev", asset="a", run_id="r", step_key="s", attempt=1)
    return Settlement("r:s:1:0", owner, NOON, NOON + timedelta(seconds=9), usage)


@given(usages, st.dictionaries(st.sampled_from("ABCDEFG"), st.floats(0, 1e9), max_size=7))
def test_any_cut_of_a_settlement_sums_to_it(usage: Usage, by_store: dict[str, float]) -> None:
    settlement = _settlement(usage)
    shares = {Owner(environment="dev", store_id=s): w for s, w in by_store.items()}
    row, rows = ledger_rows(settlement, RATES, shares)
    assert sum(r["BilledCost"] for r in rows) == row["money"]
    whole = {charge.sku: charge.quantity for charge in price(usage, RATES)}
    for sku, total in whole.items():
        assert sum(r["PricingQuantity"] for r in rows if r["SkuId"] == sku) == total
    assert all(r["BilledCost"] == r["PricingQuantity"] * r["ListUnitPrice"] for r in rows)
    ids = [r["x_charge_id"] for r in rows]
    assert len(set(ids)) == len(ids)
    again = ledger_rows(settlement, RATES, dict(reversed(shares.items())))[1]
    assert {r["x_charge_id"]: r for r in again} == {r["x_charge_id"]: r for r in rows}


@given(usages, st.dictionaries(st.text(max_size=5), st.integers(0, 10**6), min_size=1, max_size=9))
def test_the_records_of_the_partitions_sum_to_the_settlement(usage, rows) -> None:
    settlement = _settlement(usage)
    found = records(settlement, RATES, rows)
    money = ledger_rows(settlement, RATES)[0]["money"]
    assert sum(record.money for record in found.values()) == money
    assert found.keys() == rows.keys()
    assert sum(record.share for record in found.values()) == pytest.approx(1)


@given(usages, st.integers(0, 10**6))
def test_a_record_is_parsed_by_the_model_that_wrote_it(usage: Usage, rows: int) -> None:
    record = records(_settlement(usage), RATES, {"2016-04-01|CA_1": rows})["2016-04-01|CA_1"]
    assert CostRecord.parse(record.metadata()) == record
    assert CostRecord.parse({"other": 1}) is None


def test_a_record_that_is_not_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="money"):
        CostRecord.parse({"cost": {"run_id": "r"}})


def test_shares_cross_with_stores_and_keep_what_they_do_not_name() -> None:
    stores = {Owner("dev", store_id=s, forecaster="gbm"): w for s, w in (("A", 1.0), ("B", 3.0))}
    drivers = {Share(segment_group="x"): 1.0, Share(segment_group="y", forecaster="floor"): 1.0}
    found = {
        (owner.store_id, owner.segment_group, owner.forecaster): weight
        for owner, weight in by_share(stores, drivers).items()
    }
    assert found == {
        ("A", "x", "gbm"): 1.0,
        ("A", "y", "floor"): 1.0,
        ("B", "x", "gbm"): 3.0,
        ("B", "y", "floor"): 3.0,
    }
    nothing_written = dict.fromkeys(stores, 0.0)
    assert set(by_share(nothing_written, {Share("f"): 2.0, Share("g"): 0.0}).values()) == {2.0, 0.0}


def test_a_driver_measured_in_a_place_stays_in_it_and_rows_are_whole() -> None:
    stores = {Owner("dev", store_id=s, rows=r): float(r) for s, r in (("A", 100), ("B", 1))}
    drivers = {
        Share("gbm", "v1", "core", "A", series=2): 3.0,
        Share("floor", None, "tail", "A", series=1): 1.0,
        Share("gbm", "v1", "core", "B", series=5): 6.0,
    }
    found = {
        (owner.forecaster, owner.store_id, owner.series, owner.rows): weight
        for owner, weight in by_share(stores, drivers).items()
    }
    assert found == {
        ("gbm", "A", 2, 67): 3.0,
        ("floor", "A", 1, 33): 1.0,
        ("gbm", "B", 5, 1): 6.0,
    }
    elsewhere = {Share("gbm", store_id="C"): 1.0}
    assert by_share(stores, elsewhere) == stores
