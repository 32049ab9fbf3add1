"""Whoever a sale or a price of a store names is forecast: sold out, never sold, new, or odd."""

from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from forecast_assets.assets.segments import _known
from forecast_core.rungs.floor import UNSOLD
from forecast_core.source.mapping import IDS

FIRST, DAYS, HORIZON = date(2024, 1, 1), 280, 14
LAST = FIRST + timedelta(days=DAYS - 1)
SELLS = {  # item -> the days on which it has a row
    "apple": range(DAYS),
    "bread": range(DAYS),
    "null": range(DAYS),
    "withdrawn": range(60),
    "yesterday": range(DAYS - 1, DAYS),
    "unsold": range(DAYS),
}
MAPPING = """
sales: {files: sales.csv, date: day, store_id: shop, item_id: sku, units: qty}
prices: {files: prices.csv, date: since, store_id: shop, item_id: sku, sell_price: price}
"""


def write(folder: Path) -> str:
    lines = [
        f"{FIRST + timedelta(day)},{shop},{item},{0 if item == 'unsold' else day % 7 + 1}"
        for shop in ("north", "south")
        for item, days in SELLS.items()
        for day in days
    ]
    (folder / "sales.csv").write_text("\n".join(["day,shop,sku,qty", *lines]) + "\n")
    begins = {item: FIRST + timedelta(days[0]) for item, days in SELLS.items()}
    begins |= {"listed": FIRST, "tomorrow": LAST + timedelta(days=1)}  # they have no row at all
    prices = [
        f"{day},{shop},{item},2.5" for shop in ("north", "south") for item, day in begins.items()
    ]
    prices.append(f"{LAST + timedelta(days=1)},,everywhere,2.5")  # of the chain: in every store
    (folder / "prices.csv").write_text("\n".join(["since,shop,sku,price", *prices]) + "\n")
    (folder / "shop.yaml").write_text(MAPPING)
    return str(folder / "shop.yaml")


@pytest.mark.slow
def test_every_item_of_every_store_has_its_days(tmp_path: Path, own_installation: Any) -> None:
    out = tmp_path / "forecast.parquet"
    done = own_installation.forecast(
        "run", "--source", write(tmp_path), "--horizon", str(HORIZON), "--out", str(out)
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "check failed" not in done.stderr
    forecast = pl.read_parquet(out)
    items = {*SELLS, "listed", "tomorrow", "everywhere"}
    wanted = {f"{item}_{shop}" for item in items for shop in ("north", "south")}
    assert set(forecast["unique_id"]) == wanted
    assert forecast.group_by("unique_id").len()["len"].unique().to_list() == [HORIZON]
    said = {item: set(rows["reason"]) for (item,), rows in forecast.group_by("item_id")}
    means = dict(forecast.group_by("item_id").agg(pl.col("mean").sum()).iter_rows())
    for item in ("withdrawn", "unsold", "listed"):
        assert said[item] == {UNSOLD} and means[item] == 0
    for item in ("apple", "null", "yesterday", "tomorrow", "everywhere"):
        assert means[item] > 0
    assert "6 item-stores" in done.stdout  # that sold nothing, counted


def series(*rows: tuple[str, str]) -> pl.DataFrame:
    pairs = pl.DataFrame(rows, schema=["item_id", "store_id"], orient="row")
    return pairs.with_columns(pl.lit("d").alias(c) for c in IDS if c not in pairs.columns)


@pytest.mark.parametrize(
    ("adds", "kept"),
    [(False, {("b", "1"), ("a", "gone")}), (True, {("b", "1"), ("a", "1"), ("a", "gone")})],
)
def test_who_was_classified_before_stays_where_the_source_says_nothing(
    adds: bool, kept: set[tuple[str, str]]
) -> None:
    now = SimpleNamespace(series=lambda: series(("b", "1")), stores=lambda: ("1",), adds=adds)
    found = _known(now, series(("a", "1"), ("a", "gone")))  # type: ignore[arg-type]
    assert set(found.select("item_id", "store_id").rows()) == kept


def test_a_source_without_gaps_names_nobody_beside_its_rows() -> None:
    whole = SimpleNamespace(series=lambda: None)
    assert _known(whole, series(("a", "1"))).is_empty()  # type: ignore[arg-type]
