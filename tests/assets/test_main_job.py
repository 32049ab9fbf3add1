"""`forecast demo`: every item in every store is forecast, scored and priced."""

from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from forecast_core.rungs.floor import seasonal_mean
from resources.lake import Lake
from resources.ledger import open_ledger

LAST = date(2025, 6, 29)
HIDDEN = date(2025, 6, 1)
ITEM_STORES = 100
HORIZON = 28
DAYS = 420


@pytest.fixture(scope="module")
def lake(finished) -> Lake:
    return Lake(finished[0].root / "data" / "dev" / "demo" / "lake")


def _all(lake: Lake, name: str) -> pl.DataFrame:
    return lake.table(name).read().frame.collect()


def test_it_says_what_it_made_what_it_cost_and_where_to_look(finished) -> None:
    output = finished[1]
    for expected in ("Forecasts of 2025-06-29", "Accuracy after 2025-06-01", "Cost of", "Storage"):
        assert expected in output
    assert "make dev" in output


@pytest.mark.parametrize("name", ["prediction_floor", "prediction_daily"])
def test_every_item_store_has_every_day_of_both_cutoffs(lake: Lake, name: str) -> None:
    rows = _all(lake, name)
    per_series = rows.group_by("cutoff", "item_id", "store_id").agg(
        pl.col("ds").n_unique().alias("days"), pl.len().alias("rows")
    )
    assert per_series.height == 2 * ITEM_STORES
    assert set(per_series["days"]) == set(per_series["rows"]) == {HORIZON}
    assert set(rows["cutoff"]) == {HIDDEN, LAST}
    assert (rows["ds"] > rows["cutoff"]).all()
    assert rows["mean"].is_finite().all() and (rows["mean"] >= 0).all()


def test_nothing_is_lost_between_the_source_and_the_cleaned_table(lake: Lake) -> None:
    raw, cleaned = _all(lake, "raw_sales"), _all(lake, "cleaned_sales")
    quarantined = _all(lake, "quarantined_sales")
    assert raw.height == cleaned.height + quarantined.height == ITEM_STORES * DAYS
    assert raw["units"].sum() == cleaned["units"].sum() + (quarantined["units"].sum() or 0)


def test_the_governed_forecast_beats_the_floor(lake: Lake) -> None:
    scores = _all(lake, "eval_accuracy").filter(level="Average", cutoff=HIDDEN)
    by = dict(scores.select("forecaster", "wrmsse").iter_rows())
    assert by["governed"] < by["floor"] < by["seasonal_naive"]


def test_who_stays_on_the_floor_in_whole_or_in_part_is_told_why(lake: Lake) -> None:
    served = _all(lake, "prediction_daily")
    assert served.filter(rung="floor")["reason"].is_not_null().all()
    floor = _all(lake, "prediction_floor").select("cutoff", "ds", "unique_id", floor="mean")
    better = served.filter(pl.col("rung") != "floor").join(floor, on=["cutoff", "ds", "unique_id"])
    shared = better.filter(pl.col("reason").is_not_null())
    assert shared["reason"].str.contains(r"^\d+% of it the floor's: 0\.\d+ of the floor's").all()
    # Where it is a part of two, nothing of the floor's is served as nothing.
    assert (shared.filter(pl.col("floor") > 0)["mean"] > 0).all()


def test_every_level_is_the_sum_of_the_item_stores(lake: Lake) -> None:
    daily = _all(lake, "prediction_daily").group_by("cutoff", "ds").agg(pl.col("mean").sum())
    levels = _all(lake, "prediction_reconciled")
    assert levels["level"].n_unique() == 12
    sums = levels.group_by("level", "cutoff", "ds").agg(pl.col("mean").sum())
    joined = sums.join(daily, on=["cutoff", "ds"], suffix="_bottom")
    assert (joined["mean"] - joined["mean_bottom"]).abs().max() < 1e-6
    assert joined.height == 12 * 2 * HORIZON


def test_the_floor_is_what_its_function_says(lake: Lake) -> None:
    sales = _all(lake, "cleaned_sales").filter(store_id="CA_1")
    floor = _all(lake, "prediction_floor").filter(store_id="CA_1", cutoff=HIDDEN)
    items = floor["item_id"].unique().sort().to_list()
    again = seasonal_mean(sales, items, HIDDEN, HORIZON)
    joined = floor.join(again, on=["item_id", "ds"], suffix="_again")
    assert joined.height == floor.height
    assert (joined["mean"] - joined["mean_again"]).abs().max() < 1e-9


def test_every_asset_was_charged_and_the_cuts_sum_to_the_total(finished) -> None:
    ledger = open_ledger(f"sqlite:///{finished[0].root / 'data' / 'dev' / 'ledger.db'}")
    total = ledger.totals()[()]
    assert total > Decimal(0)
    for cut in ("x_pipeline", "x_forecaster", "x_store_id", "x_asset", "x_cost_class"):
        assert sum(ledger.totals([cut]).values()) == total
    charged = set(ledger.charges()["x_asset"].drop_nulls())
    assert {"raw_sales", "cleaned_sales", "feature_sales", "forecasters", "prediction_daily"} <= (
        charged
    )
    assert not ledger.charges().filter(x_pipeline="unattributed").height


def test_running_a_cutoff_again_replaces_it(finished, lake: Lake, tmp_path: Path) -> None:
    copy = finished[0].copied(tmp_path / "copy")  # the month is classified anew, as of that day
    before = _all(lake, "prediction_daily").sort("cutoff", "unique_id", "ds")
    again = copy.forecast("run", "--no-land", "--no-train", "--cutoff", HIDDEN.isoformat())
    assert again.returncode == 0, again.stderr[-3000:]
    made = Lake(copy.root / "data" / "dev" / "demo" / "lake")
    assert _all(made, "prediction_daily").sort("cutoff", "unique_id", "ds").equals(before)


def test_bad_arguments_are_named(empty_installation) -> None:
    done = empty_installation.forecast("run", "--cutoff", "24/04/2016")
    assert done.returncode == 2
    assert "YYYY-MM-DD" in done.stderr
    missing = empty_installation.forecast("m5", "--m5-dir", str(Path("nowhere")))
    assert missing.returncode == 1
    assert "nowhere" in missing.stderr and "Traceback" not in missing.stderr
