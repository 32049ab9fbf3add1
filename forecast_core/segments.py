"""Which forecaster each item-store deserves: value x demand class x life stage, dated.

Belongs here: the segment policy, the statistics of one store's items, and their classification
over all stores. Does not: features, forecasters, or reading the policy from a file.

Two steps, because ABC ranks revenue over all stores while sales pass a store at a time:
`measure` makes one row an item of a store, `classify` sees all those rows at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forecast_core.quantiles import LEVELS
from forecast_core.schema import TABLES

Rung = Literal["floor", "statistical", "gbm", "neural"]
FeatureSet = Literal["full", "reduced", "minimal"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
ABC = ("A", "B", "C")
DEMAND_CLASSES = ("smooth", "erratic", "intermittent", "lumpy", "none")
LIFE_STAGES = ("new", "active", "inactive")
UNASSIGNED = "unassigned"
ATTRIBUTES = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
_KEY = ["item_id", "store_id"]
_CLASSES: Mapping[str, tuple[str, ...] | None] = {
    "abc": ABC,
    "demand_class": DEMAND_CLASSES,
    "life_stage": LIFE_STAGES,
    **dict.fromkeys(("dept_id", "cat_id", "store_id", "state_id")),
}


class SegmentPolicyError(ValueError):
    """A segment policy that cannot be used; every fault is named with its place in the file."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Group(_Part):
    """Item-stores that share a forecaster: a static partition of `forecasters`.

    `when`: column -> accepted values, all of which must hold; empty takes whatever is left.
    `features` is how much a forecaster of the group may look at; `retrain_days` its cadence.
    `horizon`: days ahead that its rung answers for, the floor beyond (None: all of them);
    `quantiles`: the levels it publishes. `demoted`: share of its item-stores, those of least
    revenue, that the floor serves. A group that is not `enabled` takes nobody; its members go to
    the next group that holds.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    rung: Rung
    features: FeatureSet = "full"
    when: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    retrain_days: int = Field(default=28, ge=1)
    horizon: int | None = Field(default=None, ge=1)
    quantiles: tuple[float, ...] = LEVELS
    demoted: float = Field(default=0.0, ge=0, le=1)
    enabled: bool = True

    @model_validator(mode="after")
    def _known_levels(self) -> Group:
        strange = [level for level in self.quantiles if level not in LEVELS]
        if strange or list(self.quantiles) != sorted(set(self.quantiles)):
            raise ValueError(f"quantiles: {strange or 'not rising'}; use some of {LEVELS}")
        return self

    @model_validator(mode="after")
    def _known_classes(self) -> Group:
        for column, values in self.when.items():
            if column not in _CLASSES:
                raise ValueError(f"when.{column} is unknown; use one of {', '.join(_CLASSES)}")
            allowed = _CLASSES[column]
            wrong = [v for v in values if allowed is not None and v not in allowed]
            if wrong or not values:
                raise ValueError(f"when.{column}: {wrong or 'empty'}; use {allowed or 'values'}")
        return self


class _Abc(_Part):
    A: float = Field(gt=0, lt=1)
    B: float = Field(gt=0, le=1)


class _Demand(_Part):
    adi: float = Field(default=1.32, gt=1)
    cv2: float = Field(default=0.49, gt=0)


class _Life(_Part):
    new_days: int = Field(ge=1)
    inactive_days: int = Field(ge=1)


class Expected(_Part):
    """What a rung is expected to do where no backtest has measured it.

    `gain`: the share of the floor's error that it avoids; `cpu_ms`: CPU-milliseconds a series.
    """

    gain: float = Field(ge=0, le=1)
    cpu_ms: float = Field(gt=0)


class UpgradeBounds(_Part):
    """What a batch may spend on upgrades beyond the floor; None: whatever they take.

    `cpu_s`: CPU-seconds; `minutes`: from the first upgrade on.
    """

    cpu_s: float | None = Field(default=None, ge=0)
    minutes: float | None = Field(default=None, ge=0)
    expected: Mapping[Rung, Expected] = Field(default_factory=dict)

    def of(self, rung: Rung) -> Expected:
        """What is expected of a rung; one that the policy does not name gains and costs most."""
        return self.expected.get(rung, Expected(gain=0.15, cpu_ms=50))


class _Content(_Part):
    version: str
    window_days: int = Field(ge=28)
    abc: _Abc
    demand: _Demand
    life: _Life
    upgrades: UpgradeBounds = UpgradeBounds()
    groups: tuple[Group, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> _Content:
        names = [group.name for group in self.groups]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"groups: {twice[0]!r} is named twice; give each group its own name")
        if self.groups[-1].when:
            raise ValueError("groups: the last must have no `when`: it takes whatever is left")
        if not self.groups[-1].enabled:
            raise ValueError("groups: the last must be enabled: it takes whatever is left")
        early = [group.name for group in self.groups[:-1] if not group.when]
        if early:
            raise ValueError(f"groups: {early[0]!r} has no `when`, so those after it get nothing")
        if self.abc.A >= self.abc.B:
            raise ValueError("abc: A must be below B (cumulative shares of revenue)")
        longest = max(self.life.new_days, self.life.inactive_days)
        if self.window_days < longest:
            raise ValueError(f"window_days must be at least {longest}, the longest span of `life`")
        return self


@dataclass(frozen=True)
class SegmentPolicy:
    """The parsed policy. `SegmentPolicy.parse(mapping)` is the way in."""

    content: _Content

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> SegmentPolicy:
        """Check a mapping as YAML gives it.

        Raises:
            SegmentPolicyError: naming every key that is wrong, and what it should be.
        """
        try:
            return cls(_Content.model_validate(content))
        except ValidationError as error:
            faults = (
                f"{'.'.join(map(str, fault['loc'])) or 'policy'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise SegmentPolicyError("; ".join(faults)) from None

    @cached_property
    def groups(self) -> list[str]:
        """The group names in order: the partition keys of `forecasters`."""
        return [group.name for group in self.content.groups]

    def group(self, name: str) -> Group:
        """The group called `name`.

        Raises:
            SegmentPolicyError: there is none; the message lists those there are.
        """
        for group in self.content.groups:
            if group.name == name:
                return group
        raise SegmentPolicyError(f"no segment group {name!r}; there are {', '.join(self.groups)}")

    @property
    def window_days(self) -> int:
        """Days of sales, back from as_of, that `measure` reads."""
        return self.content.window_days

    @property
    def version(self) -> str:
        """What the file says its version is."""
        return self.content.version


def measure(
    sales: pl.DataFrame, as_of: date, policy: SegmentPolicy, known: pl.DataFrame | None = None
) -> pl.DataFrame:
    """One row an item of one store, from its `cleaned_sales` up to `as_of`.

    `known`: the hierarchy columns of items that must appear even with no row in the window.
    Days count when the item was on sale or sold; missing days count for nothing. An item that was
    moved is where its last row says.
    Columns: the hierarchy, revenue (units x price), days, selling_days, mean_sold, var_sold,
    first_day (null: never on sale in the window), last_sale (null: none).
    """
    since = as_of - timedelta(days=policy.window_days - 1)
    units = pl.col("units").fill_nan(None)
    live = pl.col("on_sale").fill_null(False) | (units > 0)
    sold = units.filter(units > 0)
    window = sales.filter(pl.col("date").is_between(since, as_of))
    newest = pl.col("date").arg_max()
    rows = window.group_by(_KEY).agg(
        pl.col([name for name in ATTRIBUTES if name not in _KEY]).get(newest),
        revenue=(units * pl.col("sell_price").fill_nan(None)).sum(),
        days=(live & units.is_not_null()).sum().cast(pl.Int64),
        selling_days=sold.len().cast(pl.Int64),
        mean_sold=sold.mean(),
        var_sold=sold.var(ddof=0),
        first_day=pl.col("date").filter(live).min(),
        last_sale=pl.col("date").filter(units > 0).max(),
    )
    if known is not None:
        absent = known.select(ATTRIBUTES).unique(_KEY).join(rows, on=_KEY, how="anti")
        rows = pl.concat([rows, absent], how="diagonal").with_columns(
            pl.col("revenue").fill_null(0.0), pl.col("days", "selling_days").fill_null(0)
        )
    return rows.sort("store_id", "item_id")


def classify(stats: pl.DataFrame, as_of: date, policy: SegmentPolicy) -> pl.DataFrame:
    """Rows of `demand_segments`: `stats` is `measure` of every store, concatenated.

    Every row of `stats` comes back exactly once, with exactly one group.
    """
    life, demand = policy.content.life, policy.content.demand
    share = pl.col("revenue").cum_sum() / pl.max_horizontal(pl.col("revenue").sum(), 1e-12)
    ahead = share - pl.col("revenue") / pl.max_horizontal(pl.col("revenue").sum(), 1e-12)
    adi = pl.when(pl.col("selling_days") > 0).then(pl.col("days") / pl.col("selling_days"))
    rare, varied = pl.col("adi") >= demand.adi, pl.col("cv2") >= demand.cv2
    new = pl.col("first_day") > as_of - timedelta(days=life.new_days)
    quiet = (pl.col("last_sale") <= as_of - timedelta(days=life.inactive_days)).fill_null(True)
    segmented = (
        stats.sort(
            ["revenue", "store_id", "item_id"], descending=[True, False, False], nulls_last=True
        )
        .with_columns(
            # An item is A while those ahead of it have not yet filled A's share.
            abc=pl.when((pl.col("revenue") > 0) & (ahead < policy.content.abc.A))
            .then(pl.lit("A"))
            .when((pl.col("revenue") > 0) & (ahead < policy.content.abc.B))
            .then(pl.lit("B"))
            .otherwise(pl.lit("C")),
            adi=adi,
            cv2=pl.col("var_sold") / pl.col("mean_sold") ** 2,
            life_stage=pl.when(new.fill_null(False))
            .then(pl.lit("new"))
            .when(quiet)
            .then(pl.lit("inactive"))
            .otherwise(pl.lit("active")),
            as_of=pl.lit(as_of),
        )
        .with_columns(
            demand_class=pl.when(pl.col("selling_days") == 0)
            .then(pl.lit("none"))
            .when(rare & varied)
            .then(pl.lit("lumpy"))
            .when(rare)
            .then(pl.lit("intermittent"))
            .when(varied)
            .then(pl.lit("erratic"))
            .otherwise(pl.lit("smooth")),
        )
        .with_columns(segment=pl.concat_str("abc", "demand_class", "life_stage", separator="-"))
    )
    return TABLES["demand_segments"].conform(
        _route(segmented, policy).drop("mean_sold", "var_sold").sort("store_id", "item_id")
    )


def _route(segmented: pl.DataFrame, policy: SegmentPolicy) -> pl.DataFrame:
    """The first group that holds, for every row."""
    *ruled, rest = policy.content.groups
    name, rung = pl.lit(rest.name), pl.lit(rest.rung)
    for group in (held for held in reversed(ruled) if held.enabled):
        holds = pl.all_horizontal(
            pl.col(column).is_in(list(values)) for column, values in group.when.items()
        )
        name = pl.when(holds).then(pl.lit(group.name)).otherwise(name)
        rung = pl.when(holds).then(pl.lit(group.rung)).otherwise(rung)
    return _demoted(segmented.with_columns(segment_group=name, rung=rung), policy)


def _demoted(routed: pl.DataFrame, policy: SegmentPolicy) -> pl.DataFrame:
    """The least of each group by revenue go to the floor, where the policy says so."""
    shares = {g.name: g.demoted for g in policy.content.groups if g.demoted > 0}
    if not shares:
        return routed
    group = pl.col("segment_group")
    share = group.replace_strict(shares, default=0.0, return_dtype=pl.Float64)
    least = pl.struct("revenue", "store_id", "item_id").rank("ordinal").over(group)
    poor = least <= (share * pl.len().over(group)).floor()
    return routed.with_columns(rung=pl.when(poor).then(pl.lit("floor")).otherwise("rung"))


def with_attributes(segments: pl.DataFrame, tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """`demand_segments` rows with what else is known of their items or stores.

    Args:
        tables: key columns (among `ATTRIBUTES`, each key once) and further ones; an item-store
            without a line there is `UNASSIGNED`, so that it lies in a node of every level.
    """
    for table in tables:
        keys = [name for name in table.columns if name in ATTRIBUTES]
        told = [name for name in table.columns if name not in keys]
        segments = segments.join(table, on=keys, how="left", maintain_order="left").with_columns(
            pl.col(told).cast(pl.String).fill_null(UNASSIGNED)
        )
    return segments


def served(segments: pl.DataFrame, group: str) -> pl.DataFrame:
    """The rows of a group that its forecaster is for: those that were put on the floor are not.

    All of them where the group as a whole is on the floor.
    """
    own = segments.filter(segment_group=group)
    above = own.filter(pl.col("rung") != "floor")
    return above if above.height else own


def reclassified(now: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """`demand_segments` rows with where each item-store was before.

    Adds `previous_segment` and `previous_group`; null for who was not classified before.
    """
    key = ["item_id", "store_id"]
    was = before.select(*key, previous_segment="segment", previous_group="segment_group")
    return now.join(was, on=key, how="left", maintain_order="left")


def moves(segments: pl.DataFrame) -> pl.DataFrame:
    """`previous_group, segment_group, item_stores`: who changed the forecaster, most first."""
    moved = segments.filter(pl.col("previous_group") != pl.col("segment_group"))
    counts = moved.group_by("previous_group", "segment_group").len("item_stores")
    return counts.sort(
        "item_stores", "previous_group", "segment_group", descending=[True, False, False]
    )


def due(
    policy: SegmentPolicy,
    trained: Mapping[str, date],
    as_of: date,
    others: Sequence[str] = (),
    rungs: Mapping[str, str] | None = None,
) -> list[str]:
    """The groups whose forecaster is older than its cadence, of another rung, or was never trained.

    Args:
        trained: group -> the day its newest forecaster was trained to.
        others: fits that serve all groups: due as soon as any group is.
        rungs: group -> the rung of its newest forecaster, where known.
    """
    known = rungs or {}
    late = [
        group.name
        for group in policy.content.groups
        if group.enabled
        and (
            group.name not in trained
            or (as_of - trained[group.name]).days >= group.retrain_days
            or known.get(group.name, group.rung) != group.rung
        )
    ]
    return [*late, *others] if late else []
