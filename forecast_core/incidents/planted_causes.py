"""Cost changes with a known cause, over the asset graph: to judge the root cause by.

Belongs here: drawing two windows of use of a forecasting graph in which one thing changed, beside
noise, growth and innocent releases. Does not: explaining them (`root_cause`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from forecast_core.incidents.root_cause import EVERYWHERE

UPSTREAM: dict[str, tuple[str, ...]] = {
    "cleaned_sales": ("raw_sales",),
    "feature_sales": ("cleaned_sales",),
    "demand_segments": ("cleaned_sales",),
    "forecasters": ("feature_sales", "demand_segments"),
    "prediction_floor": ("cleaned_sales",),
    "prediction_daily": ("feature_sales", "forecasters"),
    "prediction_reconciled": ("prediction_daily", "prediction_floor"),
    "eval_accuracy": ("prediction_reconciled",),
}
_ASSETS = ("raw_sales", *UPSTREAM)
_FORECASTERS = ("statistical", "gbm", "neural")
_PER_FORECASTER = ("forecasters", "prediction_daily")
_FACTORS = ("price", "volume", "mix", "fanout", "efficiency", "waste")


@dataclass(frozen=True)
class Case:
    """Two windows of `root_cause.uses` and the (asset, factor) that was changed between them."""

    before: pl.DataFrame
    after: pl.DataFrame
    asset: str
    factor: str


@dataclass
class _World:
    """The rates that make the costs; one of them is changed."""

    volume: float
    fanout: dict[str, float]
    efficiency: dict[tuple[str, str], float]
    waste: dict[str, float]
    price: float
    shares: np.ndarray
    version: dict[str, str]


def draw(seed: int) -> Case:
    """One case; equal seeds give equal cases."""
    rng = np.random.default_rng([seed, 7])
    world = _world(rng)
    before = _uses(rng, world)
    factor = str(rng.choice(_FACTORS))
    asset = _change(rng, world, factor)
    world.volume *= rng.uniform(0.98, 1.03)
    if rng.random() < 0.5:  # an innocent release
        world.version[str(rng.choice(_ASSETS))] += "x"
    return Case(before, _uses(rng, world), asset, factor)


def _world(rng: np.random.Generator) -> _World:
    heavy = {"forecasters": 8.0, "prediction_daily": 3.0, "feature_sales": 3.0}
    efficiency = {
        (a, f): heavy.get(a, 1.0) * rng.uniform(0.5, 1.5) * 1e-6 * (1 + 2 * (f == "neural"))
        for a in _ASSETS
        for f in _FORECASTERS
    }
    return _World(
        volume=10 ** rng.uniform(3, 5),
        fanout={a: rng.uniform(0.8, 1.2) for a in _ASSETS},
        efficiency=efficiency,
        waste={a: 1 + rng.uniform(0, 0.06) for a in _ASSETS},
        price=1.0,
        shares=rng.dirichlet([4, 4, 2]),
        version={a: "v1" for a in _ASSETS},
    )


def _change(rng: np.random.Generator, world: _World, factor: str) -> str:
    """Apply one cause, large enough to matter to the total; return the asset to blame."""
    by = rng.uniform(1.25, 2.0)
    if factor == "price":
        world.price *= by
        return EVERYWHERE
    if factor == "volume":
        world.volume *= by
        return EVERYWHERE
    if factor == "mix":
        neural = min(world.shares[2] * 1.2 + rng.uniform(0.15, 0.35), 0.9)
        rest = world.shares[:2] / world.shares[:2].sum() * (1 - neural)
        world.shares = np.array([*rest, neural])
        return EVERYWHERE
    makers = ("raw_sales", "cleaned_sales", "feature_sales")
    payers = ("forecasters", "prediction_daily", "feature_sales", "prediction_reconciled")
    asset = str(rng.choice(makers if factor == "fanout" else payers))
    if factor == "fanout":
        world.fanout[asset] *= by
    elif factor == "waste":
        world.waste[asset] *= by
    else:
        for f in _FORECASTERS:
            world.efficiency[(asset, f)] *= by
    if rng.random() < 0.8:
        world.version[asset] += "'"
    return asset


def _uses(rng: np.random.Generator, world: _World) -> pl.DataFrame:
    made: dict[str, float] = {}
    rows = []
    for asset in _ASSETS:
        read = sum(made[u] for u in UPSTREAM.get(asset, ())) or world.volume
        made[asset] = read * world.fanout[asset] * float(np.exp(rng.normal(0, 0.01)))
        cells = _FORECASTERS if asset in _PER_FORECASTER else ("-",)
        shares = world.shares if asset in _PER_FORECASTER else np.ones(1)
        for forecaster, share in zip(cells, shares, strict=True):
            rate = world.efficiency[(asset, forecaster if forecaster != "-" else "gbm")]
            useful = read * share * rate * float(np.exp(rng.normal(0, 0.03)))
            real = useful * max(world.waste[asset] * float(np.exp(rng.normal(0, 0.01))), 1.0)
            rows.append(
                {
                    "asset": asset,
                    "forecaster": forecaster,
                    "environment": "prod",
                    "cost": real * world.price,
                    "real": real,
                    "useful": useful,
                    "rows": made[asset] * share,
                    "volume": world.volume * share,
                    "version": world.version[asset],
                }
            )
    return pl.DataFrame(rows)
