"""What every page is made of: sections that say why they are empty, tables, charts.

Belongs here: the widgets' common ground. Does not: figures, or what a page shows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import streamlit as st

from dashboard.stores import NothingYet, Unreadable
from dashboard.words import DASH, said
from resources import SettingsError
from resources.admission_store import StoreError
from resources.lake import MissingTable
from resources.ledger import LedgerError, LedgerVersionError
from resources.policies import PolicyError

_LOG = logging.getLogger("forecast.dashboard")
_TOLD = (LedgerError, Unreadable, StoreError, PolicyError, SettingsError)


@contextmanager
def section(title: str = "", about: str = "") -> Iterator[None]:
    """A part of a page. What it lacks is said in its place; the rest of the page goes on."""
    if title:
        st.subheader(title, anchor=False)
    if about:
        st.caption(about)
    try:
        yield
    except (NothingYet, MissingTable) as nothing:
        st.info(said(str(nothing)), icon=":material/hourglass_empty:")
    except LedgerVersionError as error:
        st.warning(said(str(error)), icon=":material/system_update:")
    except _TOLD as error:
        st.error(said(str(error)), icon=":material/error:")
    except Exception as error:
        _LOG.exception("a section of the dashboard failed")
        st.error(said(f"This cannot be shown ({type(error).__name__}: {error})."),
                 icon=":material/error:")  # fmt: skip


def figures(told: Sequence[tuple[str, str, str | None]]) -> None:
    """A row of figures: label, value, and what it means."""
    for column, (label, value, meaning) in zip(st.columns(len(told)), told, strict=True):
        column.metric(label, value, help=meaning, border=True)


def table(
    rows: pl.DataFrame,
    alt: str,
    columns: Mapping[str, Any] | None = None,
    *,
    height: int | None = None,
    **named: Any,
) -> Any:
    """Rows as a grid; exact decimals are shown as numbers. `alt` says what it holds."""
    shown = rows.with_columns(pl.col(pl.Decimal).cast(pl.Float64))
    config = {**_standing(shown), **(columns or {})}
    named = {"height": "auto" if height is None else height, "placeholder": DASH, **named}
    return st.dataframe(shown, hide_index=True, column_config=config, alt=alt, **named)


def chart(drawn: Any, alt: str) -> None:
    """A chart over the whole width; `alt` says in words what it shows."""
    st.altair_chart(drawn, width="stretch", alt=alt)


def money_column(label: str, currency: str) -> Any:
    """A column of amounts: six decimals tell a charge from another."""
    return st.column_config.NumberColumn(f"{label}, {currency}", format="%.6f")


def _standing(rows: pl.DataFrame) -> dict[str, Any]:
    """How columns look by what they hold."""
    config: dict[str, Any] = {}
    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Datetime):
            label = f"{name}, UTC"
            config[name] = st.column_config.DatetimeColumn(label, format="YYYY-MM-DD HH:mm",
                                                           timezone="UTC")  # fmt: skip
        elif dtype == pl.Date:
            config[name] = st.column_config.DateColumn(format="YYYY-MM-DD")
        elif dtype.is_integer():
            config[name] = st.column_config.NumberColumn(format="localized")
    return config
