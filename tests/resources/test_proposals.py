"""Files never seen before: what is proposed reads every row of them, units to the piece."""

import gzip
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from forecast_core.source.clean import clean
from forecast_core.source.guess import guess
from forecast_core.source.guess_yaml import as_yaml
from forecast_core.source.mapping import SourceMapping
from resources.mapped_source import MappedSource
from resources.source_look import look_at, look_into

Truth = tuple[float, int, int]  # units, series, stores
MONDAY = date(2023, 1, 2)


def days(count: int, step: int = 1, first: date = MONDAY) -> list[date]:
    return [first + timedelta(days=step * k) for k in range(count)]


def number(*parts: int) -> int:
    """Something between 0 and 8 that looks like sales."""
    return sum(part * k for k, part in enumerate(parts, start=3)) % 9


def write(
    path: Path, header: str, lines: Iterator[str] | list[str], encoding: str = "utf-8"
) -> None:
    path.write_bytes(("\n".join([header, *lines]) + "\n").encode(encoding))


def european(folder: Path) -> Truth:
    """Semicolons, decimal commas, German names, an old encoding, days before months."""
    goods = [("Äpfel", "Obst"), ("Brot", "Backwaren")]
    rows = [
        f"{day:%d.%m.%Y};Köln {shop};{name};{group};{number(k, at)},5;1.0{at}9,95"
        for shop in (1, 2)
        for at, (name, group) in enumerate(goods)
        for k, day in enumerate(days(120))
    ]
    write(folder / "verkauf.csv", "Datum;Filiale;Artikel;Warengruppe;Menge;Preis", rows, "cp1252")
    units = 2 * sum(number(k, at) + 0.5 for at in range(2) for k in range(120))
    return units, 4, 2


def whole_weeks(folder: Path) -> Truth:
    """Weeks by number, brands, a flag of promotion, tabs, packed."""
    rows = [
        f"{shop}\t{week}\t{brand}\t{number(week, brand)}\t{int(week % 9 == 0)}\t2.5"
        for shop in (2, 5)
        for week in range(40, 140)
        for brand in (1, 2)
    ]
    with gzip.open(folder / "panel.tsv.gz", "wt") as file:
        file.write("\n".join(["store\tweek\tbrand\tmove\tfeat\tprice", *rows]) + "\n")
    return 2 * sum(number(w, b) for w in range(40, 140) for b in (1, 2)), 4, 2


def dates_across(folder: Path) -> Truth:
    """A column a day."""
    across = days(90)
    rows = [
        f"S{item},{store},C{item % 2}," + ",".join(str(number(k, item)) for k in range(90))
        for item in range(4)
        for store in "AB"
    ]
    write(
        folder / "wide.csv", "SKU,Store,Category," + ",".join(f"{d:%m/%d/%Y}" for d in across), rows
    )
    return 2 * sum(number(k, item) for k in range(90) for item in range(4)), 8, 2


def separate_prices(folder: Path) -> Truth:
    """Sales, prices, promotions, products and shops, each in a file of their own."""
    keys = [(p, s) for p in ("p1", "p2", "p3") for s in ("s1", "s2")]
    write(
        folder / "transactions.csv",
        "transaction_date,shop_id,product_id,qty",
        [f"{d},{s},{p},{number(k)}" for p, s in keys for k, d in enumerate(days(100))],
    )
    write(
        folder / "prices.csv",
        "product_id,shop_id,valid_from,unit_price",
        [f"{p},{s},{d},2.49" for p, s in keys for d in days(16, 7)],
    )
    write(
        folder / "promo.csv",
        "date,shop_id,product_id,promo",
        [f"{d},{s},p1,1" for s in ("s1", "s2") for d in days(128)[::10]],
    )
    write(
        folder / "products.csv",
        "product_id,product_name,subcategory,category",
        ["p1,One,Sub1,Cat1", "p2,Two,Sub2,Cat1", "p3,Three,Sub3,Cat2"],
    )
    write(folder / "shops.csv", "shop_id,city,region", ["s1,Lyon,ARA", "s2,Paris,IDF"])
    return 6 * sum(number(k) for k in range(100)), 6, 2


def revenue_only(folder: Path) -> Truth:
    """Takings by branch, closed on Sundays."""
    rows = [
        f"{d}|{branch}|{0 if d.weekday() == 6 else 100 + number(k) / 4}|{int(d.weekday() == 6)}"
        for branch in (101, 102)
        for k, d in enumerate(days(140))
    ]
    write(folder / "takings.txt", "date|branch|revenue|is_closed", rows)
    taken = (100 + number(k) / 4 for k, d in enumerate(days(140)) if d.weekday() != 6)
    return 2 * sum(taken), 2, 2


def columnar(folder: Path) -> Truth:
    """Parquet with times of day, whole numbers as keys, and the hierarchy in another file."""
    rows = [
        {
            "sold_at": datetime(d.year, d.month, d.day, 23),
            "outlet": f"o{o}",
            "article_id": 900 + a,
            "units_sold": number(k, a),
            "on_promotion": k % 7 == 0,
            "list_price": 3.0 + a,
        }
        for o in (1, 2)
        for a in range(3)
        for k, d in enumerate(days(80))
    ]
    pl.DataFrame(rows).write_parquet(folder / "sales.parquet")
    articles = {"article_id": [900, 901, 902], "department": list("XYZ"), "division": list("VVW")}
    pl.DataFrame(articles).write_parquet(folder / "articles.parquet")
    return 2 * sum(number(k, a) for a in range(3) for k in range(80)), 6, 2


def exported(folder: Path) -> Truth:
    """A zip of a spreadsheet's export: weeks by their end, thousands, currency signs, spaces."""
    rows = [
        f'{d:%d-%b-%Y},Loc {store},{4000 + item},Dept {item % 2},"{1000 + number(k, item):,}",'
        f'"£{990 + number(k):,}.50"'
        for store in (1, 2)
        for item in range(3)
        for k, d in enumerate(days(60, 7, date(2022, 1, 7)))
    ]
    header = "Week Ending,Location,Item Code,Dept,Sales Qty,Sales Value"
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        archive.writestr("export.csv", "\n".join([header, *rows]) + "\n")
    return 2 * sum(1000 + number(k, item) for item in range(3) for k in range(60)), 6, 2


def year_and_week(folder: Path) -> Truth:
    """The date in two columns, the years in two files."""
    for year in (2022, 2023):
        rows = [
            f"{year};{week};{store};{item};{number(week, ord(item))}"
            for store in "AB"
            for item in "xy"
            for week in range(1, 53)
        ]
        write(folder / f"sales_{year}.csv", "Year;Week;Store;SKU;Units", rows)
    return 4 * sum(number(w, ord(item)) for item in "xy" for w in range(1, 53)), 4, 2


def holidays_and_receipts(folder: Path) -> Truth:
    """Several rows a day, returns, a file of holidays, and one that is not known ahead."""
    rows = [
        f"{n},{d},{store},{item},{1 + number(k, item)},{k % 5 == 0}"
        for n, (store, item, k, d) in enumerate(
            (s, i, k, d) for s in (1, 2) for i in (10, 20) for k, d in enumerate(days(90)) if k % 4
        )
    ]
    twice = [f"{row.rpartition(',')[0].rpartition(',')[0]},2,False" for row in rows]
    header = "id,date,store_nbr,item_nbr,unit_sales,onpromotion"
    write(folder / "train.csv", header, [*rows, *twice])
    write(folder / "stores.csv", "store_nbr,city,state,type", ["1,Quito,P,D", "2,Cuenca,A,B"])
    write(folder / "items.csv", "item_nbr,family,class", ["10,FOOD,1093", "20,FOOD,2712"])
    holidays = [f"{d},National,Fiesta {k}" for k, d in enumerate(days(90)[::30])]
    write(folder / "holidays_events.csv", "date,locale,description", holidays)
    write(folder / "oil.csv", "date,oil", [f"{d},50" for d in days(90)])
    sold = (1 + number(k, i) + 2 for i in (10, 20) for k in range(90) if k % 4)
    return 2 * sum(sold), 4, 2


def a_sheet(folder: Path) -> Truth:
    """A date, and a column an item under its own name."""
    rows = [f"{d}," + ",".join(str(number(k, i)) for i in range(5)) for k, d in enumerate(days(80))]
    write(folder / "sheet.csv", "Date,Apples,Bread,Cheese,Milk,Eggs", rows)
    return sum(number(k, i) for i in range(5) for k in range(80)), 5, 1


def one_series(folder: Path) -> Truth:
    """Nixtla's names, a series alone."""
    rows = [f"{d},{number(k)}" for k, d in enumerate(days(90))]
    write(folder / "series.csv", "ds,y", rows)
    return sum(number(k) for k in range(90)), 1, 1


def receipts_in_a_zone(folder: Path) -> Truth:
    """A line a receipt, with the moment in local time: what a day sold is their sum."""
    rows = [
        f"{d}T{9 + k}:{17 * k % 60:02}:00+01:00,{item},{shop},{1 + number(at, k) // 3}"
        for at, d in enumerate(days(60))
        for item in ("007", "011")
        for shop in ("a", "b")
        for k in range(3)
    ]
    write(folder / "till.csv", "transaction_ts,PROD_ID,STR_NO,UNIT_QTY", rows)
    return sum(float(row.rpartition(",")[2]) for row in rows), 4, 2


def a_file_a_store(folder: Path) -> Truth:
    """The store stands in the names of the files alone, beside a year that all share."""
    units = 0
    for store in ("Berlin", "Bonn", "Hamburg"):
        rows = []
        for at, d in enumerate(days(60)):
            for item in ("0001", "0002"):
                units += number(at, len(item), len(store))
                rows.append(f"{d},{item},{number(at, len(item), len(store))}")
        write(folder / f"sales_{store}_2023.csv", "date,sku,qty", rows)
    return units, 6, 3


def a_key_without_a_name(folder: Path) -> Truth:
    """Nothing is named like an item, but one column makes the rows of a day differ."""
    rows = [
        f"{d:%d.%m.%Y};{ref};{number(at, len(ref))};{3 * number(at)},50"
        for at, d in enumerate(days(60))
        for ref in ("x1", "y22", "z333")
    ]
    write(folder / "export.csv", "Datum;Bezug;Absatz;Deckung", rows)
    return sum(float(row.split(";")[2]) for row in rows), 3, 1


def a_titled_report(folder: Path) -> Truth:
    """Lines of a report's own before the header, as wide as the table."""
    rows = [
        f"{d};{item};{number(at, len(item))},5"
        for at, d in enumerate(days(60))
        for item in ("a", "bb")
    ]
    write(
        folder / "report.csv",
        "Absatz nach Artikel;;\nStand 2023-03-01;;\n\nTag;Artikel;Absatz",
        rows,
    )
    return sum(number(at, n) + 0.5 for at in range(60) for n in (1, 2)), 2, 1


LAYOUTS: tuple[Callable[[Path], Truth], ...] = (
    european, whole_weeks, dates_across, separate_prices, revenue_only, columnar, exported,
    year_and_week, holidays_and_receipts, a_sheet, one_series, receipts_in_a_zone, a_file_a_store,
    a_key_without_a_name, a_titled_report,
)  # fmt: skip


def proposed(folder: Path) -> SourceMapping:
    found = guess([look_at(path, folder, 20_000) for path in sorted(folder.iterdir())])
    (folder / "mapping.yaml").write_text(as_yaml(found))
    return SourceMapping.parse(yaml.safe_load((folder / "mapping.yaml").read_text()))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_proposal_reads_it_all(layout: Callable[[Path], Truth], tmp_path: Path) -> None:
    units, series, stores = layout(tmp_path)
    proposed(tmp_path)
    source = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    first, last = source.span()
    kept = []
    for store in source.stores():
        done = clean(
            source.sales(store, first, last),
            source.prices(store, first, last),
            last,
            source.policy,
            source.frequency,
            source.series(),
        )
        assert done.quarantined.is_empty(), done.quarantined.head(3).to_dicts()
        kept.append(done.kept)
    found = pl.concat(kept, how="diagonal_relaxed")
    assert found["units"].sum() == pytest.approx(units)
    assert found.select("item_id", "store_id").n_unique() == series
    assert len(source.stores()) == stores


def test_what_the_values_say_goes_before_what_is_usual(tmp_path: Path) -> None:
    european(tmp_path)
    csv = proposed(tmp_path).sales.csv
    assert (csv.separator, csv.decimal, csv.thousands, csv.encoding) == (";", ",", ".", "cp1252")


def test_weeks_are_known_by_their_dates_and_by_their_name(tmp_path: Path) -> None:
    for layout, start in ((exported, "friday"), (year_and_week, "monday"), (whole_weeks, "monday")):
        folder = tmp_path / layout.__name__
        folder.mkdir()
        layout(folder)
        mapping = proposed(folder)
        assert (mapping.frequency, mapping.week_start) == ("weekly", start)


def test_prices_promotions_and_hierarchy_come_from_their_own_files(tmp_path: Path) -> None:
    separate_prices(tmp_path)
    mapping = proposed(tmp_path)
    assert mapping.prices is not None and mapping.prices.files == ("prices.csv",)
    assert mapping.covariates == ("x_promo",)
    specs = (mapping.sales.dept_id, mapping.sales.cat_id, mapping.sales.state_id)
    assert [spec.column for spec in specs if spec] == ["subcategory", "category", "region"]


def test_receipts_are_added_up_and_what_is_not_known_ahead_is_left_out(tmp_path: Path) -> None:
    holidays_and_receipts(tmp_path)
    mapping = proposed(tmp_path)
    assert mapping.policy.duplicates == "sum" and mapping.policy.gaps == "closed"
    assert mapping.unit == "units"
    assert mapping.known == ()
    assert "oil.csv ends with the sales" in (tmp_path / "mapping.yaml").read_text()
    source = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    calendar = source.calendar()
    assert calendar["event_name_1"].drop_nulls().to_list() == ["Fiesta 0", "Fiesta 1", "Fiesta 2"]
    assert calendar["date"].is_unique().all() and calendar.height > 300


def test_every_guess_says_how_sure_it_is(tmp_path: Path) -> None:
    separate_prices(tmp_path)
    proposed(tmp_path)
    text = (tmp_path / "mapping.yaml").read_text()
    for part in ("item_id", "store_id", "units", "dept_id", "prices"):
        (line,) = [one for one in text.splitlines() if one.strip().startswith(f"{part}:")][:1]
        assert "(sure: " in line


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.jsonl", '{"date": "2023-01-02", "qty": 3}\n', "it is JSON"),
        ("m.csv", "month,item,qty\n2023-01,a,3\n2023-02,a,4\n", "month names months"),
        ("x.csv", "when,item,qty\nsoon,a,3\nlater,a,4\n", "no column that reads as a date: when"),
    ],
)
def test_what_holds_no_sales_is_said_with_its_reason(
    name: str, content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=said):
        guess([look_at(tmp_path / name, tmp_path, 1000)])


def test_the_tables_of_a_database_are_told_apart_as_files_are(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    sold = pl.DataFrame({"day": days(60) * 2, "sku": ["a"] * 60 + ["b"] * 60, "qty": range(120)})
    goods = pl.DataFrame({"sku": ["a", "b"], "category": ["x", "y"]})
    for name, table in {"my sales": sold, "goods": goods}.items():
        table.write_database(name, url, engine="sqlalchemy")
    (tmp_path / "mapping.yaml").write_text(as_yaml(guess(look_into(url, 1000))))
    source = MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged")
    (store,) = source.stores()
    read = source.sales(store, *source.span())
    assert read["units"].sum() == sum(range(120))
    assert set(read["dept_id"].unique()) == {"x", "y"}


def test_a_password_is_never_written_into_a_mapping() -> None:
    with pytest.raises(ValueError, match="its password would stand in the mapping") as raised:
        look_into("postgresql+psycopg://reader:hunter2@host/shop", 10)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["a|b", "a...b"])
def test_a_store_that_no_partition_can_be_named_after_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path / "sales.csv", "date,store,qty", [f"{d},{name},3" for d in days(60)])
    mapping = as_yaml(guess([look_at(tmp_path / "sales.csv", tmp_path, 1000)]))
    (tmp_path / "mapping.yaml").write_text(mapping)
    with pytest.raises(ValueError, match=r"parts the names of partitions.*values"):
        MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged").span()
    content = yaml.safe_load(mapping)
    content["sales"]["store_id"] = {"column": "store", "values": {name: "a and b"}}
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(content))
    assert MappedSource(tmp_path / "mapping.yaml", tmp_path / "staged").stores() == ("a and b",)
