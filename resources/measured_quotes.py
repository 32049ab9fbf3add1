"""Quotes from what runs have cost: the estimator's bounds, as admission holds them.

Belongs here: asking the estimator for each asset of a run and adding up. Does not: the model
(`forecast_core.cost.estimate`), the stated bound for what has no history (`DefaultQuoter`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from forecast_core.admission.policy import Policy, nanos
from forecast_core.admission.request import AssetFacts, DefaultQuoter, RunFacts
from forecast_core.admission.values import Quote
from forecast_core.cost.estimate import OVERHEAD, Ask, Estimator, NoHistory, observations
from resources.ledger import Ledger

REFIT_S = 600.0
HISTORY = timedelta(days=120)
MEMORY_MARGIN = 1.2


@dataclass(frozen=True)
class _Fit:
    at: float
    money: Estimator
    wall: Estimator
    peak_gib: dict[str, float]
    measured: frozenset[tuple[str, str | None]]  # (asset, forecaster) that ran


class MeasuredQuoter:
    """Upper bounds at 95 % from the ledger, fitted again every ten minutes at most.

    An asset without a run of its own takes the policy's stated bound; so does everything while the
    ledger is empty or away.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        environment: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger, self._policy, self._environment = ledger, policy, environment
        self._clock, self._default = clock, DefaultQuoter(policy)
        self._fit: _Fit | None = None

    def quotes(self, facts: RunFacts) -> tuple[Quote, ...]:
        """One quote a rung; empty when nothing of the run was ever measured."""
        fit = self._fitted()
        if fit is None or not facts.assets:
            return ()
        ladder = next((asset.rungs for asset in facts.assets if asset.rungs), ("asked",))
        asks = [Ask(asset.key) for asset in facts.assets]
        if all(fit.money.novelty(ask) == "new asset" for ask in asks):
            return ()
        return tuple(self._quote(facts, rung, fit) for rung in ladder)

    def _quote(self, facts: RunFacts, rung: str, fit: _Fit) -> Quote:
        bound = self._policy.default_bound
        charges: dict[str, int] = {}
        wall_s, memory_gib = 0.0, 0.0
        for asset in facts.assets:
            ask, cheaper = self._ask(asset, facts, rung, fit)
            pipeline = asset.pipeline or facts.pipelines[0]
            if fit.money.novelty(ask) == "new asset":
                share = bound.rungs.get(rung, 1.0)
                money, wall, peak = int(bound.money * share), bound.wall * share, bound.memory_gib
            else:
                money = nanos(f"{fit.money.estimate(ask).upper * cheaper:.12f}")
                wall = fit.wall.estimate(ask).upper * cheaper
                peak = fit.peak_gib.get(ask.asset, bound.memory_gib) * MEMORY_MARGIN
            charges[pipeline] = charges.get(pipeline, 0) + money
            wall_s, memory_gib = wall_s + wall, max(memory_gib, peak)
        overhead = nanos(f"{fit.money.estimate(_overhead(facts)).upper:.12f}")
        first = max(charges, key=lambda name: (charges[name], name))
        charges[first] += overhead
        # A peak is that of a whole process, which may have done other work before: nobody asks for
        # more than its stage has, and who takes more is stopped in flight.
        stage = self._policy.stages[self._policy.stage_name(first)]
        return Quote(
            rung,
            tuple(sorted(charges.items())),
            wall_s,
            bound.cpu,
            min(memory_gib, stage.memory_gib),
            max(facts.gpu(rung), bound.gpu),
        )

    def _ask(self, asset: AssetFacts, facts: RunFacts, rung: str, fit: _Fit) -> tuple[Ask, float]:
        """What to estimate for an asset at a rung, and the share of it that the rung takes.

        A rung that the asset never ran at is priced from its dearest one, at the policy's share.
        """
        if not asset.rungs:
            return Ask(asset.key, partitions=facts.partitions), 1.0
        if rung == asset.rungs[0] or (asset.key, rung) in fit.measured:
            return Ask(asset.key, forecaster=rung, partitions=facts.partitions), 1.0
        shares = self._policy.default_bound.rungs
        dearest = Ask(asset.key, forecaster=asset.rungs[0], partitions=facts.partitions)
        return dearest, shares.get(rung, 1.0) / shares.get(asset.rungs[0], 1.0)

    def _fitted(self) -> _Fit | None:
        now = self._clock()
        if self._fit is None or now - self._fit.at > REFIT_S:
            first = (datetime.fromtimestamp(now, UTC) - HISTORY).date()
            steps = self._ledger.settlements(first=first)
            steps = steps.filter(pl.col("x_environment") == self._environment)
            try:
                self._fit = _Fit(
                    now,
                    Estimator(observations(steps, "money")),
                    Estimator(observations(steps, "wall_s")),
                    _peaks(steps),
                    frozenset(steps.select("x_asset", "x_forecaster").unique().iter_rows()),
                )
            except NoHistory:
                return None
        return self._fit


def _overhead(facts: RunFacts) -> Ask:
    return Ask(OVERHEAD, partitions=len(facts.assets))


def _peaks(steps: pl.DataFrame) -> dict[str, float]:
    peaks = steps.filter(pl.col("x_asset").is_not_null()).group_by("x_asset")
    return dict(peaks.agg(pl.col("peak_rss_gib").max()).iter_rows())
