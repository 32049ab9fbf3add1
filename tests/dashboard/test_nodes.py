"""A node of any published level: its history is what its item-stores sold."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from dashboard.figures import forecasts
from dashboard.live import Live
from resources import Settings
from resources.wiring import lake_of

CUTOFF = date(2025, 6, 29)


@pytest.mark.parametrize(("level", "name"), [("Total", "Total"), ("store_id", "CA_1")])
def test_a_nodes_history_sums_its_item_stores(
    finished: tuple[Any, str], level: str, name: str
) -> None:
    settings = Settings.from_environment(finished[0].environment)
    settings = replace(settings, data_root=str(finished[0].root / "data"))
    shown = forecasts.node(Live(settings), CUTOFF, level, name)
    since = CUTOFF - timedelta(days=forecasts.HISTORY_DAYS)
    sold = lake_of(settings).table("cleaned_sales").read().frame
    own = sold.filter(
        pl.col("date") >= since, (pl.lit(level) == "Total") | (pl.col("store_id") == name)
    )
    assert shown.history["units"].sum() == own.select(pl.col("units").sum()).collect().item() > 0
    assert shown.forecast.height == 28
