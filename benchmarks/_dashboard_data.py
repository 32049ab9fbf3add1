"""Tables, ledger and marts of M5's size, written through the platform's own lake and stores.

30,490 item-stores in ten stores and 28 days of forecasts of three cutoffs with nine quantiles;
half a year of charges: the demo's own day, again on each day before. No row is of M5.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from forecast_core.cells import Cells
from forecast_core.quantiles import LEVELS, column_of
from resources import Settings
from resources.lake import Lake
from resources.ledger import Ledger
from resources.ledger_history import sync_history

STATES = ("CA", "CA", "CA", "CA", "TX", "TX", "TX", "WI", "WI", "WI")
CUTOFFS = (date(2016, 3, 27), date(2016, 4, 24), date(2016, 5, 22))
HORIZON, HISTORY_DAYS = 28, 180


def item_stores(items: int) -> pl.DataFrame:
    """Every item in every one of ten stores, with its hierarchy."""
    places = [f"{state}_{1 + STATES[:n].count(state)}" for n, state in enumerate(STATES)]
    kinds = ("FOODS", "HOBBIES", "HOUSEHOLD")
    things = [
        (f"{kinds[n % 3]}_{1 + n % 3}_{n:04d}", f"{kinds[n % 3]}_{1 + n % 3}", kinds[n % 3])
        for n in range(items)
    ]
    names = pl.DataFrame(things, schema=["item_id", "dept_id", "cat_id"], orient="row")
    stores = pl.DataFrame({"store_id": places, "state_id": STATES})
    return names.join(stores, how="cross").sort("store_id", "item_id")


def write(settings: Settings, demo: Settings, items: int, days: int) -> None:
    """All of it into the installation of `settings`; the ledger's day is that of `demo`."""
    rng, lake = np.random.default_rng(7), Lake(settings.lake_root)
    series = item_stores(items)
    _segments(lake, series, rng)
    for cutoff in CUTOFFS:
        for (store,), own in series.group_by("store_id", maintain_order=True):
            _forecasts(lake, own, cutoff, str(store), rng)
    for (store,), own in series.group_by("store_id", maintain_order=True):
        _sales(lake, own, str(store), rng)
    _scores(lake, demo)
    _charges(settings, demo, days)
    ledger = Ledger(settings.ledger)
    from resources.ledger_history import account_of
    from resources.price_card import load_price_card

    sync_history(ledger, lake, account_of(load_price_card(settings.price_card)))
    build_marts(settings)
    name = demo.admission.removeprefix("sqlite:///")
    shutil.copy(name, settings.admission.removeprefix("sqlite:///"))


def _segments(lake: Lake, series: pl.DataFrame, rng: np.random.Generator) -> None:
    group = np.array(["gbm_core", "long_tail", "dormant"])[rng.integers(0, 3, series.height)]
    rows = series.with_columns(
        as_of=pl.lit(CUTOFFS[-1]), abc=pl.lit("A"), demand_class=pl.lit("smooth"),
        life_stage=pl.lit("active"), segment=pl.lit("A-smooth-active"),
        segment_group=pl.Series(group), rung=pl.lit("gbm"), revenue=pl.lit(1.0), adi=pl.lit(1.0),
        cv2=pl.lit(0.2),
    )  # fmt: skip
    lake.table("demand_segments").replace(rows, Cells(CUTOFFS[-1], CUTOFFS[-1]))


def _forecasts(
    lake: Lake, own: pl.DataFrame, cutoff: date, store: str, rng: np.random.Generator
) -> None:
    days = pl.DataFrame({"ds": [cutoff + timedelta(days=d + 1) for d in range(HORIZON)]})
    pairs = own.select("item_id", "store_id").join(days, how="cross")
    mean = rng.gamma(1.0, 1.5, pairs.height)
    bands = {column_of(q): np.floor(mean * (0.3 + 1.6 * q)) for q in LEVELS}
    rows = pairs.with_columns(
        unique_id=pl.concat_str("item_id", "store_id", separator="_"), cutoff=pl.lit(cutoff),
        mean=pl.Series(mean), rung=pl.lit("gbm"), reason=pl.lit(None, pl.String),
        **{name: pl.Series(values) for name, values in bands.items()},
    )  # fmt: skip
    window = Cells(cutoff, cutoff, (store,))
    lake.table("prediction_daily").replace(rows, window)
    stock = own.select("item_id", "store_id").with_columns(
        cutoff=pl.lit(cutoff), on_hand=pl.lit(5.0), on_order=pl.lit(0.0), lead_time_days=7,
        lead_time_demand=pl.lit(4.0), stockout_probability=pl.Series(rng.random(own.height)),
        stockout_if_late=pl.lit(0.5), reorder_point=pl.lit(6.0), order_units=pl.lit(2.0),
        reason=pl.lit(None, pl.String),
    )  # fmt: skip
    lake.table("prediction_stockout").replace(stock, window)


def _sales(lake: Lake, own: pl.DataFrame, store: str, rng: np.random.Generator) -> None:
    first = CUTOFFS[-1] - timedelta(days=HISTORY_DAYS - 1)
    days = pl.DataFrame({"date": [first + timedelta(days=d) for d in range(HISTORY_DAYS)]})
    rows = own.join(days, how="cross")
    rows = rows.with_columns(
        units=pl.Series(rng.poisson(1.1, rows.height).astype(float)), sell_price=pl.lit(2.5),
        on_sale=pl.lit(True), source_rows=pl.lit(1, pl.Int32),
    )  # fmt: skip
    lake.table("cleaned_sales").replace(rows, Cells(first, CUTOFFS[-1], (store,)))


def _scores(lake: Lake, demo: Settings) -> None:
    """The demo's scores, of the last cutoff but one."""
    scores = Lake(demo.lake_root).table("eval_accuracy").read().frame.collect()
    for cutoff in CUTOFFS[:-1]:
        rows = scores.with_columns(cutoff=pl.lit(cutoff))
        lake.table("eval_accuracy").replace(rows, Cells(cutoff, cutoff))


def _charges(settings: Settings, demo: Settings, days: int) -> None:
    ledger = Ledger(settings.ledger)
    rows = Ledger(demo.ledger).charges()
    for back in range(days):
        day = rows.with_columns(
            (pl.col("x_charge_id") + f"-{back}").alias("x_charge_id"),
            *(pl.col(name) - pl.duration(days=back)
              for name in ("date", "ChargePeriodStart", "ChargePeriodEnd")),
        )  # fmt: skip
        ledger.append(day.to_dicts())


def build_marts(settings: Settings) -> None:
    """The marts by dbt, as the asset builds them.

    Raises:
        RuntimeError: dbt failed, with its last words.
    """
    root = Path(__file__).resolve().parent.parent
    settings.marts.parent.mkdir(parents=True, exist_ok=True)
    paths = json.dumps({"marts": str(settings.marts), "lake": settings.lake_root})
    dbt, target = str(Path(sys.executable).with_name("dbt")), str(settings.state_dir / "dbt")
    done = subprocess.run(
        [dbt, "run", "--profiles-dir", ".", "--target-path", target, "--vars", paths],
        cwd=root / "dbt_project", capture_output=True, text=True,
        env={**_plain(), "PYTHONPATH": str(root)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"dbt run failed: {done.stdout[-3000:]}")


def _plain() -> dict[str, str]:
    import os

    return {k: v for k, v in os.environ.items() if not k.startswith("FORECAST_")}
