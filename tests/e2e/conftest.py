"""A real browser on a real server: the system's Chromium, driven by Playwright."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "out" / "screenshots"
STARTED_S = 90.0
# Streamlit asks for its health beside a page's own address first when a page is opened directly.
BESIDE = ("/_stcore/health", "/_stcore/host-config")

BUSY = ", ".join(
    f'[data-testid="{name}"]' for name in ("stStatusWidget", "stSkeleton", "stSpinner")
)


def chromium() -> str:
    """The system's Chromium; skips with the remedy where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if found is None:
        pytest.skip("no Chromium: install Debian's package `chromium` to run the browser tests")
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a head."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def answers(url: str) -> bool:
    """Whether the server at `url` answers well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def serving(command: list[str], environment: dict[str, str], health: str | None) -> Iterator[None]:
    """A server for as long as the block runs; its last words when it does not come up."""
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would stop it
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
        )
        try:
            deadline = time.monotonic() + STARTED_S
            while health is not None and not answers(health):
                if server.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise AssertionError(f"{command} did not come up: {said.read()[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


@contextmanager
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    """The dashboard of an installation; its address."""
    port = free_port()
    command = [sys.executable, "-m", "dashboard", "--port", str(port)]
    with serving(command, environment, f"http://127.0.0.1:{port}/_stcore/health"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def serving_of() -> Callable[..., Any]:
    """Any server, for the length of a `with`."""
    return serving


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture(scope="session")
def dashboard_of() -> Callable[[dict[str, str]], Any]:
    """Serves the dashboard of an environment for the length of a `with`."""
    return dashboard


@dataclass
class Reader:
    """One tab, and everything that its console complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go there and wait until the page is drawn."""
        self.page.goto(url)
        self.drawn()

    def drawn(self) -> None:
        """Until nothing is being computed, and every chart has its picture."""
        self.page.wait_for_selector('[data-testid="stMain"] h1', timeout=60_000)
        self.page.wait_for_function(f"() => !document.querySelector('{BUSY}')", timeout=120_000)
        self.page.wait_for_timeout(700)

    def goto(self, title: str) -> None:
        """Choose a page in the sidebar."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        self.page.locator('[data-testid="stMain"] h1', has_text=title).wait_for(timeout=60_000)
        self.drawn()

    def text(self) -> str:
        """All that the page says."""
        return str(self.page.get_by_test_id("stMain").inner_text())

    def picture(self, name: str, height: int = 1000) -> None:
        """Keep a picture of what is on the screen."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.set_viewport_size({"width": 1440, "height": height})
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"))
        self.page.set_viewport_size({"width": 1440, "height": 1000})

    def shot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        height = self.page.evaluate(
            "() => document.querySelector('[data-testid=\"stMain\"]').scrollHeight"
        )
        self.page.set_viewport_size({"width": 1440, "height": min(int(height) + 40, 5000)})
        self.page.wait_for_timeout(600)
        self.page.screenshot(path=str(SHOTS / f"{name}.png"))
        self.page.set_viewport_size({"width": 1440, "height": 1000})


@pytest.fixture
def reader(browser: Any) -> Iterator[Callable[..., Reader]]:
    """Opens tabs, light or dark; each is closed at the end."""
    contexts = []

    def opened(scheme: str = "light") -> Reader:
        context = browser.new_context(
            viewport={"width": 1440, "height": 1000}, color_scheme=scheme, locale="en-GB"
        )
        contexts.append(context)
        tab = Reader(context.new_page())
        tab.page.on("console", lambda m: _heard(tab, m))
        tab.page.on("pageerror", lambda e: tab.complaints.append(f"script: {e}"))
        tab.page.on("requestfailed", lambda r: tab.complaints.append(f"no answer: {r.url}"))
        return tab

    yield opened
    for context in contexts:
        context.close()


def _heard(tab: Reader, message: Any) -> None:
    where = str((message.location or {}).get("url", ""))
    if message.type == "error" and not where.endswith(BESIDE):
        tab.complaints.append(f"{message.text} ({where})")


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, finished: tuple[Any, str]) -> dict[str, str]:
    """The finished demo with a plan, explanations, a backtest, an incident and a held run."""
    installation, _ = finished
    root = tmp_path_factory.mktemp("full")
    environment = copy_of(installation.environment, root)
    for command in (
        ["backtest"],
        ["explain"],
        ["levers", "propose", "--save", "20%"],
        ["capacity", "plan", "--draws", "2", "--days", "40", "--workers", "1"],
        ["capacity", "stress", "--seeds", "1"],
    ):
        done = subprocess.run(
            [str(Path(sys.executable).with_name("forecast")), *command],
            capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1800,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-3000:]}"
    happened = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("_happened.py"))],
        capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert happened.returncode == 0, happened.stderr[-3000:]
    return environment


def copy_of(environment: dict[str, str], root: Path) -> dict[str, str]:
    """The same installation under another root; what happens there stays there."""
    data = root / "data"
    shutil.copytree(environment["FORECAST_DATA"], data, dirs_exist_ok=True)
    home = root / "dagster"
    shutil.copytree(environment["DAGSTER_HOME"], home, dirs_exist_ok=True)
    return {**environment, "FORECAST_DATA": str(data), "DAGSTER_HOME": str(home)}


@pytest.fixture
def own_copy(tmp_path: Path, finished: tuple[Any, str]) -> dict[str, str]:
    """A copy of the finished demo for one test alone."""
    return copy_of(finished[0].environment, tmp_path)


@pytest.fixture(scope="session")
def axe() -> Callable[[Reader], list[str]]:
    """The serious faults that axe-core finds in a page, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    checker = Axe()

    def faults(tab: Reader) -> list[str]:
        found = checker.run(tab.page).response["violations"]
        return [
            f"{fault['id']} ({fault['impact']}): {json.dumps(node['target'])} {node['html'][:160]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    return faults


os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
