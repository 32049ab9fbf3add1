"""The Dagster UI as an operator uses it: the graph, a partitioned backfill, and what it cost."""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.browser
BIN = Path(sys.executable).parent
MODULE = ("-m", "forecast_assets.definitions")
ASSET, PARTITIONS = "demand_segments", ("2025-03-01", "2025-04-01")
GROUPS = ("ingest", "features", "forecasters", "predictions", "evaluation", "cost", "storage")
ENDED_S = 420


@pytest.fixture
def ui(own_copy: dict[str, str], serving_of: Callable[..., Any], port: int) -> Iterator[str]:
    """A webserver on loopback, and the daemon that launches what it asks for."""
    url = f"http://127.0.0.1:{port}"
    webserver = [str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), *MODULE]
    daemon = [str(BIN / "dagster-daemon"), "run", *MODULE]
    environment = {**own_copy, "PATH": f"{BIN}{os.pathsep}{own_copy.get('PATH', '')}"}
    with (
        serving_of(webserver, environment, f"{url}/server_info"),
        serving_of(daemon, environment, None),
    ):
        yield url


def test_a_backfill_is_launched_from_the_graph_and_shows_its_cost(
    ui: str, reader: Callable[..., Any]
) -> None:
    tab = reader()
    page = tab.page
    page.set_default_timeout(90_000)

    page.goto(f"{ui}/asset-groups")
    page.get_by_role("button", name="Skip").click()  # the webserver's own greeting
    for group in GROUPS:
        page.get_by_text(group, exact=True).first.wait_for()
    tab.picture("dagster asset graph")

    page.goto(f"{ui}/assets/{ASSET}?view=overview")
    page.get_by_text("Owners").wait_for()
    page.get_by_text("Freshness policy").first.wait_for()
    overview = page.inner_text("body")
    for said in ("ABC x demand class", "forecasting", "Delta Lake", "Polars", "cleaned_sales"):
        assert said in overview, said

    page.get_by_role("button", name="Materialize").first.click()
    box = page.get_by_placeholder("ex: ")
    box.fill(f"[{PARTITIONS[0]}...{PARTITIONS[1]}]")
    box.press("Enter")
    page.get_by_text("2 partitions").first.wait_for()
    tab.picture("dagster backfill dialog")
    page.get_by_role("button", name="Launch backfill").click()
    _until_it_has_ended(page, ui)
    tab.picture("dagster backfill done")

    for partition in PARTITIONS:
        page.goto(f"{ui}/assets/{ASSET}?view=partitions&partition={partition}")
        page.get_by_text("cost/money").first.wait_for()
        money = re.search(r"cost/money\s+([\d.]+)", page.inner_text("body"))
        assert money is not None and float(money[1]) > 0, partition
    tab.picture("dagster partition cost", height=2400)

    page.goto(f"{ui}/assets/{ASSET}?view=overview")
    page.get_by_role("button", name="Plots").click()
    page.get_by_text("cost/money").first.wait_for()
    assert page.locator("canvas").count() > 0
    tab.picture("dagster cost plot", height=2400)


def _until_it_has_ended(page: Any, ui: str) -> None:
    """Look at the newest backfill until it ended well."""
    deadline, status = time.monotonic() + ENDED_S, ""
    while time.monotonic() < deadline:
        page.goto(f"{ui}/runs?view=backfills")
        page.get_by_text("Manually launched").first.wait_for()
        newest = re.search(rf"{ASSET}\s+Manually launched\s+(\w+)", page.inner_text("body"))
        status = newest[1] if newest else ""
        if status in ("Completed", "Success"):
            return
        assert status not in ("Failed", "Failure", "Canceled"), page.inner_text("body")[-2000:]
        page.wait_for_timeout(5000)
    raise AssertionError(f"the backfill is {status!r} after {ENDED_S} s")
