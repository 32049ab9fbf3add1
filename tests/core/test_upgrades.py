"""Upgrades stop at what a batch may spend, the most gain for a CPU-second goes first, nobody is
left without a forecast."""

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecast_core.admission import Quote
from forecast_core.admission.grant import Grant, left_of
from forecast_core.rungs.frames import published, upgraded
from forecast_core.rungs.upgrades import (
    Clock,
    Done,
    Left,
    Purse,
    Room,
    Upgrade,
    candidate,
    measured_gains,
    ordered,
)
from forecast_core.segments import Expected, UpgradeBounds

DAY = date(2025, 6, 1)


class Machine:
    """Clocks that a made upgrade moves by what it takes, `slower` times what was expected."""

    def __init__(self, slower: float = 1.0, cores: float = 1.0) -> None:
        self.now, self.slower, self.cores = 100.0, slower, cores
        self.made: list[Upgrade] = []

    def make(self, one: Upgrade) -> str:
        self.now += self.slower * one.cpu_s
        self.made.append(one)
        return one.group

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now / self.cores)


def spent_by(machine: Machine, wanted: list[Upgrade], bounds: UpgradeBounds):
    return Purse(Room.of(bounds), machine.clock).spend(wanted, machine.make)


def drawn(sizes: list[tuple[int, float]]) -> list[Upgrade]:
    return [
        Upgrade(DAY, f"S{at % 3}", f"g{at}", "gbm", gain, float(cost))
        for at, (cost, gain) in enumerate(sizes)
    ]


several = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 100)), max_size=25).map(drawn)


@given(wanted=several, budget=st.integers(0, 300), slower=st.sampled_from([0.25, 0.5, 1.0]))
def test_a_batch_never_spends_more_than_it_may(wanted, budget, slower):
    machine = Machine(slower)
    verdicts = list(spent_by(machine, wanted, UpgradeBounds(cpu_s=budget)))
    assert machine.now - 100 <= budget
    assert sorted(v.upgrade for v in verdicts) == sorted(wanted)  # a verdict on every one


@given(wanted=several, budget=st.integers(0, 300), slower=st.floats(1, 5))
def test_a_surprise_costs_one_upgrade_at_most(wanted, budget, slower):
    machine = Machine(slower)
    verdicts = list(spent_by(machine, wanted, UpgradeBounds(cpu_s=budget)))
    done = [v.upgrade for v in verdicts if isinstance(v, Done)]
    # The pace is known from the first on: only that one can be more than was left.
    assert machine.now - 100 <= max(budget, slower * done[0].cpu_s if done else 0) + 1e-6


@given(wanted=several, minutes=st.floats(0, 5), cores=st.sampled_from([1.0, 2.0]))
def test_it_ends_in_time(wanted, minutes, cores):
    machine = Machine(1 / cores, 1.0)
    list(spent_by(machine, wanted, UpgradeBounds(minutes=minutes)))
    assert machine.now - 100 <= 60 * minutes + 1e-6


@given(wanted=several, budget=st.integers(0, 300))
def test_the_order_is_greedy(wanted, budget):
    machine = Machine()
    verdicts = list(spent_by(machine, wanted, UpgradeBounds(cpu_s=budget)))
    worth = [one.gain / one.cpu_s for one in machine.made]
    assert worth == sorted(worth, reverse=True)
    spent = 0.0
    for verdict, one in zip(verdicts, ordered(wanted), strict=True):
        assert verdict.upgrade == one
        fits = spent + one.cpu_s <= budget
        assert isinstance(verdict, Done) == fits  # passed over only where it did not fit
        spent += one.cpu_s if fits else 0


@given(wanted=several, budget=st.integers(0, 300))
def test_every_item_is_served_and_told(wanted, budget):
    base = pl.concat(
        published(
            pl.DataFrame({"item_id": [one.group], "ds": [date(2025, 6, 2)], "mean": [1.0]}),
            one.store_id, DAY, "floor", "floor",
        )
        for one in [*wanted, Upgrade(DAY, "S0", "alone", "floor", 0, 0)]
    )  # fmt: skip
    machine = Machine()
    better = []
    for verdict in spent_by(machine, wanted, UpgradeBounds(cpu_s=budget)):
        if isinstance(verdict, Left):
            assert verdict.reason.startswith("not upgraded to gbm: ")
            assert f"{budget:g} CPU-s" in verdict.reason
        else:
            item = pl.DataFrame({"item_id": [verdict.result], "ds": [date(2025, 6, 2)]})
            better.append(item.with_columns(mean=pl.lit(2.0)))
    rows = upgraded(base, {"gbm": pl.concat(better)} if better else {})
    assert rows.height == base.height and rows["mean"].is_finite().all()
    assert rows.filter(rung="gbm").height == len(machine.made)


def test_without_bounds_all_are_made():
    machine = Machine(slower=100)
    wanted = drawn([(3, 0.0), (50, 1.0)])
    assert not Room.of(UpgradeBounds()).bounded
    assert all(isinstance(v, Done) for v in spent_by(machine, wanted, UpgradeBounds()))


def test_a_gain_is_what_was_measured_on_the_revenue_and_else_what_is_expected():
    tried = pl.DataFrame(
        [
            ("segment", "A-smooth-active", "gbm", 0.2), ("segment", "A-smooth-active", "gbm", 0.4),
            ("segment", "A-smooth-active", "gbm", float("nan")), ("level", "Total", "gbm", 0.9),
            ("segment", "C-lumpy-active", "statistical", -0.1),
        ],
        schema=["scope", "name", "forecaster", "fva_wrmsse"], orient="row",
    )  # fmt: skip
    gains = measured_gains(tried)
    assert gains[("A-smooth-active", "gbm")] == pytest.approx(0.3) and len(gains) == 2
    members = pl.DataFrame(
        {"segment": ["A-smooth-active", "A-smooth-active", "B-lumpy-active"],
         "revenue": [60.0, 40.0, 10.0]}
    )  # fmt: skip
    one = candidate(DAY, "S", "g", "gbm", members, Expected(gain=0.1, cpu_ms=2), gains)
    assert one.gain == pytest.approx(100 * 0.3 + 10 * 0.1)
    assert one.cpu_s == pytest.approx(0.006)


def granted(money: int, seconds: float | None = None) -> Grant:
    """At a thousand nanos a CPU-second; the deadline is that of a run that began at midnight."""
    deadline = None if seconds is None else 21_600.0
    return Grant(money * 1000, 10**7, 1000.0, seconds, deadline)


@given(wanted=several, policy=st.integers(0, 300), money=st.integers(0, 300))
def test_the_smaller_of_policy_and_granted_money_holds_and_says_so(wanted, policy, money):
    machine = Machine()
    purse = Purse(Room.of(UpgradeBounds(cpu_s=policy), granted(money)), machine.clock)
    verdicts = list(purse.spend(wanted, machine.make))
    assert purse.cpu_s == machine.now - 100 <= min(policy, money)
    whose = f"batch's {policy} CPU-s" if policy <= money else f"{money:.1f} CPU-s that the granted"
    assert all(whose in v.reason for v in verdicts if isinstance(v, Left))


@given(wanted=several, minutes=st.integers(0, 5), left=st.integers(0, 300))
def test_the_smaller_of_policy_and_deadline_holds_and_says_so(wanted, minutes, left):
    machine = Machine()
    room = Room.of(UpgradeBounds(minutes=minutes), granted(10**9, left))
    verdicts = list(Purse(room, machine.clock).spend(wanted, machine.make))
    assert machine.now - 100 <= min(60 * minutes, left)
    whose = f"batch has {minutes}" if 60 * minutes <= left else "deadline 1970-01-01 06:00 UTC"
    assert all(whose in v.reason for v in verdicts if isinstance(v, Left))


def test_where_granted_money_ends_more_is_asked_for_once():
    machine, asked = Machine(), []

    def more(room: Room | None):
        return lambda: asked.append(1) or room

    wanted = drawn([(10, 9.0), (10, 8.0), (10, 7.0)])
    grown = Purse(Room.of(UpgradeBounds(), granted(15)), machine.clock,
                  more(Room.of(UpgradeBounds(), granted(25))))  # fmt: skip
    kinds = [type(v) for v in grown.spend(wanted, machine.make)]
    assert kinds == [Done, Done, Left] and asked == [1]
    refused = Purse(Room.of(UpgradeBounds(), granted(15)), machine.clock, more(None))
    kinds = [type(v) for v in refused.spend(wanted, machine.make)]
    assert kinds == [Done, Left, Left] and asked == [1, 1]
    policy = Purse(Room.of(UpgradeBounds(cpu_s=5), granted(15)), machine.clock, more(None))
    list(policy.spend(wanted, machine.make))
    assert asked == [1, 1], "more money is no answer to the policy's own bound"


def test_over_several_calls_a_purse_is_one():
    machine = Machine(slower=2)
    purse = Purse(Room.of(UpgradeBounds(cpu_s=25)), machine.clock)
    first = list(purse.spend(drawn([(10, 1.0)]), machine.make))
    machine.now += 1000  # publishing between two stores takes of nobody's upgrades
    second = list(purse.spend(drawn([(3, 1.0), (2, 1.0)]), machine.make))
    assert [type(v) for v in (*first, *second)] == [Done, Done, Left]


@given(
    held=st.integers(0, 10**9), cheapest=st.integers(0, 10**9), spent=st.integers(0, 2 * 10**9),
    now=st.floats(0, 1e5), wall=st.floats(0, 1e5), deadline=st.none() | st.floats(0, 1e5),
)  # fmt: skip
def test_what_is_left_of_a_grant_keeps_the_cheapest_rungs_part(
    held, cheapest, spent, now, wall, deadline
):
    quote = Quote("floor", (("inference", cheapest),), wall)
    left = left_of(held, quote, spent, 1000.0, now, 0.0, deadline)
    assert left.money >= 0 and left.money + max(spent, cheapest) <= max(held, spent, cheapest)
    if deadline is None:
        assert left.seconds is None
    else:
        assert 0 <= left.seconds <= max(0.0, deadline - now)
        if left.seconds:
            assert now + left.seconds + max(0.0, wall - now) == pytest.approx(deadline)
