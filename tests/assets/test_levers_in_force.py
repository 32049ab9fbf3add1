"""A lever that is applied changes what the next run does; taken back, the run is as before."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

GROUP = "gbm_core"


@pytest.fixture
def house(finished: tuple[Any, str], tmp_path: Path) -> Any:
    """A copy of the finished installation, with measured levers for the gbm's group."""
    copy = finished[0].copied(tmp_path / "copy")
    measured = [
        {"group": GROUP, "lever": "simpler_forecaster", "level": level, "fold": fold,
         "cost": 10.0 - 4.0 * level, "error": 0.5 + 0.01 * level + 0.001 * fold, "value": 100.0}
        for level in (0, 1, 2) for fold in range(3)
    ]  # fmt: skip
    pl.DataFrame(measured).write_parquet(copy.root / "data" / "dev" / "lever_backtests.parquet")
    return copy


def run(house: Any, cutoff: str) -> dict[str, int]:
    """Forecast again with the last forecasters: rung -> rows."""
    out = house.root / "forecast.parquet"
    done = house.forecast("run", "--no-land", "--no-train", "--cutoff", cutoff, "--out", str(out))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return dict(pl.read_parquet(out).group_by("rung").len().iter_rows())


def levers(house: Any, *arguments: str) -> str:
    done = house.forecast("levers", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("save", "rung"), [("40%", "statistical"), ("80%", "floor")])
def test_a_lever_changes_the_next_run_and_its_revert_restores_it(
    house: Any, save: str, rung: str
) -> None:
    cutoff = "2025-06-01"
    before = run(house, cutoff)
    assert before["gbm"] > 0
    key = levers(house, "propose", f"--save={save}", "--json").split('"decision": "')[1][:12]
    levers(house, "approve", key, "--by=owner")
    assert "policy version 1+" in levers(house, "apply", key, "--by=owner")
    under = run(house, cutoff)
    assert under.get("gbm", 0) == 0 and sum(under.values()) == sum(before.values())
    _goes_by_its_own_weight(pl.read_parquet(house.root / "forecast.parquet"), rung)
    said = levers(house, "revert", key, "--by=owner", "--reason=stock-outs")
    assert said.strip().endswith("policy version 1")
    assert run(house, cutoff) == before


def _goes_by_its_own_weight(rows: pl.DataFrame, rung: str) -> None:
    """What serves now was held back in other groups or in none, and each forecast says which."""
    assert not rows["reason"].str.contains("rung gbm").any()
    lent = pl.col("reason").str.contains("of the groups it served then|has no held-back weeks yet")
    served = "segment group gbm_core is served by the floor"
    told = lent if rung == "statistical" else pl.col("reason") == served
    assert rows.filter(told).height > 0.5 * rows.height
