"""Tables of a database, by URL and query: read in pieces, asked anew, no password told."""

import sqlite3
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
import yaml

from forecast_core.source.clean import clean
from forecast_core.source.error import SourceError
from resources.mapped_source import MappedSource

DAYS = 30


def source(
    folder: Path, url: str, query: str = "select * from sold", **more: object
) -> MappedSource:
    sales = {
        "url": url,
        "query": query,
        "date": "day",
        "store_id": "shop",
        "item_id": "sku",
        "units": "qty",
        "sell_price": "price",
        "covariates": {"promo": "promo"},
        "join": [{"url": url, "query": "select shop, region from shops", "on": "shop"}],
        "state_id": "region",
        **more,
    }
    (folder / "mapping.yaml").write_text(yaml.safe_dump({"sales": sales}))
    return MappedSource(folder / "mapping.yaml", folder / "staged")


def cleaned(found: MappedSource) -> pl.DataFrame:
    first, last = found.span()
    parts = [
        clean(found.sales(store, first, last), found.prices(store, first, last), last).kept
        for store in found.stores()
    ]
    return pl.concat(parts)


@pytest.fixture
def filled(postgres_server: str) -> str:
    """A Postgres database with sales in its own types: dates, numerics, booleans."""
    engine = sa.create_engine(postgres_server)
    with engine.begin() as base:
        base.execute(sa.text("drop table if exists sold; drop table if exists shops"))
        base.execute(
            sa.text(
                "create table sold (day date, shop text, sku integer, qty numeric(10, 2), "
                "price numeric(8, 2), promo boolean)"
            )
        )
        base.execute(sa.text("create table shops (shop text, region text)"))
        base.execute(sa.text("insert into shops values ('a', 'north'), ('b', 'south')"))
        rows = [
            {"d": date(2024, 1, 1) + timedelta(k), "s": s, "i": i, "q": k + 0.5, "p": k % 2 == 0}
            for k in range(DAYS)
            for s in "ab"
            for i in (7, 8)
        ]
        base.execute(sa.text("insert into sold values (:d, :s, :i, :q, 2.5, :p)"), rows)
    engine.dispose()
    return postgres_server


def test_postgres_is_read_in_its_own_types(tmp_path: Path, filled: str) -> None:
    found = source(tmp_path, filled)
    kept = cleaned(found)
    assert kept.height == DAYS * 4
    assert kept["units"].sum() == 4 * sum(k + 0.5 for k in range(DAYS))
    assert set(kept["item_id"]) == {"7", "8"} and set(kept["state_id"]) == {"north", "south"}
    assert set(kept["sell_price"]) == {2.5}
    assert kept["x_promo"].sum() == 4 * DAYS / 2


def test_a_database_is_asked_anew_when_told_to(tmp_path: Path, filled: str) -> None:
    before = source(tmp_path, filled)
    reading = before.reading
    engine = sa.create_engine(filled)
    with engine.begin() as base:
        base.execute(sa.text("insert into sold values ('2024-01-31', 'a', 7, 9, 2.5, false)"))
    engine.dispose()
    held = source(tmp_path, filled)
    assert held.reading == reading  # what was asked is kept for a while
    again = source(tmp_path, filled)
    again.ask_again()
    assert again.reading != reading
    assert again.span()[1] == date(2024, 1, 31)


def test_a_password_comes_from_the_environment_and_is_never_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SALES_PASSWORD", "s3cret-s3cret")
    url = "postgresql+psycopg://reader:${SALES_PASSWORD}@127.0.0.1:1/shop"
    with pytest.raises(SourceError) as refused:
        source(tmp_path, url).stores()
    assert "s3cret" not in str(refused.value) and "reader@127.0.0.1:1/shop" in str(refused.value)
    assert "Correct `url` or `query`" in str(refused.value)


def test_a_query_that_fails_says_why(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as base:
        base.execute("create table other (shop text)")
    with pytest.raises(SourceError, match="no such table: sold"):
        source(tmp_path, f"sqlite:///{path}", join=[], state_id=None).stores()


def test_a_column_that_the_query_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as base:
        base.execute("create table sold (day text, shop text, sku text, quantity real)")
        base.execute("insert into sold values ('2024-01-01', 'a', 'x', 1)")
    with pytest.raises(SourceError, match="column 'qty' is missing"):
        source(tmp_path, f"sqlite:///{path}", join=[], state_id=None).stores()


def test_a_driver_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the query failed"):
        source(tmp_path, "mysql+nosuchdriver://u@h/d").stores()
