"""Who is on sale though no sale of a store names it: a price of no store, a list of products."""

from datetime import date, timedelta
from pathlib import Path

import pytest

from forecast_core.rungs import cold_start
from forecast_core.source.mapping import MappingError, SourceMapping
from resources.mapped_source import MappedSource

FIRST, DAYS = date(2024, 1, 1), 120
LAST_OF_CLOSED = DAYS - cold_start.DAYS - 1  # the last day on which a shut store sold
MAPPING = """
sales: {files: sales.csv, date: day, store_id: shop, item_id: sku, units: qty}
prices: {files: prices.csv, date: since, item_id: sku, sell_price: price}
hierarchy:
  levels: [[], [kind]]
  attributes:
    - {files: products.csv, on: {item_id: sku}, columns: {kind: kind}, on_sale: LISTED}
"""


def _source(folder: Path, listed: bool) -> MappedSource:
    sold = {"north": range(DAYS), "south": range(DAYS), "shut": range(LAST_OF_CLOSED + 1)}
    rows = [f"{FIRST + timedelta(d)},{shop},apple,2" for shop, days in sold.items() for d in days]
    rows += [f"{FIRST + timedelta(d)},north,bread,1" for d in range(DAYS)]
    (folder / "sales.csv").write_text("\n".join(["day,shop,sku,qty", *rows]) + "\n")
    prices = [f"{FIRST},apple,1", f"{FIRST},bread,2", f"{FIRST + timedelta(DAYS)},pear,3"]
    (folder / "prices.csv").write_text("\n".join(["since,sku,price", *prices]) + "\n")
    (folder / "products.csv").write_text("sku,kind\napple,fruit\nbread,baked\nplum,fruit\n")
    (folder / "shop.yaml").write_text(MAPPING.replace("LISTED", str(listed).lower()))
    return MappedSource(folder / "shop.yaml", folder / "staged")


@pytest.mark.parametrize("listed", [False, True])
def test_what_no_sale_names_is_on_sale_in_every_open_store(tmp_path: Path, listed: bool) -> None:
    found = _source(tmp_path, listed).series()
    pairs = set(found.select("item_id", "store_id").iter_rows())
    sold = {("apple", "north"), ("apple", "south"), ("apple", "shut"), ("bread", "north")}
    priced = {("pear", "north"), ("pear", "south")}
    told = {("plum", "north"), ("plum", "south")} if listed else set()
    assert pairs == sold | priced | told
    assert found.null_count().sum_horizontal().item() == 0


def test_a_price_of_the_chain_holds_for_it_in_each_store(tmp_path: Path) -> None:
    source = _source(tmp_path, False)
    ahead = FIRST + timedelta(DAYS)
    planned = source.prices("south", ahead, ahead + timedelta(27)).filter(item_id="pear")
    assert planned["sell_price"].unique().to_list() == [3.0]


def test_only_a_table_of_items_lists_what_is_on_sale() -> None:
    table = {"files": "s.csv", "on": {"store_id": "s"}, "columns": {"r": "r"}, "on_sale": True}
    sales = {"files": "a.csv", "date": "d", "units": "u"}
    content = {"sales": sales, "hierarchy": {"levels": [[]], "attributes": [table]}}
    with pytest.raises(MappingError, match="only of a table of items"):
        SourceMapping.parse(content)
