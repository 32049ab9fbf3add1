"""How values are written for people: money, bytes, shares, moments, and texts that are data.

Belongs here: formatting. Does not: choosing what is shown.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal

# What Markdown, LaTeX or Streamlit's own directives would read as more than text.
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>$:&=^])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
DASH = "–"  # noqa: RUF001  # stands where a value is not known


def amount(value: float | Decimal | None) -> str:
    """Two decimals from one unit on, three significant digits below: 12.30, 0.000239."""
    if value is None:
        return DASH
    number = float(value)
    if number == 0 or abs(number) >= 1:
        return f"{number:,.2f}"
    digits = 2 - math.floor(math.log10(abs(number)))
    return f"{number:,.{max(digits, 2)}f}"


def money(value: float | Decimal | None, currency: str) -> str:
    """An amount with its currency."""
    return DASH if value is None else f"{amount(value)} {currency}"


def size(count: float | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return DASH
    number = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def share(part: float, whole: float) -> str:
    """A part of a whole in percent."""
    return DASH if not whole else f"{100 * part / whole:,.1f} %"


def level(name: str) -> str:
    """A level of the hierarchy as people say it: store x department."""
    short = {"cat": "category", "dept": "department"}
    parts = (part.removesuffix("_id") for part in name.split("/"))
    return " x ".join(short.get(part, part) for part in parts)


def moment(at: datetime | None) -> str:
    """A moment in UTC, to the minute."""
    return DASH if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def plain(text: object) -> str:
    """Text from the data, so that Markdown shows it letter for letter."""
    return _MARKUP.sub(r"\\\1", _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text)))


def code(text: object) -> str:
    """A name from the data as inline code: shown to the letter, dashes and arrows too."""
    kept = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", kept)), default=0))
    return f"{fence} {kept} {fence}"


def said(message: str) -> str:
    """A message of ours: its `commands` as code, all else letter for letter."""
    parts = message.split("`")
    if len(parts) % 2 == 0:
        return plain(message)
    return "".join(f"`{part}`" if i % 2 else plain(part) for i, part in enumerate(parts))
