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
def test_a_lever_changes_the_next_run_and_its_revert_restores_it(house: Any) -> None:
    cutoff = "2025-06-01"
    before = run(house, cutoff)
    assert before["gbm"] > 0
    key = levers(house, "propose", "--save=80%", "--json").split('"decision": "')[1][:12]
    levers(house, "approve", key, "--by=owner")
    assert "policy version 1+" in levers(house, "apply", key, "--by=owner")
    under = run(house, cutoff)
    assert under.get("gbm", 0) == 0 and sum(under.values()) == sum(before.values())
    _says_whose_weight_it_goes_by(pl.read_parquet(house.root / "forecast.parquet"))
    said = levers(house, "revert", key, "--by=owner", "--reason=stock-outs")
    assert said.strip().endswith("policy version 1")
    assert run(house, cutoff) == before


def _says_whose_weight_it_goes_by(rows: pl.DataFrame) -> None:
    """The rung that serves now was held back in other groups, if at all: never the gbm's weight."""
    simpler = rows.filter(rung="statistical")["reason"].drop_nulls()
    assert not simpler.str.contains("gbm").any()
    lent = simpler.str.contains("of the groups it served then, rung statistical").any()
    alone = simpler.str.contains("rung statistical alone").any()
    left = rows.filter(rung="floor")["reason"].str.contains("rung statistical had|no held-back")
    assert lent or alone or left.any()
