"""Scores as actuals arrive equal a plain loop over the same days."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from forecast_core.evaluation.live_accuracy import ALL, live_accuracy
from forecast_core.schema import TABLES

CUTOFF = date(2024, 1, 31)
DAY = CUTOFF + timedelta(days=20)


def drawn(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    predictions, floor, actual, groups = [], [], [], []
    for k in range(12):
        item, store = f"i{k}", f"s{k % 2}"
        groups.append({"item_id": item, "store_id": store, "segment_group": f"g{k % 3}"})
        for ahead in range(1, 29):
            ds, mean = CUTOFF + timedelta(days=ahead), float(rng.gamma(3))
            row = {"item_id": item, "store_id": store, "cutoff": CUTOFF, "ds": ds, "mean": mean}
            predictions.append({**row, "rung": "gbm", "q10": mean * 0.5, "q90": mean * 1.5})
            floor.append({**row, "mean": 3.0, "rung": "floor"})
            units = float(rng.poisson(3))
            actual.append({"item_id": item, "store_id": store, "date": ds, "units": units})
    return tuple(map(pl.DataFrame, (predictions, floor, actual, groups)))  # type: ignore[return-value]


def test_a_group_is_scored_as_a_plain_loop_does() -> None:
    predictions, floor, actual, groups = drawn()
    found = live_accuracy(DAY, predictions, floor, actual, groups)
    units = {(a["item_id"], a["date"]): a["units"] for a in actual.iter_rows(named=True)}
    mine = set(groups.filter(segment_group="g1")["item_id"])
    off = bias = sold = naive = inside = n = 0.0
    for p in predictions.iter_rows(named=True):
        if p["item_id"] in mine and p["ds"] <= DAY:
            y = units[p["item_id"], p["ds"]]
            off, bias, sold = off + abs(p["mean"] - y), bias + p["mean"] - y, sold + y
            naive, n = naive + abs(3.0 - y), n + 1
            inside += p["q10"] <= y <= p["q90"]
    one = {name: ALL for name in ("store_id", "forecaster", "horizon")}
    row = found.filter(segment_group="g1", **one).row(0, named=True)
    assert row["wape"] == pytest.approx(off / sold)
    assert row["bias"] == pytest.approx(bias / sold)
    assert row["coverage80"] == pytest.approx(inside / n)
    assert row["fva_wape"] == pytest.approx(1 - off / naive)
    assert (row["series"], row["days"]) == (4, 20)
    assert row["scaled_pinball"] > 0


def test_every_cut_adds_up_to_the_whole_and_the_future_is_not_scored() -> None:
    found = live_accuracy(DAY, *drawn())
    whole = found.filter(pl.all_horizontal(pl.col("segment_group", "store_id") == ALL))
    assert whole.height == 1
    fine = found.filter(pl.all_horizontal(pl.col("store_id", "forecaster", "horizon") != ALL))
    assert fine["units"].sum() == pytest.approx(whole["units"].item())
    assert set(fine["horizon"]) == {"1-7", "8-14", "15-28"}
    assert whole["days"].item() == (DAY - CUTOFF).days
    key = list(TABLES["monitor_accuracy"].key)
    assert found.select(key).is_duplicated().sum() == 0


def test_without_actuals_or_quantiles_nothing_is_made_up() -> None:
    predictions, floor, actual, groups = drawn()
    assert live_accuracy(DAY, predictions, floor, actual.clear(), groups).is_empty()
    plain = live_accuracy(DAY, predictions.drop("q10", "q90"), floor.clear(), actual, groups)
    assert plain["coverage80"].null_count() == plain.height
    assert plain["fva_wape"].null_count() == plain.height
    assert plain["wape"].null_count() == 0
