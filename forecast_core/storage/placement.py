"""Which tier is cheapest for a part, given who will read it: the placement planner.

Belongs here: the cost of keeping, reading and moving a part, the cheapest sequence of tiers, and
what to do now. Does not: moving (`resources.lifecycle`), or measuring reads.

Money is float here: a plan compares futures, and what is charged is rated by the ledger. The
sequence is found by a dynamic programme over (tier, days spent in it), because leaving a tier
before its minimum duration is paid for. Rates: `forecast_core.cost.price_card`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from forecast_core.cost.price_card import Rates
from forecast_core.storage.lifecycle import Due, Kind, Part
from forecast_core.storage.tiers import Tier

TIERS = tuple(Tier)
GIB = 2**30
DAYS_IN_MONTH = 365.25 / 12
HORIZON_DAYS = 730
STEP_DAYS = 7
# Bytes of a row by tier beside those of a hot one, where a table has none yet: measured on M5.
SHRINK: Mapping[Tier, float] = {Tier.HOT: 1.0, Tier.WARM: 0.96, Tier.COLD: 0.37}
# A move reads its source for its hash and for its rows, and so it proves what it wrote.
READS_OF_THE_SOURCE = READS_OF_THE_WRITTEN = 2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reader:
    """Who reads a table by plan: days of age `from_age`..`to_age`, every `every_days` days.

    `share`: the part of a file's bytes that a read fetches. What an asset declares under
    `storage/reads` in its metadata.

    Raises:
        ValueError: a window or cadence that cannot be.
    """

    table: str
    name: str
    to_age: int
    every_days: float
    from_age: int = 0
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.from_age <= self.to_age:
            raise ValueError(
                f"{self.name} reads {self.table} from {self.from_age} to {self.to_age} days of age;"
                " give 0 <= from_age <= to_age"
            )
        if self.every_days <= 0 or not 0 < self.share <= 1:
            raise ValueError(
                f"{self.name} reads {self.table} every {self.every_days} days, {self.share} of it;"
                " give every_days above 0 and a share of at most 1"
            )


@dataclass(frozen=True, eq=False)
class Costs:
    """Money of one part by tier (arrays in the order of `TIERS`): a day of keeping it, one read of
    all of it, entering and leaving the tier, and the days that are paid for at least."""

    keep_day: Floats
    read: Floats
    enter: Floats
    leave: Floats
    least_days: Floats

    @classmethod
    def of(cls, bytes_by_tier: Mapping[Tier, float], files: int, rates: Rates) -> Costs:
        """The costs of a part of `files` files that takes so many bytes in each tier."""

        def rate(line: str) -> Floats:
            return np.array([float(rates.of(f"{line}/{tier}")) for tier in TIERS])

        gib = np.array([bytes_by_tier[tier] / GIB for tier in TIERS])
        least = np.array([rates.minimum_bytes.get(tier, 0) / GIB for tier in TIERS]) * files
        read = gib * rate("retrieval_gib") + files * rate("read_request")
        # What was just written is read before it takes the class of its tier: as hot.
        proof = gib * rate("retrieval_gib")[0] + files * rate("read_request")[0]
        return cls(
            keep_day=np.maximum(gib, least) * rate("gib_month") / DAYS_IN_MONTH,
            read=read,
            enter=files * rate("write_request") + READS_OF_THE_WRITTEN * proof,
            leave=READS_OF_THE_SOURCE * read,
            least_days=np.array([float(rates.minimum_days.get(tier, 0)) for tier in TIERS]),
        )

    def early(self, tier: int, held_days: float) -> float:
        """What leaving a tier after so many days still owes."""
        owed = max(float(self.least_days[tier]) - held_days, 0.0)
        return float(self.keep_day[tier]) * owed


@dataclass(frozen=True, eq=False)
class Course:
    """A sequence of tiers (indices into `TIERS`), one a step, and what each step costs."""

    tiers: NDArray[np.int64]
    money: Floats

    @property
    def total(self) -> float:
        """Money over all steps."""
        return float(self.money.sum())


def expected_reads(
    readers: Sequence[Reader],
    age_days: float,
    steps: int,
    step_days: int = STEP_DAYS,
    unplanned_a_day: float = 0.0,
) -> Floats:
    """Reads of a whole part in each coming step, from what is declared and what came unplanned."""
    ages = age_days + step_days * (np.arange(steps) + 0.5)
    found = np.full(steps, unplanned_a_day * step_days)
    for reader in readers:
        inside = (ages >= reader.from_age) & (ages <= reader.to_age)
        found += inside * (reader.share * step_days / reader.every_days)
    return found


def unplanned_rate(beyond_declared: float, observed_days: float) -> float:
    """Reads a day to expect beside the declared, from how many there were in so many days.

    Shrunk towards none as if two quiet years had been seen before: one backfill that nobody
    announced is no habit.
    """
    return max(beyond_declared, 0.0) / (observed_days + HORIZON_DAYS)


def cheapest(
    costs: Costs, reads: Floats, start: Tier, held_days: float = 0.0, step_days: int = STEP_DAYS
) -> Course:
    """The cheapest sequence of tiers for those reads, exact for moves at the start of a step.

    `reads`: number of whole reads in each step. `start` and `held_days`: where the part is and
    since when.
    """
    caps = np.ceil(costs.least_days / step_days).astype(int)
    width = int(caps.max()) + 2
    held = np.arange(width)
    early = costs.keep_day[:, None] * np.maximum(
        costs.least_days[:, None] - held[None, :] * step_days, 0
    )
    running = costs.keep_day * step_days + reads[:, None] * costs.read  # steps x tiers
    following = np.minimum(held + 1, width - 1)
    value = np.zeros((len(TIERS), width))
    choice = np.empty((len(reads), len(TIERS), width), dtype=np.int64)
    for step in range(len(reads) - 1, -1, -1):
        arriving = costs.enter + running[step] + value[:, 1]
        options = np.empty((len(TIERS), len(TIERS), width))  # from, to, held
        for tier in range(len(TIERS)):
            options[tier] = arriving[:, None] + costs.leave[tier] + early[tier][None, :]
            options[tier, tier] = running[step, tier] + value[tier][following]
        choice[step] = options.argmin(axis=1)
        value = options.min(axis=1)
    return _followed(costs, running, choice, TIERS.index(start), held_days, step_days)


def _followed(
    costs: Costs,
    running: Floats,
    choice: NDArray[np.int64],
    tier: int,
    held_days: float,
    step_days: int,
) -> Course:
    steps, _, width = choice.shape
    held = min(int(held_days // step_days), width - 1)
    tiers, money = np.empty(steps, dtype=np.int64), np.empty(steps)
    for step in range(steps):
        chosen = int(choice[step, tier, held])
        money[step] = running[step, chosen]
        if chosen == tier:
            held = min(held + 1, width - 1)
        else:
            money[step] += costs.leave[tier] + costs.enter[chosen]
            money[step] += costs.early(tier, held * step_days)
            tier, held = chosen, 1
        tiers[step] = tier
    return Course(tiers, money)


def cost_of(
    costs: Costs,
    reads: Floats,
    tiers: Sequence[int] | NDArray[np.int64],
    start: Tier,
    held_days: float = 0.0,
    step_days: int = STEP_DAYS,
) -> Floats:
    """What a given sequence of tiers costs in each step."""
    tier, held = TIERS.index(start), held_days
    money = np.empty(len(tiers))
    for step, chosen in enumerate(tiers):
        money[step] = costs.keep_day[chosen] * step_days + reads[step] * costs.read[chosen]
        if chosen != tier:
            money[step] += costs.leave[tier] + costs.enter[chosen] + costs.early(tier, held)
            tier, held = int(chosen), 0.0
        held += step_days
    return money


@dataclass(frozen=True)
class Placed:
    """What to do with a part now. `saving` over `HORIZON_DAYS` beside leaving it where it is;
    `move_cost` is part of it; `pays_from` the day on which the move has paid for itself."""

    part: Part
    tier: Tier
    saving: float
    move_cost: float
    pays_from: date | None
    reason: str
    kind: Kind = "move"

    @property
    def moves(self) -> bool:
        """Whether there is anything to do."""
        return self.tier is not self.part.tier


def place(
    part: Part,
    readers: Sequence[Reader],
    rates: Rates,
    as_of: date,
    *,
    shrink: Mapping[Tier, float] = SHRINK,
    held_days: float = 0.0,
    unplanned_a_day: float = 0.0,
    back: Due | None = None,
) -> Placed:
    """The cheapest tier for a part from now on, and why; the same tier where moving costs more.

    `back`: the return of a rehydrated part, made whatever it saves.
    """
    mine = [reader for reader in readers if reader.table == part.table]
    of = {tier: shrink.get(tier, min(shrink.values())) for tier in TIERS}  # a new tier packs best
    sizes = {tier: part.bytes * of[tier] / of[part.tier] for tier in TIERS}
    costs = Costs.of(sizes, part.files, rates)
    age = (as_of - part.last).days
    steps = HORIZON_DAYS // STEP_DAYS
    reads = expected_reads(mine, age, steps, unplanned_a_day=unplanned_a_day)
    course = cheapest(costs, reads, part.tier, held_days)
    here = TIERS.index(part.tier)
    staying = cost_of(costs, reads, [here] * steps, part.tier, held_days)
    chosen = int(course.tiers[0])
    if back is not None:
        chosen = TIERS.index(back.tier)
        returned = np.full(steps, chosen)
        course = Course(returned, cost_of(costs, reads, returned, part.tier, held_days))
    if chosen == here:
        reason = _why_stay(part, costs, reads, staying, sizes, rates, course, as_of)
        return Placed(part, part.tier, 0.0, 0.0, None, reason)
    move = float(costs.leave[here] + costs.enter[chosen] + costs.early(here, held_days))
    gained = np.cumsum(staying) - np.cumsum(course.money)
    ahead = np.flatnonzero(gained >= 0)
    pays = as_of + timedelta(days=int((ahead[0] + 1) * STEP_DAYS)) if ahead.size else None
    yearly = reads.sum() * 365 / HORIZON_DAYS
    reason = f"{_reads(yearly)}; a GiB-month costs {_price(rates, TIERS[chosen])} there"
    kind: Kind = "move"
    if back is not None:
        reason, kind = back.reason, back.kind
    return Placed(part, TIERS[chosen], float(gained[-1]), move, pays, reason, kind)


def _why_stay(
    part: Part,
    costs: Costs,
    reads: Floats,
    staying: Floats,
    sizes: Mapping[Tier, float],
    rates: Rates,
    course: Course,
    as_of: date,
) -> str:
    later = np.flatnonzero(course.tiers != course.tiers[0])
    if later.size:
        day = as_of + timedelta(days=int(later[0] * STEP_DAYS))
        return f"later: {TIERS[int(course.tiers[later[0]])]} pays from {day} on"
    deeper = [tier for tier in TIERS if tier.depth > part.tier.depth]
    for tier in deeper:
        least = rates.minimum_bytes.get(tier, 0)
        if sizes[tier] / part.files < least:
            return (
                f"do nothing: {sizes[tier] / part.files / 1024:.0f} KiB a file would be billed as "
                f"{least / 1024:.0f} KiB in {tier}"
            )
    if deeper:
        others = {
            t: float(cost_of(costs, reads, [TIERS.index(t)] * len(reads), part.tier).sum())
            for t in deeper
        }
        best = min(others, key=lambda tier: others[tier])
        ratio = others[best] / max(float(staying.sum()), 1e-18)
        yearly = reads.sum() * 365 / HORIZON_DAYS
        return f"do nothing: {_reads(yearly)}, {best} would cost {ratio:.2f}x"
    return "do nothing: the cheapest tier to keep"


def _reads(yearly: float) -> str:
    return "read by nobody" if yearly < 0.05 else f"read {yearly:.1f} times a year"


def _price(rates: Rates, tier: Tier) -> str:
    return f"{rates.of(f'gib_month/{tier}')} {rates.currency}"


def markdown(placed: Sequence[Placed], currency: str, limit: int = 50) -> str:
    """The plan as a Markdown table, the largest savings first; what stays is summed by reason."""
    moves = sorted((p for p in placed if p.moves), key=lambda p: -p.saving)
    lines = [
        f"| part | rows | to | saving ({currency}) | move costs | pays from | reason |",
        "|---|---:|---|---:|---:|---|---|",
    ]
    lines += [
        f"| {p.part.name} | {p.part.rows:,} | {p.tier} | {p.saving:.6f} | {p.move_cost:.6f} | "
        f"{p.pays_from or '-'} | {p.reason} |"
        for p in moves[:limit]
    ]
    if len(moves) > limit:
        lines.append(f"| {len(moves) - limit} more | | | | | | |")
    counted: dict[str, int] = {}
    for p in placed:
        if not p.moves:
            counted[p.reason] = counted.get(p.reason, 0) + 1
    for reason, count in sorted(counted.items(), key=lambda pair: -pair[1])[:limit]:
        lines.append(f"| {count} parts | | stay | 0 | 0 | - | {reason} |")
    return "\n".join(lines)
