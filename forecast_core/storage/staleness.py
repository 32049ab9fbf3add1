"""Which partitions are stale, which of them are worth a refresh, and in how few runs.

Belongs here: the rules, as pure functions over what is known of each partition. Does not: asking
Dagster (`forecast_assets.automation`), pricing a refresh (`resources.backfill_quotes`).

A freshness policy promises an asset as a whole; a partition of it is stale when its sources changed
longer ago than the promise allows and it was not made again since, or when it was never made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta


@dataclass(frozen=True)
class Known:
    """What is known of a partition: when it and the newest of its sources were made (UTC)."""

    key: str
    made_at: datetime | None
    sources_at: datetime | None


@dataclass(frozen=True)
class Refresh:
    """A stale partition that could be refreshed: what that costs, and what it is worth.

    `day` and `store` place it (None: not cut by it); `reason` says why it is stale.
    """

    key: str
    day: date
    store: str | None
    reason: str
    worth: float
    money: float


@dataclass(frozen=True)
class Chosen:
    """What is refreshed now, and why the rest waits; `runs` are rectangles of days and stores."""

    now: tuple[Refresh, ...]
    waiting: Mapping[str, str]
    runs: tuple[tuple[Refresh, ...], ...]

    @property
    def money(self) -> float:
        """The quotes of what is refreshed now."""
        return sum(refresh.money for refresh in self.now)


def why_stale(known: Known, promise: timedelta, now: datetime) -> str | None:
    """Why a partition is stale; None when it is not (or has no sources to be made of)."""
    if known.sources_at is None:
        return None
    if known.made_at is None:
        return "never made, though its sources are there"
    behind = now - known.sources_at
    if known.sources_at > known.made_at and behind > promise:
        return f"its sources changed {behind.total_seconds() / 3600:.0f} hours ago"
    return None


def why_behind(known: Known, promise: timedelta, now: datetime) -> str | None:
    """Why a partition will be stale though it is not yet: the promise still allows for it."""
    if known.sources_at is None or known.made_at is None or known.sources_at <= known.made_at:
        return None
    behind = max(now - known.sources_at, timedelta(0))
    if behind > promise:
        return None
    since, within = (span.total_seconds() / 3600 for span in (behind, promise))
    return f"its sources changed {since:.0f} hours ago, within the {within:.0f} that it may lag"


def worth_of(
    revenue: float, last_error: float, age_days: float, loss_share: float, half_life_days: float
) -> float:
    """What a fresh partition is worth: revenue of its segment that rests on it, times how wrong the
    last forecast was (WAPE), times the share of that error that costs money, halved with its age.
    """
    fading: float = 0.5 ** (max(age_days, 0.0) / half_life_days)
    return max(revenue, 0.0) * max(last_error, 0.0) * loss_share * fading


def choose(
    stale: Sequence[Refresh], *, money_cap: float, partition_cap: int, months: bool = True
) -> Chosen:
    """Refresh what is worth its cost, best value first, under both caps, in as few runs as can be.

    Whole runs (neighbouring days of a store) are taken before parts of others: each run pays for
    its own start. What waits is listed with its reason.
    """
    waiting: dict[str, str] = {}
    worthy: list[Refresh] = []
    for refresh in stale:
        if refresh.worth < refresh.money:
            waiting[refresh.key] = (
                f"worth {refresh.worth:.6f}, less than the {refresh.money:.6f} that it costs"
            )
        else:
            worthy.append(refresh)
    now: list[Refresh] = []
    spent = 0.0
    for run in sorted(runs_of(worthy, months), key=_value_for_money, reverse=True):
        for refresh in sorted(run, key=lambda r: r.day, reverse=True):
            if len(now) >= partition_cap:
                waiting[refresh.key] = f"the cap of {partition_cap} partitions is reached"
            elif spent + refresh.money > money_cap:
                waiting[refresh.key] = (
                    f"costs {refresh.money:.6f}; {money_cap - spent:.6f} of the cap is left"
                )
            else:
                now.append(refresh)
                spent += refresh.money
    return Chosen(tuple(now), waiting, tuple(runs_of(now, months)))


def runs_of(refreshes: Sequence[Refresh], months: bool = True) -> list[tuple[Refresh, ...]]:
    """Rectangles: stores that lack the same neighbouring days go together."""
    by_store: dict[str | None, list[Refresh]] = {}
    for refresh in sorted(refreshes, key=lambda r: r.day):
        by_store.setdefault(refresh.store, []).append(refresh)
    blocks: dict[tuple[date, ...], list[Refresh]] = {}
    for mine in by_store.values():
        block: list[Refresh] = []
        for refresh in mine:
            if block and refresh.day != _next(block[-1].day, months):
                blocks.setdefault(tuple(r.day for r in block), []).extend(block)
                block = []
            block.append(refresh)
        blocks.setdefault(tuple(r.day for r in block), []).extend(block)
    return [tuple(block) for _, block in sorted(blocks.items())]


def _next(day: date, months: bool) -> date:
    if not months:
        return day + timedelta(days=1)
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def _value_for_money(run: Sequence[Refresh]) -> float:
    return sum(r.worth for r in run) / max(sum(r.money for r in run), 1e-12)
