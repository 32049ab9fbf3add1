"""How forecasts are made to add up: the declared levels and the method, as one policy.

Belongs here: the typed form of the policy file. Does not: reconciling (`reconcile`), or opening
the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from forecast_core.hierarchy import M5_LEVELS, M5_NESTING, Hierarchy, Level, level_name

Method = Literal["bottom_up", "wls_struct", "wls_var"]
SERIES: Level = ("item_id", "store_id")


class ReconciliationError(ValueError):
    """A policy that cannot be used; every fault is named with its place in the file."""


class Reconciliation(BaseModel):
    """`Reconciliation.parse(mapping)` is the way in.

    Attributes:
        method: `bottom_up` sums the item-stores; the others also hear forecasts of the coarse
            levels, weighted by how many series a node has (`wls_struct`) or by how far
            forecasts of it have been off (`wls_var`).
        levels: attribute columns of each level, coarse to fine; the series stand below them.
        own_nodes: the coarse levels that have at most so many nodes between them get forecasts
            of their own; finer ones are sums.
        refresh_days: how long an error variance is used, and its factor kept.
        kept_factors: factors kept between nights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    method: Method = "bottom_up"
    levels: tuple[Level, ...] = M5_LEVELS[:-1]
    own_nodes: int = Field(default=400, ge=1, le=4000)
    refresh_days: int = Field(default=28, ge=1)
    kept_factors: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _apart(self) -> Self:
        names = [level_name(tuple(sorted(level))) for level in self.levels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"levels: {twice[0]} stands there twice; name each level once")
        if level_name(tuple(sorted(SERIES))) in names:
            raise ValueError("levels: leave item_id/store_id out: the series always stand last")
        return self

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Reconciliation:
        """Check a mapping as YAML gives it.

        Raises:
            ReconciliationError: naming every key that is wrong, and what it should be.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            faults = (
                f"{'.'.join(map(str, fault['loc'])) or 'policy'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise ReconciliationError("; ".join(faults)) from None

    def of_levels(self, levels: Sequence[Level]) -> Reconciliation:
        """The same policy over the levels that a source declares.

        Raises:
            ReconciliationError: a level stands there twice.
        """
        above = [level for level in levels if sorted(level) != sorted(SERIES)]
        return Reconciliation.parse({**self.model_dump(), "levels": above})

    def hierarchy(self, segments: pl.DataFrame) -> Hierarchy:
        """The declared hierarchy of classified item-stores (`demand_segments` rows).

        Raises:
            HierarchyError: a level names no column of theirs, or a series lies in no node of one.
        """
        levels = (*self.levels, SERIES)
        nesting = M5_NESTING if self.levels == M5_LEVELS[:-1] else {}
        return Hierarchy.of(segments.sort("store_id", "item_id"), levels, nesting)

    def since(self, cutoff: date) -> date:
        """The day whose error variance a night goes by: the same for `refresh_days` nights."""
        return cutoff - timedelta(days=cutoff.toordinal() % self.refresh_days)
