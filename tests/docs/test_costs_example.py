"""The worked example of the page on costs, computed again from its own usage."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml
from documents import ROOT, blocks

from forecast_core.cost.charges import TierIO, Usage, price
from forecast_core.cost.price_card import Rates
from forecast_core.cost.settlement import Owner, Settlement, Share, by_share, ledger_rows
from resources.price_card import load_price_card

PAGE = ROOT / "docs" / "costs.md"
AT = datetime(2026, 1, 5, 3, tzinfo=UTC)


def _row(name: str) -> list[str]:
    (cells,) = re.findall(rf"^\| `?{re.escape(name)}`? \|(.+)\|$", PAGE.read_text(), re.M)
    return [cell.strip() for cell in cells.split("|")]


@pytest.fixture
def example() -> dict[str, Any]:
    return dict(yaml.safe_load(blocks(PAGE, "yaml")[0].text))


@pytest.fixture
def usage(example: dict[str, Any]) -> Usage:
    known = {k: v for k, v in example.items() if k not in ("cold", "predict_seconds")}
    return Usage(**known, tiers={"cold": TierIO(**example["cold"])})


@pytest.fixture
def rates() -> Rates:
    return load_price_card(ROOT / "policies" / "price_card.yaml").on(AT.date(), "dev")


def test_every_line_of_the_card_is_shown_and_right(usage: Usage, rates: Rates) -> None:
    charges = price(usage, rates)
    shown = re.findall(r"^\| `(\w+(?:/\w+)?)` \| [\d.]+ \|", PAGE.read_text(), re.M)
    assert sorted(shown) == sorted(charge.sku for charge in charges)
    for charge in charges:
        quantity, unit_price, cost = map(Decimal, _row(charge.sku))
        assert (quantity, unit_price) == (charge.quantity, charge.unit_price), charge.sku
        assert cost == charge.cost, charge.sku
    assert Decimal(_row("the step")[-1]) == sum(charge.cost for charge in charges)


def test_the_split_is_as_shown(example: dict[str, Any], usage: Usage, rates: Rates) -> None:
    owner = Owner("dev", pipeline="inference", run_id="run", step_key="step", attempt=1)
    seconds = example["predict_seconds"]
    shares = by_share({owner: 1.0}, {Share(name): float(s) for name, s in seconds.items()})
    settlement = Settlement("run:step:1:0", owner, AT, AT, usage)
    whole, rows = ledger_rows(settlement, rates, shares, "predict_seconds")
    for name in seconds:
        money = sum(row["BilledCost"] for row in rows if row["x_forecaster"] == name)
        assert money == Decimal(_row(name)[-1]), name
    assert whole["money"] == sum(row["BilledCost"] for row in rows)
    assert {row["x_method"] for row in rows} == {"predict_seconds"}


def test_the_marts_it_lists_are_those_there_are() -> None:
    models = {path.stem for path in (ROOT / "dbt_project" / "models" / "marts").glob("*.sql")}
    listed = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| [^`]*\|$", PAGE.read_text(), re.M)
    assert {name for cell in listed for name in re.findall(r"\w+", cell)} >= models
