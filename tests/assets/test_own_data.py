"""Anyone's data from files to a priced forecast: each shape proposed, checked, loaded, forecast."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "promo_panel": ("8", 8, "60"),
    "store_revenue": ("28", 28, "60"),
    "wide_items": ("28", 28, "60"),
}
SERIES = ["item_id", "store_id"]
HIERARCHIES: dict[str, Any] = {
    "promo_panel": {
        "levels": [[], ["kitchen"], ["region"], ["kitchen", "region"]],
        "attributes": [
            {"files": "meals.csv", "on": {"item_id": "meal_id"}, "columns": {"kitchen": "cuisine"}},
            {"files": "centers.csv", "on": {"store_id": "center_id"},
             "columns": {"region": "region_code"}},
        ],
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_from_files_to_a_forecast_better_than_naive(
    shape: str, tmp_path: Path, own_installation
) -> None:
    horizon, periods, series = SHAPES[shape]
    installation = own_installation
    folder = tmp_path / shape
    sized = ("--series", series, "--stores", "2", "--days", "730")
    mapping = str(folder / "mapping.yaml")
    for arguments in (
        ("source", "example", shape, str(folder), *sized),
        ("source", "init", *map(str, _files(shape, folder)), "--out", mapping),
        ("source", "check", mapping),
        ("source", "load", mapping),
    ):
        done = installation.forecast(*arguments)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        if arguments[1] == "init":
            _declare(HIERARCHIES.get(shape), Path(mapping))
    cutoff = _cutoff(folder, shape, periods)
    out = tmp_path / "forecast.parquet"
    own = {}
    if shape in HIERARCHIES:  # weekly, and the declared levels forecast themselves too
        policy = yaml.safe_load((ROOT / "policies" / "reconciliation.yaml").read_text())
        own["FORECAST_RECONCILIATION_POLICY"] = str(folder / "reconciliation.yaml")
        (folder / "reconciliation.yaml").write_text(yaml.safe_dump(policy | {"method": "wls_var"}))
    done = installation.forecast(
        "run", "--no-land", "--source", mapping, "--cutoff", cutoff, "--horizon", horizon,
        "--out", str(out), **own,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    rows = pl.read_parquet(out)
    assert {"unique_id", "ds", "mean", "q50"} <= set(rows.columns)
    assert rows.group_by("unique_id").len()["len"].unique().to_list() == [periods]
    assert "Cost of this command" in done.stdout
    if shape in HIERARCHIES:
        _adds_up(installation.root, folder.name, HIERARCHIES[shape]["levels"])
    scored = _scores(installation.root, folder.name)
    assert scored["governed"] < scored["seasonal_naive"]
    assert scored["governed"] < scored["floor"]
    _earned(installation.root, folder.name, rows)


def _earned(root: Path, dataset: str, forecast: pl.DataFrame) -> None:
    """Whoever is served more than the floor had beaten it on weeks before the cutoff; each
    forecast says what of it is its rung's alone, or why it is not."""
    from forecast_core.calibration import Spreads
    from resources.lake import Lake

    lake = Lake(root / "data" / "dev" / dataset / "lake")
    fitted = lake.table("forecasters").read().frame.filter(rung="spread").collect()
    weights = Spreads.from_bytes(fitted["artefact"][0]).weights
    segments = lake.table("demand_segments").read().frame.collect()
    labels = segments.select("item_id", "store_id", "segment_group")
    said = forecast.join(labels, on=["item_id", "store_id"])
    assert said.height == forecast.height
    for (group, rung), rows in said.filter(pl.col("rung") != "floor").group_by(
        "segment_group", "rung"
    ):
        one = weights.of(str(group), str(rung))
        assert one.windows == 3 and one.weight > 0 and one.served < 1
        assert set(rows["reason"]) == {one.said(str(rung))}


def _declare(hierarchy: dict[str, Any] | None, mapping: Path) -> None:
    if hierarchy is not None:
        content = yaml.safe_load(mapping.read_text())
        mapping.write_text(yaml.safe_dump({**content, "hierarchy": hierarchy}))


def _adds_up(root: Path, dataset: str, levels: list[list[str]]) -> None:
    """Every declared level was published, and sums to what the item-stores sum to."""
    from resources.lake import Lake

    table = Lake(root / "data" / "dev" / dataset / "lake").table("prediction_reconciled")
    sums = table.read().frame.group_by("level").agg(pl.col("mean").sum()).collect()
    assert set(sums["level"]) == {"/".join(of) or "Total" for of in [*levels, SERIES]}
    assert sums["mean"].max() - sums["mean"].min() < 1e-6 * sums["mean"].max()


def _files(shape: str, folder: Path) -> list[Path]:
    names = {
        "promo_panel": ("weekly.csv", "centers.csv", "meals.csv"),
        "store_revenue": ("train.csv", "store.csv"),
        "wide_items": ("sales.csv",),
    }
    return [folder / name for name in names[shape]]


def _cutoff(folder: Path, shape: str, periods: int) -> str:
    """The day that leaves the last horizon to score."""
    from resources.mapped_source import MappedSource

    source = MappedSource(folder / "mapping.yaml", folder / "staged")
    return source.frequency.after(source.span()[1], -periods).isoformat()


def _scores(root: Path, dataset: str) -> dict[str, float]:
    from resources.lake import Lake

    table = Lake(root / "data" / "dev" / dataset / "lake").table("eval_accuracy")
    average = table.read().frame.filter(pl.col("level") == "Average").collect()
    return dict(average.select("forecaster", "wrmsse").iter_rows())
