"""M5 as the benchmarks read it: a wide matrix of units and the attributes of its series.

Belongs here: reading the official files straight, without the lake, and cutting them. Does not:
measuring.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from resources import PROJECT_ROOT, Settings

FIRST_DAY = date(2011, 1, 29)
DAYS = 1941
ATTRIBUTES = ["item_id", "dept_id", "cat_id", "store_id", "state_id"]


@dataclass(frozen=True, eq=False)
class Panel:
    """Units of every item-store by day; rows in the official order."""

    series: pl.DataFrame
    units: npt.NDArray[np.float64]
    days: list[date]

    def long(self) -> pl.DataFrame:
        """One row an item-store-day: the attributes, `ds`, `y`; sorted by series and day."""
        days = pl.DataFrame({"ds": self.days})
        rows = self.series.join(days, how="cross", maintain_order="left_right")
        return rows.with_columns(y=pl.Series(self.units.reshape(-1)))


def folder() -> Path:
    """Where the M5 files are.

    Raises:
        SystemExit: they are not there, with the setting to change.
    """
    beside = PROJECT_ROOT.parent / "shared" / "data" / "m5"
    named = Settings.from_environment().m5_dir
    for found in (named, beside):
        if (found / "sales_train_evaluation.csv.gz").is_file():
            return found
    raise SystemExit(f"M5 not found in {named}: set M5_DIR to the folder of its files")


def cut(into: Path, kept: pl.Expr) -> Path:
    """The official layout with the series in `kept` only, in a folder that is thrown away."""
    into.mkdir()
    sales = pl.read_csv(folder() / "sales_train_evaluation.csv.gz").filter(kept)
    sales.write_csv(into / "sales_train_evaluation.csv")
    prices = pl.read_parquet(folder() / "sell_prices.parquet")
    prices.join(sales, on=["item_id", "store_id"], how="semi").write_parquet(
        into / "sell_prices.parquet"
    )
    (into / "calendar.csv").write_bytes((folder() / "calendar.csv").read_bytes())
    return into


def panel(last_days: int, stores: int | None = None, until: int = DAYS) -> Panel:
    """The last days up to d_`until`, of the first `stores` stores (None: all)."""
    numbers = range(until - last_days + 1, until + 1)
    columns = [f"d_{number}" for number in numbers]
    wide = pl.read_csv(folder() / "sales_train_evaluation.csv.gz", columns=[*ATTRIBUTES, *columns])
    if stores is not None:
        kept = wide["store_id"].unique(maintain_order=True)[:stores]
        wide = wide.filter(pl.col("store_id").is_in(kept.to_list()))
    units = np.ascontiguousarray(wide.select(columns).to_numpy(), dtype=np.float64)
    days = [FIRST_DAY + timedelta(days=number - 1) for number in numbers]
    return Panel(wide.select(ATTRIBUTES), units, days)
