"""`python -m benchmarks source_load`: M5's official files by mapping alone, beside a plain script.

Belongs here: the mapping, both loads and their figures. Does not: how a mapping is read.

Ours stages the files (typed, long, sorted by store, each row with its file and line) and then reads
every store back as raw_sales. The plain script reads, unpivots, joins the calendar and writes one
Parquet file: what a data engineer would type, with no line numbers, no checks and no stores.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks._apart import apart
from benchmarks._m5 import folder

IDS = ("item_id", "dept_id", "cat_id", "store_id", "state_id")
UNITS = 66_927_173  # of the official evaluation file


def run(quick: bool = False) -> dict[str, float | int | bool]:
    """Units read, peak GB and CPU-seconds of ours and of the plain script.

    `--quick` takes the first 3,000 lines of the sales.
    """
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        sales = _sales(base, 3_000 if quick else None)
        ours = apart(_mapped, str(base), str(sales))
        plain = apart(_plain, str(base), str(sales))
    return {
        "units": int(ours.result["units"]),
        "exact": ours.result["units"] == (plain.result["units"] if quick else UNITS),
        "rows": ours.result["rows"],
        "peak_gb": ours.peak_gb,
        "cpu_s": ours.result["stage_s"] + ours.result["read_s"],
        "stage_cpu_s": ours.result["stage_s"],
        "read_cpu_s": ours.result["read_s"],
        "plain_cpu_s": plain.result["cpu_s"],
        "plain_peak_gb": plain.peak_gb,
        "staged_mb": ours.result["staged_mb"],
    }


def _sales(base: Path, rows: int | None) -> Path:
    official = folder() / "sales_train_evaluation.csv.gz"
    if rows is None:
        return official
    import gzip
    import itertools

    part = base / "sales.csv"
    with gzip.open(official, "rt") as read, part.open("w") as write:
        write.writelines(itertools.islice(read, rows + 1))
    return part


def _mapped(base: str, sales: str) -> dict[str, float]:
    from resources.mapped_source import MappedSource

    prices = next(folder().glob("sell_prices.*"))
    calendar: dict[str, Any] = {"files": str(folder() / "calendar.csv"), "date": "date"}
    names = ("event_name_1", "event_type_1", "event_name_2", "event_type_2")
    mapping = {
        "version": 1,
        "sales": {
            "files": sales,
            **{name: name for name in IDS},
            "date": {"column": "day", "calendar": "d"},
            "wide": {"of": "days", "columns": r"(d_\d+)"},
        },
        "prices": {
            "files": str(prices),
            "item_id": "item_id",
            "store_id": "store_id",
            "date": {"column": "wm_yr_wk", "calendar": "wm_yr_wk"},
            "sell_price": "sell_price",
        },
        "calendar": calendar | {name: name for name in names},
    }
    path = Path(base) / "m5.yaml"
    path.write_text(yaml.safe_dump(mapping))
    began = time.process_time()
    source = MappedSource(path, Path(base) / "staged")
    first, last = source.span()
    staged = time.process_time()
    units, rows = 0.0, 0
    for store in source.stores():
        sold = source.sales(store, first, last)
        units, rows = units + float(sold["units"].sum()), rows + sold.height
        del sold  # as those who ask store by store do: the next is read without it
    size = sum(file.stat().st_size for file in source.stage.rglob("*") if file.is_file())
    return {
        "units": units,
        "rows": rows,
        "stage_s": staged - began,
        "read_s": time.process_time() - staged,
        "staged_mb": size / 1e6,
    }


def _plain(base: str, sales: str) -> dict[str, float]:
    import polars as pl

    began = time.process_time()
    days = pl.read_csv(folder() / "calendar.csv").select("d", pl.col("date").str.to_date())
    wide = pl.read_csv(sales)
    names = [name for name in wide.columns if name.startswith("d_")]
    long = wide.unpivot(names, index=IDS, variable_name="d", value_name="units")
    long = long.join(days, on="d").drop("d").sort("store_id", "item_id", "date")
    long.write_parquet(Path(base) / "plain.parquet")
    return {"units": float(long["units"].sum()), "cpu_s": time.process_time() - began}
