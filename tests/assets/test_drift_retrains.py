"""On a real instance: demand shifts in one department, and that segment alone retrains, once."""

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LAST_DAY = (
    "from resources import Settings; from resources.wiring import data_span;"
    "print(data_span(Settings.from_environment()).last)"
)
DEPARTMENT, GROUP = "FOODS_3", "dept_shifted"


def policy(folder: Path) -> Path:
    """The shipped policy with a segment of its own for one department."""
    content = yaml.safe_load((ROOT / "policies" / "segments.yaml").read_text())
    cheap = {"rung": "statistical", "features": "minimal"}
    content["groups"] = [
        {"name": GROUP, **cheap, "when": {"dept_id": [DEPARTMENT]}},
        {"name": "others", **cheap, "when": {"cat_id": ["FOODS"]}},
        {"name": "rest", **cheap},
    ]
    path = folder / "segments.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_only_the_segment_that_shifted_retrains_and_only_once(
    own_installation: Any, tmp_path: Path
) -> None:
    extra = {"FORECAST_SEGMENT_POLICY": str(policy(tmp_path))}
    asked = own_installation.program("python", "-c", LAST_DAY)
    last = date.fromisoformat(asked.stdout.strip().splitlines()[-1])
    trained_to = last - timedelta(days=28)
    trained = own_installation.forecast("run", "--cutoff", str(trained_to), **extra)
    assert trained.returncode == 0, trained.stdout[-2000:] + trained.stderr[-3000:]
    scenario = str(Path(__file__).with_name("_drift_scenario.py"))
    done = own_installation.program("python", scenario, DEPARTMENT, **extra, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-5000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    first, second = told["ticks"]
    assert [run["group"] for run in first["runs"]] == [GROUP]
    assert "units" in first["runs"][0]["tags"]["forecast/why"]
    assert second["runs"] == [] and f"{GROUP}: no drift" in second["why"]
    assert all(f"{name}: no drift" in second["why"] for name in ("others", "rest"))
    moved = {name for name, day in told["after"].items() if day != told["before"][name]}
    assert moved == {GROUP} and told["after"][GROUP] == str(last)
    assert told["reports"] == [f"{last}/{GROUP}.html"]
