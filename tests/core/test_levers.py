"""The best set of levers, against every set there is; and what may follow what in a decision."""

from datetime import UTC, datetime
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecast_core import levers
from forecast_core.events import Event
from forecast_core.levers import Option, Plan, Trust, Unreachable, decisions

AT = datetime(2024, 5, 1, tzinfo=UTC)


def option(group: str, level: int, saving: float, loss: float, half: float = 0.0) -> Option:
    return Option(
        group, "retrain_less", level, saving, saving, saving, loss, loss - half, loss + half
    )


small = st.lists(
    st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 10)), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


def every_set(options: list[Option]) -> list[list[Option]]:
    groups = sorted({o.group for o in options})
    choices = [[None, *(o for o in options if o.group == g)] for g in groups]
    return [[o for o in pick if o is not None] for pick in product(*choices)]


@given(drawn=small, share=st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_no_other_set_saves_as_much_for_less(
    drawn: list[list[tuple[float, float]]], share: float
) -> None:
    options = [
        option(f"g{i}", level, saving, loss)
        for i, ladder in enumerate(drawn)
        for level, (saving, loss) in enumerate(ladder, 1)
    ]
    most = sum(max(s for s, _ in ladder) for ladder in drawn)
    wanted = share * most * 0.999
    plan = levers.best(options, wanted, gap=1e-9)
    assert isinstance(plan, Plan)
    assert len({o.group for o in plan.taken}) == len(plan.taken)
    assert plan.saving >= wanted * (1 - 1e-6)
    oracle = min(
        sum(o.loss for o in chosen)
        for chosen in every_set(options)
        if sum(o.saving for o in chosen) >= wanted
    )
    assert plan.loss <= oracle * (1 + 1e-6) + 1e-6
    for other in (levers.greedy(options, wanted), levers.uniform(options, wanted)):
        if isinstance(other, Plan):
            assert other.saving >= wanted * (1 - 1e-9)
            assert plan.loss <= other.loss * (1 + 1e-6) + 1e-6


def test_more_than_everything_is_refused_with_what_is_possible() -> None:
    refused = levers.best([option("a", 1, 3.0, 1.0), option("b", 1, 2.0, 1.0)], 6.0)
    assert refused == Unreachable(6.0, 5.0)
    assert "5.00" in refused.reason


def test_the_shadow_price_is_what_a_little_more_saving_costs() -> None:
    options = [option(f"g{i:02d}", 1, 1.0, float(i)) for i in range(40)]
    plan = levers.best(options, 20.5)
    assert isinstance(plan, Plan)
    assert plan.shadow_price == pytest.approx(20.0)


def test_a_lucky_gain_is_not_believed() -> None:
    clear, lucky = option("a", 1, 1.0, 2.0, half=0.1), option("a", 1, 1.0, -0.5, half=1.0)
    assert levers.expected_loss(clear) == pytest.approx(2.0, abs=1e-6)
    assert 0 < levers.expected_loss(lucky) < 1.0
    assert levers.expected_loss(option("a", 1, 1.0, -1e6, half=1.0)) >= 0


def test_levers_are_measured_in_pairs() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0.2, 0.6, 8)  # folds differ far more than levels do
    frame = pl.DataFrame(
        [
            ("a", "fewer_features", level, fold, 10.0 - 3 * level, hard[fold] + 0.01 * level, 100.0)
            for fold in range(8)
            for level in (0, 1, 2)
        ],
        schema=list(levers.BACKTEST_COLUMNS),
        orient="row",
    )
    one, two = levers.measure(frame)
    assert (one.saving, two.saving) == (pytest.approx(3), pytest.approx(6))
    assert one.loss == pytest.approx(1.0) and one.loss_high - one.loss_low < 0.01
    with pytest.raises(ValueError, match="level 0"):
        levers.measure(frame.filter(pl.col("level") > 0))


def test_a_lever_that_promised_too_much_is_trusted_less() -> None:
    trust = {"retrain_less": Trust().reviewed(0.2, 3.0)}
    (before,), (after,) = (
        [option("a", 1, 10.0, 1.0, half=0.1)],
        [levers.trusted([option("a", 1, 10.0, 1.0, half=0.1)], trust)[0]],
    )
    assert after.saving < before.saving and after.loss > before.loss


def proposed() -> Event:
    plan = levers.best([option("a", 1, 3.0, 1.0), option("b", 2, 2.0, 4.0)], 3.0)
    assert isinstance(plan, Plan)
    return Event("d1", AT, "proposed", decisions.proposal(plan, "over budget"))


SAID = {
    "approved": {"by": "owner"},
    "rejected": {"by": "owner", "reason": "no"},
    "applied": {"by": "owner", "policy_version": "abc"},
    "reviewed": {"by": "owner", "saving_realised": 1.5, "loss_realised": 2.0},
    "reverted": {"by": "owner", "reason": "worse"},
}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["proposed", *SAID]), max_size=8))
def test_nothing_is_applied_that_was_not_approved(actions: list[str]) -> None:
    current: decisions.Decision | None = None
    done: list[str] = []
    for action in actions:
        said = proposed() if action == "proposed" else Event("d1", AT, action, SAID[action])
        result = decisions.apply(current, said)
        if isinstance(result, decisions.Decision):
            current = result
            done.append(action)
    if "applied" in done:
        assert done[:3] == ["proposed", "approved", "applied"]
    if current is not None:
        assert decisions.replay(current.history) == current


def test_a_review_teaches_and_a_revert_restores() -> None:
    events = [proposed()]
    events += [Event("d1", AT, a, SAID[a]) for a in ("approved", "applied", "reviewed")]
    reviewed = decisions.replay(events)
    assert decisions.trust([reviewed])["retrain_less"].saving == pytest.approx((4 + 0.5) / 5)
    assert decisions.in_force([reviewed]) == {"a": {"lever": "retrain_less", "level": 1}}
    reverted = decisions.apply(reviewed, Event("d1", AT, "reverted", SAID["reverted"]))
    assert isinstance(reverted, decisions.Decision)
    assert decisions.in_force([reverted]) == {}
    base = decisions.policy_version("text", {})
    assert base != decisions.policy_version("text", decisions.in_force([reviewed]))


def test_a_proposal_opens_by_itself_only_for_a_reason() -> None:
    assert decisions.why_propose([], 90, 80, 100) is None
    assert decisions.why_propose([], 90, 80, None) is None
    assert "probably" in str(decisions.why_propose([], 110, 90, 100))
    assert "surely" in str(decisions.why_propose([], 130, 110, 100))
    assert "i1" in str(decisions.why_propose(["i1"], 0, 0, None))
