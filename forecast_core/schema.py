"""The tables: their columns, keys and how they are cut.

Belongs here: one `Table` for every dataset, the single place where a column is declared.
Does not: reading, writing, or deriving any of them.

Names follow M5 at rest (`item_id, dept_id, cat_id, store_id, state_id, sell_price, date, units`)
and Nixtla's inside forecasting frames (`unique_id, ds, y, cutoff`). The grain is item-store-day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

Cut = Literal["month_store", "month", "group", "cutoff_store", "cutoff", "day", "none"]


@dataclass(frozen=True)
class Table:
    """A dataset: its columns and types, logical key, date column, physical order and cut.

    `open_ended`: more columns than the declared may follow (features, quantiles).
    """

    name: str
    columns: Mapping[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]
    cut: Cut
    date_column: str | None = "date"
    sort: tuple[str, ...] = ("item_id", "date")
    open_ended: bool = False

    @property
    def schema(self) -> pl.Schema:
        """The declared columns as a polars schema."""
        return pl.Schema(self.columns)

    @property
    def by_store(self) -> bool:
        """Whether rows belong to a store and files are cut by it."""
        return self.cut in ("month_store", "cutoff_store")

    def conform(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Select the declared columns in order and cast them; extras follow when open-ended.

        Raises:
            ValueError: a declared column is missing (named, with what the frame has).
        """
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise ValueError(
                f"{self.name}: column {missing[0]!r} is missing; the frame has {frame.columns}"
            )
        extras = [c for c in frame.columns if c not in self.columns] if self.open_ended else []
        declared = [pl.col(name).cast(dtype) for name, dtype in self.columns.items()]
        return frame.select(*declared, *extras)


_HIERARCHY: dict[str, type[pl.DataType]] = {
    "item_id": pl.String,
    "dept_id": pl.String,
    "cat_id": pl.String,
    "store_id": pl.String,
    "state_id": pl.String,
}
_SOURCE_MARK: dict[str, type[pl.DataType]] = {"source_row": pl.Int64, "defect": pl.String}
_RAW_SALES: dict[str, type[pl.DataType]] = {
    "date": pl.Date,
    **_HIERARCHY,
    "units": pl.Float64,
    **_SOURCE_MARK,
}
_PREDICTION: dict[str, type[pl.DataType]] = {
    "unique_id": pl.String,
    "item_id": pl.String,
    "store_id": pl.String,
    "ds": pl.Date,
    "cutoff": pl.Date,
    "mean": pl.Float64,
    "rung": pl.String,
    "reason": pl.String,
}

_ALL = (
    Table(
        "raw_sales",
        _RAW_SALES,
        key=("date", "item_id", "store_id"),
        cut="month_store",
        open_ended=True,  # a mapped source adds source_file, refused and raw_text
    ),
    Table(
        "raw_prices",
        {
            "date": pl.Date,
            "until": pl.Date,
            "item_id": pl.String,
            "store_id": pl.String,
            "sell_price": pl.Float64,
            **_SOURCE_MARK,
        },
        key=("date", "item_id", "store_id"),
        cut="month_store",
        open_ended=True,  # source_file of a mapped source; covariates known ahead, x_<name>
    ),
    Table(
        "raw_calendar",
        {
            "date": pl.Date,
            "event_name_1": pl.String,
            "event_type_1": pl.String,
            "event_name_2": pl.String,
            "event_type_2": pl.String,
        },
        key=("date",),
        cut="none",
        sort=("date",),
        open_ended=True,  # snap_<state_id> flags, one column a state
    ),
    Table(
        "raw_inventory",
        {
            "date": pl.Date,
            "item_id": pl.String,
            "store_id": pl.String,
            "on_hand": pl.Float64,
            "on_order": pl.Float64,
            "lead_time_days": pl.Int64,
        },
        key=("date", "item_id", "store_id"),
        cut="month_store",
    ),
    Table(
        "cleaned_sales",
        {
            "date": pl.Date,
            **_HIERARCHY,
            "units": pl.Float64,
            "sell_price": pl.Float64,
            "on_sale": pl.Boolean,
            "source_rows": pl.Int32,  # raw rows it stands for: 0 filled, more than 1 merged
        },
        key=("date", "item_id", "store_id"),
        cut="month_store",
        open_ended=True,  # covariates, x_<name>
    ),
    Table(
        "quarantined_sales",
        {**_RAW_SALES, "rule": pl.String},
        # A duplicate key is one of the rules, so the source line belongs to the key here.
        key=("date", "item_id", "store_id", "source_row"),
        cut="month_store",
        open_ended=True,
    ),
    Table(
        "feature_sales",
        {"date": pl.Date, "item_id": pl.String, "store_id": pl.String},
        key=("date", "item_id", "store_id"),
        cut="month_store",
        open_ended=True,
    ),
    Table(
        "demand_segments",
        {
            "as_of": pl.Date,
            **_HIERARCHY,
            "abc": pl.String,
            "demand_class": pl.String,
            "life_stage": pl.String,
            "segment": pl.String,
            "segment_group": pl.String,
            "rung": pl.String,
            "revenue": pl.Float64,
            "adi": pl.Float64,
            "cv2": pl.Float64,
        },
        key=("as_of", "item_id", "store_id"),
        cut="month",
        date_column="as_of",
        sort=("store_id", "item_id"),
        open_ended=True,
    ),
    Table(
        "forecasters",
        {
            "segment_group": pl.String,
            "trained_to": pl.Date,
            "version": pl.String,
            "rung": pl.String,
            "artefact": pl.Binary,
            "drivers": pl.String,
        },
        key=("segment_group", "trained_to"),
        cut="group",
        date_column="trained_to",
        sort=("segment_group",),
    ),
    Table(
        "prediction_floor",
        _PREDICTION,
        key=("cutoff", "ds", "item_id", "store_id"),
        cut="cutoff_store",
        date_column="cutoff",
        sort=("item_id", "ds"),
        open_ended=True,
    ),
    Table(
        "prediction_daily",
        _PREDICTION,
        key=("cutoff", "ds", "item_id", "store_id"),
        cut="cutoff_store",
        date_column="cutoff",
        sort=("item_id", "ds"),
        open_ended=True,
    ),
    Table(
        "prediction_stockout",
        {
            "cutoff": pl.Date,
            "item_id": pl.String,
            "store_id": pl.String,
            "on_hand": pl.Float64,
            "on_order": pl.Float64,
            "lead_time_days": pl.Int64,
            "lead_time_demand": pl.Float64,
            "stockout_probability": pl.Float64,
            "stockout_if_late": pl.Float64,
            "reorder_point": pl.Float64,
            "order_units": pl.Float64,
            "reason": pl.String,
        },
        key=("cutoff", "item_id", "store_id"),
        cut="cutoff_store",
        date_column="cutoff",
        sort=("item_id",),
    ),
    Table(
        "prediction_reconciled",
        {
            "cutoff": pl.Date,
            "ds": pl.Date,
            "level": pl.String,
            "node": pl.String,
            "mean": pl.Float64,
        },
        key=("cutoff", "ds", "level", "node"),
        cut="cutoff",
        date_column="cutoff",
        sort=("level", "node", "ds"),
        open_ended=True,
    ),
    Table(
        "eval_accuracy",
        {
            "cutoff": pl.Date,
            "level": pl.String,
            "forecaster": pl.String,
            "wape": pl.Float64,
            "bias": pl.Float64,
            "wrmsse": pl.Float64,
            "series": pl.Int64,
        },
        key=("cutoff", "level", "forecaster"),
        cut="cutoff",
        date_column="cutoff",
        sort=("level", "forecaster"),
        open_ended=True,
    ),
    Table(
        "prediction_explanations",
        {
            "cutoff": pl.Date,
            "item_id": pl.String,
            "store_id": pl.String,
            "bucket": pl.String,
            "ds": pl.Date,
            "feature": pl.String,
            "contribution": pl.Float64,  # to the log of the model's mean
            "version": pl.String,
        },
        key=("cutoff", "item_id", "store_id", "bucket", "feature"),
        cut="cutoff_store",
        date_column="cutoff",
        sort=("item_id", "bucket"),
    ),
    Table(
        "eval_backtest",
        {
            "as_of": pl.Date,
            "cutoff": pl.Date,
            "scope": pl.String,  # level or segment
            "name": pl.String,
            "forecaster": pl.String,
            "series": pl.Int64,
            "units": pl.Float64,
            "wape": pl.Float64,
            "bias": pl.Float64,
            "wrmsse": pl.Float64,
            "scaled_pinball": pl.Float64,
            "coverage80": pl.Float64,
            "fva_wape": pl.Float64,
            "error_avoided": pl.Float64,
            "fva_wrmsse": pl.Float64,
            "wrmsse_gained": pl.Float64,
            "cpu_s": pl.Float64,
            "usd": pl.Float64,
        },
        key=("as_of", "cutoff", "scope", "name", "forecaster"),
        cut="cutoff",
        date_column="as_of",
        sort=("scope", "name", "forecaster"),
    ),
    Table(
        "eval_tuning",
        {
            "as_of": pl.Date,
            "segment_group": pl.String,
            "trial": pl.Int64,
            "settings": pl.String,
            "error": pl.Float64,
            "cpu_s": pl.Float64,
            "verdict": pl.String,  # of the comparison with the champion; null where not compared
        },
        key=("as_of", "segment_group", "trial"),
        cut="cutoff",
        date_column="as_of",
        sort=("segment_group", "trial"),
    ),
    Table(
        "eval_levers",
        {
            "as_of": pl.Date,
            "group": pl.String,
            "lever": pl.String,
            "level": pl.Int64,
            "fold": pl.Int64,
            "cost": pl.Float64,
            "error": pl.Float64,
            "value": pl.Float64,
        },
        key=("as_of", "group", "lever", "level", "fold"),
        cut="cutoff",
        date_column="as_of",
        sort=("group", "lever", "level"),
    ),
    Table(
        "monitor_drift",
        {
            "cutoff": pl.Date,
            "segment_group": pl.String,
            "column": pl.String,
            "role": pl.String,
            "method": pl.String,
            "score": pl.Float64,  # null where it could not be compared; `reason` says why
            "threshold": pl.Float64,
            "drifted": pl.Boolean,
            "trained_to": pl.Date,
            "reference_rows": pl.Int64,
            "current_rows": pl.Int64,
            "reason": pl.String,
        },
        key=("cutoff", "segment_group", "column"),
        cut="cutoff",
        date_column="cutoff",
        sort=("segment_group", "column"),
    ),
    Table(
        "monitor_accuracy",
        {
            "cutoff": pl.Date,  # the day up to which actuals have arrived
            "segment_group": pl.String,
            "store_id": pl.String,
            "forecaster": pl.String,
            "horizon": pl.String,
            "series": pl.Int64,
            "days": pl.Int64,
            "units": pl.Float64,
            "wape": pl.Float64,
            "bias": pl.Float64,
            "coverage80": pl.Float64,
            "scaled_pinball": pl.Float64,
            "floor_wape": pl.Float64,
            "fva_wape": pl.Float64,
        },
        key=("cutoff", "segment_group", "store_id", "forecaster", "horizon"),
        cut="cutoff",
        date_column="cutoff",
        sort=("segment_group", "store_id", "forecaster", "horizon"),
    ),
)

TABLES: Mapping[str, Table] = {table.name: table for table in _ALL}
