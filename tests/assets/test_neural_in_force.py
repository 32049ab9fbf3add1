"""The neural rung switched on in the policy: trained, served, paid and backtested by the graph."""

from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from forecast_assets.networks import Networks
from resources.lake import Lake
from resources.ledger import open_ledger

ROOT = Path(__file__).resolve().parents[2]
GROUP = "neural_core"


def _policy(folder: Path) -> Path:
    """The shipped policy with its neural group on, for every class A item that sells."""
    content = yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text())
    group = next(of for of in content["groups"] if of["name"] == GROUP)
    group |= {"enabled": True, "when": {"abc": ["A"], "life_stage": ["active"]}}
    path = folder / "segments.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_a_policy_with_networks_is_carried_out_and_paid_by_them(
    own_installation: Any, tmp_path: Path
) -> None:
    extra = {"FORECAST_SEGMENT_POLICY": str(_policy(tmp_path))}
    for command in ("run", "backtest"):
        done = own_installation.forecast(command, "--cutoff", "2025-06-01", **extra)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    root = own_installation.root / "data" / "dev"
    lake = Lake(root / "demo" / "lake")

    def table(name: str) -> pl.DataFrame:
        return lake.table(name).read().frame.collect()

    segments = table("demand_segments")
    chosen = segments.filter(segment_group=GROUP).select("item_id", "store_id").sort(pl.all())
    daily = table("prediction_daily")
    served = daily.filter(rung="neural").select("item_id", "store_id").unique().sort(pl.all())
    assert chosen.height and served.equals(chosen)
    assert daily["mean"].is_finite().all()

    charges = open_ledger(f"sqlite:///{root / 'ledger.db'}").charges().filter(SkuId="vcpu_s")
    for asset, least in (("forecasters", 2.0), ("prediction_daily", 1.0)):
        mine = charges.filter(x_asset=asset, x_forecaster="neural")["PricingQuantity"]
        assert float(mine.sum()) > least, f"{asset}: the child is another's cost"

    tried = table("eval_backtest").filter(scope="segment", forecaster="neural")
    assert tried.height and tried["name"].str.starts_with("A-").all()
    assert tried["cpu_s"].min() > 0


def test_a_network_that_fails_leaves_its_items_to_the_floor_and_says_so() -> None:
    class _Sales:
        def frame(self, cells: Any, columns: list[str]) -> pl.DataFrame:
            row = {"item_id": "a", "store_id": "S_1", "date": cells.last, "units": 1.0}
            return pl.DataFrame([row])

    told: list[str] = []
    networks = Networks(_Sales(), told.append)  # type: ignore[arg-type]
    everyone = pl.DataFrame({"item_id": ["a", "b"], "store_id": ["S_1", "S_2"]})
    for store in ("S_1", "S_2"):
        found = networks.forecast(b"no weights", everyone, store, date(2025, 6, 1))
        assert found.is_empty()
    assert len(told) == 1  # one child, however many stores
    assert "2 item-stores stay on the floor" in told[0] and "train the forecaster again" in told[0]
