"""The neural rung: one small network shared by a few series that sell much and swing.

Belongs here: fitting, fine-tuning and running a network of neuralforecast on a panel, and its
weights as plain tensors. Does not: the process it runs in (`resources.neural_process`), who is
served, or searching for architectures.

Weights travel as safetensors behind a JSON header; nothing is ever unpickled. A network knows no
item by name: one that it has never seen is forecast from what it has sold so far (transfer), and
fine-tuning starts from the weights of another fit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from forecast_core.rungs.frames import days_ahead
from forecast_core.rungs.gbm import Fitted

Network = Literal["NHITS", "GRU", "LSTM", "TFT"]
NETWORKS: tuple[Network, ...] = get_args(Network)
_MAGIC = b"neural1\n"


class NeuralError(ValueError):
    """A panel or weights that no network can be made of: says which, and the remedy."""


@dataclass(frozen=True)
class NeuralSpec:
    """How a network is fitted.

    Attributes:
        input_days: days looked back on for a forecast.
        history_days: days learnt from.
        accelerator: `cpu`, `gpu`, or `auto` for a GPU where there is one.
    """

    network: Network = "NHITS"
    horizon: int = 28
    input_days: int = 112
    history_days: int = 560
    steps: int = 400
    learning_rate: float = 1e-3
    batch_series: int = 64
    windows_batch: int = 256
    width: int = 64
    threads: int = 1
    accelerator: str = "cpu"
    seed: int = 1

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise NeuralError(f"network {self.network!r} is unknown; use one of {NETWORKS}")


def fit(
    history: pl.DataFrame, cutoff: date, spec: NeuralSpec, start: bytes | None = None
) -> Fitted:
    """Fit a network on every series of a panel, up to the cutoff.

    Args:
        history: `unique_id, ds, y`; a day without a row, or without a number, sold nothing that
            is known and counts as zero. Nothing after `cutoff` is looked at.
        start: an artefact to fine-tune; its network and shapes are kept, `steps`, rate and seed
            are those of `spec`.

    Raises:
        NeuralError: no row up to the cutoff, or a `start` of another shape.
    """
    if start is not None:
        kept = spec_of(start)
        fresh = {k: getattr(spec, k) for k in ("steps", "learning_rate", "seed", "threads")}
        spec = replace(kept, **fresh, accelerator=spec.accelerator)
    _seed(spec)
    panel = _panel(history, cutoff, spec.history_days)
    network = _network(spec)
    if start is not None:
        _load(network, start)
    if spec.steps:
        network.fit(_dataset(panel))
    drivers = {
        "series": float(panel["unique_id"].n_unique()),
        "rows": float(panel.height),
        "steps": float(spec.steps),
        "fine_tuned": float(start is not None),
        "weights": float(sum(p.numel() for p in network.parameters())),
    }
    return Fitted(_closed(network, spec), drivers)


def spec_of(artefact: bytes) -> NeuralSpec:
    """How an artefact was fitted.

    Raises:
        NeuralError: bytes that are no network.
    """
    header, _ = _opened(artefact)
    try:
        return NeuralSpec(**header["spec"])
    except (KeyError, TypeError) as error:
        raise NeuralError(f"no network to read ({error}); train the forecaster again") from None


def predict(artefact: bytes, history: pl.DataFrame, cutoff: date) -> pl.DataFrame:
    """(unique_id, ds, mean) of every series of the panel, over the network's horizon.

    Args:
        history: as in `fit`; `input_days` before the cutoff are looked at.

    Raises:
        NeuralError: no row up to the cutoff, or bytes that are no network.
    """
    spec = spec_of(artefact)
    _seed(spec)
    panel = _panel(history, cutoff, spec.input_days)
    network = _network(spec)
    _load(network, artefact)
    names = panel["unique_id"].unique().sort().to_list()
    found = np.asarray(network.predict(_dataset(panel)), dtype=np.float64)
    mean = np.maximum(found.reshape(len(names), spec.horizon), 0.0)
    return pl.DataFrame(
        {
            "unique_id": np.repeat(np.asarray(names, dtype=object), spec.horizon),
            "ds": days_ahead(cutoff, spec.horizon) * len(names),
            "mean": mean.reshape(-1),
        },
        schema={"unique_id": pl.String, "ds": pl.Date, "mean": pl.Float64},
    )


def _panel(history: pl.DataFrame, cutoff: date, days: int) -> pl.DataFrame:
    """Gapless series over the same `days` up to the cutoff, sorted by name and day."""
    first = cutoff - timedelta(days=days - 1)
    known = history.filter(pl.col("ds").is_between(first, cutoff))
    if known.is_empty():
        raise NeuralError(f"no sale is known in the {days} days up to {cutoff}")
    span = pl.DataFrame({"ds": [first + timedelta(days=k) for k in range(days)]})
    names = known.select("unique_id").unique().sort("unique_id")
    return (
        names.join(span, how="cross", maintain_order="left_right")
        .join(known.select("unique_id", "ds", "y"), on=["unique_id", "ds"], how="left")
        .with_columns(pl.col("y").cast(pl.Float32).fill_nan(0).fill_null(0))
        .sort("unique_id", "ds")
    )


def _dataset(panel: pl.DataFrame) -> Any:
    from neuralforecast.tsdataset import TimeSeriesDataset

    stamped = panel.with_columns(pl.col("ds").cast(pl.Datetime("ns")))
    dataset, *_ = TimeSeriesDataset.from_df(stamped)
    return dataset


def _seed(spec: NeuralSpec) -> None:
    import torch

    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)


def _network(spec: NeuralSpec) -> Any:
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    from neuralforecast import models
    from neuralforecast.losses.pytorch import MSE

    sizes: dict[Network, dict[str, Any]] = {
        "NHITS": {"mlp_units": 3 * [[4 * spec.width, 4 * spec.width]]},
        "GRU": {"encoder_hidden_size": 2 * spec.width, "decoder_hidden_size": 2 * spec.width},
        "LSTM": {"encoder_hidden_size": 2 * spec.width, "decoder_hidden_size": 2 * spec.width},
        "TFT": {"hidden_size": spec.width // 2, "n_head": 2},
    }
    make = getattr(models, spec.network)
    return make(
        h=spec.horizon,
        input_size=spec.input_days,
        loss=MSE(),  # the mean is what is published; the spread is calibrated apart
        max_steps=max(spec.steps, 1),
        learning_rate=spec.learning_rate,
        batch_size=spec.batch_series,
        windows_batch_size=spec.windows_batch,
        scaler_type="standard",
        start_padding_enabled=True,
        random_seed=spec.seed,
        **sizes[spec.network],
        **_quiet(spec.accelerator),
    )


def _quiet(accelerator: str) -> dict[str, Any]:
    """Trainer options: one device, no files, no bars."""
    return {
        "accelerator": accelerator,
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def _closed(network: Any, spec: NeuralSpec) -> bytes:
    from safetensors.torch import save

    weights = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    header = json.dumps({"kind": "neural", "spec": asdict(spec)}, sort_keys=True).encode()
    return _MAGIC + len(header).to_bytes(4, "big") + header + save(weights)


def _opened(artefact: bytes) -> tuple[dict[str, Any], bytes]:
    if not artefact.startswith(_MAGIC):
        raise NeuralError("no network to read; train the forecaster again")
    size = int.from_bytes(artefact[len(_MAGIC) : len(_MAGIC) + 4], "big")
    at = len(_MAGIC) + 4
    try:
        return json.loads(artefact[at : at + size]), artefact[at + size :]
    except ValueError as error:
        raise NeuralError(f"no network to read ({error}); train the forecaster again") from None


def _load(network: Any, artefact: bytes) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        network.load_state_dict(load(_opened(artefact)[1]))
    except (RuntimeError, SafetensorError) as error:
        raise NeuralError(f"weights do not fit ({str(error)[:200]}); train it again") from None
