"""Any ledger exports to valid FOCUS rows, and rating again changes prices but never history."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core.cost.charges import Usage
from forecast_core.cost.focus import (
    CHARGE_COLUMNS,
    LEDGER_COLUMNS,
    Account,
    as_text,
    complete,
    export_rows,
    violations,
)
from forecast_core.cost.price_card import SKUS, PriceCard, PriceCardError, Quota, Rates
from forecast_core.cost.rerate import corrections
from forecast_core.cost.settlement import Owner, Settlement, ledger_rows

START = datetime(2026, 1, 30, tzinfo=UTC)


def rates(name: str, per_mille: int) -> Rates:
    prices = {sku: Decimal(per_mille * (i + 1)) / 10**9 for i, sku in enumerate(SKUS)}
    return Rates(name, date(2011, 1, 1), "USD", prices)


def card(*entries: Rates) -> PriceCard:
    return PriceCard("USD", "p", "r", Quota(1, 1), {"default": entries})


OLD, NEW = rates("old", 7), rates("new", 11)
texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=6)
owners = st.builds(
    Owner,
    environment=st.sampled_from(["dev", "prod"]),
    cost_class=st.sampled_from(["workload", "idle", "overhead"]),
    pipeline=texts,
    forecaster=texts,
    store_id=texts,
    asset=texts,
    run_id=texts,
)
settled = st.builds(
    lambda i, owner, minutes, seconds, cpu, gpu, files: Settlement(
        f"set{i}",
        owner,
        START + timedelta(minutes=minutes),
        START + timedelta(minutes=minutes, seconds=seconds),
        Usage(cpu_s=cpu, gpu_s=gpu, files_read=files, bytes_read=files * 1000),
    ),
    st.integers(0, 10**9),
    owners,
    st.integers(0, 10000),
    st.floats(1e-6, 1e4),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(0, 10**6),
)
ledgers = st.lists(settled, max_size=6, unique_by=lambda s: s.charge_set)
shares = st.dictionaries(owners, st.floats(0, 1e6), max_size=4)


def frame(made: list[Settlement], split: dict[Owner, float] | None = None) -> pl.DataFrame:
    rows = [row for s in made for row in ledger_rows(s, OLD, split)[1]]
    return pl.DataFrame(rows, schema=dict(CHARGE_COLUMNS))


@settings(deadline=None)
@given(ledgers, shares)
def test_any_ledger_is_valid_focus(made: list[Settlement], split: dict[Owner, float]) -> None:
    full = complete(frame(made, split), Account())
    assert violations(full) == []
    assert full.schema == pl.Schema(LEDGER_COLUMNS)


@settings(deadline=None)
@given(ledgers, shares)
def test_every_cut_of_a_ledger_sums_to_its_total(made, split) -> None:
    full = complete(frame(made, split), Account())
    total = sum(full["BilledCost"].to_list(), Decimal(0))
    for cut in ("x_pipeline", "x_store_id", "x_cost_class", "SkuId", "SubAccountId", "date"):
        parts = full.group_by(cut).agg(pl.col("BilledCost").sum())["BilledCost"].to_list()
        assert sum(parts, Decimal(0)) == total


@settings(deadline=None)
@given(ledgers)
def test_rating_twice_is_rating_once_and_the_total_is_the_cards(made: list[Settlement]) -> None:
    before = frame(made)

    def rated(ledger: pl.DataFrame, to: Rates) -> pl.DataFrame:
        rows = [r for c in corrections(ledger, card(to)) for r in (c.takes_back, c.charges)]
        return pl.concat([ledger, pl.DataFrame(rows, schema=dict(CHARGE_COLUMNS))])

    once = rated(before, NEW)
    assert rated(once, NEW).equals(once)
    assert once.head(before.height).equals(before)
    assert violations(complete(once, Account())) == []
    want = sum((q * NEW.of(s) for q, s in before.select("PricingQuantity", "SkuId").iter_rows()), 0)
    assert sum(once["BilledCost"].to_list(), Decimal(0)) == want
    assert once["PricingQuantity"].sum() == before["PricingQuantity"].sum()
    there_and_back = rated(rated(once, OLD), NEW)
    assert sum(there_and_back["BilledCost"].to_list(), Decimal(0)) == want
    assert there_and_back["x_charge_id"].is_unique().all()


def one(**usage: float) -> pl.DataFrame:
    owner = Owner("dev", pipeline="training", asset="a", run_id="r")
    end = START + timedelta(seconds=1.5)
    return frame([Settlement("s", owner, START, end, Usage(**usage))])


def test_another_currency_is_refused() -> None:
    with pytest.raises(PriceCardError, match="is in USD, the card in EUR"):
        corrections(one(cpu_s=1), replace(card(NEW), currency="EUR"))


def test_a_card_without_the_day_is_refused() -> None:
    late = replace(NEW, effective_from=date(2027, 1, 1))
    with pytest.raises(PriceCardError, match="covers 2026-01-30"):
        corrections(one(cpu_s=1), card(late))


def test_a_correction_says_what_it_changes() -> None:
    (correction,) = corrections(one(cpu_s=1), card(NEW))
    assert correction.difference == Decimal("0.000000004")
    assert correction.takes_back["x_corrects"] == one(cpu_s=1)["x_charge_id"][0]
    assert correction.charges["SkuPriceId"] == "vcpu_s@new"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"ChargePeriodEnd": pl.col("ChargePeriodStart")}, "charge period: start before end"),
        ({"BillingPeriodEnd": pl.col("BillingPeriodStart")}, "billing period: start before end"),
        ({"ListCost": pl.col("ListCost") + 1}, "cost = unit price x quantity"),
        ({"EffectiveCost": pl.col("ListCost") * 2}, "list = contracted = effective = billed cost"),
        ({"ContractedUnitPrice": pl.lit(9)}, "list = contracted unit price"),
        ({"Tags": pl.lit('{"a": 1}')}, "tags are a JSON object of strings"),
        ({"Tags": pl.lit("{")}, "tags are a JSON object of strings"),
        ({"BillingCurrency": pl.lit("DOGE")}, "currency is of ISO 4217"),
        ({"x_cost_class": pl.lit("other")}, "cost class is known"),
        ({"x_charge_id": pl.lit("same")}, "charge ids are unique"),
        ({"ChargeClass": pl.lit("Refund")}, "charge class is empty or Correction"),
        ({"ChargeClass": pl.lit("Correction")}, "a correction names what it corrects, nothing"),
        ({"PricingQuantity": -pl.col("PricingQuantity")}, "a quantity is negative only in a corr"),
        ({"ServiceName": pl.lit(None, pl.String)}, "ServiceName is not empty"),
        ({"date": pl.lit(date(2020, 1, 1))}, "date is the day of the charge period"),
    ],
)
def test_a_broken_row_is_found(change: dict[str, pl.Expr], rule: str) -> None:
    full = complete(one(cpu_s=1, gpu_s=2), Account())
    broken = full.with_columns(**change).cast(dict(LEDGER_COLUMNS))
    assert any(found.rule.startswith(rule) for found in violations(broken)), violations(broken)


def test_the_export_has_the_columns_of_the_standard_and_nothing_unmarked() -> None:
    exported = export_rows(complete(one(cpu_s=1), Account()))
    names = exported.columns
    own = [name for name in names if name.startswith("x_")]
    standard = names[: -len(own)]
    assert standard == sorted(standard) and all(name[0].isupper() for name in standard)
    assert "date" not in names


def test_a_csv_keeps_periods_from_becoming_empty() -> None:
    (row,) = as_text(export_rows(complete(one(cpu_s=1), Account()))).to_dicts()
    assert row["ChargePeriodStart"] == "2026-01-30T00:00:00Z"
    assert row["ChargePeriodEnd"] == "2026-01-30T00:00:02Z"
    assert row["BillingPeriodEnd"] == "2026-02-01T00:00:00Z"
    assert json.loads(row["Tags"]) == {"pipeline": "training", "environment": "dev"}
