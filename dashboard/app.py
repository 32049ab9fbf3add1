"""The script that Streamlit runs for each reader: navigation, the page, and looking for news.

Belongs here: which pages there are, and when a page is drawn again. Does not: any page's content.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from dashboard.live import Live, opened
from dashboard.show import section
from dashboard.words import moment, plain
from resources import Settings, SettingsError

LOOK_EVERY_S = 10
MARK = Path(__file__).with_name("mark.svg")
# What is now, what was, what comes.
PAGES = (
    ("today", "Today", "today"),
    ("costs", "Cost explorer", "payments"),
    ("forecasts", "Forecast viewer", "show_chart"),
    ("accuracy", "Accuracy and cost", "target"),
    ("incidents", "Incidents and decisions", "gavel"),
    ("capacity", "Capacity", "speed"),
    ("storage", "Storage tiers", "database"),
)


def main() -> None:
    """Draw the page that the reader asked for."""
    st.set_page_config("Governed forecasts", str(MARK), "wide")
    st.logo(str(MARK), size="large")
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        st.error(plain(error), icon=":material/settings:")
        return
    live = opened(settings)
    mark = live.mark()
    chosen = st.navigation(
        [
            st.Page(_drawn(name, live), title=title, icon=f":material/{icon}:", url_path=name,
                    default=name == "today")
            for name, title, icon in PAGES
        ]
    )  # fmt: skip
    _side(live)
    st.title(chosen.title, anchor=False)
    chosen.run()
    _watch(live, mark)


def _drawn(name: str, live: Live) -> Callable[[], None]:
    """A page, its module imported when it is first asked for."""

    def draw() -> None:
        page = importlib.import_module(f"dashboard.views.{name}").page
        with section():
            page(live)

    return draw


def _side(live: Live) -> None:
    """Which installation this is, and how fresh what it shows."""
    with st.sidebar:
        st.caption(
            f"Environment **{plain(live.settings.environment)}**, data"
            f" **{plain(live.settings.dataset)}**"
        )
        built = live.marts.built_at
        if built is not None:
            st.caption(f"Marts of {moment(built)}")
        if live.marts.rebuilding:
            st.caption(":material/sync: The marts are being rebuilt; those of before are shown.")
        st.caption(f"Read only; looks for news every {LOOK_EVERY_S} s.")


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(live: Live, mark: object) -> None:
    """Draw the page again when what it rests on has changed."""
    if live.mark() != mark:
        st.rerun()


main()
