"""The commands of the pages, in order on a finished demo; the long ones in tests of their own."""

import os
import shutil
from pathlib import Path

import pytest
from documents import ROOT, Shown, commands
from typer.testing import CliRunner

from forecast_assets.cli import app
from resources.ledger import open_ledger

RUN_HERE = ("README", "admission", "commands", "costs", "operating", "policies", "storage")
# What needs files of its own, a server or minutes -> where it runs.
ELSEWHERE = {
    "forecast run --source": "tests/docs/test_own_data_guide.py",
    "forecast run": "tests/assets/test_main_job.py",
    "forecast capacity": "tests/assets/test_capacity_commands.py",
    "forecast source": "tests/docs/test_own_data_guide.py",
    "forecast levers propose": "tests/docs/test_monitoring_guide.py",
    "dagster": ".ci/dagster_cli",
    "make": "tests/docs/test_commands_exist.py",
}
MINUTES = ("backtest", "explain", "tune", "backfill")  # below, marked slow


def _elsewhere(command: Shown) -> str | None:
    return next((words for words in ELSEWHERE if command.text.startswith(words)), None)


def _page(name: str) -> Path:
    return ROOT / "README.md" if name == "README" else ROOT / "docs" / f"{name}.md"


@pytest.fixture(scope="module")
def demo(finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A copy of the finished demo in the folders that the pages speak of, and its settings."""
    root = tmp_path_factory.mktemp("guide")
    installation, _ = finished
    shutil.copytree(installation.environment["FORECAST_DATA"], root / ".forecast")
    shutil.copytree(installation.environment["DAGSTER_HOME"], root / ".dagster_home")
    shutil.copytree(ROOT / "policies", root / "policies")
    own = {"FORECAST_DATA": str(root / ".forecast"), "DAGSTER_HOME": str(root / ".dagster_home")}
    return {**installation.environment, **own, "ROOT": str(root)}


@pytest.fixture
def root(demo: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copy, as the installation of this process."""
    for name, value in demo.items():
        if name.startswith(("FORECAST_", "DAGSTER_")):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(demo["ROOT"])
    return Path(demo["ROOT"])


def _a_run(root: Path) -> str:
    ledger = open_ledger(f"sqlite:///{root / '.forecast' / 'dev' / 'ledger.db'}")
    return str(ledger.charges()["x_run_id"].drop_nulls()[0])


def _copied(words: list[str], root: Path) -> None:
    assert words[:2] == ["cp", "-a"]
    shutil.copytree(root / words[2], root / words[3], dirs_exist_ok=True)


@pytest.mark.parametrize("name", RUN_HERE)
def test_the_page_runs_from_top_to_bottom(name: str, root: Path) -> None:
    ran = 0
    for command in commands(_page(name)):
        if _elsewhere(command) or command.words[0] == "export" or command.words[1] in MINUTES:
            continue
        if command.words[0] == "cp":
            _copied(command.words, root)
            continue
        words = [_a_run(root) if word == "$RUN" else word for word in command.words]
        assert words[0] == "forecast", command
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{command}\n{done.output[-2000:]}{done.exception}"
        ran += 1
    assert ran >= 3


def test_a_damaged_file_is_named_and_comes_back_from_a_backup(root: Path) -> None:
    scrub = CliRunner().invoke(app, ["lake", "scrub", "cleaned_sales"])
    assert scrub.exit_code == 0, scrub.output
    table = root / ".forecast" / "dev" / "demo" / "lake" / "cleaned_sales"
    whole = max(table.rglob("*.parquet"), key=os.path.getsize)
    kept = whole.read_bytes()
    whole.write_bytes(kept[:100] + bytes([kept[100] ^ 1]) + kept[101:])
    found = CliRunner().invoke(app, ["lake", "scrub", "cleaned_sales"])
    assert found.exit_code == 1 and whole.name in found.output, found.output
    assert "forecast lake" in found.output or "backup" in found.output
    whole.write_bytes(kept)
    assert CliRunner().invoke(app, ["lake", "scrub", "cleaned_sales"]).exit_code == 0


LONG = {
    command.text: command
    for name in RUN_HERE
    for command in commands(_page(name))
    if command.words[1] in MINUTES
}


@pytest.mark.slow
@pytest.mark.parametrize("command", LONG.values(), ids=str)
def test_what_takes_minutes_runs_too(command: Shown, demo: dict[str, str], finished) -> None:
    extra = {name: value for name, value in demo.items() if name != "ROOT"}
    done = finished[0].forecast(*command.words[1:], **extra)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_each_of_them_is_a_command_of_a_page() -> None:
    assert {command.words[1] for command in LONG.values()} == set(MINUTES)
    assert all((ROOT / where).is_file() for where in ELSEWHERE.values())
