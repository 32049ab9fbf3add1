"""The rungs as the platform runs them: one entry a rung, how it is fitted and how it forecasts.

Belongs here: what a rung reads from the lake and hands to its model. Does not: the models
(`forecast_core.rungs`), or who is served by which rung (`forecast_core.segments`).

Every rung of `segments.RUNGS` above the floor has an entry; the floor needs none, it is published
for everyone before any other rung works.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property

import polars as pl

from forecast_assets.champions import champions
from forecast_assets.networks import Networks, fit_network
from forecast_core.cells import Cells
from forecast_core.evaluation import backtest
from forecast_core.evaluation.backtest import Past
from forecast_core.prices import daily_prices
from forecast_core.rungs import gbm, statistical
from forecast_core.rungs.gbm import Fitted
from forecast_core.rungs.neural import NeuralError
from forecast_core.segments import RUNGS, Group, Rung
from resources import Settings
from resources.table_view import TableView

SALES = ["item_id", "date", "units", "on_sale"]
PRICED = ["item_id", "date", "units", "sell_price", "on_sale"]
NOTHING_LEARNT = b'{"kind": "floor"}'  # the floor serves until the group is trained again


@dataclass(frozen=True)
class Training:
    """What a fit may look at: all that was known at the cutoff, `days` ahead of which count.

    `before` is the group's last forecaster of its rung, trained to an earlier day; None without.
    """

    group: Group
    cutoff: date
    days: int
    past: Past
    cleaned_sales: TableView
    settings: Settings
    before: bytes | None = None


@dataclass(frozen=True)
class Serving:
    """What the forecasts of a run are made from, and what is kept from one store to the next."""

    cleaned_sales: TableView
    feature_sales: TableView
    raw_prices: TableView
    demand_segments: TableView
    calendar: pl.DataFrame
    warn: Callable[[str], None]
    models: dict[bytes, gbm.Model] = field(default_factory=dict)

    @cached_property
    def networks(self) -> Networks:
        """The networks of the run, each asked once for all stores."""
        return Networks(self.cleaned_sales, self.warn)


@dataclass(frozen=True)
class Asked:
    """A group's forecasts of one store at one cutoff, `days` ahead of a horizon of `horizon`."""

    of: Serving
    group: str
    store_id: str
    cutoff: date
    days: int
    horizon: int

    def sales(self, days: int) -> pl.DataFrame:
        """`SALES` columns of the store over the last `days` days."""
        return self.of.cleaned_sales.frame(self.today.back(days), SALES)

    def prices(self) -> pl.DataFrame:
        """Planned prices of the store by day, over the whole horizon.

        A price span is cut at month ends only: one that holds tomorrow may have begun before.
        """
        first = self.cutoff + timedelta(days=1)
        last = self.cutoff + timedelta(days=self.horizon)
        planned = Cells(first.replace(day=1), last, (self.store_id,))
        return daily_prices(self.of.raw_prices.frame(planned), first, last)

    @property
    def today(self) -> Cells:
        """The cutoff's day of the store."""
        return Cells(self.cutoff, self.cutoff, (self.store_id,))


Fit = Callable[[Training, pl.DataFrame], Fitted]
Forecast = Callable[[Asked, bytes, pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Step:
    """One rung of the ladder.

    `fit` learns from the group's members (`demand_segments` rows of all stores, never none). It
    raises NeuralError or NoExamplesError where it cannot. `forecast` gives
    (item_id, ds, mean) for those of one store from what was learnt; whoever it leaves out, or
    gives no finite mean, keeps the floor.
    """

    fit: Fit
    forecast: Forecast


def _choose_methods(asked: Training, members: pl.DataFrame) -> Fitted:
    """The statistical method for each demand class, judged on the last weeks of every store."""
    errors: dict[str, dict[str, tuple[float, int]]] = {}
    for (store_id,), series in members.partition_by("store_id", as_dict=True).items():
        window = Cells(asked.cutoff, asked.cutoff, (str(store_id),)).back(statistical.HISTORY_DAYS)
        classes = dict(series.select("item_id", "demand_class").iter_rows())
        sales = asked.cleaned_sales.frame(window, PRICED)
        for demand, of in statistical.trial(sales, classes, asked.cutoff).items():
            held = errors.setdefault(demand, {})
            for method, (total, days) in of.items():
                so_far, counted = held.get(method, (0.0, 0))
                held[method] = (so_far + total, counted + days)
    methods = statistical.choose(errors)
    return Fitted(statistical.artefact(methods), {"series": float(members.height)})


def _by_method(asked: Asked, artefact: bytes, members: pl.DataFrame) -> pl.DataFrame:
    classes = dict(members.select("item_id", "demand_class").iter_rows())
    sales = asked.sales(statistical.HISTORY_DAYS)
    return statistical.predict(artefact, sales, classes, asked.cutoff, asked.days)


def _fit_shared(asked: Training, members: pl.DataFrame) -> Fitted:
    spec = gbm.GbmSpec.of_size(asked.group.features, members.height)
    spec = replace(spec, **champions(asked.settings, asked.group.name))
    return backtest.fit_gbm(asked.past, members, asked.cutoff, asked.days, spec)


def _by_shared(asked: Asked, artefact: bytes, members: pl.DataFrame) -> pl.DataFrame:
    models = asked.of.models
    if artefact not in models:
        models[artefact] = gbm.Model(artefact)
    features = asked.of.feature_sales.frame(asked.today)
    return models[artefact].predict(
        features, asked.prices(), members, asked.of.calendar, asked.cutoff, asked.days
    )


def _fit_network(asked: Training, members: pl.DataFrame) -> Fitted:
    return fit_network(asked.past, members, asked.cutoff, asked.days, asked.before)


def _by_network(asked: Asked, artefact: bytes, members: pl.DataFrame) -> pl.DataFrame:
    everyone = asked.of.demand_segments.latest(asked.cutoff).filter(segment_group=asked.group)
    return asked.of.networks.forecast(artefact, everyone, asked.store_id, asked.cutoff)


LADDER: Mapping[Rung, Step] = {
    "statistical": Step(_choose_methods, _by_method),
    "gbm": Step(_fit_shared, _by_shared),
    "neural": Step(_fit_network, _by_network),
}


def fit_or_below(
    asked: Training, members: pl.DataFrame, warn: Callable[[str], None]
) -> tuple[Rung, Fitted]:
    """The group's rung fitted on its members, or the next one below that can be; which it is.

    A group that is served by another rung than its own is due again at the next training.
    """
    own = asked.group.rung
    if members.is_empty():
        return own, Fitted(NOTHING_LEARNT, {"series": 0.0})
    for rung in reversed(RUNGS[1 : RUNGS.index(own) + 1]):
        try:
            return rung, LADDER[rung].fit(asked, members)
        except (NeuralError, gbm.NoExamplesError) as error:
            warn(f"{asked.group.name} goes without {rung} until the next training: {error}")
    return RUNGS[0], Fitted(NOTHING_LEARNT, {"series": float(members.height)})
