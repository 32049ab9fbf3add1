"""Every generated shape: proposed, read and conserved by its own proposal, units to the piece."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from forecast_core.generate import DemoSpec
from forecast_core.generate.shapes import SHAPES, shape
from forecast_core.source.clean import clean
from forecast_core.source.guess import guess
from forecast_core.source.guess_yaml import as_yaml
from forecast_core.source.mapping import MappingError, SourceMapping, json_schema
from resources.mapped_source import MappedSource
from resources.source_look import look_at
from resources.sources import M5Source

SPEC = DemoSpec(series=24, stores=2, days=200)


def written(name: str, folder: Path) -> dict[str, pl.DataFrame]:
    """The shape's files in `folder`."""
    tables = shape(name, SPEC)
    for file, table in tables.items():
        table.write_csv(folder / file)
    return tables


def proposed(folder: Path, **changes: object) -> MappedSource:
    """The source by the mapping that a look at the folder proposes."""
    found = guess([look_at(path, folder, 1000) for path in sorted(folder.glob("*.csv"))])
    content = yaml.safe_load(as_yaml(found)) | changes
    (folder / "mapping.yaml").write_text(yaml.safe_dump(content))
    return MappedSource(folder / "mapping.yaml", folder / "staged")


def everything(source: MappedSource) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, quarantined) of all stores."""
    first, last = source.span()
    parts = [
        clean(
            source.sales(store, first, last),
            source.prices(store, first, last),
            last,
            source.policy,
            source.frequency,
            source.series(),
        )
        for store in source.stores()
    ]
    return pl.concat(p.kept for p in parts), pl.concat(p.quarantined for p in parts)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_proposal_reads_every_row(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    source = proposed(tmp_path)
    kept, quarantined = everything(source)
    assert int(kept["source_rows"].sum()) == source.manifest.rows
    assert quarantined.is_empty()


def test_the_weekly_panel_counts_weeks_and_fills_its_holes(tmp_path: Path) -> None:
    panel = written("promo_panel", tmp_path)["weekly.csv"]
    source = proposed(tmp_path)
    kept, _ = everything(source)
    assert source.frequency.weekly
    assert kept["units"].sum() == panel["num_orders"].sum()
    assert kept["date"].dt.weekday().n_unique() == 1
    gaps = kept.sort("store_id", "item_id", "date").select(
        pl.col("date").diff().over("store_id", "item_id").dt.total_days().drop_nulls().unique()
    )
    assert gaps.to_series().to_list() == [7]
    assert (kept["source_rows"] == 0).any()
    assert set(source.mapping.covariates) >= {"x_emailer_for_promotion", "x_homepage_featured"}


def test_closed_days_of_revenue_are_not_on_sale(tmp_path: Path) -> None:
    train = written("store_revenue", tmp_path)["train.csv"]
    source = proposed(tmp_path)
    kept, _ = everything(source)
    assert source.mapping.unit == "revenue"
    assert kept["units"].sum() == pytest.approx(train["Sales"].sum())
    assert set(kept.filter(~pl.col("on_sale"))["date"].dt.weekday()) == {7}
    assert kept.filter(pl.col("date").dt.weekday() == 7)["on_sale"].any() is False
    assert kept["x_promo"].sum() == train["Promo"].sum()


def test_wide_columns_become_items_with_their_own_promotions(tmp_path: Path) -> None:
    wide = written("wide_items", tmp_path)["sales.csv"]
    kept, _ = everything(proposed(tmp_path))
    one = kept.filter(item_id="B1_1").sort("date")
    assert one["units"].to_list() == wide["QTY_B1_1"].to_list()
    assert one["x_promo"].to_list() == wide["PROMO_B1_1"].to_list()


def test_the_m5_layout_by_mapping_equals_its_own_reader(tmp_path: Path) -> None:
    written("m5", tmp_path)
    mapped, own = proposed(tmp_path), M5Source(tmp_path)
    first, last = own.span()
    assert mapped.span() == (first, last)
    for store in own.stores():
        sales = own.sales(store, first, last)
        assert_frame_equal(mapped.sales(store, first, last).select(sales.columns), sales)
        prices = own.prices(store, first, last)
        assert_frame_equal(mapped.prices(store, first, last).select(prices.columns), prices)
    assert_frame_equal(mapped.calendar(), own.calendar())


def test_late_rows_are_seen_and_merged_by_policy(tmp_path: Path) -> None:
    rows = "date,store,item,units\n2024-01-01,a,x,5\n2024-01-01,a,x,-2\n2024-01-03,a,x,1\n"
    (tmp_path / "sales.csv").write_text(rows)
    policy = {"negatives": "net", "gaps": "zero"}
    source = proposed(tmp_path, policy=policy)
    kept, quarantined = everything(source)
    assert kept.sort("date")["units"].to_list() == [3.0, 0.0, 1.0]
    assert kept.sort("date")["source_rows"].to_list() == [2, 0, 1]
    assert quarantined.is_empty()
    (tmp_path / "sales.csv").write_text(rows + "2024-01-04,a,x,9\n")
    again = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    assert again.span() == (date(2024, 1, 1), date(2024, 1, 4))


def test_a_mapping_error_names_its_place_and_the_key_that_was_meant() -> None:
    with pytest.raises(MappingError, match=r"sales\.file: .*did you mean 'files'"):
        SourceMapping.parse({"sales": {"file": "a.csv", "date": "d", "units": "u"}})
    assert "Sales" in json_schema()["$defs"]


def test_a_database_is_read_by_its_query(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "shop.db") as base:
        base.execute("create table sold (day text, shop text, qty integer)")
        days = [(f"2024-01-{day:02d}", "a", day) for day in range(1, 11)]
        base.executemany("insert into sold values (?, ?, ?)", days)
    content = {
        "sales": {
            "url": f"sqlite:///{tmp_path / 'shop.db'}",
            "query": "select day, shop, qty from sold",
            "date": "day",
            "store_id": "shop",
            "units": "qty",
        }
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    kept, _ = everything(MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged"))
    assert kept["units"].sum() == 55


def test_an_item_that_was_moved_takes_its_history_along(tmp_path: Path) -> None:
    rows = ["date,store,item,dept,units"]
    rows += [f"2024-01-{day:02d},a,x,{'old' if day < 8 else 'new'},1" for day in range(1, 11)]
    (tmp_path / "sales.csv").write_text("\n".join(rows))
    kept, quarantined = everything(proposed(tmp_path))
    assert kept["dept_id"].unique().to_list() == ["new"]
    assert kept.height == 10 and quarantined.is_empty()


def test_a_price_given_twice_or_without_a_day_leaves_the_others_alone(tmp_path: Path) -> None:
    days = [f"2024-01-{day:02d}" for day in range(1, 15)]
    (tmp_path / "sales.csv").write_text(
        "\n".join(["date,store,item,units", *(f"{day},a,x,1" for day in days)])
    )
    (tmp_path / "prices.csv").write_text(
        "item,valid_from,price\nx,2024-01-01,2\nx,2024-01-01,9\nx,never,7\nx,2024-01-08,3\n"
    )
    kept, _ = everything(proposed(tmp_path))
    assert kept.sort("date")["sell_price"].to_list() == [2.0] * 7 + [3.0] * 7


def test_an_item_before_its_column_s_word_is_seen(tmp_path: Path) -> None:
    days = [date(2024, 1, 1 + day) for day in range(20)]
    wide = pl.DataFrame({"day": days * 2, "branch": ["a"] * 20 + ["b"] * 20}).with_columns(
        column
        for at in range(6)
        for column in (
            (pl.int_range(40) % (at + 2)).alias(f"SKU_{at}_sold"),
            pl.when(pl.int_range(40) % 3 == 0).then(pl.lit("Y")).otherwise(pl.lit("N"))
            .alias(f"SKU_{at}_promo"),
        )
    )  # fmt: skip
    wide.write_csv(tmp_path / "sales.csv")
    source = proposed(tmp_path)
    kept, quarantined = everything(source)
    assert quarantined.is_empty() and kept.height == 6 * 40
    assert kept["item_id"].unique().sort().to_list() == [f"SKU_{at}" for at in range(6)]
    assert kept["x_promo"].sum() == 6 * 14
    assert kept["units"].sum() == wide.select(pl.sum_horizontal(pl.col("^.*_sold$").sum())).item()


def test_a_price_is_not_taken_for_what_was_sold(tmp_path: Path) -> None:
    lines = [f"{week},out,{sku},{sku + week},{1.5 + sku}" for week in range(20) for sku in (1, 2)]
    text = "\n".join(["wk_no,outlet,article,pieces,net_price", *lines]) + "\n"
    (tmp_path / "sales.csv").write_text(text)
    sales = proposed(tmp_path).mapping.sales
    assert sales.units is not None and sales.units.column == "pieces"
    assert sales.sell_price is not None and sales.sell_price.column == "net_price"


@pytest.mark.parametrize("wide", [True, False])
def test_lines_past_the_last_sale_plan_ahead(wide: bool, tmp_path: Path) -> None:
    """Promotions of days to come, in the file of the sales itself: no sale, and no defect."""
    days = [date(2024, 1, 1) + timedelta(day) for day in range(40)]
    sold = [str(day.day % 4) if day < date(2024, 2, 5) else "" for day in days]
    sold[3] = ""  # a hole
    flags = ["Y" if day.day % 10 == 0 else "N" for day in days]
    if wide:
        head = ["day", *(f"i{at}_{word}" for at in range(6) for word in ("sold", "promo"))]
        lines = [
            ",".join([str(day), *([units, flag] * 6)])
            for day, units, flag in zip(days, sold, flags, strict=True)
        ]
    else:
        head = ["day", "item", "sold", "promo"]
        lines = [
            f"{day},i{at},{units},{flag}"
            for at in range(6)
            for day, units, flag in zip(days, sold, flags, strict=True)
        ]
    (tmp_path / "sales.csv").write_text("\n".join([",".join(head), *lines]) + "\n")
    source = proposed(tmp_path)
    kept, quarantined = everything(source)
    assert source.span() == (date(2024, 1, 1), date(2024, 2, 4))
    assert kept.height == 6 * 34
    assert quarantined["rule"].unique().to_list() == ([] if wide else ["missing_units"])
    assert source.planned("all") == 6 * 5
    spans = source.prices("all", date(2024, 1, 1), date(2024, 2, 9)).filter(item_id="i3")
    promoted = spans.filter(pl.col("x_promo") == 1)
    shown = promoted.select(pl.date_ranges("date", "until")).to_series().explode().sort()
    assert [day.isoformat() for day in shown] == [
        "2024-01-10", "2024-01-20", "2024-01-30",
    ]  # fmt: skip
    known = spans.filter(pl.col("x_promo").is_not_null())
    assert known["until"].max() >= date(2024, 2, 9)
