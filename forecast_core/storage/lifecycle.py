"""Where parts of a table should lie, and what stands in the way: rules of the storage lifecycle.

Belongs here: a physical part as a value, holds and stays, the policy file, and which moves are
due. Does not: what a tier costs (`placement`), or moving anything (`resources.lifecycle`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from forecast_core.storage.tiers import DEFAULT_POLICY, Tier, TierPolicy

Kind = Literal["move", "compact", "rehydrate", "return", "restore"]
HoldKind = Literal["legal", "pin"]
STORAGE_CLASSES = (
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER",
    "DEEP_ARCHIVE",
)  # fmt: skip
# Hours until an archived object can be read, by the standard retrieval of the class.
RESTORE_HOURS: Mapping[str, int] = {"GLACIER": 5, "DEEP_ARCHIVE": 12}


class HeldError(ValueError):
    """A part that may not be moved: names the hold and how to lift it."""


@dataclass(frozen=True)
class Part:
    """What one tier holds of one period of one owner: the unit of every move.

    `first`..`last` are the days of its rows; `owner` None where rows are filed by date alone.
    """

    table: str
    tier: Tier
    period: str
    owner: str | None
    first: date
    last: date
    rows: int
    sizes: tuple[int, ...]
    paths: tuple[str, ...] = field(default=(), compare=False)

    @property
    def bytes(self) -> int:
        """Bytes of its files."""
        return sum(self.sizes)

    @property
    def files(self) -> int:
        """Number of its files."""
        return len(self.sizes)

    @property
    def name(self) -> str:
        """As people call it: 'raw_sales 2016-04 of CA_1 (hot)'."""
        of = f" of {self.owner}" if self.owner is not None else ""
        return f"{self.table} {self.period}{of} ({self.tier})"

    def meets(self, first: date | None, last: date | None, owner: str | None) -> bool:
        """Whether it has days of that window and owner; None leaves a side open."""
        return (
            (first is None or self.last >= first)
            and (last is None or self.first <= last)
            and (owner is None or self.owner is None or self.owner == owner)
        )


@dataclass(frozen=True)
class Hold:
    """What must stay as it is.

    `legal`: the part (of `first`..`last`, `owner`) is not moved, and `version` keeps its files.
    `pin`: a version that a backtest reads keeps its files; parts may move. `until` is the last day
    of it by the wall clock, None: until released.
    """

    name: str
    table: str
    kind: HoldKind
    version: int
    reason: str
    first: date | None = None
    last: date | None = None
    owner: str | None = None
    until: date | None = None

    def over(self, part: Part) -> bool:
        """Whether it forbids to move `part`."""
        mine = self.kind == "legal" and self.table == part.table
        return mine and part.meets(self.first, self.last, self.owner)

    def in_force(self, today: date) -> bool:
        """Whether it has not run out."""
        return self.until is None or today <= self.until


@dataclass(frozen=True)
class Stay:
    """A rehydrated window: it stays in `tier` up to and including `until`, then returns by age."""

    table: str
    first: date
    last: date
    owner: str | None
    tier: Tier
    until: date
    reason: str

    def covers(self, part: Part) -> bool:
        """Whether `part` is part of what was rehydrated."""
        return self.table == part.table and part.meets(self.first, self.last, self.owner)


@dataclass(frozen=True)
class Due:
    """A part that should change: where to and why."""

    part: Part
    tier: Tier
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Waiting:
    """A part that should change and may not yet: why."""

    part: Part
    reason: str


@dataclass(frozen=True)
class BackfillPolicy:
    """What selective backfills may do by themselves: money and partitions an evaluation; the share
    of a forecast's error that costs revenue; the age in days at which a partition counts half.

    Raises:
        ValueError: a setting below what it can be.
    """

    money_cap: float = 0.05
    partition_cap: int = 200
    loss_share: float = 0.001
    half_life_days: float = 180.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ValueError(f"backfill.{name} is {value!r}; write zero or more")
        if self.half_life_days == 0:
            raise ValueError("backfill.half_life_days is 0; write the days after which half counts")


@dataclass(frozen=True)
class LifecyclePolicy:
    """How storage is looked after; see policies/lifecycle.yaml.

    Raises:
        ValueError: a setting out of its range, or settings that contradict each other.
    """

    tiers: TierPolicy = DEFAULT_POLICY
    longest_job_hours: int = 24
    vacuum_after_hours: int = 168
    compact_files: int = 8
    rehydrate_tier: Tier = Tier.WARM
    rehydrate_days: int = 14
    storage_class: Mapping[Tier, str] = field(default_factory=dict)
    backfill: BackfillPolicy = field(default_factory=BackfillPolicy)

    def __post_init__(self) -> None:
        if self.longest_job_hours < 1:
            raise ValueError(f"longest_job_hours is {self.longest_job_hours}; use 1 or more")
        if self.vacuum_after_hours < self.longest_job_hours:
            raise ValueError(
                f"vacuum_after_hours {self.vacuum_after_hours} is less than longest_job_hours "
                f"{self.longest_job_hours}: a job could lose the files that it reads; raise the "
                "first or lower the second"
            )
        if self.compact_files < 2:
            raise ValueError(f"compact_files is {self.compact_files}; use 2 or more")
        if self.rehydrate_days < 1:
            raise ValueError(f"rehydrate_days is {self.rehydrate_days}; use 1 or more")
        for tier, named in self.storage_class.items():
            if named not in STORAGE_CLASSES:
                raise ValueError(
                    f"storage_class.{tier} is {named!r}; use one of {', '.join(STORAGE_CLASSES)}"
                )

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> LifecyclePolicy:
        """Check a policy read from YAML.

        Raises:
            ValueError: an unknown setting or tier, a value of the wrong type, ages that overlap or
                leave a gap.
        """
        known = cls.__dataclass_fields__
        strange = [key for key in content if key not in known]
        if strange:
            raise ValueError(f"unknown setting {strange[0]!r}; use {', '.join(known)}")
        given = dict(content)
        for key in ("longest_job_hours", "vacuum_after_hours", "compact_files", "rehydrate_days"):
            value = given.get(key, 1)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{key} is {value!r}; write a whole number")
        if "tiers" in given:
            try:
                given["tiers"] = TierPolicy.parse(given["tiers"])
            except ValueError as error:
                raise ValueError(f"tiers: {error}") from None
        if "rehydrate_tier" in given:
            given["rehydrate_tier"] = Tier.named(given["rehydrate_tier"])
        if "backfill" in given:
            try:
                given["backfill"] = BackfillPolicy(**given["backfill"])
            except TypeError:
                named = ", ".join(BackfillPolicy.__dataclass_fields__)
                raise ValueError(f"backfill: {given['backfill']!r}; use {named}") from None
        classes = given.get("storage_class", {})
        given["storage_class"] = {Tier.named(tier): name for tier, name in classes.items()}
        return cls(**given)

    def archived(self, tier: Tier) -> bool:
        """Whether objects of the tier must be restored before they can be read."""
        return self.storage_class.get(tier, "") in RESTORE_HOURS


def check_movable(part: Part, holds: Iterable[Hold]) -> None:
    """Refuse to touch what is held.

    Raises:
        HeldError: a legal hold covers the part.
    """
    for hold in holds:
        if hold.over(part):
            raise HeldError(
                f"{part.name} is under the legal hold {hold.name!r} ({hold.reason}); release it "
                f"first with `forecast lake release {hold.name}`"
            )


def rollover(
    parts: Sequence[Part],
    policy: TierPolicy,
    as_of: date,
    holds: Sequence[Hold] = (),
    stays: Sequence[Stay] = (),
) -> tuple[list[Due], list[Waiting]]:
    """The moves that age alone asks for, and what waits. Rows only go deeper: what landed deep
    stays deep, and what was rehydrated returns when its stay is over."""
    due: list[Due] = []
    waiting: list[Waiting] = []
    for part in parts:
        tier = policy.owner(part.last, as_of)
        if tier.depth <= part.tier.depth:
            continue
        covering = (s for s in stays if s.covers(part))
        stay = max(covering, key=lambda s: s.until, default=None)  # one in force goes before
        held = next((hold for hold in holds if hold.over(part)), None)
        if held:
            waiting.append(Waiting(part, f"legal hold {held.name}: {held.reason}"))
        elif stay and as_of <= stay.until:
            waiting.append(Waiting(part, f"rehydrated until {stay.until}: {stay.reason}"))
        elif stay:
            due.append(Due(part, tier, "return", f"its stay in {stay.tier} ended {stay.until}"))
        else:
            age = (as_of - part.last).days
            due.append(Due(part, tier, "move", f"{age} days old: {tier} owns that age"))
    return due, waiting


def returns(
    parts: Sequence[Part],
    policy: TierPolicy,
    as_of: date,
    holds: Sequence[Hold] = (),
    stays: Sequence[Stay] = (),
) -> dict[Part, Due]:
    """The parts whose stay is over and that may go back to the tier that owns their age."""
    due, _ = rollover(parts, policy, as_of, holds, stays)
    return {one.part: one for one in due if one.kind == "return"}


def compaction(
    parts: Sequence[Part], least_files: int, target_bytes: int, holds: Sequence[Hold] = ()
) -> tuple[list[Due], list[Waiting]]:
    """Parts in more files than their bytes need, once there are `least_files` of them."""
    due: list[Due] = []
    waiting: list[Waiting] = []
    for part in parts:
        needed = max(-(-part.bytes // target_bytes), 1)
        if part.files < least_files or part.files <= needed:
            continue
        held = next((hold for hold in holds if hold.over(part)), None)
        if held:
            waiting.append(Waiting(part, f"legal hold {held.name}: {held.reason}"))
        else:
            reason = f"{part.files} files where {needed} would do"
            due.append(Due(part, part.tier, "compact", reason))
    return due, waiting
