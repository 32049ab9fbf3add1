"""`python -m dashboard`: serve the pages on loopback.

Belongs here: the server's options, and importing what the first page needs before it is asked for.
Does not: pages (`dashboard.app`).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import logging
import sys
from pathlib import Path

# Imported before the first reader comes: a page that waited for them would miss its two seconds.
WARM = (
    "polars", "pyarrow", "pandas", "duckdb", "deltalake", "sqlalchemy", "altair", "scipy.stats",
    "dashboard.live", "dashboard.show", "dashboard.charts",
    *(f"dashboard.views.{name}" for name in ("today", "costs", "accuracy", "forecasts", "storage",
                                             "incidents", "capacity")),
)  # fmt: skip
# Light or dark by the reader's own setting.
THEME = {
    "theme.metricValueFontSize": "1.55rem",
    "theme.headingFontSizes": ["2rem", "1.45rem", "1.25rem"],
    "theme.light.primaryColor": "#1f6fb2",
    "theme.light.textColor": "#0c1117",
    "theme.light.sidebar.backgroundColor": "#f3f6f9",
    "theme.dark.primaryColor": "#5aa9e6",
    "theme.dark.backgroundColor": "#11161c",
    "theme.dark.secondaryBackgroundColor": "#1c232c",
    "theme.dark.textColor": "#e8edf2",
    "theme.dark.sidebar.backgroundColor": "#171d25",
}


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dashboard", description=__doc__)
    parser.add_argument("--port", type=int, default=8501)
    parser.add_argument("--address", default="127.0.0.1", help="0.0.0.0 serves other machines")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    for name in WARM:
        importlib.import_module(name)
    _ahead()
    gc.freeze()  # what is imported stays: no collection needs to look at it again
    from streamlit.web import bootstrap

    options = {
        "server.port": args.port,
        "server.address": args.address,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
        "runner.postScriptGC": False,  # a whole collection after every page: half of its time
        **THEME,
    }
    bootstrap.load_config_options(options)
    print(f"Dashboard on http://{args.address}:{args.port}", flush=True)
    bootstrap.run(str(Path(__file__).with_name("app.py")), False, [], options)
    return 0


def _ahead() -> None:
    """The first page's answers, before its first reader asks; what is wrong is said on the page."""
    from dashboard.figures import today
    from dashboard.live import opened
    from resources import Settings

    for figure in (today.coverage, today.budgets, today.month, today.held, today.failures):
        with contextlib.suppress(Exception):
            figure(opened(Settings.from_environment()))


if __name__ == "__main__":
    sys.exit(main())
