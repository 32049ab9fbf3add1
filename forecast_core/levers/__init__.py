"""The levers that answer a cost: what each would save and cost in accuracy, and the best set.

Belongs here: measuring levers from paired backtests, choosing among them under a saving to reach,
the baselines to compare with, and how far a lever is trusted. Does not: the decision's life
(`decisions`), changing a policy file, or running backtests.

A lever at a level, for one segment group, is an option; a group takes at most one. The choice is a
multiple-choice knapsack: least value-weighted accuracy lost for the money to save, as a MILP by
HiGHS. Money is per period; loss is the rise of the error times the group's value, in the currency
of that value, so groups add up.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]

LEVERS = ("retrain_less", "fewer_features", "simpler_forecaster", "shorter_horizon", "reclassify")
BACKTEST_COLUMNS = ("group", "lever", "level", "fold", "cost", "error", "value")
_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Option:
    """One lever at one level for one group, with 90 % intervals. `folds`: backtests behind it."""

    group: str
    lever: str
    level: int
    saving: float
    saving_low: float
    saving_high: float
    loss: float
    loss_low: float
    loss_high: float
    folds: int = 0


@dataclass(frozen=True)
class Trust:
    """Realised over predicted, pulled to 1 by `prior` imaginary reviews that were right."""

    saving: float = 1.0
    loss: float = 1.0
    reviews: int = 0
    prior: float = 4.0

    @property
    def good(self) -> bool:
        """Whether promises have held well enough to be acted on without asking."""
        return self.saving >= 0.75 and self.loss <= 1.5

    def reviewed(self, saving_ratio: float, loss_ratio: float) -> Trust:
        """After one more review; a ratio is held within [0, 3], one wild review decides nothing."""
        weight = self.prior + self.reviews
        return replace(
            self,
            saving=(self.saving * weight + min(max(saving_ratio, 0.0), 3.0)) / (weight + 1),
            loss=(self.loss * weight + min(max(loss_ratio, 0.0), 3.0)) / (weight + 1),
            reviews=self.reviews + 1,
        )


@dataclass(frozen=True)
class Plan:
    """The options taken. `shadow_price`: accuracy lost for one more unit of money saved."""

    taken: tuple[Option, ...]
    saving: float
    loss: float
    shadow_price: float
    gap: float


@dataclass(frozen=True)
class Unreachable:
    """No set of levers saves that much; `most` is what all of them together would."""

    wanted: float
    most: float

    @property
    def reason(self) -> str:
        """The refusal in words."""
        return f"the levers save at most {self.most:.2f} of the {self.wanted:.2f} asked for"


def measure(backtests: pl.DataFrame) -> list[Option]:
    """Options from backtests paired by group and fold with the same group's level 0.

    `backtests`: BACKTEST_COLUMNS; `lever` is ignored at level 0, `cost` is money per period,
    `error` a relative error (lower is better), `value` the revenue it applies to. Options with
    fewer than two paired folds are left out: they have no interval.

    Raises:
        ValueError: a column is missing, or a group has no level 0 to compare with.
    """
    missing = [c for c in BACKTEST_COLUMNS if c not in backtests.columns]
    if missing:
        raise ValueError(f"the backtests have no column {missing[0]!r}")
    base = backtests.filter(pl.col("level") == 0).select("group", "fold", "cost", "error")
    alone = set(backtests["group"].unique()) - set(base["group"].unique())
    if alone:
        raise ValueError(f"group {min(alone)!r} has no backtest at level 0 to compare with")
    paired = backtests.filter(pl.col("level") > 0).join(base, on=["group", "fold"], suffix="_base")
    by_option = paired.with_columns(
        saving=pl.col("cost_base") - pl.col("cost"),
        loss=(pl.col("error") - pl.col("error_base")) * pl.col("value"),
    ).partition_by("group", "lever", "level", maintain_order=True)
    return [_option(part) for part in by_option if len(part) >= 2]


def _option(part: pl.DataFrame) -> Option:
    saving, loss = (_interval(part[c].to_numpy()) for c in ("saving", "loss"))
    return Option(
        str(part["group"][0]),
        str(part["lever"][0]),
        int(part["level"][0]),
        *saving,
        *loss,
        len(part),
    )


def _interval(x: Floats) -> tuple[float, float, float]:
    from scipy.stats import t

    n, mean = len(x), float(np.mean(x))
    half = float(t.ppf(0.5 + _CONFIDENCE / 2, n - 1) * np.std(x, ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half


def expected_loss(option: Option) -> float:
    """Mean of the loss given its measurement, and that a cheaper forecast is no better one.

    The mean of a normal with the measured mean and error, truncated at zero: near the measured loss
    where that is clear, small and positive where the backtest shows a gain.
    """
    error = (option.loss_high - option.loss_low) / 2 / 1.645
    if not error > 0:
        return max(option.loss, 0.0)
    z = option.loss / error
    if z < -30:
        return -error / z  # the tail's mean, where the ratio below is 0 / 0
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return option.loss + error * density / (math.erfc(-z / math.sqrt(2)) / 2)


def trusted(options: Iterable[Option], trust: Mapping[str, Trust]) -> list[Option]:
    """Options as experience with their lever says: savings scaled down, losses up."""
    out = []
    for o in options:
        t = trust.get(o.lever, Trust())
        out.append(
            replace(
                o,
                saving=o.saving * t.saving,
                saving_low=o.saving_low * t.saving,
                saving_high=o.saving_high * t.saving,
                loss=o.loss * t.loss if o.loss > 0 else o.loss / max(t.loss, 1e-9),
                loss_low=o.loss_low,
                loss_high=max(o.loss_high * t.loss, o.loss_high),
            )
        )
    return out


# -- the best set ----------------------------------------------------------------------------------


def best(
    options: Sequence[Option], saving: float, *, gap: float = 1e-3, seconds: float = 30.0
) -> Plan | Unreachable:
    """The options with the least loss that save at least `saving` (money per period).

    Losses are taken as `expected_loss`: among thousands of noisy options the best-looking gains in
    accuracy are luck, and would pay for cuts elsewhere that hurt.

    The linear relaxation leaves one group undecided and gives the shadow price; rounding it gives a
    plan. Options whose reduced cost exceeds the distance between the two can be in no better plan
    and are dropped, so the MILP decides only what is in doubt.

    Raises:
        RuntimeError: the relaxation could not be solved (the solver's words are in the text).
    """
    usable = _undominated(options)
    most = sum(_most(usable).values())
    if saving > most:
        return Unreachable(saving, most)
    if saving <= 0 or not usable:
        return Plan((), 0.0, 0.0, 0.0, 0.0)
    knapsack = _Knapsack(usable, saving)
    relaxed, price, reduced = knapsack.relaxation()
    bound = float(knapsack.losses @ relaxed)
    rounded = knapsack.rounded(relaxed)
    excess = knapsack.loss(rounded) - bound
    chosen = rounded
    if excess > gap * max(knapsack.loss(rounded), 1e-12):
        kept = np.flatnonzero((reduced <= excess * (1 + 1e-9)) | (relaxed > 0))
        chosen, proven = knapsack.solved(kept, rounded, gap, seconds)
        bound = max(bound, proven)
    plan = _plan([usable[i] for i in chosen])
    cost = knapsack.loss(chosen)
    left = (cost - bound) / cost if cost > 0 else 0.0
    return replace(plan, shadow_price=price, gap=max(left, 0.0))


def _undominated(options: Sequence[Option]) -> list[Option]:
    """Options that no other of their group beats in both saving and loss: no other is ever best."""
    kept: list[Option] = []
    group, least = None, float("inf")
    for o in sorted(options, key=lambda o: (o.group, -o.saving, expected_loss(o), o.level)):
        if o.group != group:
            group, least = o.group, float("inf")
        if o.saving > 0 and expected_loss(o) < least:
            least = expected_loss(o)
            kept.append(o)
    return kept


class _Knapsack:
    """Least loss for a saving, at most one option a group, as arrays scaled to about one."""

    def __init__(self, options: Sequence[Option], saving: float) -> None:
        from scipy.sparse import csr_array

        groups = {g: i for i, g in enumerate(dict.fromkeys(o.group for o in options))}
        self.owner = np.array([groups[o.group] for o in options])
        self.losses = np.array([expected_loss(o) for o in options])
        self.unit = float(np.array([o.saving for o in options]).mean())
        self.savings = np.array([o.saving for o in options]) / self.unit
        self.target = saving / self.unit
        self.weight = float(self.losses.mean()) or 1.0
        n = len(options)
        self.one_each = csr_array((np.ones(n), (self.owner, np.arange(n))), shape=(len(groups), n))

    def relaxation(self) -> tuple[Floats, float, Floats]:
        """Shares taken, the shadow price (loss per money), and each option's reduced cost."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_array, vstack

        rows: Any = vstack([csr_array(-self.savings[None, :]), self.one_each])
        limits = np.concatenate([[-self.target], np.ones(self.one_each.shape[0])])
        result = linprog(
            self.losses / self.weight, A_ub=rows, b_ub=limits, bounds=(0, None), method="highs"
        )
        if result.x is None:
            raise RuntimeError(f"no plan: {result.message}")
        price = -float(result.ineqlin.marginals[0]) * self.weight / self.unit
        reduced = np.asarray(result.lower.marginals) * self.weight
        return np.asarray(result.x), price, reduced

    def rounded(self, relaxed: Floats) -> npt.NDArray[np.int64]:
        """The whole options of the relaxation, and the cheapest single change that saves enough."""
        whole = np.flatnonzero(relaxed > 1 - 1e-6)
        current = np.full(self.one_each.shape[0], -1)
        current[self.owner[whole]] = whole
        saved = float(self.savings[whole].sum())
        while saved < self.target - 1e-9:
            now = current[self.owner]
            old_saving = np.where(now >= 0, self.savings[now], 0.0)
            old_loss = np.where(now >= 0, self.losses[now], 0.0)
            more, dearer = self.savings - old_saving, self.losses - old_loss
            enough = saved + more >= self.target - 1e-9
            # One change is enough but for ties of the relaxation; then the best rate, repeatedly.
            key = np.where(enough, dearer, np.inf)
            if not enough.any():
                key = np.where(more > 1e-12, dearer / np.maximum(more, 1e-12), np.inf)
            j = int(np.argmin(key))
            saved += float(more[j])
            current[self.owner[j]] = j
        return current[current >= 0]

    def solved(
        self, kept: npt.NDArray[np.int64], known: npt.NDArray[np.int64], gap: float, seconds: float
    ) -> tuple[npt.NDArray[np.int64], float]:
        """The MILP over the options in doubt, never worse than the known plan; a lower bound."""
        from scipy.optimize import Bounds, LinearConstraint, milp

        result = milp(
            self.losses[kept] / self.weight,
            integrality=np.ones(len(kept), dtype=np.int64),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(self.one_each[:, kept], -np.inf, 1.0),
                LinearConstraint(self.savings[kept][None, :], self.target, np.inf),
            ],
            options={"mip_rel_gap": gap, "time_limit": seconds},
        )
        if result.x is None:
            return known, 0.0
        found = kept[result.x > 0.5]
        enough = self.savings[found].sum() >= self.target * (1 - 1e-9)
        better = self.losses[found].sum() < self.losses[known].sum()
        proven = float(result.mip_dual_bound or 0.0) * self.weight
        # What was dropped is no better than the plan known, so the bound holds for all options.
        return (found if enough and better else known), min(proven, self.loss(known))

    def loss(self, chosen: npt.NDArray[np.int64]) -> float:
        """Expected loss of a set of options."""
        return float(self.losses[chosen].sum())


def _plan(taken: Sequence[Option]) -> Plan:
    saved, lost = sum(o.saving for o in taken), sum(o.loss for o in taken)
    return Plan(tuple(taken), saved, lost, float("nan"), 0.0)


def _most(options: Iterable[Option]) -> dict[str, float]:
    most: dict[str, float] = {}
    for o in options:
        most[o.group] = max(most.get(o.group, 0.0), o.saving)
    return most


# -- what it is compared with ----------------------------------------------------------------------


def uniform(options: Sequence[Option], saving: float) -> Plan | Unreachable:
    """The same lever at the same level for everyone, group by group until the saving is met.

    Of the levers and levels that reach it, the one that would lose the least accuracy.
    """
    alike: dict[tuple[str, int], list[Option]] = {}
    for o in sorted(options, key=lambda o: (o.lever, o.level, o.group)):
        if o.saving > 0:
            alike.setdefault((o.lever, o.level), []).append(o)
    most = max((sum(o.saving for o in own) for own in alike.values()), default=0.0)
    found = [_until(own, saving) for own in alike.values()]
    reached = [taken for taken in found if sum(o.saving for o in taken) >= saving]
    if not reached:
        return Unreachable(saving, most)
    return _plan(min(reached, key=lambda taken: sum(expected_loss(o) for o in taken)))


def _until(own: Sequence[Option], saving: float) -> list[Option]:
    taken: list[Option] = []
    saved = 0.0
    for o in own:
        if saved >= saving:
            break
        taken.append(o)
        saved += o.saving
    return taken


def greedy(options: Sequence[Option], saving: float) -> Plan | Unreachable:
    """One step at a time: whichever group's next larger saving costs the least accuracy per money,
    until the saving is met. Near the best where losses are convex in the saving."""
    ladders: dict[str, list[Option]] = {}
    for o in sorted((o for o in options if o.saving > 0), key=lambda o: (o.saving, o.level)):
        ladders.setdefault(o.group, []).append(o)
    heap = [(_rate(None, ladder[0]), group, 0) for group, ladder in ladders.items()]
    heapq.heapify(heap)
    at: dict[str, int] = {}
    saved = 0.0
    while heap and saved < saving:
        _, group, i = heapq.heappop(heap)
        ladder = ladders[group]
        saved += ladder[i].saving - (ladder[i - 1].saving if i else 0.0)
        at[group] = i
        if i + 1 < len(ladder):
            heapq.heappush(heap, (_rate(ladder[i], ladder[i + 1]), group, i + 1))
    if saved < saving:
        return Unreachable(saving, saved)
    return _plan([ladders[group][i] for group, i in at.items()])


def _rate(now: Option | None, then: Option) -> float:
    """Loss per money of a step; a step that saves nothing is taken only for free accuracy."""
    lost = expected_loss(then) - (expected_loss(now) if now else 0.0)
    more = then.saving - (now.saving if now else 0.0)
    return lost / max(more, 1e-12)
