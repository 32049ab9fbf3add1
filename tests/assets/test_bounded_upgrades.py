"""A batch with little to spend: everyone has a forecast, and who was not upgraded says why."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

SHIPPED = Path(__file__).resolve().parents[2] / "policies" / "segments.yaml"
FIRST, LAST = "2025-06-29|CA_1", "2025-06-29|TX_1"
EXPECTED = {"statistical": {"gain": 0.12, "cpu_ms": 1}, "gbm": {"gain": 0.13, "cpu_ms": 1e6}}
BOUNDS: dict[str, dict[str, Any]] = {
    "nothing": {"cpu_s": 0, "expected": {}},
    "no_time": {"minutes": 0, "expected": {}},
    "cheap_only": {"cpu_s": 600, "expected": EXPECTED},  # a gbm is taken to need hours
    "enough": {"cpu_s": 100_000, "expected": {}},
}


@pytest.fixture(scope="module")
def nights(
    finished: tuple[Any, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pl.DataFrame]:
    """By bounds: what one cutoff published under them."""
    folder = tmp_path_factory.mktemp("bounded")
    copy = finished[0].copied(folder / "copy")
    paths = []
    for name, bounds in BOUNDS.items():
        content = yaml.safe_load(SHIPPED.read_text())
        content["upgrades"] |= bounds
        paths.append(folder / f"{name}.yaml")
        paths[-1].write_text(yaml.safe_dump(content))
    scenario = str(Path(__file__).with_name("_again_scenario.py"))
    done = copy.program(
        "python", scenario, "prediction_daily", FIRST, LAST, "segment_policy", "1",
        *map(str, paths), OUT=str(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        night["policy"]: pl.read_parquet(night["rows"]).filter(cutoff=pl.date(2025, 6, 29))
        for night in told
    }


def test_everyone_is_served_whatever_may_be_spent(nights: dict[str, pl.DataFrame]) -> None:
    for rows in nights.values():
        assert rows.group_by("item_id", "store_id").len()["len"].unique().to_list() == [28]
        assert rows["item_id", "store_id"].unique().height == 100
        assert rows["mean"].is_finite().all()
        assert rows.filter(rung="floor")["reason"].is_not_null().all()


def test_what_was_not_upgraded_says_why(nights: dict[str, pl.DataFrame]) -> None:
    for name, said in (("nothing", "batch's 0 CPU-s"), ("no_time", "0 minutes for upgrades")):
        rows = nights[name]
        assert set(rows["rung"]) == {"floor"}
        left = rows.filter(pl.col("reason").str.starts_with("not upgraded to gbm"))
        assert left.height and left["reason"].str.contains(said, literal=True).all()


def test_the_cheap_gain_is_taken_where_the_dear_one_does_not_fit(
    nights: dict[str, pl.DataFrame],
) -> None:
    cheap = nights["cheap_only"]
    dear = pl.col("reason").str.starts_with("not upgraded to gbm")
    assert cheap.filter(dear).height and not cheap.filter(rung="gbm").height
    assert not cheap.filter(pl.col("reason").str.contains("not upgraded to statistical")).height


def test_enough_is_as_good_as_no_bound(
    nights: dict[str, pl.DataFrame], finished: tuple[Any, str]
) -> None:
    from resources.lake import Lake

    table = Lake(finished[0].root / "data" / "dev" / "demo" / "lake").table("prediction_daily")
    free = table.read().frame.filter(cutoff=pl.date(2025, 6, 29)).collect()
    key = ["item_id", "store_id", "ds"]
    assert nights["enough"].sort(key).equals(free.sort(key))
