"""`forecast lake` and `forecast partitions` by hand: what they do, and errors with their remedy."""

import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from forecast_assets import cli
from forecast_core.cells import Cells
from forecast_core.storage.content import content_hash
from forecast_core.storage.tiers import Tier
from resources import Settings
from resources.lifecycle import Mover, parts_of
from resources.wiring import mover_of

FIRST = date(2024, 1, 1)
Said = tuple[int, str]
Forecast = Callable[..., Said]


@pytest.fixture
def mover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mover:
    """Two months of prices of a store, in an installation of its own."""
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    for name, value in (("SERIES", "4"), ("STORES", "1"), ("DAYS", "60")):
        monkeypatch.setenv(f"FORECAST_DEMO_{name}", value)
    made = mover_of(Settings.from_environment())
    for first in (FIRST, date(2024, 2, 1)):
        rows = pl.DataFrame({"date": [first + timedelta(days=n) for n in range(28)]})
        rows = rows.with_columns(
            item_id=pl.lit("i"), until=pl.col("date"), store_id=pl.lit("S"),
            sell_price=pl.int_range(28) * 0.01, source_row=pl.lit(0, pl.Int64),
            defect=pl.lit(None, pl.String),
        )  # fmt: skip
        cells = Cells(first, first + timedelta(days=27), ("S",))
        made.lake.table("raw_prices").replace(rows, cells)
    return made


@pytest.fixture
def forecast(mover: Mover, monkeypatch: pytest.MonkeyPatch, capsys) -> Forecast:
    """Run the program; its exit code and all that it said, on one line."""

    def call(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["forecast", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((said.out + said.err).split())

    return call


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("lake parts nosuch", "unknown dataset 'nosuch'"),
        ("lake move raw_prices 2024-01 freezing", "unknown tier 'freezing'"),
        ("lake move raw_prices 1999-01 cold", "raw_prices has no part 1999-01"),
        ("lake rehydrate raw_prices --until 2001-01-01", "2001-01-01 is not after"),
        ("lake rehydrate raw_prices --first 2024-03-01 --last 2024-01-01", "an empty window"),
        ("lake restore raw_prices gone.parquet", "raw_prices has no file gone.parquet"),
        ("lake restore raw_prices --version 1", "--version with --first and --last"),
        ("lake restore raw_prices --version 99 --first 2024-01-01 --last 2024-01-31",
         "raw_prices has no version 99"),
        ("lake vacuum --hours 1", "less than the longest job"),
        ("lake release nobody", "no hold is named 'nobody'"),
        ("partitions quote nosuch --partitions 2024-01-01", "no asset is named 'nosuch'"),
        ("partitions quote feature_sales --partitions soon", "'soon' is not spelt as month_store"),
        ("partitions quote cost_storage --partitions 2026-01-01",
         "no dataset is named 'cost_storage'"),
    ],
)  # fmt: skip
def test_bad_input_is_a_message_with_its_remedy(
    forecast: Forecast, arguments: str, message: str
) -> None:
    code, said = forecast(*arguments.split())
    bare = said.replace("\u2502 ", "").replace(" \u2502", "")
    assert code != 0 and message in bare and "Traceback" not in said


def test_a_held_part_is_not_moved_and_a_name_is_given_once(
    forecast: Forecast, mover: Mover
) -> None:
    hold = ("lake", "hold", "raw_prices", "case", "--reason", "audit")
    assert forecast(*hold) == (0, "case: version 2 of raw_prices is kept")
    assert forecast(*hold)[1] == "error: a hold named 'case' exists; choose another name"
    (part, *_) = parts_of(mover.lake.table("raw_prices"))
    assert part.tier is Tier.COLD
    code, said = forecast("lake", "move", "raw_prices", part.period, "warm")
    assert code == 1 and "legal hold 'case' (audit); release it first" in said


def test_a_version_is_put_back_for_some_days(forecast: Forecast, mover: Mover) -> None:
    table = mover.lake.table("raw_prices")
    before = content_hash(table.read().frame.collect())
    version, january = table.version(), Cells(FIRST, date(2024, 1, 31), ("S",))
    table.replace(table.empty(), january)
    window = ("--first", "2024-01-01", "--last", "2024-01-31", "--store", "S")
    code, said = forecast("lake", "restore", "raw_prices", "--version", str(version), *window)
    assert (code, said) == (0, f"raw_prices: its rows are back in version {version + 2}")
    assert content_hash(table.read().frame.collect()) == before


def test_an_error_that_is_not_ours_keeps_its_traceback(
    forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["forecast", "lake", "holds"])
    monkeypatch.setattr("forecast_assets.commands.lake._mover", lambda: int("not a number"))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main()


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_without_a_dagster_home_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: str | None
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("DAGSTER_HOME", home)
    monkeypatch.setattr(sys, "argv", ["forecast", "stores", "register"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"error: {cli.NO_HOME}\n"
