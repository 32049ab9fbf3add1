"""Every page on a finished demo, run by Streamlit's own harness: the smoke without a browser."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

PAGES = ("today", "costs", "forecasts", "accuracy", "incidents", "capacity", "storage")
# What a page cannot show after a demo alone, and the command that it names for it.
LACKS = {
    "accuracy": "forecast backtest",
    "incidents": "forecast levers propose",
    "capacity": "forecast capacity plan",
}


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's harness puts the page in place of `__main__` and leaves it there: a process that
    a later test spawns would run it at its start."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take an installation's settings for this process."""

    def take(environment: dict[str, str]) -> None:
        for name in [n for n in os.environ if n.startswith("FORECAST_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            if name.startswith("FORECAST_"):
                monkeypatch.setenv(name, value)

    return take


def _shown(page: str) -> Any:
    from streamlit.testing.v1 import AppTest

    def draw(name: str) -> None:
        import importlib

        from dashboard.live import opened
        from dashboard.show import section
        from resources import Settings

        with section():
            importlib.import_module(f"dashboard.views.{name}").page(
                opened(Settings.from_environment())
            )

    return AppTest.from_function(draw, default_timeout=120, kwargs={"name": page}).run()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_a_finished_demo(page: str, finished: Any, settings_of: Any) -> None:
    settings_of(finished[0].environment)
    shown = _shown(page)
    assert not shown.exception
    assert [error.value for error in shown.error] == []
    assert shown.metric or page in LACKS or page == "costs"
    if page in LACKS:
        assert any(LACKS[page] in info.value for info in shown.info), page


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_nothing(page: str, tmp_path: Any, settings_of: Any) -> None:
    settings_of({"FORECAST_DATA": str(tmp_path)})
    shown = _shown(page)
    assert not shown.exception
    assert [error.value for error in shown.error] == []
    assert any("forecast" in info.value or "make demo" in info.value for info in shown.info)
    assert list(tmp_path.rglob("*")) == []


def test_the_script_itself_runs(finished: Any, settings_of: Any, project_root: Any) -> None:
    from streamlit.testing.v1 import AppTest

    settings_of(finished[0].environment)
    script = str(project_root / "dashboard" / "app.py")
    shown = AppTest.from_file(script, default_timeout=120).run()
    assert not shown.exception
    assert [title.value for title in shown.title] == ["Today"]
    known = next(m for m in shown.metric if m.label == "Items forecast")
    done, of, whole = known.value.split()
    assert (of, done) == ("of", whole) and int(whole.replace(",", "")) > 0


def test_a_setting_that_is_wrong_is_said(settings_of: Any, project_root: Any) -> None:
    from streamlit.testing.v1 import AppTest

    settings_of({"FORECAST_ENV": "nowhere"})
    shown = AppTest.from_file(str(project_root / "dashboard" / "app.py")).run()
    assert "FORECAST" in shown.error[0].value and not shown.exception
