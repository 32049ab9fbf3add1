"""The dashboard: how soon a page is painted, and how it bears twenty readers beside a backfill.

First paint is a real Chromium's: from asking for the address to the headline figures, by the first
reader of a fresh server, on a demo and on tables, ledger and marts of M5's size. The twenty readers
speak the server's protocol (`_dashboard_readers`), while a partitioned backfill runs on the same
cores, ledger and lake, and the marts are rebuilt. `failed_steps`, `locked` and `faults` must be 0.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import _dashboard_data as data
from benchmarks._dashboard_readers import read_for
from benchmarks.m5_cycle import installation
from resources import Settings

ROOT = Path(__file__).resolve().parent.parent
READERS, VISITS = 20, 5
FULL_ITEMS, QUICK_ITEMS = 3049, 300


def run(quick: bool) -> dict[str, float | int | str]:
    """Seconds to first paint, the 95th percentile of page times, and what failed."""
    with tempfile.TemporaryDirectory() as scratch:
        demo = Path(scratch) / "demo"
        small = {"FORECAST_DEMO_SERIES": "100", "FORECAST_DEMO_STORES": "2",
                 "FORECAST_DEMO_DAYS": "420"}  # fmt: skip
        environment = {**installation(demo), **(small if quick else {})}
        _forecast(["demo"], environment)
        settings = Settings.from_environment(environment)
        large = {**installation(Path(scratch) / "large"), "FORECAST_SOURCE": "m5"}
        of_m5 = Settings.from_environment(large)
        data.write(of_m5, settings, QUICK_ITEMS if quick else FULL_ITEMS, 30 if quick else 180)
        on_demo, on_m5 = _painted(environment), _painted(large)
        return {
            "first_paint_s": max(on_demo[0], on_m5[0]),
            "first_paint_demo_s": on_demo[0],
            "first_paint_m5_s": on_m5[0],
            "next_paint_demo_s": on_demo[1],
            "next_paint_m5_s": on_m5[1],
            "m5_item_stores": 10 * (QUICK_ITEMS if quick else FULL_ITEMS),
            **_under_load(environment, settings, 20.0 if quick else 60.0),
        }


def _painted(environment: dict[str, str]) -> tuple[float, float]:
    """Seconds to the headline figures: of a fresh server's first reader, the median of the next."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise RuntimeError("no Chromium: install Debian's package `chromium`")
    seconds = []
    with _served(environment) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        browser.new_page().goto("about:blank")  # the browser itself is up before the clock starts
        for _ in range(1 + VISITS):
            context = browser.new_context(viewport={"width": 1440, "height": 1000})
            page = context.new_page()
            began = time.monotonic()
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            page.wait_for_selector('[data-testid="stMetricValue"]', timeout=60_000)
            seconds.append(time.monotonic() - began)
            context.close()
        browser.close()
    return seconds[0], statistics.median(seconds[1:])


def _under_load(
    environment: dict[str, str], settings: Settings, seconds: float
) -> dict[str, float | int | str]:
    """Twenty readers beside a backfill that starts again until they are done."""
    from resources.ledger import Ledger

    ledger = Ledger(settings.ledger)
    before, ended = _steps(ledger), threading.Event()
    codes: list[int] = []

    def backfill() -> None:
        while not ended.is_set() or not codes:
            codes.append(_backfill(environment, settings))

    with _served(environment) as port:
        read_for(port, 1, 1.0, ("",))  # the server has drawn a page
        worker = threading.Thread(target=backfill)
        worker.start()
        seen = read_for(port, READERS, seconds)
        ended.set()
        worker.join()
    good, bad = _steps(ledger)
    times = sorted(seen.seconds)
    return {
        "readers": READERS,
        "pages": len(times),
        "p50_s_20_readers": statistics.median(times),
        "p95_s_20_readers": statistics.quantiles(times, n=20)[-1],
        "slowest_s": times[-1],
        "faults": len(seen.faults),
        "locked": sum("lock" in fault for fault in seen.faults),
        "first_fault": seen.faults[0][:200] if seen.faults else "",
        "backfills": len(codes),
        "backfills_failed": sum(map(bool, codes)),
        "steps": good - before[0],
        "failed_steps": bad - before[1],
        "load_1m": os.getloadavg()[0],
    }


def _steps(ledger: object) -> tuple[int, int]:
    """Attempts that the ledger knows: those that succeeded, and those that did not."""
    found = ledger.settlements().drop_nulls("x_step_key")  # type: ignore[attr-defined]
    bad = found.filter(found["x_status"] != "success").height
    return found.height - bad, bad


def _backfill(environment: dict[str, str], settings: Settings) -> int:
    """Three months of features in every store, then the marts; 0 when both went well."""
    from resources.wiring import data_span, source_of

    stores = sorted(source_of(settings).stores())
    last = data_span(settings).as_of.replace(day=1)
    first = last.replace(year=last.year - (last.month <= 2), month=(last.month - 3) % 12 + 1)
    partitions = f"{first}|{stores[0]}...{last}|{stores[-1]}"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), "asset", "materialize",
         "-m", "forecast_assets.definitions", "--select", "feature_sales",
         "--partition-range", partitions],
        env=environment, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return done.returncode
    data.build_marts(settings)
    return 0


@contextmanager
def _served(environment: dict[str, str]) -> Iterator[int]:
    """A fresh dashboard; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-m", "dashboard", "--port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def _forecast(arguments: list[str], environment: dict[str, str]) -> None:
    program = str(Path(sys.executable).with_name("forecast"))
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"forecast {' '.join(arguments)} failed: {done.stderr[-3000:]}")
