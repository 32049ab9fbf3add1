"""One new day of features for every series, beside mlforecast's `update` and its rebuild.

Both hold their state in memory: ours pushes the day's rows on each store's window and makes the new
origin's features; mlforecast takes `update` with the day, then makes the features of the step.
Keeping our state between nights (bytes to window and back) is shown beside, mlforecast's is not
written at all. Its rebuild makes the same features over the whole history.

mlforecast makes only the columns that it has operations for (last day, five means, a maximum and
a deviation); ours makes all that are stored. Those shared must have the same values first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from benchmarks._apart import apart, cpu_seconds
from benchmarks._m5 import Panel, panel
from forecast_core.rungs import origin_features
from forecast_core.rungs.feature_state import WINDOW_DAYS, FeatureState

HISTORY = 1941
REPEATS = 3
MEANS = origin_features.MEANS
SHARED = ["units_1", *(f"mean_{w}" for w in MEANS), "max_28", "std_28"]


def run(quick: bool) -> dict[str, float | int | str]:
    """CPU-seconds of a night, of the peer's update and of its rebuild; same values first."""
    stores = 1 if quick else None
    history = 800 if quick else HISTORY
    ours, update = apart(_ours, stores), apart(_peer_update, stores, history)
    rebuild = apart(_peer_rebuild, stores, history)
    differs = _max_difference(ours.result.pop("features"), update.result.pop("features"))
    if differs > 1e-4:
        raise SystemExit(f"features differ by {differs}: no ratio")
    return {
        "ratio_cpu": update.result["night_s"] / ours.result["night_s"],
        "ratio_cpu_rebuild": rebuild.result["rebuild_s"] / ours.result["night_s"],
        "max_abs_diff": differs,
        "ours_cpu_s": ours.result["night_s"],
        "ours_state_read_and_written_s": ours.result["io_s"],
        "ours_window_once_cpu_s": ours.result["window_s"],
        "peer_cpu_s": update.result["night_s"],
        "peer_rebuild_cpu_s": rebuild.result["rebuild_s"],
        "ours_columns": len(origin_features.STORED),
        "peer_columns": len(SHARED),
        "series": ours.result["series"],
        "history_days": history,
        "ours_peak_gb": ours.peak_gb,
        "peer_update_peak_gb": update.peak_gb,
        "peer_rebuild_peak_gb": rebuild.peak_gb,
    }


def _rows(of: Panel, store: str, first: int, last: int) -> pl.DataFrame:
    """`cleaned_sales` rows of one store; M5's units with a price, which the peer does not see."""
    mine = (of.series["store_id"] == store).to_numpy()
    days = of.days[first:last]
    series = of.series.filter(pl.Series(mine))
    rows = series.join(pl.DataFrame({"date": days}), how="cross", maintain_order="left_right")
    return rows.with_columns(
        units=pl.Series(of.units[mine, first:last].reshape(-1)), sell_price=pl.lit(1.0)
    )


def _ours(stores: int | None) -> dict[str, Any]:
    of = panel(WINDOW_DAYS + 1, stores)
    names = of.series["store_id"].unique().sort().to_list()
    days = {store: _rows(of, store, WINDOW_DAYS, WINDOW_DAYS + 1) for store in names}
    window_s, kept = cpu_seconds(
        lambda: {
            store: FeatureState.of(_rows(of, store, 0, WINDOW_DAYS), of.days[-2]).to_bytes()
            for store in names
        }
    )
    io_s, _ = cpu_seconds(
        lambda: [FeatureState.from_bytes(held).to_bytes() for held in kept.values()], REPEATS
    )

    night_s, features = float("inf"), pl.DataFrame()
    for _ in range(REPEATS):
        states = {store: FeatureState.from_bytes(held) for store, held in kept.items()}

        def night(of: dict[str, FeatureState] = states) -> pl.DataFrame:
            return pl.concat(state.push(days[store]).features() for store, state in of.items())

        seconds, features = cpu_seconds(night)
        night_s = min(night_s, seconds)
    return {
        "window_s": window_s,
        "io_s": io_s,
        "night_s": night_s,
        "series": of.series.height,
        "features": features.select("item_id", "store_id", *SHARED),
    }


def _forecaster() -> Any:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import RollingMax, RollingMean, RollingStd

    means = [RollingMean(w) for w in MEANS]
    return MLForecast(
        models=[],
        freq="D",
        lags=[1],
        lag_transforms={1: [*means, RollingMax(28), RollingStd(28)]},
        num_threads=1,
    )


def _pandas(of: Panel, last: int) -> Any:
    """mlforecast's update fails on polars 2, so the peer gets pandas."""
    import pandas as pd

    ids = (of.series["item_id"] + "|" + of.series["store_id"]).to_numpy()
    return pd.DataFrame(
        {
            "unique_id": pd.Categorical(np.repeat(ids, last)),
            "ds": np.tile(np.array(of.days[:last], dtype="datetime64[ns]"), len(ids)),
            "y": of.units[:, :last].reshape(-1).astype(np.float32),
        }
    )


def _peer_update(stores: int | None, history: int) -> dict[str, Any]:
    import copy

    import pandas as pd

    of = panel(history, stores)
    forecaster = _forecaster()
    # The peer keeps what its features need, as ours does.
    forecaster.preprocess(_pandas(of, history - 1), static_features=[], keep_last_n=WINDOW_DAYS)
    ids = (of.series["item_id"] + "|" + of.series["store_id"]).to_numpy()
    day = pd.DataFrame(
        {
            "unique_id": ids,
            "ds": np.datetime64(of.days[-1], "ns"),
            "y": of.units[:, -1].astype(np.float32),
        }
    )
    best, features = float("inf"), None
    for _ in range(REPEATS):
        held = copy.deepcopy(forecaster)

        def night(one: Any = held) -> Any:
            one.update(day)
            ts = one.ts
            ts._predict_setup()
            return ts._update_features()

        seconds, features = cpu_seconds(night)
        best = min(best, seconds)
        ids_of = np.asarray(held.ts.uids)
    assert features is not None
    parts = pl.Series(ids_of.astype(str)).str.split("|")
    columns = dict(zip(SHARED, [c for c in features.columns if c not in ("unique_id", "ds")],
                       strict=True))  # fmt: skip
    told = pl.DataFrame({name: features[c].to_numpy() for name, c in columns.items()})
    told = told.with_columns(
        item_id=parts.list.get(0),
        store_id=parts.list.get(1),
        std_28=pl.col("std_28") * (27 / 28) ** 0.5,  # the peer's is the sample's deviation
    )
    return {"night_s": best, "features": told}


def _peer_rebuild(stores: int | None, history: int) -> dict[str, float]:
    of = panel(history, stores)
    frame = _pandas(of, history)
    seconds, _ = cpu_seconds(lambda: _forecaster().preprocess(frame, static_features=[]))
    return {"rebuild_s": seconds}


def _max_difference(ours: pl.DataFrame, peer: pl.DataFrame) -> float:
    key = ["item_id", "store_id"]
    both = ours.join(peer, on=key, suffix="_peer")
    if both.height != ours.height or both.height != peer.height:
        raise SystemExit(f"{ours.height} series of ours, {peer.height} of the peer: no ratio")
    return max(
        float((both[name] - both[f"{name}_peer"]).abs().max())  # type: ignore[arg-type]
        for name in SHARED
    )
