"""Quotes from what runs have cost: the estimator's bounds, as admission holds them.

Belongs here: asking the estimator for each asset of a run and adding up. Does not: the model
(`forecast_core.cost.estimate`), the stated bound for what has no history (`DefaultQuoter`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from forecast_core.admission.policy import Policy, nanos
from forecast_core.admission.request import AssetFacts, Work
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
    known: dict[Work, tuple[Quote, ...]] = field(default_factory=dict)  # what was asked already


class MeasuredQuoter:
    """Upper bounds at 95 % from the ledger, fitted again every ten minutes at most.

    An asset without a run of its own takes the policy's stated bound; so does everything while the
    ledger is empty. No wall is above the longest that a run of the stage may go on.
    """

    def __init__(
        self,
        ledger: Ledger,
        policy: Policy,
        environment: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger, self._policy, self._environment = ledger, policy, environment
        self._clock = clock
        self._fit: _Fit | None = None

    def quotes(self, work: Work) -> tuple[Quote, ...]:
        """One quote a rung; empty when nothing of the work was ever measured."""
        fit = self._fitted()
        if fit is None:
            return ()
        if work not in fit.known:
            measured = any(fit.money.novelty(Ask(a.key)) != "new asset" for a in work.assets)
            rungs = work.ladder if measured else ()
            fit.known[work] = tuple(self._quote(work, rung, fit) for rung in rungs)
        return fit.known[work]

    def _quote(self, work: Work, rung: str, fit: _Fit) -> Quote:
        bound = self._policy.default_bound
        charges: dict[str, int] = {}
        wall_s, memory_gib = 0.0, 0.0
        for asset in work.assets:
            ask, cheaper = self._ask(asset, work, rung, fit)
            pipeline = asset.pipeline or work.pipelines[0]
            if fit.money.novelty(ask) == "new asset":
                share = bound.rungs.get(rung, 1.0)
                money, wall, peak = int(bound.money * share), bound.wall * share, bound.memory_gib
            else:
                money = nanos(f"{fit.money.estimate(ask).upper * cheaper:.12f}")
                wall = fit.wall.estimate(ask).upper * cheaper
                peak = fit.peak_gib.get(ask.asset, bound.memory_gib) * MEMORY_MARGIN
            charges[pipeline] = charges.get(pipeline, 0) + money
            wall_s, memory_gib = wall_s + wall, max(memory_gib, peak)
        overhead = nanos(f"{fit.money.estimate(_overhead(work)).upper:.12f}")
        first = max(charges, key=lambda name: (charges[name], name))
        charges[first] += overhead
        # A peak is that of a whole process, which may have done other work before: nobody asks for
        # more than a step of its stage may use, and who takes more is stopped in flight.
        stage = self._policy.stage_for(first)
        return Quote(
            rung,
            tuple(sorted(charges.items())),
            min(wall_s, stage.max_runtime or wall_s),
            bound.cpu,
            min(memory_gib, stage.most_memory_gib),
            max(work.gpu(rung), bound.gpu),
        )

    def _ask(self, asset: AssetFacts, work: Work, rung: str, fit: _Fit) -> tuple[Ask, float]:
        """What to estimate for an asset at a rung, and the share of it that the rung takes.

        A rung that the asset never ran at is priced from its dearest one, at the policy's share.
        """
        if not asset.rungs:
            return Ask(asset.key, partitions=work.partitions), 1.0
        if rung == asset.rungs[0] or (asset.key, rung) in fit.measured:
            return Ask(asset.key, forecaster=rung, partitions=work.partitions), 1.0
        shares = self._policy.default_bound.rungs
        dearest = Ask(asset.key, forecaster=asset.rungs[0], partitions=work.partitions)
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


def _overhead(work: Work) -> Ask:
    return Ask(OVERHEAD, partitions=len(work.assets))


def _peaks(steps: pl.DataFrame) -> dict[str, float]:
    """Asset -> its highest peak: of successes, since who was stopped would get more each time."""
    worked = pl.col("x_asset").is_not_null() & (pl.col("x_status") == "success")
    peaks = steps.filter(worked).group_by("x_asset")
    return dict(peaks.agg(pl.col("peak_rss_gib").max()).iter_rows())
