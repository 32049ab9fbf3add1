"""What a page meets on a bad day: nothing yet, a newer ledger, a missing mart, hostile names."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">",
    "'; DROP TABLE charges; --",
    "🥑 **bold** [link](https://example.invalid/x) ![i](https://example.invalid/i.png) $x$ :smile:",
    "<script>document.title='owned'</script>",
)


def test_no_data_yet(
    tmp_path: Path,
    reader: Callable[..., Any],
    dashboard_of: Callable[..., Any],
    empty_installation: Any,
) -> None:
    """The one browser test of the everyday suite: each page says which command fills it."""
    with dashboard_of({**empty_installation.environment, "FORECAST_DATA": str(tmp_path)}) as url:
        tab = reader()
        tab.open(url)
        for title in ("Today", "Cost explorer", "Forecast viewer", "Accuracy and cost",
                      "Incidents and decisions", "Capacity", "Storage tiers"):  # fmt: skip
            tab.goto(title)
            said = tab.text()
            assert "make demo" in said or "forecast" in said, title
            assert "Traceback" not in said and "cannot be shown" not in said, title
            assert tab.page.get_by_test_id("stException").count() == 0, title
        assert tab.complaints == []
        assert list(tmp_path.rglob("*.db")) == []  # reading creates nothing


@pytest.mark.browser
def test_a_newer_ledger_is_said_plainly(
    own_copy: dict[str, str], reader: Callable[..., Any], dashboard_of: Callable[..., Any]
) -> None:
    ledger = next(Path(own_copy["FORECAST_DATA"]).rglob("ledger.db"))
    engine = sa.create_engine(f"sqlite:///{ledger}")
    with engine.begin() as connection:
        connection.execute(sa.text("insert into schema_version values (99)"))
    engine.dispose()
    with dashboard_of(own_copy) as url:
        tab = reader()
        tab.open(url)
        assert "written by a newer version (schema 99" in tab.text()
        assert "upgrade this installation" in tab.text()
        assert "item-stores have a forecast" in tab.text()  # what does not need the ledger stays
        tab.goto("Cost explorer")
        assert "written by a newer version" in tab.text()
        assert "Forecast batches" in tab.text()
        tab.shot("dashboard newer ledger")
        assert tab.complaints == []


@pytest.mark.browser
def test_a_missing_mart_hides_its_own_section_only(
    own_copy: dict[str, str], reader: Callable[..., Any], dashboard_of: Callable[..., Any]
) -> None:
    import duckdb

    path = next(Path(own_copy["FORECAST_DATA"]).rglob("marts.duckdb"))
    with duckdb.connect(str(path)) as marts:
        kind = marts.execute(
            "select table_type from information_schema.tables where table_name = 'value_per_cost'"
        ).fetchone()
        assert kind is not None
        marts.execute(f"drop {'view' if kind[0] == 'VIEW' else 'table'} value_per_cost")
    with dashboard_of(own_copy) as url:
        tab = reader()
        tab.open(url)
        tab.goto("Accuracy and cost")
        said = tab.text()
        assert "a mart is missing" in said and "value_per_cost" in said
        assert "WRMSSE, governed" in said  # the scores come from the lake and stay
        tab.shot("dashboard missing mart")
        assert tab.complaints == []


@pytest.mark.browser
def test_hostile_names_are_text(
    own_copy: dict[str, str], reader: Callable[..., Any], dashboard_of: Callable[..., Any]
) -> None:
    planted = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("_hostile.py")), *HOSTILE],
        capture_output=True, text=True, cwd=ROOT, env=own_copy,
    )  # fmt: skip
    assert planted.returncode == 0, planted.stderr[-3000:]
    with dashboard_of(own_copy) as url:
        tab = reader()
        called: list[str] = []
        tab.page.on("request", lambda r: called.append(r.url))
        tab.open(url)
        for name in HOSTILE:
            tab.goto("Forecast viewer")
            box = tab.page.get_by_role("combobox", name="Item (most units first)")
            box.click()
            box.fill(name[:24])
            tab.page.get_by_role("option").first.click()
            tab.page.locator("h3", has_text=name[:12]).wait_for(timeout=30_000)
            tab.drawn()
            assert name in tab.page.locator('[data-testid="stMain"] h3').first.inner_text()
            tab.page.get_by_test_id("stVegaLiteChart").first.hover()
        tab.shot("dashboard hostile name")
        for title in ("Today", "Cost explorer", "Incidents and decisions"):
            tab.goto(title)
            assert tab.page.get_by_test_id("stException").count() == 0, title
        assert "owned" not in tab.page.title()
        assert [u for u in called if "127.0.0.1" not in u and not u.startswith("data:")] == []
        assert tab.complaints == []
    ledger = next(Path(own_copy["FORECAST_DATA"]).rglob("ledger.db"))
    engine = sa.create_engine(f"sqlite:///{ledger}")
    with engine.connect() as connection:
        assert connection.execute(sa.text("select count(*) from charges")).scalar()
    engine.dispose()


@pytest.mark.browser
def test_a_browser_left_open_sees_a_rebuild(
    own_copy: dict[str, str], reader: Callable[..., Any], dashboard_of: Callable[..., Any]
) -> None:
    """The page neither locks the rebuild out nor breaks, and shows the new marts by itself."""
    with dashboard_of(own_copy) as url:
        tab = reader()
        tab.open(url)
        tab.goto("Cost explorer")
        stamp = _marts_of(tab)
        path = next(Path(own_copy["FORECAST_DATA"]).rglob("marts.duckdb"))
        os.utime(path, (1.7e9, 1.7e9))  # the marts of long ago
        tab.page.wait_for_function(
            f"() => !document.body.innerText.includes({stamp!r})", timeout=60_000
        )
        rebuilt = subprocess.Popen(
            [str(Path(sys.executable).with_name("forecast")), "run", "--no-land", "--no-train"],
            cwd=ROOT, env=own_copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while rebuilt.poll() is None:  # a reader goes on asking all the while
            for name in ("Dearest operations", "Forecast versions", "Forecast batches"):
                tab.page.get_by_role("tab", name=name.replace("Forecast v", "Forecaster v")).click()
                tab.page.wait_for_timeout(400)
        said = rebuilt.communicate()[0]
        assert rebuilt.returncode == 0, said[-3000:]
        assert "cost marts" in said and "put off" not in said, said[-2000:]
        old = "Marts of 2023-11-14"
        tab.page.wait_for_function(
            f"() => !document.body.innerText.includes({old!r})", timeout=60_000
        )
        tab.drawn()
        assert "Dearest operations" in tab.text()
        assert tab.page.get_by_test_id("stException").count() == 0
        assert tab.complaints == []


def _marts_of(tab: Any) -> str:
    said = str(tab.page.get_by_test_id("stSidebar").inner_text())
    return next(line for line in said.splitlines() if line.startswith("Marts of"))
