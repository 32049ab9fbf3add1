"""The guide to one's own data: its mapping is one, and what it shows runs."""

import re
from datetime import date, timedelta
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest
import yaml
from documents import ROOT, blocks, commands
from typer.testing import CliRunner

from forecast_assets.cli import app
from forecast_core.source.mapping import SourceMapping, json_schema

GUIDE = ROOT / "docs" / "own_data.md"
COMMANDS = commands(GUIDE, inline=True)


def test_the_mapping_it_shows_is_one() -> None:
    (shown,) = blocks(GUIDE, "yaml")
    mapping = SourceMapping.parse(yaml.safe_load(shown.text))
    assert mapping.how_often.weekly and mapping.covariates == ("x_display", "x_promo")


class EditorLoader(yaml.SafeLoader):
    """YAML as editors read it: dates are text, `on` is a word, `true` a flag."""

    yaml_implicit_resolvers: ClassVar = {
        letter: [
            (tag, pattern) for tag, pattern in found if not tag.endswith(("timestamp", "bool"))
        ]
        for letter, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


EditorLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf")
)


def test_an_editor_finds_no_fault_in_it_and_finds_those_there_are() -> None:
    (shown,) = blocks(GUIDE, "yaml")
    read = yaml.load(shown.text, EditorLoader)
    editor = jsonschema.Draft202012Validator(json_schema())
    assert [fault.message for fault in editor.iter_errors(read)] == []
    wrong = {**read, "sales": {**read["sales"], "unitz": "qty"}, "unit": "pieces"}
    assert len(list(editor.iter_errors(wrong))) == 2


def test_its_first_steps_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    days = [date(2024, 1, 1) + timedelta(day) for day in range(70)]
    rows = [
        f"{day},{shop},{item},{day.day % 5 + 1}" for shop in "ab" for item in "xy" for day in days
    ]
    (tmp_path / "sales.csv").write_text("\n".join(["day,shop,sku,qty", *rows]) + "\n")
    (tmp_path / "stores.csv").write_text("shop,region\na,north\nb,south\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORECAST_DATA", str(tmp_path / "data"))
    first = [
        command
        for command in COMMANDS
        if command.text.startswith(("forecast source init", "forecast source check"))
    ]
    assert len(first) == 2
    for command in first:
        done = CliRunner().invoke(app, command.words[1:])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "shop.yaml").is_file()
    assert (tmp_path / "source_mapping.schema.json").is_file()
    assert "280" in done.output


def test_its_examples_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (command,) = [c for c in COMMANDS if c.text.startswith("forecast source example")]
    small = ["--series", "6", "--stores", "1", "--days", "80"]
    done = CliRunner().invoke(app, [*command.words[1:], *small])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "centers.csv",
        "meals.csv",
        "weekly.csv",
    ]
