"""The whole of M5, a store at a time: nothing lost, nothing made up."""

from pathlib import Path

import pytest

from forecast_core.source.clean import clean
from resources.sources import M5Source

pytestmark = pytest.mark.m5


def test_all_of_m5_lands_and_cleans_exactly(m5_dir: Path) -> None:
    source = M5Source(m5_dir)
    first, last = source.span()
    rows = units = on_sale = kept = quarantined = 0
    for store in source.stores():
        sales = source.sales(store, first, last)
        cleaned = clean(sales, source.prices(store, first, last), last)
        rows += sales.height
        units += int(sales["units"].sum())
        on_sale += int(cleaned.kept["on_sale"].sum())
        kept += cleaned.kept.height
        quarantined += cleaned.quarantined.height
        assert cleaned.refused_prices.is_empty()
    assert len(source.stores()) == 10
    assert units == 66_927_173
    assert rows == kept == 30_490 * 1_941
    assert on_sale == 46_881_677
    assert quarantined == 0
