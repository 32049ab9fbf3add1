"""Which tier owns a day, and how a tier is written.

Belongs here: the tiers, their age limits and writer settings, and the pure rules from a day
to its tier and period. Does not: writing or moving anything (`resources.lake`), or what a tier
costs (the price card).

Ages are days before `as_of`. Tiers are given out by whole months: a month is as old as its last
day, so the rows of one month of one store are never split between tiers, and a commit per tier
never splits a partition.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import date, timedelta
from enum import StrEnum
from typing import Any, Literal

Span = Literal["month", "year"]
_LONGEST_ZSTD_LEVEL = 22


class Tier(StrEnum):
    """Where rows live, from dearest to keep to dearest to read."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"

    @classmethod
    def named(cls, name: str) -> Tier:
        """The tier of that name.

        Raises:
            ValueError: no such tier.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(cls)
            raise ValueError(f"unknown tier {name!r}; the tiers are {known}") from None

    @property
    def depth(self) -> int:
        """0 for hot, 1 for warm, 2 for cold."""
        return list(Tier).index(self)


@dataclass(frozen=True)
class TierRule:
    """The ages that a tier owns, and how its files are written.

    `from_age` is included, `until_age` is not (None: no limit); both in days.
    `packed_dates` stores the date column DELTA_BINARY_PACKED: slower to write, 1.4x smaller.

    Raises:
        ValueError: an age, level or size out of its range.
    """

    from_age: int
    until_age: int | None
    zstd_level: int
    row_group_rows: int
    period: Span = "month"
    target_file_mb: int = 128
    packed_dates: bool = False

    def __post_init__(self) -> None:
        if self.from_age < 0:
            raise ValueError(f"from_age is {self.from_age}; ages start at 0 days")
        if self.until_age is not None and self.until_age <= self.from_age:
            raise ValueError(f"until_age {self.until_age} is not after from_age {self.from_age}")
        if not 1 <= self.zstd_level <= _LONGEST_ZSTD_LEVEL:
            raise ValueError(f"zstd_level is {self.zstd_level}; it goes from 1 to 22")
        if self.row_group_rows < 1 or self.target_file_mb < 1:
            raise ValueError("row_group_rows and target_file_mb must be at least 1")
        if self.period not in ("month", "year"):
            raise ValueError(f"period is {self.period!r}; it is 'month' or 'year'")

    def owns(self, age_days: int) -> bool:
        """Whether rows of that age belong to this tier."""
        return self.from_age <= age_days and (self.until_age is None or age_days < self.until_age)


@dataclass(frozen=True)
class TierPolicy:
    """One rule a tier; together they own every age from 0 on, exactly once.

    A policy may leave tiers out (all hot is a policy), and deeper tiers own greater ages.

    Raises:
        ValueError: ages overlap, leave a gap, or do not reach from 0 to no limit; the message
            names the tiers.
    """

    rules: Mapping[Tier, TierRule]

    def __post_init__(self) -> None:
        ordered = [(tier, self.rules[tier]) for tier in Tier if tier in self.rules]
        if not ordered:
            raise ValueError("a tier policy needs at least one tier")
        first_tier, first = ordered[0]
        if first.from_age != 0:
            raise ValueError(f"{first_tier} starts at {first.from_age} days; no tier owns age 0")
        for (tier, rule), (deeper, next_rule) in itertools.pairwise(ordered):
            if rule.until_age is None or next_rule.from_age < rule.until_age:
                raise ValueError(
                    f"ages overlap: {tier} owns until {_until(rule)}, {deeper} from "
                    f"{next_rule.from_age} days; set {deeper}.from_age to {tier}.until_age"
                )
            if next_rule.from_age > rule.until_age:
                raise ValueError(
                    f"no tier owns ages {rule.until_age} to {next_rule.from_age - 1} days, "
                    f"between {tier} and {deeper}"
                )
        last_tier, last = ordered[-1]
        if last.until_age is not None:
            raise ValueError(
                f"no tier owns ages from {last.until_age} days on; leave {last_tier}.until_age out"
            )

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> TierPolicy:
        """Read `{tier: {from_age, until_age, zstd_level, row_group_rows, ...}}`.

        Raises:
            ValueError: unknown tier or setting, a missing or mistyped one, or ages that do not
                fit together.
        """
        return cls({Tier.named(name): _rule(name, entry) for name, entry in mapping.items()})

    def rule(self, tier: Tier) -> TierRule:
        """The rule of a tier.

        Raises:
            ValueError: the policy leaves this tier out.
        """
        if tier not in self.rules:
            have = ", ".join(self.rules)
            raise ValueError(f"the tier policy has no {tier} tier; it has {have}")
        return self.rules[tier]

    def at_age(self, age_days: int) -> Tier:
        """The tier that owns an age; a day after `as_of` counts as age 0."""
        age = max(age_days, 0)
        return next(tier for tier, rule in self.rules.items() if rule.owns(age))

    def owner(self, day: date, as_of: date | None, landing: Tier = Tier.HOT) -> Tier:
        """The tier where rows of `day` live.

        The landing tier is where age zero lands; the age policy can only send rows deeper.
        Without an `as_of` nothing has an age and all of it stays where it lands.
        """
        self.rule(landing)
        if as_of is None:
            return landing
        aged = self.at_age((as_of - month_end(day)).days)
        return max(landing, aged, key=lambda tier: tier.depth)

    def period(self, day: date, tier: Tier) -> str:
        """The physical period of a day: '2016-04' or, where periods are years, '2016'."""
        return day.strftime("%Y-%m" if self.rule(tier).period == "month" else "%Y")

    def windows(
        self, first: date, last: date, as_of: date | None, landing: Tier = Tier.HOT
    ) -> tuple[tuple[Tier, date, date], ...]:
        """Cut `first`..`last` (both included) into the stretches that each tier owns, oldest first.

        The stretches are disjoint, in order, and together are the window.
        """
        found: list[tuple[Tier, date, date]] = []
        for start, end in _months(first, last):
            tier = self.owner(start, as_of, landing)
            if found and found[-1][0] is tier:
                start = found.pop()[1]
            found.append((tier, start, end))
        return tuple(found)


def month_start(day: date) -> date:
    """The first day of the month of `day`."""
    return day.replace(day=1)


def month_end(day: date) -> date:
    """The last day of the month of `day`."""
    return next_month(day) - timedelta(days=1)


def next_month(day: date) -> date:
    """The first day of the month after that of `day`."""
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def _months(first: date, last: date) -> Iterator[tuple[date, date]]:
    start = first
    while start <= last:
        yield start, min(month_end(start), last)
        start = next_month(start)


def _rule(name: str, entry: Mapping[str, Any]) -> TierRule:
    known = [field.name for field in fields(TierRule)]
    strange = [key for key in entry if key not in known]
    if strange:
        raise ValueError(f"tier {name}: unknown setting {strange[0]!r}; it takes {known}")
    missing = [key for key in ("from_age", "zstd_level", "row_group_rows") if key not in entry]
    if missing:
        raise ValueError(f"tier {name}: {missing[0]} is missing")
    for key in ("from_age", "until_age", "zstd_level", "row_group_rows", "target_file_mb"):
        value = entry.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"tier {name}: {key} is {value!r}; it must be a whole number")
    try:
        return TierRule(**{"until_age": None, **entry})
    except ValueError as error:
        raise ValueError(f"tier {name}: {error}") from None


def _until(rule: TierRule) -> str:
    return "no limit" if rule.until_age is None else f"{rule.until_age} days"


# Row groups: a store-month of M5 is ~93 thousand rows and a store-year ~1.1 million, so one item's
# rows lie in 1 group of 23 while hot or warm and in 1 of 68 when cold: its whole history, in every
# store, is below 3 % of the bytes. Larger groups shrink files (a cold row takes .43 bytes at 16
# thousand, .52 at 8) and cost every look-up more.
DEFAULT_POLICY = TierPolicy(
    {
        Tier.HOT: TierRule(0, 60, zstd_level=1, row_group_rows=4_096),
        Tier.WARM: TierRule(60, 400, zstd_level=3, row_group_rows=4_096),
        Tier.COLD: TierRule(
            400, None, zstd_level=19, row_group_rows=16_384, period="year", packed_dates=True
        ),
    }
)
