"""Give the names of the command line to items of the last forecast, by the lake's own writer."""

import sys

import polars as pl

from forecast_core.cells import Cells
from resources import Settings
from resources.wiring import lake_of

lake = lake_of(Settings.from_environment())
names = sys.argv[1:]
predictions = lake.table("prediction_daily")
cutoff = predictions.read().frame.select(pl.col("cutoff").max()).collect().item()
store = predictions.read(Cells(cutoff, cutoff)).frame.collect()["store_id"].sort()[0]
items = (
    predictions.read(Cells(cutoff, cutoff, (store,)))
    .frame.group_by("item_id").agg(pl.col("mean").sum())
    .sort("mean", descending=True).collect()["item_id"].to_list()
)  # fmt: skip
renamed = dict(zip(items, names, strict=False))
for table in ("prediction_daily", "prediction_stockout"):
    window = Cells(cutoff, cutoff, (store,))
    rows = lake.table(table).read(window).frame.collect()
    lake.table(table).replace(rows.with_columns(pl.col("item_id").replace(renamed)), window)
