"""The neural rung in its own process: fitted, fine-tuned, kept as tensors, never unpickled."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.rungs import neural
from forecast_core.rungs.neural import NETWORKS, NeuralError, NeuralSpec
from resources import neural_process

CUTOFF = date(2025, 6, 1)
SMALL = NeuralSpec(horizon=14, input_days=28, history_days=120, steps=15, width=8)


def _history(series: int = 6, days: int = 130, seed: int = 3) -> pl.DataFrame:
    """Weekly waves of different heights, a few days past the cutoff."""
    random = np.random.default_rng(seed)
    first = CUTOFF + timedelta(days=10) - timedelta(days=days - 1)
    frames = []
    for k in range(series):
        wave = (2 + k) * (2 + np.sin(2 * np.pi * np.arange(days) / 7))
        units = random.poisson(wave).astype(float)
        stamps = [first + timedelta(days=d) for d in range(days)]
        frames.append(pl.DataFrame({"unique_id": f"item_{k}", "ds": stamps, "y": units}))
    return pl.concat(frames)


def test_a_child_fits_predicts_and_sees_nothing_after_the_cutoff() -> None:
    history = _history()
    fitted = neural_process.fit(history, CUTOFF, SMALL)
    assert fitted.drivers["series"] == 6 and fitted.drivers["weights"] > 0
    found = neural_process.predict(fitted.artefact, history, CUTOFF)
    assert found.height == 6 * 14
    assert found["mean"].is_finite().all() and (found["mean"] >= 0).all()
    assert found["ds"].min() == CUTOFF + timedelta(days=1)
    changed = history.with_columns(y=pl.when(pl.col("ds") > CUTOFF).then(1e6).otherwise("y"))
    again = neural_process.predict(fitted.artefact, changed, CUTOFF)
    assert (again["mean"] - found["mean"]).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_survives_its_bytes_and_forecasts_strangers(network: str) -> None:
    spec = NeuralSpec(**{**SMALL.__dict__, "network": network, "steps": 3})
    fitted = neural.fit(_history(), CUTOFF, spec)
    assert b"pickle" not in fitted.artefact[:2000]
    stranger = _history(series=1, days=30, seed=9).with_columns(unique_id=pl.lit("stranger"))
    found = neural.predict(fitted.artefact, stranger, CUTOFF)
    assert found["unique_id"].unique().to_list() == ["stranger"]
    assert found["mean"].is_finite().all()
    # Fine-tuning by no step at all is the same network.
    same = neural.fit(_history(), CUTOFF, NeuralSpec(steps=0), start=fitted.artefact)
    assert neural.predict(same.artefact, stranger, CUTOFF).equals(found)


def test_what_is_no_network_is_refused_with_a_remedy() -> None:
    with pytest.raises(NeuralError, match="train the forecaster again"):
        neural.predict(b"\x80\x04pickle", _history(), CUTOFF)
    with pytest.raises(NeuralError, match="no sale is known"):
        neural_process.fit(_history(), date(2020, 1, 1), SMALL)
    with pytest.raises(NeuralError, match="use one of"):
        NeuralSpec(network="ARIMA")  # type: ignore[arg-type]
