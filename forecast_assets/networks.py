"""The neural rung over the lake: its panel, its fit and its forecasts, each in one child process.

Belongs here: reading what a network learns from, over all stores at once. Does not: the network
(`forecast_core.rungs.neural`) or its process (`resources.neural_process`).
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date, timedelta

import polars as pl

from forecast_core.cells import Cells
from forecast_core.evaluation.backtest import KEY, MEANS, Load, Past
from forecast_core.rungs.gbm import Fitted
from forecast_core.rungs.neural import NeuralError, NeuralSpec, spec_of
from resources import neural_process
from resources.table_view import TableView

FINE_TUNING_STEPS = 100  # a quarter of a fit from nothing
_READ = ["item_id", "store_id", "date", "units"]


def fit_network(
    past: Past, members: pl.DataFrame, cutoff: date, horizon: int, start: bytes | None = None
) -> Fitted:
    """A network of the members, in a process of its own.

    `start`: the network that served them before, which is fine-tuned in a fraction of the steps
    where it answers for as many days.

    Raises:
        NeuralError: what that process says, or that it died.
    """
    spec = NeuralSpec(horizon=horizon)
    panel = _panel(past.sales, members, cutoff, spec.history_days)
    if start is not None and _fits(start, spec):
        return neural_process.fit(panel, cutoff, replace(spec, steps=FINE_TUNING_STEPS), start)
    return neural_process.fit(panel, cutoff, spec)


def _fits(start: bytes, spec: NeuralSpec) -> bool:
    try:
        return asdict(spec_of(start)) | {"steps": 0} == asdict(spec) | {"steps": 0}
    except NeuralError:  # it is trained anew
        return False


class NeuralChallenger:
    """The neural rung in a contest (`forecast_core.evaluation.contest.Challenger`)."""

    def fit(self, past: Past, members: pl.DataFrame, cutoff: date, horizon: int) -> bytes:
        """As the policy's neural groups are fitted."""
        return fit_network(past, members, cutoff, horizon).artefact

    def predict(
        self, artefact: bytes, past: Past, members: pl.DataFrame, cutoff: date
    ) -> pl.DataFrame:
        """(item_id, store_id, ds, mean) of the members."""
        return _forecast(artefact, past.sales, members, cutoff)


class Networks:
    """Forecasts by network and cutoff: a child is started once, whatever the number of stores.

    A child that fails leaves its items to the floor, and `warn` is told why: a night goes on.
    """

    def __init__(self, cleaned_sales: TableView, warn: Callable[[str], None]) -> None:
        self._sales, self._warn = cleaned_sales, warn
        self._held: dict[tuple[bytes, date], pl.DataFrame] = {}

    def forecast(
        self, artefact: bytes, everyone: pl.DataFrame, store_id: str, cutoff: date
    ) -> pl.DataFrame:
        """(item_id, ds, mean) of one store's members; `everyone` are those of all stores."""
        if (artefact, cutoff) not in self._held:
            self._held[artefact, cutoff] = self._run(artefact, everyone, cutoff)
        own = self._held[artefact, cutoff].filter(store_id=store_id)
        return own.select("item_id", "ds", "mean").sort("item_id", "ds")

    def _run(self, artefact: bytes, everyone: pl.DataFrame, cutoff: date) -> pl.DataFrame:
        def sales(store: str, first: date, last: date) -> pl.DataFrame:
            return self._sales.frame(Cells(first, last, (store,)), _READ)

        try:
            return _forecast(artefact, sales, everyone, cutoff)
        except NeuralError as error:
            self._warn(f"{everyone.height} item-stores stay on the floor: {error}")
            return pl.DataFrame(schema=MEANS)


def _forecast(artefact: bytes, sales: Load, members: pl.DataFrame, cutoff: date) -> pl.DataFrame:
    panel = _panel(sales, members, cutoff, NeuralSpec().input_days)
    found = neural_process.predict(artefact, panel, cutoff)
    return found.join(_named(members), on="unique_id").select(list(MEANS))


def _named(members: pl.DataFrame) -> pl.DataFrame:
    return members.select(*KEY, unique_id=pl.concat_str(*KEY, separator="|"))


def _panel(sales: Load, members: pl.DataFrame, cutoff: date, days: int) -> pl.DataFrame:
    """`unique_id, ds, y` of the members over the days before the cutoff."""
    parts = [
        sales(str(store), cutoff - timedelta(days=days - 1), cutoff).join(
            _named(own), on="item_id", how="semi"
        )
        for (store,), own in members.partition_by("store_id", as_dict=True).items()
    ]
    return pl.concat(parts).select(
        pl.concat_str(*KEY, separator="|").alias("unique_id"), ds="date", y="units"
    )
