"""A card that cannot rate is refused before it rates, with the entry, the fault and the remedy."""

import copy
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from forecast_core.cost.price_card import SKUS, PriceCard, PriceCardError
from resources.policies import PolicyError
from resources.price_card import load_price_card


@pytest.fixture
def content(project_root: Path) -> dict:
    return yaml.safe_load((project_root / "policies" / "price_card.yaml").read_text())


def _entry(content: dict, index: int = 0) -> dict:
    return content["environments"]["default"][index]


def _later(content: dict, start: date, **changes: object) -> dict:
    entry = copy.deepcopy(_entry(content)) | {"name": str(start), "effective_from": start}
    entry.pop("effective_to", None)
    content["environments"]["default"].append(entry | changes)
    return content


def test_the_card_of_the_project_prices_every_line(content: dict) -> None:
    rates = PriceCard.parse(content).on(date(2016, 5, 22), "prod")
    assert rates.prices.keys() == set(SKUS)
    assert rates.of("vcpu_s") == Decimal("0.000011244")  # as written, not as a binary float
    with pytest.raises(PriceCardError, match="no rate for 'vcpu'"):
        rates.of("vcpu")


def test_a_day_has_the_latest_rates_that_had_begun(content: dict) -> None:
    card = PriceCard.parse(_later(content, date(2020, 3, 1)))
    assert card.on(date(2020, 2, 29)).name == "2011"
    assert card.on(date(2020, 3, 1)).name == "2020-03-01"


def test_an_environment_may_have_a_card_of_its_own(content: dict) -> None:
    own = copy.deepcopy(_entry(content)) | {"name": "prod contract"}
    own["rates"]["vcpu_s"] = 1
    content["environments"]["prod"] = [own]
    card = PriceCard.parse(content)
    assert card.on(date(2026, 1, 1), "prod").of("vcpu_s") == 1
    assert card.on(date(2026, 1, 1), "dev").name == "2011"


def test_a_day_before_the_card_has_no_rates(content: dict) -> None:
    with pytest.raises(PriceCardError, match=r"covers 2010-12-31.*add one whose effective_from"):
        PriceCard.parse(content).on(date(2010, 12, 31))


def test_an_ended_card_has_no_rates_after_it(content: dict) -> None:
    _entry(content)["effective_to"] = date(2020, 1, 1)
    with pytest.raises(PriceCardError, match="covers 2020-01-02"):
        PriceCard.parse(content).on(date(2020, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(currency="DOGE"), "currency: 'DOGE' is no currency"),
        (lambda c: c.pop("currency"), "currency: None"),
        (lambda c: c.pop("environments"), "environments: no entries under 'default'"),
        (lambda c: c["environments"].update(default=[]), "environments.default: no entries"),
        (lambda c: c.pop("presumed_quota"), "presumed_quota: missing"),
        (lambda c: c.update(presumed_quota={"vcpus": -1, "gib": 1}), "presumed_quota.vcpus is -1"),
        (lambda c: _entry(c)["rates"].update(vcpu_s=-1), r"\(2011\): rate 'vcpu_s' is -1.*zero or"),
        (lambda c: _entry(c)["rates"].update(vcpu_s="x"), "rate 'vcpu_s' is 'x'; write a number"),
        (lambda c: _entry(c)["rates"].update(vcpu_s=True), "rate 'vcpu_s' is True"),
        (lambda c: _entry(c)["rates"].update(vcpu_s=float("nan")), "rate 'vcpu_s' is nan"),
        (lambda c: _entry(c)["rates"].update(vcpu_s=1e-10), "at most 9 decimals"),
        (lambda c: _entry(c)["rates"].pop("gpu_s"), "rate 'gpu_s' is missing"),
        (lambda c: _entry(c)["rates"]["gib_month"].pop("warm"), "'gib_month/warm' is missing"),
        (lambda c: _entry(c)["rates"].update(vcpus=1), "unknown rate 'vcpus'"),
        (lambda c: _entry(c).pop("rates"), "no rates"),
        (lambda c: _entry(c).update(effective_from="soon"), "effective_from is 'soon'"),
        (lambda c: _entry(c).update(effective_to=date(2000, 1, 1)), "is before 2011-01-01"),
        (lambda c: _entry(c)["minimum_object"]["days"].update(warm=1.5), "write a whole number"),
        (lambda c: _entry(c).update(minimum_object=5), "minimum_object: give kib and days"),
        (lambda c: _entry(c)["minimum_object"].update(kb={}), "minimum_object: give kib and days"),
        (lambda c: _later(c, date(2011, 1, 1), name="b"), "'2011' and 'b' overlap: both start"),
        (lambda c: _later(c, date(2012, 1, 1), name="2011"), "two entries share a name"),
    ],
)
def test_a_bad_card_is_refused(content: dict, change, message: str) -> None:
    change(content)
    with pytest.raises(PriceCardError, match=message):
        PriceCard.parse(content)


def test_a_gap_and_an_overlap_are_refused(content: dict) -> None:
    _entry(content)["effective_to"] = date(2019, 12, 31)
    PriceCard.parse(_later(copy.deepcopy(content), date(2020, 1, 1)))
    with pytest.raises(PriceCardError, match="no rates from 2020-01-01 to 2020-01-31, a gap"):
        PriceCard.parse(_later(copy.deepcopy(content), date(2020, 2, 1)))
    with pytest.raises(PriceCardError, match="overlap from 2019-12-01 to 2019-12-31"):
        PriceCard.parse(_later(copy.deepcopy(content), date(2019, 12, 1)))


def test_the_file_is_named_in_the_error(content: dict, tmp_path: Path) -> None:
    _entry(content)["rates"]["vcpu_s"] = -3
    path = tmp_path / "card.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(PolicyError, match=r"card\.yaml: environments\.default\[0\] \(2011\): rate"):
        load_price_card(path)
