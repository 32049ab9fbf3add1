"""Quantiles over one mean model, beside nine quantile boosters on the same examples.

The mean model is fitted four weeks before the cutoff, as it would have been by its cadence; its
forecasts of those four weeks have been sold by now, and calibrate the spread. The boosters see
the same features, examples and rounds, one LightGBM a quantile. Scored on the 28 days after
d_1913 for a sample of stores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from benchmarks._apart import apart, cpu_seconds
from benchmarks._m5 import FIRST_DAY, folder
from forecast_core.accuracy import coverage, pinball
from forecast_core.clean import clean
from forecast_core.quantiles import LEVELS, calibrate, column_of, pit_coverage, with_quantiles
from forecast_core.rungs import gbm, origin_features
from forecast_core.segments import SegmentPolicy, classify, measure
from resources import PROJECT_ROOT
from resources.sources import M5Source

Floats = npt.NDArray[np.float64]
HORIZON = 28
CUTOFF = FIRST_DAY + timedelta(days=1913 - 1)
TRAINED_TO = CUTOFF - timedelta(days=HORIZON)
STORES = ("CA_1", "TX_2", "WI_3")
QUICK_ROUNDS = 60
KEY = ["item_id", "store_id"]


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds with and without quantiles, and the pinball loss of both ways."""
    apart_ = apart(_measure, STORES[:1] if quick else STORES, QUICK_ROUNDS if quick else None)
    figures: dict[str, float | int | str] = apart_.result
    return {**figures, "peak_gb": apart_.peak_gb}


@dataclass(frozen=True, eq=False)
class Shop:
    """What the sample of stores sold, its features and its segments."""

    sales: dict[str, pl.DataFrame]
    features: dict[str, pl.DataFrame]
    series: pl.DataFrame
    calendar: pl.DataFrame
    policy: SegmentPolicy

    @classmethod
    def of(cls, stores: tuple[str, ...]) -> Shop:
        source = M5Source(folder())
        first = TRAINED_TO - timedelta(days=gbm.TRAINING_DAYS)
        since = first - timedelta(days=origin_features.HISTORY_DAYS)
        last = CUTOFF + timedelta(days=HORIZON)
        origins = [*origin_features.origin_days(first, TRAINED_TO, (TRAINED_TO,)), CUTOFF]
        sales, features = {}, {}
        for store in stores:
            raw = source.sales(store, since, last), source.prices(store, since, last)
            sales[store] = clean(*raw).kept
            past = sales[store].filter(pl.col("date") <= CUTOFF)
            features[store] = origin_features.build(past, origins)
        series = pl.concat(rows.select(gbm.LEVELS).unique() for rows in sales.values())
        policy = yaml.safe_load((PROJECT_ROOT / "policies" / "segments.yaml").read_text())
        return cls(
            sales,
            features,
            series.sort("store_id", "item_id"),
            source.calendar(),
            SegmentPolicy.parse(policy),
        )

    def examples(self, spec: gbm.GbmSpec, coding: gbm.Coding) -> list[gbm.Examples]:
        """What was known at the day of training."""
        first = TRAINED_TO - timedelta(days=gbm.TRAINING_DAYS)
        return [
            gbm.examples(
                self.features[store].filter(pl.col("date") <= TRAINED_TO),
                rows.filter(pl.col("date").is_between(first, TRAINED_TO)),
                self.series.filter(store_id=store),
                self.calendar,
                coding,
                TRAINED_TO,
                HORIZON,
                spec,
            )
            for store, rows in self.sales.items()
        ]

    def forecast(self, model: gbm.Model, cutoff: date) -> pl.DataFrame:
        """item_id, store_id, ds, mean: the horizon after a cutoff."""
        frames = []
        for store, rows in self.sales.items():
            ahead = pl.col("date").is_between(
                cutoff + timedelta(days=1), cutoff + timedelta(days=HORIZON)
            )
            prices = rows.filter(ahead).select("item_id", "date", "sell_price")
            series = self.series.filter(store_id=store)
            found = model.predict(
                self.features[store], prices, series, self.calendar, cutoff, HORIZON
            )
            frames.append(found.with_columns(store_id=pl.lit(store)))
        return pl.concat(frames)

    def labelled(self, forecast: pl.DataFrame, cutoff: date) -> pl.DataFrame:
        """Add `segment`, as the policy classifies at the cutoff."""
        window = [rows.filter(pl.col("date") <= cutoff) for rows in self.sales.values()]
        stats = pl.concat(measure(rows, cutoff, self.policy) for rows in window)
        segments = classify(stats, cutoff, self.policy).select(*KEY, "segment")
        return forecast.join(segments, on=KEY, how="left", maintain_order="left")

    def sold(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """Add `units`; days without a row have none."""
        units = pl.concat(
            rows.select(*KEY, pl.col("date").alias("ds"), "units") for rows in self.sales.values()
        )
        return forecast.join(units, on=[*KEY, "ds"], how="left", maintain_order="left")


def _measure(stores: tuple[str, ...], rounds: int | None) -> dict[str, float | int | str]:
    import lightgbm  # noqa: F401  # before any clock starts

    shop = Shop.of(stores)
    spec = gbm.GbmSpec(threads=1) if rounds is None else gbm.GbmSpec(threads=1, rounds=rounds)
    coding = gbm.Coding.of(shop.calendar, shop.series)
    examples_s, examples = cpu_seconds(lambda: shop.examples(spec, coding))
    fit_s, fitted = cpu_seconds(lambda: gbm.fit(examples, coding, spec))
    model = gbm.Model(fitted.artefact)
    predict_s, published = cpu_seconds(lambda: shop.forecast(model, CUTOFF))

    def spread_and_quantiles() -> tuple[pl.DataFrame, Floats]:
        past = shop.labelled(shop.forecast(model, TRAINED_TO), TRAINED_TO)
        spread = calibrate(shop.sold(past))
        rows = shop.labelled(published, CUTOFF)
        found = with_quantiles(rows, rows["segment"], spread)
        return found, spread.inflation(rows["mean"].to_numpy(), rows["segment"])

    quantiles_s, (ours, inflation) = cpu_seconds(spread_and_quantiles)
    scored = shop.sold(ours)
    units = scored["units"].to_numpy()
    known = np.isfinite(units)
    q = {level: scored[column_of(level)].to_numpy() for level in LEVELS}
    mean_s = examples_s + fit_s + predict_s
    loss = _loss(lambda level: q[level], units, known)
    boosters_s, boosters = cpu_seconds(lambda: _boosters(shop, model, examples, spec))
    peer = _loss(lambda level: boosters[level], units, known)
    mean = scored["mean"].to_numpy()
    return {
        "ratio_cpu": (mean_s + quantiles_s) / mean_s,
        "pinball_ratio": loss / peer,
        "coverage80_pct": 100 * pit_coverage(units[known], mean[known], inflation[known], 0.1, 0.9),
        "coverage80_whole_units_pct": 100 * coverage(q[0.1], q[0.9], units),
        "boosters_coverage80_pct": 100 * coverage(boosters[0.1], boosters[0.9], units),
        "pinball_units": loss,
        "boosters_pinball_units": peer,
        "mean_model_cpu_s": mean_s,
        "quantiles_cpu_s": quantiles_s,
        "boosters_cpu_s": boosters_s,
        "boosters_ratio_cpu": (examples_s + boosters_s) / mean_s,
        "series": shop.series.height,
        "examples": sum(len(part.y) for part in examples),
        "rounds": spec.rounds,
        "quantiles": len(LEVELS),
        "horizon_days": HORIZON,
    }


def _loss(of: Callable[[float], Floats], units: Floats, known: npt.NDArray[np.bool_]) -> float:
    each = [pinball(of(level)[known], units[known], level).mean() for level in LEVELS]
    return float(np.mean(each))


def _boosters(
    shop: Shop, model: gbm.Model, examples: list[gbm.Examples], spec: gbm.GbmSpec
) -> dict[float, Floats]:
    """Nine models and their forecasts, put in order where they cross, as a user would."""
    import lightgbm as lgb

    x, y = (np.concatenate(parts) for parts in zip(*((e.x, e.y) for e in examples), strict=True))
    names = gbm.columns(spec)
    categorical = [name for name in model.booster.feature_name() if name in gbm._CATEGORICAL]
    found = []
    for level in LEVELS:
        data = lgb.Dataset(x, y, feature_name=names, categorical_feature=categorical)
        parameters: dict[str, Any] = {**gbm._parameters(spec), "objective": "quantile"}
        model.booster = lgb.train({**parameters, "alpha": level}, data, spec.rounds)
        found.append(shop.forecast(model, CUTOFF)["mean"].to_numpy())
    ordered = np.maximum.accumulate(np.stack(found, axis=1), axis=1)
    return {level: ordered[:, k] for k, level in enumerate(LEVELS)}
