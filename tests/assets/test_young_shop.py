"""A shop that has sold for less than a horizon: every item has a forecast, nothing fails."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

FIRST, DAYS, HORIZON = date(2025, 5, 1), 20, 28


@pytest.mark.slow
def test_everyone_is_served_until_there_is_something_to_learn(
    own_installation: Any, tmp_path: Path
) -> None:
    rows = [
        (FIRST + timedelta(days=day), store, f"I{item}", f"D{item % 2}", (day + item) % 5, 2.5)
        for store in ("S1", "S2")
        for item in range(6)
        for day in range(DAYS)
    ]
    sales = pl.DataFrame(
        rows, schema=["date", "store", "item", "dept", "units", "price"], orient="row"
    )
    sales.write_csv(tmp_path / "sales.csv")
    shop, out = tmp_path / "shop.yaml", tmp_path / "forecast.parquet"
    made = own_installation.forecast(
        "source", "init", str(tmp_path / "sales.csv"), "--out", str(shop)
    )
    assert made.returncode == 0, made.stderr[-2000:]
    cutoff = FIRST + timedelta(days=DAYS - 1)
    done = own_installation.forecast(
        "run", "--source", str(shop), "--cutoff", str(cutoff), "--out", str(out)
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    forecast = pl.read_parquet(out)
    assert forecast.group_by("unique_id").len()["len"].to_list() == [HORIZON] * 12
    assert forecast["mean"].is_finite().all() and forecast["mean"].mean() > 1
    assert set(forecast["rung"]) <= {"floor", "statistical"}
