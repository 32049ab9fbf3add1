"""The plan file: what it refuses, by name, and that its draws are what it states."""

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forecast_core.admission.policy import Policy
from forecast_core.capacity.fit import Rates
from forecast_core.capacity.plan import Plan, PlanError
from forecast_core.capacity.premises import contradictions

FILE = Path(__file__).parents[3] / "policies" / "capacity.yaml"


def content() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def refused(change: Any) -> str:
    mapping = content()
    change(mapping)
    with pytest.raises(PlanError) as error:
        Plan.parse(mapping)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["assumptions"]["failures"].update(low=0.2), "are not in this order"),
        (lambda m: m["assumptions"]["failures"].update(high=0.9), "outside of 0.0 to 0.5"),
        (lambda m: m["assumptions"]["failures"].update(revisit=date(2020, 1, 1)), "is not after"),
        (lambda m: m["assumptions"].pop("backfills"), "backfills missing"),
        (lambda m: m["assumptions"].update(luck=m["assumptions"]["failures"]), "luck: unknown"),
        (lambda m: m["assumptions"]["mix.core"].update(mid=0.6), "mix.* sum to 1.05"),
        (lambda m: m["assumptions"]["hot_days"].update(mid=900, high=900), "contradict"),
        (lambda m: m["correlations"][0].update(between=["backfills", "x"]), "'x' is no assumption"),
        (lambda m: m["correlations"][0].update(rho=2), "less than or equal to 1"),
        (lambda m: m.update(work={}), "a plan without runs"),
        (lambda m: m["work"]["land"].update(pipeline="elsewhere"), "is none of"),
        (lambda m: m["work"]["floor"].update(deadline="01:00"), "is not after its start"),
        (lambda m: m["work"]["land"].update(after="nothing"), "'nothing' is no work"),
        (lambda m: m["work"]["floor"].update(after="upgrade"), "waits for itself"),
        (lambda m: m["work"]["watch"].pop("deadline"), "no deadline to be done by"),
        (lambda m: m["work"]["land"].update(group="unknown"), "no assumption mix.unknown"),
        (lambda m: m["levers"]["retrain_less"].update(drop_rung=["x"]), "'x' is no work"),
        (lambda m: m.update(months=0), "months"),
        (lambda m: m["base"].update(series=0), "base.series"),
        (
            lambda m: m.update(business_changes=[{"on": "2030-01-01", "what": "x", "owner": "y"}]),
            "after the plan's last day",
        ),
        (
            lambda m: m.update(business_changes=[{"on": "2020-01-01", "what": "x", "owner": "y"}]),
            "before the plan's first day",
        ),
        (lambda m: m["work"]["floor"].update(covers=False), "set `covers: true`"),
        (lambda m: m["work"]["watch"].update(watches=False), "set `watches: true`"),
        (lambda m: m["work"]["upgrade"].update(after="watch"), "after its own deadline 06:00"),
        (lambda m: m["work"]["upgrade"].update(rungs=["magic", "floor"]), "has no accuracy"),
        (lambda m: m["work"]["upgrade"].update(rungs=[]), "at least 1 item"),
        (lambda m: m["defaults"]["default"].update(money=[-1, 0]), "greater than or equal to 0"),
        (lambda m: m["assumptions"]["failures"].update(owner="  "), "at least 1 character"),
    ],
)
def test_what_cannot_be_believed_is_refused_by_name(change: Any, said: str) -> None:
    assert said in refused(change)


def test_correlations_that_contradict_each_other_are_refused() -> None:
    def change(mapping: dict[str, Any]) -> None:
        pairs = [("backfills", "failures", 0.9), ("failures", "backfill_days", 0.9),
                 ("backfills", "backfill_days", -0.9)]  # fmt: skip
        mapping["correlations"] = [
            {"between": [a, b], "rho": rho, "source": "made up"} for a, b, rho in pairs
        ]

    assert "contradict each other" in refused(change)


def test_all_faults_are_told_at_once() -> None:
    def change(mapping: dict[str, Any]) -> None:
        mapping["assumptions"]["failures"]["low"] = 0.2
        mapping["work"]["land"]["pipeline"] = "elsewhere"

    assert len(refused(change).splitlines()) == 3


def test_a_draw_has_the_stated_percentiles_and_correlations() -> None:
    plan = Plan.parse(content())
    rng = np.random.default_rng(1)
    drawn = [plan.draw(rng) for _ in range(4000)]
    for name in ("series_growth", "price_change", "retrain_days"):
        a = plan.assumptions[name]
        low, mid, high = np.quantile([d[name] for d in drawn], [0.1, 0.5, 0.9])
        width = a.high - a.low
        assert abs(low - a.low) < 0.06 * width
        assert abs(mid - a.mid) < 0.06 * width
        assert abs(high - a.high) < 0.06 * width
    pair = np.corrcoef([d["series_growth"] for d in drawn], [d["store_openings"] for d in drawn])
    assert 0.35 < pair[0, 1] < 0.6
    shares = [sum(v for k, v in d.items() if k.startswith("mix.")) for d in drawn]
    assert max(abs(s - 1) for s in shares) < 1e-9
    assert min(d["failures"] for d in drawn) >= 0


def test_draws_do_not_depend_on_the_order_of_the_file() -> None:
    mapping = content()
    turned = mapping | {"assumptions": dict(reversed(mapping["assumptions"].items()))}
    first = Plan.parse(mapping).draw(np.random.default_rng(7))
    assert Plan.parse(turned).draw(np.random.default_rng(7)) == pytest.approx(first)


def test_overdue_assumptions_are_named_with_their_owner() -> None:
    plan = Plan.parse(content())
    assert plan.overdue(date(2026, 12, 1)) == []
    late = plan.overdue(date(2027, 3, 1))
    assert len(late) == 1 and "store_openings: real-estate-planner" in late[0]


def test_what_contradicts_another_file_is_named() -> None:
    policy = Policy.parse(yaml.safe_load((FILE.parent / "admission.yaml").read_text()))

    def said(currency: str = "USD", **fields: Any) -> str:
        plan = Plan.parse(content() | fields)
        return " ".join(contradictions(plan, policy, Rates(), currency))

    assert not said()
    assert "the price card in EUR" in said("EUR")
    assert "'prd' has no budget" in said(environment="prd")
    unknown = content()["defaults"]
    del unknown["default"]
    assert "raw_sales at rung 'asked' has no history and no stated default" in said(
        defaults=unknown
    )
