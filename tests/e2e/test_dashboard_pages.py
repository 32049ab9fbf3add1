"""Every page in a real browser: drawn whole, without a complaint, readable by everyone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.browser

PAGES = {
    "Today": ("Every item has a forecast", "a-run-that-waits"),
    "Cost explorer": ("Unit costs", "Download this cut"),
    "Forecast viewer": ("On hand", "Most likely to run out"),
    "Accuracy and cost": ("The frontier", "WRMSSE, governed"),
    "Incidents and decisions": ("0123456789ab", "a join was evaluated for every store"),
    "Capacity": ("Money by month", "Assumptions"),
    "Storage tiers": ("What is stored", "Planned moves"),
}


@pytest.fixture(scope="module")
def served(full: dict[str, str], dashboard_of: Callable[..., Any]) -> Iterator[str]:
    with dashboard_of(full) as url:
        yield url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_without_a_complaint(
    served: str,
    reader: Callable[..., Any],
    axe: Callable[[Any], list[str]],
    scheme: str,
) -> None:
    tab = reader(scheme)
    tab.open(served)
    told: dict[str, Any] = {}
    for title, expected in PAGES.items():
        tab.goto(title)
        tab.shot(f"dashboard {title.lower()} {scheme}")
        said = tab.text() + tab.page.content()
        assert [words for words in expected if words not in said] == [], title
        assert tab.page.get_by_test_id("stException").count() == 0, title
        assert "cannot be shown" not in said, title
        told[title] = axe(tab)
    assert tab.complaints == []
    assert {title: faults for title, faults in told.items() if faults} == {}


def test_a_cut_is_chosen_and_adds_up(served: str, reader: Callable[..., Any]) -> None:
    tab = reader()
    tab.open(served)
    tab.goto("Cost explorer")
    tab.page.get_by_role("combobox", name="Cut by").click()
    tab.page.get_by_role("option", name="asset", exact=True).click()
    tab.drawn()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Download this cut").click()
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("asset,cost,charges,share")
    assert any(line.startswith("feature_sales,") for line in lines)
    assert sum(float(line.split(",")[3]) for line in lines[1:]) == pytest.approx(100)
    assert tab.complaints == []


def test_a_level_above_the_item_is_shown(served: str, reader: Callable[..., Any]) -> None:
    tab = reader()
    tab.open(served)
    tab.goto("Forecast viewer")
    tab.page.get_by_role("combobox", name="Level").click()
    tab.page.get_by_role("option", name="Total", exact=True).click()
    tab.page.locator("h3", has_text="Total").wait_for(timeout=30_000)
    tab.drawn()
    assert "units" in tab.text()
    assert tab.complaints == []


def test_an_incident_shows_its_computed_cause(served: str, reader: Callable[..., Any]) -> None:
    tab = reader()
    tab.open(served)
    tab.goto("Incidents and decisions")
    assert "acknowledged" in tab.text()
    charts = tab.page.get_by_test_id("stVegaLiteChart")
    assert charts.count() >= 2  # the rise, and the bridge of its causes
