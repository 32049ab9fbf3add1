"""Every command of the monitoring guide runs as it is written there."""

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from documents import ROOT, commands
from typer.testing import CliRunner

from forecast_assets.cli import app
from forecast_core.incidents.regressions import detect
from resources import Settings
from resources.incident_store import IncidentStore

GUIDE = ROOT / "docs" / "monitoring.md"
RUN = CliRunner()


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FORECAST_LEDGER_URL", raising=False)
    named: dict[str, str] = {}
    ran = commands(GUIDE)
    assert len(ran) == 13
    for line in (command.text for command in ran):
        for name, value in named.items():
            line = line.replace(f"${name}", value)
        program, *arguments = shlex.split(line)
        assert program == "forecast" and "$" not in line
        done = RUN.invoke(app, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        if "detect" in arguments:
            named["INCIDENT"] = _opened(tmp_path)
        if "propose" in arguments:
            named["DECISION"] = re.search(r"([0-9a-f]{12}) is proposed", done.output)[1]  # type: ignore[index]
    assert (tmp_path / "example" / "dismissed.parquet").is_file()


def _opened(folder: Path) -> str:
    """What `cost_incidents` and `forecast backtest` leave: an incident and measured levers."""
    found = pl.read_parquet(folder / "example" / "found.parquet")
    planted = pl.read_parquet(folder / "example" / "truth.parquet")
    assert set(found["series"]) & set(planted["series"])
    assert found.equals(
        detect(
            pl.read_parquet(folder / "example" / "ledger.parquet"),
            pl.read_parquet(folder / "example" / "accuracy.parquet"),
            pl.read_csv(folder / "example" / "events.csv"),
        ).incidents
    )
    settings = Settings.from_environment()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    rows = [
        {"group": g, "lever": "fewer_features", "level": level, "fold": fold,
         "cost": 10.0 - 4.0 * level, "error": 0.5 + 0.01 * level + 0.001 * fold, "value": 100.0}
        for g in ("a", "b") for level in (0, 1) for fold in range(3)
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(settings.state_dir / "lever_backtests.parquet")
    now = datetime.now(UTC)
    opened = IncidentStore(settings.ledger).record(found, {}, now, now.date().replace(year=2000))
    return opened[0].incident_id
