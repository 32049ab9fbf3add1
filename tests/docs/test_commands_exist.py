"""Every command that a page names exists: its program, its sub-command, its options and values."""

import importlib.metadata
import inspect
import re
from collections.abc import Callable

import pytest
import typer.main
from documents import PAGES, ROOT, Shown, commands

from benchmarks.__main__ import names
from forecast_assets.cli import app

NAMED = [command for page in PAGES for command in commands(page, inline=True)]
WHOLE = {command for page in PAGES for command in commands(page)}  # the rest are parts of sentences
MAKEFILE = (ROOT / "Makefile").read_text()


def _accepts(command: object, words: list[str], partly: bool) -> None:
    """The click command at the end of `words` takes all of its options and arguments."""
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest and partly:  # a sentence may name a whole family: `forecast lake`
            return
        assert rest and rest[0] in command.commands, f"no sub-command {rest[:1]}"
        command = command.commands[rest.pop(0)]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts)}  # type: ignore[attr-defined]
    given, positional = set(), 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            positional += 1
            continue
        name, _, value = word.partition("=")
        assert name in options, f"no option {name}"
        given.add(options[name].name)
        if not getattr(options[name], "is_flag", False) and not value:
            if rest:
                rest.pop(0)
            else:
                assert partly, f"{name} has no value"
    arguments = [p for p in command.params if p.param_type_name == "argument"]  # type: ignore[attr-defined]
    many = any(p.nargs == -1 for p in arguments)
    assert many or positional <= len(arguments), f"{positional} arguments, {len(arguments)} taken"
    if not partly:
        assert positional >= sum(p.required for p in arguments), "an argument is missing"
        wanted = {p.name for p in command.params if p.required and p not in arguments}  # type: ignore[attr-defined]
        assert wanted <= given, f"missing {wanted - given}"


def _forecast(words: list[str], partly: bool) -> None:
    _accepts(typer.main.get_command(app), words, partly)


def _dagster(words: list[str], partly: bool) -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="dagster")
    module = inspect.getmodule(script.load())
    _accepts(module.cli, words, partly or "job" in words or "asset" in words)  # type: ignore[union-attr]


def _make(words: list[str], partly: bool) -> None:
    for word in words:
        name, given, _ = word.partition("=")
        pattern = rf"^{name} \?=" if given else rf"^{name}:"
        assert re.search(pattern, MAKEFILE, re.M), f"no {word} in the Makefile"


def _python(words: list[str], partly: bool) -> None:
    assert words[0] == "-m"
    if words[1] == "benchmarks":
        wanted = [word for word in words[2:3] if not word.startswith("-")]
        assert {name for word in wanted for name in word.split("|")} <= {*names(), "all"}
        flags = {word for word in words[2:] if word.startswith("--")}
        assert flags <= {"--quick", "--json", "--seed", "--seeds"}
    else:
        assert words[1] == "dashboard" and set(words[2::2]) <= {"--port", "--address"}


def _pytest(words: list[str], partly: bool) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert words[0] == "-m" and f'"{words[1]}: ' in text, "no such marker"


def _shell(words: list[str], partly: bool) -> None:
    """Copying a file, setting a variable: nothing of ours."""


CHECKS: dict[str, Callable[[list[str], bool], None]] = {
    "forecast": _forecast, "dagster": _dagster, "make": _make, "python": _python,
    "pytest": _pytest, "cp": _shell, "export": _shell,
}  # fmt: skip


@pytest.mark.parametrize("command", NAMED, ids=str)
def test_it_exists(command: Shown) -> None:
    program, *words = [word for word in command.words if word != "..."]
    CHECKS[program](words, command not in WHOLE)


def test_the_pages_name_most_of_the_program() -> None:
    assert len(NAMED) > 60 and len(PAGES) >= 6
    with pytest.raises(AssertionError, match="no sub-command"):
        _forecast(["lake", "dig"], False)
    with pytest.raises(AssertionError, match="no option --aply"):
        _forecast(["lake", "plan", "--aply"], False)
    with pytest.raises(AssertionError, match="no demmo"):
        _make(["demmo"], False)
