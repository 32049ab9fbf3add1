"""Ledgers with known causes: a labelled generator to tune and to judge cost detection on.

Belongs here: drawing FOCUS charges of a forecasting platform with growth, promotions, price-card
changes, weekly cycles and noise, and planting regressions in them with their truth. Does not:
detecting anything, or imitating any particular real ledger.

Every draw comes from the seed. Tuning uses seeds below `HOLD_OUT`; figures are reported on seeds
from there up, which no threshold has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

HOLD_OUT = 10_000
Floats = npt.NDArray[np.float64]

_PIPELINES = {
    # name: cycle in days, forecasters that have it
    "inference": (1, ("floor", "statistical", "gbm", "neural")),
    "reconciliation": (1, ("bottom_up", "mint")),
    "monitoring": (1, ("gbm", "neural")),
    "training": (7, ("statistical", "gbm", "neural")),
    "backtest": (7, ("gbm", "neural")),
}
_ENVIRONMENTS = ("prod", "prod", "prod", "staging")
_METERS = {"vCPU-s": 1.4e-5, "GiB-s": 1.6e-6}


@dataclass(frozen=True)
class Recipe:
    """What to draw. Rates are per series unless said; noise is the sd of log unit cost.

    A planted effect is at least `least_effect` noises (and the floors of `_effect`), so that a
    miss is the detector's and not the draw's.
    """

    series: int = 60
    days: int = 180
    first: date = date(2024, 1, 1)
    planted_share: float = 0.5
    noise: tuple[float, float] = (0.02, 0.10)
    heavy_tails: float = 0.15
    correlation: float = 0.3
    missing: float = 0.04
    least_effect: float = 5.0
    promotions: int = 3
    price_changes: int = 2
    weekly_share: float = 0.6


@dataclass(frozen=True)
class Planted:
    """`ledger`: FOCUS charges. `accuracy`: day, forecaster, segment_group, wape. `truth`: kind,
    series, start, end (of the planted rise) and size (log ratio). `benign`: what is no regression
    and must not be reported, same columns. `events`: planned events."""

    ledger: pl.DataFrame
    accuracy: pl.DataFrame
    truth: pl.DataFrame
    benign: pl.DataFrame
    events: pl.DataFrame


@dataclass
class _Drawn:
    """One series while it is drawn; arrays are per cycle."""

    labels: tuple[str, str, str, str]
    days: npt.NDArray[np.int64]
    volume: Floats
    unit: Floats  # log of the quantity per series forecast
    noise: float
    version: list[str]
    wape: Floats
    event: npt.NDArray[np.bool_]

    @property
    def name(self) -> str:
        return "/".join(self.labels)

    @property
    def cycle(self) -> int:
        return int(self.days[1] - self.days[0]) if len(self.days) > 1 else 1


def generate(seed: int, recipe: Recipe | None = None) -> Planted:
    """Draw a ledger with its truth. Equal seeds and recipes give equal frames."""
    recipe = recipe or Recipe()
    rng = np.random.default_rng([seed, recipe.series, recipe.days])
    promotions = _promotions(rng, recipe)
    series = [_draw(rng, recipe, labels, promotions) for labels in _labels(rng, recipe.series)]
    truth: list[tuple[str, str, int, int, float]] = []
    benign: list[tuple[str, str, int, int, float]] = []
    kinds = rng.permutation(np.resize(["spike", "step", "creep", "nogain"], len(series)))
    for s, kind in zip(series, kinds, strict=True):
        if rng.random() < recipe.planted_share:
            truth.append(_plant(rng, recipe, s, str(kind)))
        elif rng.random() < 0.5:
            benign.append(_harmless(rng, s))
    benign += _cost_shifts(rng, series, {name for _, name, *_ in truth + benign})
    prices = _price_card(rng, recipe)
    ledger = pl.concat([_charges(rng, recipe, s, prices) for s in series])
    return Planted(
        ledger.sort("ChargePeriodStart", "x_run_id", "SkuId"),
        pl.concat([_accuracy(recipe, s) for s in series if s.labels[0] == "inference"]),
        _labelled(recipe, truth),
        _labelled(recipe, benign),
        _events(recipe, promotions),
    )


# -- series ----------------------------------------------------------------------------------------


def _labels(rng: np.random.Generator, n: int) -> list[tuple[str, str, str, str]]:
    every = [
        (pipeline, forecaster, f"group_{g:03d}")
        for pipeline, (_, forecasters) in _PIPELINES.items()
        for forecaster in forecasters
        for g in range(max(n // 6, 4))
    ]
    chosen = rng.choice(len(every), size=n, replace=False)
    return [(*every[i], str(rng.choice(_ENVIRONMENTS))) for i in chosen]


def _draw(
    rng: np.random.Generator,
    recipe: Recipe,
    labels: tuple[str, str, str, str],
    promotions: list[tuple[int, int, str, float]],
) -> _Drawn:
    cycle = _PIPELINES[labels[0]][0]
    every = np.arange(int(rng.integers(cycle)), recipe.days, cycle)
    # A missed day is a gap in a daily series; a weekly one that misses is simply late.
    days = every[rng.random(len(every)) > recipe.missing * (cycle == 1)]
    n = len(days)
    growth = rng.uniform(-0.02, 0.10) / 30
    week = rng.normal(0, rng.choice([0.0, 0.15]), 7)
    volume = 10 ** rng.uniform(1.3, 4.5) * np.exp(growth * days + week[days % 7])
    if rng.random() < 0.15:  # a store opens or closes
        volume[days > rng.integers(40, recipe.days - 20)] *= rng.choice([0.7, 1.5, 2.0])
    noise = float(rng.uniform(*recipe.noise))
    unit = np.full(n, rng.normal(1.0, 1.5))
    unit -= rng.uniform(0, 0.12) * np.log(volume / np.median(volume))  # a share of cost is fixed
    if cycle == 1 and rng.random() < recipe.weekly_share:
        unit += rng.normal(0, rng.uniform(0.01, 0.08), 7)[days % 7]
    unit += _noise(rng, recipe, n, noise)
    event = np.zeros(n, dtype=bool)
    for start, end, group, lift in promotions:
        if group == labels[2]:
            inside = (days >= start) & (days <= end)
            volume[inside] *= 1 + 2 * lift
            unit[inside] += lift * rng.uniform(0.5, 1.0)
            event |= inside
    wape = rng.uniform(0.2, 0.7) * np.exp(rng.normal(0, rng.uniform(0.01, 0.04), n))
    return _Drawn(labels, days, np.round(volume).clip(1), unit, noise, ["v1"] * n, wape, event)


def _noise(rng: np.random.Generator, recipe: Recipe, n: int, scale: float) -> Floats:
    rho = rng.uniform(0, recipe.correlation)
    heavy = rng.random() < recipe.heavy_tails
    shocks = rng.standard_t(6, n) / np.sqrt(1.5) if heavy else rng.normal(size=n)
    x = np.empty(n)
    last = shocks[0]
    for i in range(n):
        last = rho * last + np.sqrt(1 - rho**2) * shocks[i] if i else shocks[0]
        x[i] = last
    return scale * x


# -- what is planted -------------------------------------------------------------------------------


def _effect(rng: np.random.Generator, recipe: Recipe, s: _Drawn, floor: float, top: float) -> float:
    least = max(floor, recipe.least_effect * s.noise)
    return float(rng.uniform(least, max(top, 1.3 * least)))


def _plant(
    rng: np.random.Generator, recipe: Recipe, s: _Drawn, kind: str
) -> tuple[str, str, int, int, float]:
    """Raise the series in place; the truth row is (kind, series, first day, last day, size)."""
    n, daily = len(s.days), s.cycle == 1
    at = int(rng.integers(int(n * (0.35 if daily else 0.45)), int(n * 0.75)))
    if kind == "spike":
        size = _effect(rng, recipe, s, 0.3, 1.6)
        last = at + (1 if daily and rng.random() < 0.2 else 0)
        s.unit[at : last + 1] += size
    elif kind == "creep":
        slope = rng.uniform(0.004, 0.02) if daily else rng.uniform(0.04, 0.10)
        slope = max(slope, 0.10 * s.noise if daily else 0.8 * s.noise)
        length = int(rng.integers(25, 50)) if daily else int(rng.integers(6, 10))
        last = min(at + length, n) - 1
        size = float(slope * (last - at + 1))
        s.unit[at:] += np.minimum(slope * np.arange(1, n - at + 1), size)
    else:
        size = _effect(rng, recipe, s, 0.12, 0.8)
        last = n - 1
        s.unit[at:] += size
        if kind == "nogain" and s.labels[0] == "inference":
            s.version[at:] = ["v2"] * (n - at)
        elif kind == "nogain":
            kind = "step"  # no accuracy is measured beside the other pipelines
    return kind, s.name, int(s.days[at]), int(s.days[last]), size


def _harmless(rng: np.random.Generator, s: _Drawn) -> tuple[str, str, int, int, float]:
    """A change that is no regression: cheaper, bought, or only renamed."""
    n = len(s.days)
    at = int(rng.integers(int(n * 0.35), int(n * 0.75)))
    kind = str(rng.choice(["cheaper", "renamed", "paid for"]))
    size = float(rng.uniform(0.15, 0.5))
    s.version[at:] = ["v2"] * (n - at)
    if kind == "cheaper":
        s.unit[at:] -= size
    elif kind == "paid for" and s.labels[0] == "inference":
        s.unit[at:] += size
        s.wape[at:] *= 1 - rng.uniform(0.25, 0.5) * np.expm1(size)
    else:
        kind = "renamed"
    return kind, s.name, int(s.days[at]), int(s.days[-1]), size


def _cost_shifts(
    rng: np.random.Generator, series: list[_Drawn], taken: set[str]
) -> list[tuple[str, str, int, int, float]]:
    """Attribution moves money between two groups of a pipeline; the total stays."""
    free = [s for s in series if s.name not in taken and s.cycle == 1]
    for i, giver in enumerate(free):
        for taker in free[i + 1 :]:
            alike = giver.labels[0] == taker.labels[0] and giver.labels[3] == taker.labels[3]
            if not alike or not 0.4 < _money(giver) / _money(taker) < 2.5:
                continue
            day = int(rng.integers(70, max(giver.days[-1] - 40, 71)))
            shared = {d: i for i, d in enumerate(giver.days) if d >= day}
            for i, d in enumerate(taker.days):
                if d in shared:
                    moved = 0.45 * np.exp(giver.unit[shared[d]]) * giver.volume[shared[d]]
                    taker.unit[i] += np.log1p(moved / (np.exp(taker.unit[i]) * taker.volume[i]))
            giver.unit[list(shared.values())] += np.log(0.55)
            size = float(np.log1p(0.45 * _money(giver) / 0.55 / _money(taker)))
            return [("shifted", taker.name, day, int(taker.days[-1]), size)]
    return []


def _money(s: _Drawn) -> float:
    return float(np.median(np.exp(s.unit) * s.volume))


# -- what is planned -------------------------------------------------------------------------------


def _promotions(rng: np.random.Generator, recipe: Recipe) -> list[tuple[int, int, str, float]]:
    drawn = []
    for _ in range(recipe.promotions):
        start = int(rng.integers(45, max(recipe.days - 20, 46)))
        for group in rng.choice(max(recipe.series // 6, 4), size=3, replace=False):
            lift = float(rng.uniform(0.1, 0.4))
            drawn.append((start, start + int(rng.integers(6, 15)), f"group_{group:03d}", lift))
    return drawn


def _events(recipe: Recipe, promotions: list[tuple[int, int, str, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (recipe.first + timedelta(start), recipe.first + timedelta(end), "promotion", group)
            for start, end, group, _ in promotions
        ],
        schema={
            "start": pl.Date,
            "end": pl.Date,
            "kind": pl.String,
            "x_segment_group": pl.String,
        },
        orient="row",
    )


def _price_card(rng: np.random.Generator, recipe: Recipe) -> dict[str, Floats]:
    prices = {sku: np.full(recipe.days, base) for sku, base in _METERS.items()}
    for _ in range(recipe.price_changes):
        day = int(rng.integers(20, recipe.days - 10))
        for sku in prices:
            prices[sku][day:] *= rng.choice([0.8, 0.9, 1.1, 1.25, 1.4])
    return prices


# -- frames ----------------------------------------------------------------------------------------


def _charges(
    rng: np.random.Generator, recipe: Recipe, s: _Drawn, prices: dict[str, Floats]
) -> pl.DataFrame:
    n = len(s.days)
    start = np.datetime64(recipe.first) + s.days.astype("timedelta64[D]")
    total = np.exp(s.unit) * s.volume * 50.0
    memory = float(rng.uniform(1, 8))
    frames = []
    for sku, quantity in (("vCPU-s", total), ("GiB-s", total * memory)):
        price = prices[sku][s.days]
        cost = quantity * price
        frames.append(
            pl.DataFrame(
                {
                    "ChargePeriodStart": start.astype("datetime64[us]"),
                    "ChargePeriodEnd": (start + np.timedelta64(1, "D")).astype("datetime64[us]"),
                    "ChargeCategory": ["Usage"] * n,
                    "ServiceName": ["Forecasting"] * n,
                    "SkuId": [sku] * n,
                    "PricingUnit": [sku] * n,
                    "PricingQuantity": quantity,
                    "ListUnitPrice": price,
                    "ListCost": cost,
                    "ContractedCost": cost,
                    "EffectiveCost": cost,
                    "BilledCost": cost,
                    "x_pipeline": [s.labels[0]] * n,
                    "x_forecaster": [s.labels[1]] * n,
                    "x_segment_group": [s.labels[2]] * n,
                    "x_environment": [s.labels[3]] * n,
                    "x_forecaster_version": s.version,
                    "x_run_id": [f"{s.name}:{d}" for d in s.days],
                    "x_asset": [f"{s.labels[0]}_{s.labels[1]}"] * n,
                    "x_attempt": np.ones(n, dtype=np.int64),
                    "x_series": s.volume.astype(np.int64),
                }
            )
        )
    return pl.concat(frames)


def _accuracy(recipe: Recipe, s: _Drawn) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "day": [recipe.first + timedelta(int(d)) for d in s.days],
            "forecaster": [s.labels[1]] * len(s.days),
            "segment_group": [s.labels[2]] * len(s.days),
            "environment": [s.labels[3]] * len(s.days),
            "wape": s.wape,
        }
    )


def _labelled(recipe: Recipe, rows: list[tuple[str, str, int, int, float]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (kind, name, recipe.first + timedelta(a), recipe.first + timedelta(b), size)
            for kind, name, a, b, size in rows
        ],
        schema={
            "kind": pl.String,
            "series": pl.String,
            "start": pl.Date,
            "end": pl.Date,
            "size": pl.Float64,
        },
        orient="row",
    )
