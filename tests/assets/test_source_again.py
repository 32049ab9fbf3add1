"""A source that is loaded again: what changed is landed, and only that; what is doubtful holds."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from resources.lake import Lake

FIRST, DAYS = date(2024, 1, 1), 90
ITEMS = ("apple", "bread", "soap")


def rows() -> list[str]:
    return [
        f"{FIRST + timedelta(day)},{store},{item},{(day * 7 + at) % 5 + 1}"
        for store in ("north", "south")
        for at, item in enumerate(ITEMS)
        for day in range(DAYS)
    ]


def deliver(folder: Path, lines: list[str], delivery: str = "whole") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "sales.csv").write_text("\n".join(["day,shop,item,qty", *lines]) + "\n")
    text = (
        "sales: {files: sales.csv, date: day, store_id: shop, item_id: item, units: qty}\n"
        f"delivery: {delivery}\n"
    )
    (folder / "mapping.yaml").write_text(text)
    return str(folder / "mapping.yaml")


def made(root: Path, asset: str) -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(root / "dagster"))
        instance = dg.DagsterInstance.get()
    with instance:
        page = instance.fetch_materializations(dg.AssetKey(asset), limit=1000)
    found: dict[str, float] = {}
    for record in page.records:
        found[str(record.partition_key)] = max(
            record.timestamp, found.get(str(record.partition_key), 0.0)
        )
    return found


def sold(root: Path, dataset: str, name: str = "cleaned_sales") -> pl.DataFrame:
    lake = Lake(root / "data" / "dev" / dataset / "lake")
    return lake.table(name).read().frame.sort("store_id", "item_id", "date").collect()


def test_only_the_month_of_a_corrected_sale_is_made_again(
    tmp_path: Path, own_installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in own_installation.environment.items():
        if name.startswith(("FORECAST_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    root, shop = own_installation.root, tmp_path / "shop"
    lines = rows()
    mapping = deliver(shop, lines)
    assert own_installation.forecast("source", "load", mapping).returncode == 0
    before, was = made(root, "cleaned_sales"), sold(root, "shop")
    assert was.height == len(lines)

    lines[40] = f"{FIRST + timedelta(40)},north,apple,99"  # in February
    lines[4] = "2024-01-05,north,apple,oops"
    deliver(shop, ["", *lines])  # every line moves down by one
    again = own_installation.forecast("source", "load", mapping)
    assert again.returncode == 0, again.stderr
    now = made(root, "cleaned_sales")
    newer = {key for key in now if now[key] > before[key]}
    assert newer == {"2024-01-01|north", "2024-02-01|north"}
    changed = sold(root, "shop").join(was, on=["store_id", "item_id", "date", "units"], how="anti")
    assert changed.select("item_id", "units").rows() == [("apple", 99.0)]
    assert sold(root, "shop", "quarantined_sales")["raw_text"].to_list() == [
        "2024-01-05,north,apple,oops"
    ]

    fixes = shop / "fixes.csv"
    told = own_installation.forecast("source", "quarantine", mapping, "--out", str(fixes))
    assert told.returncode == 0, told.stderr
    pl.read_csv(fixes).with_columns(units=pl.lit(4)).write_csv(fixes)
    fixed = own_installation.forecast("source", "fix", mapping, str(fixes))
    assert fixed.returncode == 0, fixed.stderr
    assert "1 rows corrected" in fixed.stdout and "fixes: fixes.csv" in fixed.stdout
    newest = made(root, "cleaned_sales")
    assert {key for key in newest if newest[key] > now[key]} == {"2024-01-01|north"}
    fifth = pl.col("date") == date(2024, 1, 5)
    found = sold(root, "shop").filter(fifth, item_id="apple", store_id="north")
    assert found["units"].to_list() == [4.0]
    assert sold(root, "shop", "quarantined_sales").is_empty()

    deliver(shop, [line.replace(",south,", ",South 2,") for line in lines])
    renamed = own_installation.forecast("source", "load", mapping)
    assert renamed.returncode == 3
    assert "values: {South 2: south}" in renamed.stderr and "Traceback" not in renamed.stderr
    assert set(sold(root, "shop")["store_id"]) == {"north", "south"}


def test_deliveries_of_changes_come_on_top(tmp_path: Path, own_installation) -> None:
    root, till = own_installation.root, tmp_path / "till"
    lines = rows()
    mapping = deliver(till, lines, "changes")
    assert own_installation.forecast("source", "load", mapping).returncode == 0
    late = [
        "2024-01-10,north,apple,50",  # a correction
        "2024-02-11,south,pears,7",  # late, of a new item
        *(f"{FIRST + timedelta(DAYS + k)},north,apple,3" for k in range(5)),
    ]
    deliver(till, late, "changes")
    done = own_installation.forecast("source", "load", mapping)
    assert done.returncode == 0, done.stderr
    found = sold(root, "till")
    assert found.height == len(lines) + 6
    units = {(r["store_id"], r["item_id"], r["date"]): r["units"] for r in found.to_dicts()}
    assert units["north", "apple", date(2024, 1, 10)] == 50
    assert units["south", "pears", date(2024, 2, 11)] == 7
    assert units["north", "apple", FIRST + timedelta(DAYS + 4)] == 3
