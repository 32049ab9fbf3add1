"""A network that served before is fine-tuned; one of another horizon, or none, is fitted anew."""

from datetime import date
from typing import Any

import polars as pl
import pytest

from forecast_assets import networks
from forecast_core.evaluation.backtest import Past
from forecast_core.rungs.gbm import Fitted
from forecast_core.rungs.neural import NeuralSpec
from resources import neural_process

CUTOFF = date(2025, 6, 1)
MEMBERS = pl.DataFrame({"item_id": ["a"], "store_id": ["S"]})


def _past() -> Past:
    def sales(store: str, first: date, last: date) -> pl.DataFrame:
        days = pl.date_range(first, last, eager=True)
        return pl.DataFrame({"date": days}).with_columns(
            item_id=pl.lit("a"), store_id=pl.lit(store), units=pl.lit(2.0)
        )

    return Past(sales, sales, pl.DataFrame())


@pytest.fixture(scope="module")
def network() -> bytes:
    """An artefact of a real network that has learnt nothing."""
    history = networks._panel(_past().sales, MEMBERS, CUTOFF, 60)
    return neural_process.fit(history, CUTOFF, NeuralSpec(horizon=7, steps=0)).artefact


@pytest.mark.parametrize(
    ("horizon", "damaged", "steps"),
    [(7, False, networks.FINE_TUNING_STEPS), (14, False, NeuralSpec().steps),
     (7, True, NeuralSpec().steps)],
)  # fmt: skip
def test_it_starts_from_what_fits(
    network: bytes, horizon: int, damaged: bool, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[NeuralSpec, bytes | None]] = []

    def fit(
        history: pl.DataFrame, cutoff: date, spec: NeuralSpec, start: bytes | None = None
    ) -> Fitted:
        assert history.height and cutoff == CUTOFF
        asked.append((spec, start))
        return Fitted(b"", {})

    monkeypatch.setattr(networks.neural_process, "fit", fit)
    start = b"no network" if damaged else network
    networks.fit_network(_past(), MEMBERS, CUTOFF, horizon, start)
    (spec, started), warm = asked[0], steps == networks.FINE_TUNING_STEPS
    assert (spec.horizon, spec.steps) == (horizon, steps)
    assert started == (network if warm else None)


def test_a_fine_tuned_network_says_so_and_keeps_its_shape(network: bytes) -> None:
    history = networks._panel(_past().sales, MEMBERS, CUTOFF, 60)
    tuned: Any = neural_process.fit(history, CUTOFF, NeuralSpec(horizon=7, steps=1), network)
    assert tuned.drivers["fine_tuned"] == 1 and tuned.artefact != network
    assert neural_process.predict(tuned.artefact, history, CUTOFF).height == 7
