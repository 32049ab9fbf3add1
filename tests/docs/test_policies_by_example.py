"""Every fragment of the page on policies fits the shipped file, and does what its sentence says."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT, Shown, blocks

from forecast_core.admission import Decision, Load, Quote, Request, Shape, Snapshot, decide
from forecast_core.admission.policy import NANO, Policy, PolicyError
from forecast_core.cost.price_card import PriceCard
from forecast_core.reconciliation_policy import Reconciliation
from forecast_core.segments import SegmentPolicy
from forecast_core.storage.lifecycle import LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources.cost_policy import read_cost_policy

FRAGMENTS = blocks(ROOT / "docs" / "policies.md", "yaml")


def _laid(shipped: Any, fragment: Any) -> Any:
    """The fragment over the shipped file: mappings join, whatever else is replaced."""
    if not (isinstance(shipped, dict) and isinstance(fragment, dict)):
        return fragment
    return {**shipped, **{k: _laid(shipped.get(k), v) for k, v in fragment.items()}}


def _file(fragment: Shown) -> str:
    return fragment.text.splitlines()[0].removeprefix("# ")


def _over(file: str, fragment: dict[str, Any]) -> dict[str, Any]:
    shipped = yaml.safe_load((ROOT / file).read_text())
    if "tiers" in fragment:
        shipped["tiers"] = {}  # a tier that is left out is no tier
    return dict(_laid(shipped, fragment))


def _of(file: str, key: str) -> dict[str, Any]:
    """The shipped file under the first fragment that has the key."""
    held = [yaml.safe_load(f.text) for f in FRAGMENTS if _file(f) == f"policies/{file}"]
    return _over(f"policies/{file}", next(f for f in held if key in f))


def _read(file: str, content: dict[str, Any], folder: Path) -> object:
    if file == "policies/levers.yaml":
        (folder / "levers.yaml").write_text(yaml.safe_dump(content))
        return read_cost_policy(folder / "levers.yaml")
    readers = {
        "policies/admission.yaml": Policy, "policies/segments.yaml": SegmentPolicy,
        "policies/lifecycle.yaml": LifecyclePolicy, "policies/price_card.yaml": PriceCard,
        "policies/reconciliation.yaml": Reconciliation,
    }  # fmt: skip
    return readers[file].parse(content)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=str)
def test_it_fits_the_file_it_names(fragment: Shown, tmp_path: Path) -> None:
    content = yaml.safe_load(fragment.text)
    whole = _over(_file(fragment), content)
    assert set(content) <= set(yaml.safe_load((ROOT / _file(fragment)).read_text()))
    _read(_file(fragment), whole, tmp_path)


def _asked(
    policy: Policy, work_class: str, pipeline: str, at: datetime, load: Load | None = None
) -> Decision:
    quote = Quote("", ((pipeline, NANO // 1000),), 60.0)
    shape = Shape(work_class, policy.stage_of[pipeline], (quote,))
    request = Request("one", shape, at.timestamp(), None, "", 0)
    snapshot = Snapshot(now=at.timestamp(), environment="prod", waiting=(request,))
    if load is not None:
        snapshot = Snapshot(snapshot.now, "prod", (request,), load=load)
    (decision,) = decide(snapshot, policy)
    return decision


MONDAY = datetime(2026, 1, 5, 10, tzinfo=UTC)  # eleven o'clock there
EVENING = datetime(2026, 1, 5, 18, tzinfo=UTC)


def test_every_node_that_matches_is_checked() -> None:
    policy = Policy.parse(_of("admission.yaml", "budgets"))
    nodes = set(policy.path("prod", "tuning", "training"))
    assert {"organisation", "prod", "prod/day", "prod/tuning"} <= nodes


def test_quiet_hours_hold_what_is_exploratory_until_they_end() -> None:
    policy = Policy.parse(_of("admission.yaml", "peaks"))
    held = _asked(policy, "exploratory", "tuning", MONDAY)
    assert held.action == "hold" and "office hours" in held.reason
    assert datetime.fromtimestamp(held.earliest, UTC).hour == 17
    assert _asked(policy, "exploratory", "tuning", EVENING).starts
    assert _asked(policy, "serving", "inference", MONDAY).starts


def test_what_serves_cannot_be_paused() -> None:
    content = _of("admission.yaml", "peaks")
    content["peaks"][0]["pause"] = ["serving"]
    with pytest.raises(PolicyError, match="switches serving off"):
        Policy.parse(content)


def test_a_busy_machine_starts_what_serves_alone() -> None:
    policy = Policy.parse(_of("admission.yaml", "throttles"))
    busy = Load(0.0, 0.9, 0.0)
    assert not _asked(policy, "training", "training", MONDAY, busy).starts
    assert _asked(policy, "serving", "inference", MONDAY, busy).starts
    assert _asked(policy, "training", "training", MONDAY, Load(0.0, 0.8, 0.0)).starts


def test_try_outs_are_told_why_they_may_not() -> None:
    policy = Policy.parse(_of("admission.yaml", "classes"))
    refused = _asked(policy, "exploratory", "tuning", EVENING)
    assert not refused.starts and "prod" in refused.reason


def test_a_tier_that_is_left_out_owns_nothing() -> None:
    policy = LifecyclePolicy.parse(_of("lifecycle.yaml", "tiers"))
    owners = {policy.tiers.at_age(age) for age in range(0, 2000, 10)}
    assert owners == {Tier.HOT, Tier.COLD} and policy.tiers.at_age(91) is Tier.HOT


def test_production_pays_by_its_own_card() -> None:
    card = PriceCard.parse(_of("price_card.yaml", "environments"))
    day = date(2026, 1, 5)
    assert card.on(day, "prod").of("vcpu_s") == Decimal("0.0000089")
    assert card.on(day, "dev").of("vcpu_s") == Decimal("0.000011244")


def test_the_first_group_that_holds_takes_the_item() -> None:
    policy = SegmentPolicy.parse(_of("segments.yaml", "groups"))
    assert policy.groups == ["new_or_rare", "best", "long_tail", "rest"]
    assert policy.group("best").retrain_days == 7 and policy.group("rest").horizon == 14


def test_a_night_has_two_minutes_for_upgrades() -> None:
    bounds = SegmentPolicy.parse(_of("segments.yaml", "upgrades")).content.upgrades
    assert (bounds.cpu_s, bounds.minutes) == (120, 30)
    assert bounds.of("gbm").gain > 0


def test_levels_are_declared_by_any_column() -> None:
    policy = Reconciliation.parse(_of("reconciliation.yaml", "method"))
    assert policy.method == "wls_var" and ("store_id", "abc") in policy.levels
